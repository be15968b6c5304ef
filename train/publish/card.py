"""The model card: what a model is, how to use it, how it was made, and its measured figures.

`python -m train.publish.card RUN` puts into the card of a run what
`python -m train.evaluate --out RUN/evaluation.json` measured.

What stands between two markers is generated, and replaced each time. All other text belongs to the
people who edit the card, and stays as it is.
"""

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

from ..command import command
from ..data import DATASETS
from ..evaluate.report import described, judged, rows, verdict

CARD, REPORT = "README.md", "evaluation.json"
START = (
    "<!-- generated: what stands between this line and the next such line is written anew by "
    "every push -->"
)
END = "<!-- end of what is generated -->"
NOWHERE = "PATH OR NAMESPACE/NAME OF THIS MODEL"  # stands for the address until there is one


def write(
    model: UNet,
    facts: dict[str, Any],
    source: str,
    settings: dict[str, Any],
    history: dict[str, Any],
    *,
    step: int,
    seconds: float,
) -> str:
    """The card of a run that took `step` steps and `seconds` seconds with these settings.

    facts: what config.json says besides the network. source: what the model was made from, in
    words. history: how the weights were made, before this run too, to the exact commands."""
    dataset = facts["dataset"]
    hub_name = DATASETS[dataset].hub if dataset in DATASETS else None
    front = ModelCardData(
        # people decide about their own pictures themselves
        license=None if dataset == "folder" else "mit",
        library_name="pytorch",
        pipeline_tag="unconditional-image-generation",
        datasets=[hub_name] if hub_name else None,
        tags=["ddpm", "diffusion", dataset],
    )
    seen = f"{step:,} steps, {step * settings['batch_size']:,} images, {seconds / 60:.1f} minutes"
    if settings["before"]["images"]:
        whole = f"{history['images']:,} images, {history['minutes']:g} minutes"
        seen += f"; with what it started from {whole}"
    return f"""---
{front.to_yaml()}
---

# A small diffusion model: {dataset}

{START}

{_use(model)}
{_making(model, facts, source, settings, history["commands"], seen)}
{END}

## Limits

It knows nothing but its training images. It was made for looking and learning, and not measured for
any other use.
"""


def _use(model: UNet) -> str:
    """What the model is, and the lines that sample from it."""
    labels = f"{model.classes} classes, or none" if model.classes else "no classes"
    parameters = sum(p.numel() for p in model.parameters())
    return f"""\
![samples](samples.png)

How they appear from noise: [samples.gif](samples.gif). A U-Net with {parameters / 1e6:.2f} M \
parameters that generates {model.size}×{model.size} images with {model.channels} \
channel{"s" if model.channels > 1 else ""} ({labels}).

## Use

With the code of the project that made it, in the folder that holds `ddpm/`:

```python
from ddpm import Pipeline
images = Pipeline.from_pretrained("{NOWHERE}").sample(seeds=range(16))
images.save("samples.gif")
```
"""


def _making(
    model: UNet,
    facts: dict[str, Any],
    source: str,
    settings: dict[str, Any],
    commands: list[str],
    seen: str,
) -> str:
    """How the model was made, as in `write`. seen: how long it was trained."""
    walks = (facts.get("distilled") or {}).get("walks") or {}
    counts = ", ".join(map(str, walks))
    distilled = f", distilled for walks of {counts} evaluations" if walks else ""
    return f"""\
## How it was made

```
{chr(10).join(commands)}
```

| | |
|---|---|
| data | {source} |
| objective | {model.prediction}-prediction, {model.schedule.name} schedule, \
T = {model.schedule.T}{distilled} |
| network | width {model.width} × {model.mults}, {model.blocks} residual block(s) a level, \
attention {model.attention} |
| optimizer | AdamW, lr {settings["lr"]:g} (warm-up {settings["warmup"]} steps, then cosine to 0), \
weight decay {settings["weight_decay"]:g}, gradient clip {settings["clip"]:g} |
| batch | {settings["batch_size"]} |
| seen | {seen} |
| weights | exponential moving average ({settings["ema"]:g}, with warm-up), float32 |
| hardware | {settings["hardware"]} |
| software | torch {torch.__version__} |
"""


