"""What others get of a finished run: a folder that can be uploaded to the Hub as it is."""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ddpm import Images, Pipeline, UNet, hub
from ddpm.files import write_atomic
from ddpm.pixels import gif, png, sheet

from ..data import Data
from . import card


class Subject(NamedTuple):
    """What a model was made from.

    facts: what its config.json says besides the network, data set and class names among it. words:
    for the card. source: the start of a sentence, "the images in data are". fingerprint: to tell it
    from others.
    """

    facts: dict[str, Any]
    words: str
    source: str
    fingerprint: str


def of_data(data: Data, args: argparse.Namespace) -> Subject:
    """Training images. args: the options that name them, `dataset` and `data`."""
    classes = list(data.classes)
    facts: dict[str, Any] = {"dataset": args.dataset, "class_names": classes or None}
    counts = data.labels.bincount(minlength=len(classes)).tolist()
    facts["class_counts"] = counts if classes else None
    words = f"{args.dataset}, {len(data.images):,} training images"
    return Subject(facts, words, f"the images in {args.data} are", data.fingerprint())


def sample(model: UNet, subject: Subject) -> Images:
    """16 images of seeds 0..15, the same at every call, so that the pictures of a run compare."""
    pipeline = Pipeline(model, subject.facts)
    steps = min(pipeline.usual["steps"], model.schedule.T)
    return pipeline.sample(range(16), **pipeline.usual | {"steps": steps})


NO_HISTORY: dict[str, Any] = {"commands": [], "images": 0, "minutes": 0.0}


def write(
    run: Path, model: UNet, subject: Subject, settings: dict[str, Any], *, step: int, seconds: float
) -> None:
    """Writes config.json, model.safetensors (float32), README.md and two sample images into run."""
    for name, content in contents(model, subject, settings, step=step, seconds=seconds).items():
        write_atomic(run / name, content)


def contents(
    model: UNet, subject: Subject, settings: dict[str, Any], *, step: int, seconds: float
) -> dict[str, bytes]:
    """The files that `write` writes, by name.

    Raises FloatingPointError if a weight is NaN or infinite.
    """
    if not all(p.isfinite().all() for p in model.parameters()):
        raise FloatingPointError(f"the weights contain NaN or infinite values (step {step})")
    images = sample(model, subject)
    made = history(settings, step=step, seconds=seconds)
    text = card.write(
        model, subject.facts, subject.words, settings, made, step=step, seconds=seconds
    )
    return {
        "samples.png": png(images.sheet()),
        "samples.gif": gif([sheet(frame.x) for frame in images.frames]),
        "README.md": text.encode(),
        **hub.files(model, **subject.facts, history=made),
    }


def history(settings: dict[str, Any], *, step: int, seconds: float) -> dict[str, Any]:
    """How the weights were made: the commands in order, images seen and minutes.

    Those of the weights that the run started from (--init) are included, as far as their
    config.json has them.
    """
    before = settings["before"]
    return {
        "commands": [*before["commands"], *settings["commands"]],
        "images": before["images"] + step * settings["batch_size"],
        "minutes": round(before["minutes"] + seconds / 60, 1),
    }


def command(module: str, argv: list[str]) -> str:
    """The command line that started this run of a module, as one line."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    nodes = int(os.environ.get("WORLD_SIZE", 0)) // processes if processes else 1
    start = (
        ["torchrun", f"--nproc-per-node={processes}", f"--nnodes={nodes}"]
        if processes
        else ["python"]
    )
    line = shlex.join([*start, "-m", module, *argv])
    return "".join(c if c.isprintable() else "?" for c in line)
