"""What a finished run gives to others: a folder that can be uploaded to the Hub as it is."""

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData

from ddpm import Images, Pipeline, UNet, hub
from ddpm.files import write_atomic
from ddpm.images import gif, png

from .data import Data


def draw(model: UNet) -> Images:
    """The same seeds at every call, so that pictures of one run can be compared."""
    return Pipeline(model).sample(seeds=range(16), steps=min(20, model.schedule.T))


def write(run: Path, model: UNet, data: Data, settings: dict[str, Any], *, step: int, seconds: float) -> None:
    """Writes config.json, model.safetensors (float32), README.md, samples.png and samples.gif into run."""
    images = draw(model)
    contents = {
        "samples.png": png(images.grid()),
        "samples.gif": gif([frame.x for frame in images.frames]),
        "README.md": card(model, data, settings, step=step, seconds=seconds).encode(),
        **hub.files(model, dataset=settings["dataset"], class_names=list(data.classes) or None),
    }
    for name, content in contents.items():
        write_atomic(run / name, content)


def card(model: UNet, data: Data, settings: dict[str, Any], *, step: int, seconds: float) -> str:
    """The model card: what it is, how to use it, and how it was made, to the exact command."""
    dataset, on_hub = settings["dataset"], {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
    front = ModelCardData(
        license=None if dataset == "folder" else "mit",  # of their own pictures people decide themselves
        library_name="pytorch",
        pipeline_tag="unconditional-image-generation",
        datasets=[on_hub[dataset]] if dataset in on_hub else None,
        tags=["ddpm", "diffusion", dataset],
    )
    labels = (f"{model.classes} classes, or none" if model.classes else "no classes")
    parameters = sum(p.numel() for p in model.parameters())
    return f"""---
{front.to_yaml()}
---

# A small diffusion model: {dataset}

![samples](samples.png)

The way there, from noise: [samples.gif](samples.gif). A U-Net with {parameters / 1e6:.2f} M parameters that draws
{model.size}×{model.size} images with {model.channels} channel{"s" if model.channels > 1 else ""} ({labels}).

## Use

With the code of the project that made it, in the folder that holds `ddpm/`:

```python
from ddpm import Pipeline
images = Pipeline.from_pretrained("PATH OR NAMESPACE/NAME OF THIS MODEL").sample(seeds=range(16))
images.save("samples.gif")
```

## How it was made

```
{chr(10).join(settings["commands"])}
```

| | |
|---|---|
| data | {dataset}, {len(data.images):,} training images |
| objective | {model.prediction}-prediction, {model.schedule.name} schedule, T = {model.schedule.T} |
| network | width {model.width} × {model.mults}, {model.blocks} residual block(s) a level, attention {model.attention} |
| optimizer | AdamW, lr {settings["lr"]:g} (warm-up {settings["warmup"]} steps, then cosine to 0), \
weight decay {settings["weight_decay"]:g}, gradient clip {settings["clip"]:g} |
| batch | {settings["batch_size"]} |
| seen | {step:,} steps, {step * settings["batch_size"]:,} images, {seconds / 60:.1f} minutes |
| weights | exponential moving average ({settings["ema"]:g}, with warm-up), float32 |
| hardware | {hardware(next(model.parameters()).device)} |
| software | torch {torch.__version__} |

## Limits

It knows nothing but its training images. It was not made, or measured, for any use but looking and learning.
"""


def command(module: str, argv: list[str]) -> str:
    """The command line that started this run of a module."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    nodes = int(os.environ.get("WORLD_SIZE", 0)) // processes if processes else 1
    start = ["torchrun", f"--nproc-per-node={processes}", f"--nnodes={nodes}"] if processes else ["python"]
    return shlex.join([*start, "-m", module, *argv])


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
