"""python -m train: from raw data to a folder laid out like a Hub repo."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from ddpm.schedule import SCHEDULES
from ddpm.unet import PREDICTION_TYPES

from .checkpoint import CHECKPOINT, read_header
from .command import add_option, command
from .data import DATASETS
from .loop import Recipe
from .publish import artefact
from .run import BUDGET, run, settings_of

# a resumed run may have these options changed
MAY_CHANGE = {*BUDGET, "data", "out", "device", "compile", "resume", "push", "push_every"}
MAY_CHANGE |= {"checkpoint_every", "sample_every"}


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
    _add_budget(p.add_argument_group("how long (10 minutes on a GPU, 60 on a CPU, if left out)"))
    _add_recipe(p.add_argument_group("how"))
    _add_network(p.add_argument_group("network and process"))
    _add_running(p.add_argument_group("running"))
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


def _add_budget(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group.add_mutually_exclusive_group())
    add(
        "--minutes",
        "wall time of the training itself, that before a resume included",
        type=_positive(float),
    )
    add("--steps", "updates of the weights", type=_positive(int))
    add("--images", "training images seen, repeats included", type=_positive(int))


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group)
    add(
        "--batch-size",
        "images an update, over all processes (512 on a GPU, 64 on a CPU, if left out)",
        type=_positive(int),
    )
    add("--lr", "highest learning rate", type=_positive(float), default=Recipe.lr)
    add(
        "--warmup",
        "steps in which the learning rate rises to its highest value",
        type=int,
        default=Recipe.warmup,
        metavar="STEPS",
    )
    add("--weight-decay", "weight decay of AdamW", type=float, default=Recipe.weight_decay)
    add("--clip", "largest norm of the gradient", type=_positive(float), default=Recipe.clip)
    add(
        "--ema",
        "decay of the moving average of the weights, which is what is published, 0..1",
        type=float,
        default=Recipe.ema,
    )
    add(
        "--drop-label",
        "share of samples trained without their label, so that the model can also do without",
        type=float,
        default=Recipe.drop_label,
    )
    add("--seed", "seed of the random numbers", type=int, default=Recipe.seed)


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


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group)
    positive = _positive(int)
    add("--checkpoint-every", "save for --resume", type=positive, default=1000, metavar="STEPS")
    add(
        "--sample-every",
        "write samples to RUN/samples/STEP.png",
        type=positive,
        default=1000,
        metavar="STEPS",
    )
    add("--device", "where to train", choices=("auto", "cpu", "cuda"), default="auto")
    add(
        "--push",
        "at the end, push to this repo on the Hub (log in first: `hf auth login`)",
        metavar="NS/NAME",
    )
    add(
        "--push-every",
        "also push every so many minutes, in the background",
        type=_positive(float),
        metavar="MINUTES",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on a GPU: compile the network and capture the step in a CUDA graph (default: yes)",
    )


@command("train", interrupted="stopped at once; the last checkpoint is whole")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 diverged, 2 bad input or nowhere to write, 130 stopped from outside."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return run(settle(argv), artefact.command("train", argv))
    except torch.OutOfMemoryError as error:
        raise ValueError(
            "the GPU's memory is too small for this: lower --batch-size, --width or --size"
        ) from error
    except FloatingPointError as error:
        print(
            f"train: {error}; the last good checkpoint is kept. Try a lower --lr, in another --out",
            file=sys.stderr,
        )
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def settle(argv: list[str]) -> argparse.Namespace:
    """The options of a run: as given, or else as the resumed run had them, or else the defaults.

    Raises ValueError if the run's folder does not fit them.
    """
    p = parser()
    args = p.parse_args(argv)
    args.out = out = args.out or Path("runs") / args.dataset
    header = read_header(out)
    if args.resume:
        if header is None:
            raise ValueError(
                f"nothing to resume: {out} has no {CHECKPOINT}; start without --resume"
            )
        saved = {name: value for name, value in header.settings.items() if name in vars(args)}
        if any(getattr(args, name) is not None for name in BUDGET):
            saved = {name: value for name, value in saved.items() if name not in BUDGET}
        p.set_defaults(**saved | {"out": out})
        args = p.parse_args(argv)
        for name, value in settings_of(args).items():
            if name not in MAY_CHANGE and value != saved.get(name):
                raise ValueError(
                    f"{out} was started with --{name.replace('_', '-')} {saved.get(name)}, not "
                    f"{value}: leave the option out, or choose another --out"
                )
    elif header is not None:
        raise ValueError(
            f"{out} already holds a run, at step {header.step}: go on with --resume, "
            "or choose another --out"
        )
    elif out.exists() and (
        not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())
    ):
        raise ValueError(f"{out} exists and is not an empty folder: choose another --out")
    return args


def _positive(kind: type[float]) -> Callable[[str], float]:
    """An argparse type, int or float: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 1e12:  # NaN compares false
            raise argparse.ArgumentTypeError(f"must be above 0 and at most 1e12, got {text[:20]}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


if __name__ == "__main__":
    sys.exit(main())