def for_hub(
    text: str, repo: str, report: dict[str, Any] | None, sha256: str, *, exported: bool
) -> str:
    """The card of a run as it is pushed to a repo.

    It has its address there, how to use it with diffusers if it is exported for it, and the report
    of `python -m train.evaluate --out`, if there is one. sha256: of the weights.

    Raises ValueError if it is no such report, or one of other weights.
    """
    card = ModelCard(text.replace(NOWHERE, repo))
    if exported:
        card.data["tags"] = [*dict.fromkeys([*(card.data.get("tags") or []), "diffusers"])]
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
        known = DATASETS.get(dataset)
        card.data["model_name"] = repo.split("/")[-1]
        card.data["eval_results"] = [
            EvalResult(
                task_type="unconditional-image-generation",
                dataset_type=(known and known.hub) or dataset,
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


def _section(report: dict[str, Any]) -> str:
    """The section about a report. Raises errors of many kinds if it is none."""
    lines = [
        f"| {title} | {this}{' ± ' if spread else ''}{spread} | {floor} | {subset} |"
        for title, _, this, spread, floor, subset in rows(report)
    ]
    judges = [
        f"| {title} | {ratio}{' ± ' if spread else ''}{spread} | {figure} | {floor} |"
        for title, ratio, spread, figure, floor in judged(report)
    ]
    return f"""## Measured

```
{report["command"]}
```

{described(report)}.

**{verdict(report)}.** Each judge over its floor, which is what as many real test images score:

| judge | over its floor | this model | floor |
|---|---|---|---|
{chr(10).join(judges)}

Other figures, beside those of as many real images of {report["judge"]["dataset"]}: test images \
and training images.

| | this model | test images | training images |
|---|---|---|---|
{chr(10).join(lines)}
"""


def measured(card: str, report: dict[str, Any], sha256: str) -> str:
    """The card with a section of what `python -m train.evaluate --out` reported.

    It replaces an older section. Raises ValueError if it is no such report, or not one of the
    weights with this sha256.
    """
    try:
        section = _section(report)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"it is not a report of `python -m train.evaluate --out` ({_line(error)})"
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
    """The old card with the new one's generated section.

    Text and front matter that people wrote stay as they are. A card without the markers gets the
    section at its end. Figures (model-index) belong to the weights, so they are always the new
    card's. Raises ValueError if the old front matter cannot be read.
    """
    try:
        before, after = ModelCard(old), ModelCard(new)
    except Exception as error:  # YAML and the card's own checks raise almost anything
        raise ValueError(
            f"the front matter of the README.md there cannot be read ({_line(error)}): correct it"
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
    """The part between the markers, including them; None if there are none."""
    found = re.search(f"^{re.escape(START)}.*?^{re.escape(END)}", text, re.DOTALL | re.MULTILINE)
    return found[0] if found else None


def _insert(text: str, section: str) -> str:
    """Puts a section before the figures and before how it was made.

    A card without the markers gets them at its end.
    """
    ours = _generated(text)
    if ours is None:  # made by an older version, or written by somebody
        return f"{text.rstrip()}\n\n{START}\n\n{section}\n{END}\n"
    found = re.search("\n## (Measured|How it was made)\n", ours)
    here = found.start() if found else len(ours) - len(END) - 1
    return text.replace(ours, f"{ours[:here]}\n{section}{ours[here:]}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@command("card")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    p = argparse.ArgumentParser(
        "python -m train.publish.card",
        description=f"Put what python -m train.evaluate --out RUN/{REPORT} measured into RUN/{CARD}"
        " (python -m train.publish.push does so by itself)",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder that `python -m train` wrote")
    run = p.parse_args(argv).run
    sha256 = hub.load(run).config["sha256"]
    try:
        report = json.loads((run / REPORT).read_bytes())
    except RecursionError as error:
        raise ValueError(f"{run / REPORT} is not a report") from error
    card = (run / CARD).read_text(encoding="utf-8")
    write_atomic(run / CARD, measured(card, report, sha256).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
