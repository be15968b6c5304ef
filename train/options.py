"""Options that training and distilling share, and what a resumed run makes of them."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from .checkpoint import CHECKPOINT, read_header
from .command import add_option
from .loop import Recipe
from .run import BUDGET, settings_of

STOPPED = "stopped at once; the last checkpoint is whole"  # what Ctrl-C leaves behind
# a resumed run may have these options changed
MAY_CHANGE = {*BUDGET, "data", "out", "device", "compile", "resume", "push", "push_every"}
MAY_CHANGE |= {"checkpoint_every", "sample_every"}


def add_budget(group: argparse._ArgumentGroup) -> None:
    """How long the run may be."""
    add = partial(add_option, group.add_mutually_exclusive_group())
    add(
        "--minutes",
        "wall time of the training itself, that before a resume included",
        type=positive(float),
    )
    add("--steps", "updates of the weights", type=positive(int))
    add("--images", "training images seen, repeats included", type=positive(int))


def add_recipe(group: argparse._ArgumentGroup) -> None:
    """What shapes the result."""
    add = partial(add_option, group)
    add(
        "--batch-size",
        "images an update, over all processes (512 on a GPU, 64 on a CPU, if left out)",
        type=positive(int),
    )
    add("--lr", "highest learning rate", type=positive(float), default=Recipe.lr)
    add(
        "--warmup",
        "steps in which the learning rate rises to its highest value",
        type=int,
        default=Recipe.warmup,
        metavar="STEPS",
    )
    add("--weight-decay", "weight decay of AdamW", type=float, default=Recipe.weight_decay)
    add("--clip", "largest norm of the gradient", type=positive(float), default=Recipe.clip)
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


def add_running(group: argparse._ArgumentGroup) -> None:
    """Where and how it runs, and what it saves meanwhile."""
    add = partial(add_option, group)
    add(
        "--checkpoint-every", "save for --resume", type=positive(int), default=1000, metavar="STEPS"
    )
    add(
        "--sample-every",
        "write samples to RUN/samples/STEP.png",
        type=positive(int),
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
        type=positive(float),
        metavar="MINUTES",
    )
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on a GPU: compile the network and capture the step in a CUDA graph (default: yes)",
    )


def settle(p: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The options of a run: as given, or else as the resumed run had them, or else the defaults.

    Raises ValueError if the run's folder does not fit them.
    """
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
    if args.push_every and not args.push:
        raise ValueError("--push-every needs --push NAMESPACE/NAME")
    return args


def ended(name: str, work: Callable[[], int]) -> int:
    """Runs work, and gives its exit code; 1 if training diverged. Closes the process group."""
    try:
        return work()
    except torch.OutOfMemoryError as error:
        raise ValueError(
            "the GPU's memory is too small for this: lower --batch-size, --width or --size"
        ) from error
    except FloatingPointError as error:
        last = "the last good checkpoint is kept. Try a lower --lr, in another --out"
        print(f"{name}: {error}; {last}", file=sys.stderr)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def positive(kind: type[float]) -> Callable[[str], float]:
    """An argparse type, int or float: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 1e12:  # NaN compares false
            raise argparse.ArgumentTypeError(f"must be above 0 and at most 1e12, got {text[:20]}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse
