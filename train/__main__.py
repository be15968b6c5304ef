"""python -m train: from raw data to a folder laid out like a Hub repo."""

import argparse
import sys
from functools import partial
from pathlib import Path

from ddpm.schedule import SCHEDULES
from ddpm.unet import PREDICTION_TYPES

from .command import add_option, command
from .data import DATASETS
from .options import STOPPED, add_budget, add_recipe, add_running, ended, positive, settle
from .publish import artefact
from .run import run


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m train`."""
    p = argparse.ArgumentParser(
        "python -m train",
        description="Train a diffusion model. The run's folder ends up with config.json, "
        "model.safetensors, a card and pictures, ready for `python -m ddpm --model RUN` or for the "
        "Hub.",
        epilog="Several GPUs or machines: torchrun --nproc-per-node 8 -m train … (RUN on a disk "
        "that all of them share)",
    )
    _add_data(p.add_argument_group("what and where"))
    add_budget(p.add_argument_group("how long (10 minutes on a GPU, 60 on a CPU, if left out)"))
    add_recipe(how := p.add_argument_group("how"))
    add = partial(add_option, how)
    learned = "weight of guidance to learn: each evaluation then does what takes two otherwise"
    add("--guidance", learned, type=float, default=0.0)
    without = "the same for samples without a label: away from the --weaker model"
    add("--unlabelled-guidance", without, type=float, default=0.0)
    add(
        "--weaker",
        "guide away from what this model, smaller and trained more briefly, predicts without a "
        "label: built-in, a folder or NAMESPACE/NAME on the Hub (the network itself, if left out)",
        metavar="MODEL",
    )
    add(
        "--time-power",
        "times are T u^POWER with uniform u: above 1, more of the training is at little noise, "
        "where single gray levels are decided",
        type=positive(float),
        default=1.0,
        metavar="POWER",
    )
    _add_network(p.add_argument_group("network and process"))
    add_running(p.add_argument_group("running"))
    return p


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group)
    add(
        "--dataset",
        "what to learn from; `folder` means images of your own",
        choices=DATASETS,
        default="mnist",
    )
    add(
        "--data",
        "where the data set is, or is downloaded to; for `folder`, the images themselves, each "
        "subfolder a class (or no subfolders)",
        type=Path,
        default=Path("data"),
        metavar="DIR",
    )
    add(
        "--size",
        "side of the images, for `folder`: a multiple of 4 if there are three levels (32 if left "
        "out)",
        type=int,
        metavar="PIXELS",
    )
    add(
        "--out",
        "folder of the run, new or empty (runs/DATASET if left out)",
        type=Path,
        metavar="RUN",
    )
    add(
        "--init",
        "start from the weights of this model: built-in, a folder or NAMESPACE/NAME on the Hub "
        "(the network options must describe its network)",
        metavar="MODEL",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in RUN, with its settings"
    )


def _add_network(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group)
    add("--width", "channels at full resolution, a multiple of 8", type=int, default=32)
    add(
        "--mults",
        "channels of each level, as multiples of --width; each level halves the resolution",
        type=int,
        nargs="+",
        default=[1, 2, 4],
    )
    add("--blocks", "residual blocks a level", type=int, default=1)
    add(
        "--attention",
        "sides in pixels with attention (all up to 64 but the first level, if left out)",
        type=int,
        nargs="*",
        metavar="SIDE",
    )
    add("--schedule", "how the noise grows", choices=SCHEDULES, default="cosine")
    add("--T", "number of times, from clean to noise", type=int, default=1000)
    add("--prediction", "what the network learns to predict", choices=PREDICTION_TYPES, default="v")


@command("train", interrupted=STOPPED)
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 diverged, 2 bad input or nowhere to write, 130 stopped from outside."""
    argv = sys.argv[1:] if argv is None else argv
    return ended("train", lambda: run(settle(parser(), argv), artefact.command("train", argv)))


if __name__ == "__main__":
    sys.exit(main())
