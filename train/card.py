"""The model card: what a model is, how to use it, how it was made. People may write around what is generated here.

Between the two markers stands what the program knows, and writes anew each time; all the rest belongs to people.
"""

import os
import platform
import re
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ddpm import UNet

from .data import Data

START = "<!-- generated: what stands between this line and the next such line is written anew by every push -->"
END = "<!-- end of what is generated -->"
NOWHERE = "PATH OR NAMESPACE/NAME OF THIS MODEL"  # stands where the address will be, until there is one
_ON_HUB = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist", "cifar10": "uoft-cs/cifar10"}


def write(model: UNet, data: Data, settings: dict[str, Any], *, step: int, seconds: float) -> str:
    """The card of a run that took so many steps and seconds with these settings, to the exact command."""
    dataset = settings["dataset"]
    front = ModelCardData(
        license=None if dataset == "folder" else "mit",  # of their own pictures people decide themselves
        library_name="pytorch",
        pipeline_tag="unconditional-image-generation",
        datasets=[_ON_HUB[dataset]] if dataset in _ON_HUB else None,
        tags=["ddpm", "diffusion", dataset],
    )
    labels = (f"{model.classes} classes, or none" if model.classes else "no classes")
    parameters = sum(p.numel() for p in model.parameters())
    return f"""---
{front.to_yaml()}
---

# A small diffusion model: {dataset}

{START}

![samples](samples.png)

The way there, from noise: [samples.gif](samples.gif). A U-Net with {parameters / 1e6:.2f} M parameters that draws
{model.size}×{model.size} images with {model.channels} channel{"s" if model.channels > 1 else ""} ({labels}).

## Use

With the code of the project that made it, in the folder that holds `ddpm/`:

```python
from ddpm import Pipeline
images = Pipeline.from_pretrained("{NOWHERE}").sample(seeds=range(16))
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
| hardware | {settings["hardware"]} |
| software | torch {torch.__version__} |

{END}

## Limits

It knows nothing but its training images. It was not made, or measured, for any use but looking and learning.
"""


def for_hub(card: str, repo: str, report: dict[str, Any] | None) -> str:
    """The card of a run, as it stands in this repo: with its address there, the way in for users of diffusers, and
    what `python -m train.evaluate --out` reported, if it did.

    Raises ValueError if the report is none of those.
    """
    card = ModelCard(card.replace(NOWHERE, repo))
    more = f"""Or with diffusers alone, without labels:

```python
from diffusers import DDPMPipeline
images = DDPMPipeline.from_pretrained("{repo}")(batch_size=16, num_inference_steps=200).images
```
"""
    card.data.tags = [*dict.fromkeys([*(card.data.tags or []), "diffusers"])]
    if report is not None:
        more += "\n" + _measured(card, repo, report)
    ours = _generated(card.text)
    if ours is None:  # a card of older days, or somebody's own
        card.text = f"{card.text.rstrip()}\n\n{START}\n\n{more}\n{END}\n"
    else:
        told = "\n## How it was made\n"
        card.text = card.text.replace(ours, ours.replace(told, f"\n{more}{told}", 1))
    return str(card)


def renewed(old: str, new: str) -> str:
    """The old card with the new one's generated section; text and front matter that people wrote stay as they are.

    A card without the markers gets the section at its end. Figures (model-index) belong to the weights, so they are
    always the new card's. Raises ValueError if the old front matter cannot be read.
    """
    try:
        before, after = ModelCard(old), ModelCard(new)
    except Exception as error:  # whatever YAML and the card's own checks raise for what people typed
        raise ValueError(f"the front matter of the README.md there cannot be read ({_line(error)}): mend it") from error
    theirs, ours = _generated(before.text), _generated(after.text)
    if ours is not None and theirs is not None:
        before.text = before.text.replace(theirs, ours, 1)
    elif ours is not None:
        before.text = f"{before.text.rstrip()}\n\n{ours}\n"
    for name, value in vars(after.data).items():
        if before.data.get(name) is None or name in ("eval_results", "model_name"):
            before.data[name] = value
    return str(before)


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _generated(text: str) -> str | None:
    """The section between the markers, with them; None if there is none."""
    found = re.search(f"{re.escape(START)}.*?{re.escape(END)}", text, re.DOTALL)
    return found[0] if found else None


def _measured(card: ModelCard, repo: str, report: dict[str, Any]) -> str:
    """Puts the figures into the front matter; returns them as a section."""
    try:
        figures = {str(name): float(figure["mean"]) for name, figure in report["figures"].items()}
        dataset, command, samples = str(report["judge"]["dataset"]), str(report["command"]), int(report["samples"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"it is no report of `python -m train.evaluate --out` ({_line(error)})") from error
    card.data.model_name = repo.split("/")[-1]
    card.data.eval_results = [
        EvalResult(task_type="unconditional-image-generation", dataset_type=_ON_HUB.get(dataset, dataset),
                   dataset_name=dataset, metric_type=name, metric_value=round(value, 4))
        for name, value in figures.items()]
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    return f"""## Measured

```
{command}
```

| {samples:,} images | |
|---|---|
{rows}
"""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
