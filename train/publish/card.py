"""The model card: what a model is, how to use it, how it was made. People may write around what is
generated here.

python -m train.publish.card RUN puts into the card of a run what `python -m train.evaluate --out
RUN/evaluation.json` measured.

Between the two markers stands what the program knows, and writes anew each time; all the rest
belongs to people."""

import argparse
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ddpm import UNet, hub
from ddpm.engine.cpus import available
from ddpm.files import write_atomic

from ..data import Data
from ..evaluate.report import described, judged, rows, verdict

CARD, REPORT = "README.md", "evaluation.json"
START = "<!-- generated: what stands between this line and the next such line is written anew by every push -->"
END = "<!-- end of what is generated -->"
NOWHERE = (
    "PATH OR NAMESPACE/NAME OF THIS MODEL"  # stands where the address will be, until there is one
)
_ON_HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}


def write(
    model: UNet,
    data: Data,
    settings: dict[str, Any],
    history: dict[str, Any],
    *,
    step: int,
    seconds: float,
) -> str:
    """The card of a run that took so many steps and seconds with these settings. history: all that
    made the weights, before this run too, to the exact commands."""
    dataset = settings["dataset"]
    front = ModelCardData(
        license=None
        if dataset == "folder"
        else "mit",  # of their own pictures people decide themselves
        library_name="pytorch",
        pipeline_tag="unconditional-image-generation",
        datasets=[_ON_HUB[dataset]] if dataset in _ON_HUB else None,
        tags=["ddpm", "diffusion", dataset],
    )
    labels = f"{model.classes} classes, or none" if model.classes else "no classes"
    seen = f"{step:,} steps, {step * settings['batch_size']:,} images, {seconds / 60:.1f} minutes"
    if settings["init"]:
        seen += f"; with what it started from {history['images']:,} images, {history['minutes']:g} minutes"
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
{chr(10).join(history["commands"])}
```

| | |
|---|---|
| data | {dataset}, {len(data.images):,} training images |
| objective | {model.prediction}-prediction, {model.schedule.name} schedule, T = {model.schedule.T} |
| network | width {model.width} × {model.mults}, {model.blocks} residual block(s) a level, attention {model.attention} |
| optimizer | AdamW, lr {settings["lr"]:g} (warm-up {settings["warmup"]} steps, then cosine to 0), \
weight decay {settings["weight_decay"]:g}, gradient clip {settings["clip"]:g} |
| batch | {settings["batch_size"]} |
| seen | {seen} |
| weights | exponential moving average ({settings["ema"]:g}, with warm-up), float32 |
| hardware | {settings["hardware"]} |
| software | torch {torch.__version__} |

{END}

## Limits

It knows nothing but its training images. It was not made, or measured, for any use but looking and learning.
"""


def for_hub(card: str, repo: str, report: dict[str, Any] | None, sha256: str) -> str:
    """The card of a run, as it stands in this repo: with its address there, the way in for users of
    diffusers, and what `python -m train.evaluate --out` reported, if it did. sha256: of the
    weights.

    Raises ValueError if the report is none of those, or of other weights.
    """
    card = ModelCard(card.replace(NOWHERE, repo))
    card.data.tags = [*dict.fromkeys([*(card.data.tags or []), "diffusers"])]
    card.text = _insert(
        card.text,
        f"""Or with diffusers alone, without labels:

```python
from diffusers import DDPMPipeline
images = DDPMPipeline.from_pretrained("{repo}")(batch_size=16, num_inference_steps=200).images
```
""",
    )
    if report is not None:
        card.text = measured(card.text, report, sha256)
        dataset = report["judge"]["dataset"]
        card.data.model_name = repo.split("/")[-1]
        card.data.eval_results = [
            EvalResult(
                task_type="unconditional-image-generation",
                dataset_type=_ON_HUB.get(dataset, dataset),
                dataset_name=dataset,
                metric_type=name,
                metric_value=round(value, 4),
            )
            for name, value in (
                ("worst judge over its floor", report["worst"]["ratio"]),
                *((name, figure["mean"]) for name, figure in report["figures"].items()),
            )
        ]
    return str(card)


def measured(card: str, report: dict[str, Any], sha256: str) -> str:
    """The card with a section of what `python -m train.evaluate --out` reported, in place of an
    older one.

    Raises ValueError if the report is none of those, or not of the weights with this sha256.
    """
    try:
        lines = [
            f"| {title} | {this}{' ± ' if spread else ''}{spread} | {floor} | {subset} |"
            for title, _, this, spread, floor, subset in rows(report)
        ]
        judges = [
            f"| {title} | {ratio}{' ± ' if spread else ''}{spread} | {figure} | {floor} |"
            for title, ratio, spread, figure, floor in judged(report)
        ]
        section = f"""## Measured

```
{report["command"]}
```

{described(report)}.

**{verdict(report)}.** Each judge over its floor, which is what as many real test images score:

| judge | over its floor | this model | floor |
|---|---|---|---|
{chr(10).join(judges)}

Other figures, beside what as many real images of {report["judge"]["dataset"]} score: test images, which are the floor, and
training images.

| | this model | test images | training images |
|---|---|---|---|
{chr(10).join(lines)}
"""
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"it is no report of `python -m train.evaluate --out` ({_line(error)})"
        ) from error
    if report.get("weights_sha256") != sha256:
        raise ValueError(
            "it reports on other weights than these: run python -m train.evaluate again"
        )
    if ours := _generated(card):
        card = card.replace(
            ours, re.sub(r"\n## Measured\n.*?(?=\n## |\n<!-- )", "", ours, flags=re.DOTALL)
        )
    return _insert(card, section)


def renewed(old: str, new: str) -> str:
    """The old card with the new one's generated section; text and front matter that people wrote
    stay as they are.

    A card without the markers gets the section at its end. Figures (model-index) belong to the
    weights, so they are always the new card's. Raises ValueError if the old front matter cannot be
    read."""
    try:
        before, after = ModelCard(old), ModelCard(new)
    except (
        Exception
    ) as error:  # whatever YAML and the card's own checks raise for what people typed
        raise ValueError(
            f"the front matter of the README.md there cannot be read ({_line(error)}): mend it"
        ) from error
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
    return f"{available()} CPU cores ({platform.machine()})"


def _generated(text: str) -> str | None:
    """The section between the markers, with them; None if there is none."""
    found = re.search(f"^{re.escape(START)}.*?^{re.escape(END)}", text, re.DOTALL | re.MULTILINE)
    return found[0] if found else None


def _insert(text: str, section: str) -> str:
    """Puts a section where figures stand, before how it was made. A card without the markers gets
    them at its end."""
    ours = _generated(text)
    if ours is None:  # a card of older days, or somebody's own
        return f"{text.rstrip()}\n\n{START}\n\n{section}\n{END}\n"
    here = re.search(f"\n## (Measured|How it was made)\n|\n{re.escape(END)}", ours).start()
    return text.replace(ours, f"{ours[:here]}\n{section}{ours[here:]}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write."""
    p = argparse.ArgumentParser(
        "python -m train.publish.card",
        description="Put what python -m train.evaluate --out "
        f"RUN/{REPORT} measured into RUN/{CARD} (python -m train.publish.push does so by itself)",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder that `python -m train` wrote")
    run = p.parse_args(argv).run
    try:
        sha256 = hub.load(run).config["sha256"]
        report, card = (
            json.loads((run / REPORT).read_bytes()),
            (run / CARD).read_text(encoding="utf-8"),
        )
        write_atomic(run / CARD, measured(card, report, sha256).encode())
    except (ValueError, OSError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
