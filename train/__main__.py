"""python -m train: from raw data to a folder laid out like a Hub repo."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ddpm.schedule import SCHEDULES
from ddpm.unet import PREDICTION_TYPES

from .checkpoint import CHECKPOINT, read_header
from .data import DATASETS
from .loop import Recipe
from .publish import artefact
from .run import BUDGET, run, settings_of

MAY_CHANGE = {
    *BUDGET,
    "data",
    "out",
    "device",
    "compile",
    "checkpoint_every",
    "sample_every",
    "resume",
    "push",
    "push_every",
}


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m train",
        description="Train a diffusion model. The run's folder ends up with config.json, model.safetensors, a card "
        "and pictures, ready for `python -m ddpm --model RUN` or for the Hub.",
        epilog="Several GPUs or machines: torchrun --nproc-per-node 8 -m train … (RUN on a disk that all of them see)",
    )

    def add(group: argparse._ArgumentGroup, name: str, help: str, **settings: Any) -> None:
        shown = settings.get("default")
        group.add_argument(
            name, help=help if shown is None else f"{help} (default: {shown})", **settings
        )

    where = p.add_argument_group("what and where")
    add(
        where,
        "--dataset",
        "what to learn from; `folder` means images of your own",
        choices=DATASETS,
        default="mnist",
    )
    add(
        where,
        "--data",
        "where the data set lies, or is downloaded to; for `folder`, the images themselves, each "
        "subfolder a class (or no subfolders)",
        type=Path,
        default=Path("data"),
        metavar="DIR",
    )
    add(
        where,
        "--size",
        "side of the images, for `folder`: a multiple of 4 if there are three levels (32 if left out)",
        type=int,
        metavar="PIXELS",
    )
    add(
        where,
        "--out",
        "folder of the run, new or empty (runs/DATASET if left out)",
        type=Path,
        metavar="RUN",
    )
    add(
        where,
        "--init",
        "start from the weights of this model: built-in, a folder or NAMESPACE/NAME on the Hub (the "
        "network options must describe its network)",
        metavar="MODEL",
    )
    where.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in RUN, with its settings"
    )

    much = p.add_argument_group("how long (10 minutes on a GPU, 60 on a CPU, if left out)")
    much = much.add_mutually_exclusive_group()
    add(
        much,
        "--minutes",
        "wall time of the training itself, that before a resume included",
        type=_positive(float),
    )
    add(much, "--steps", "updates of the weights", type=_positive(int))
    add(much, "--images", "training images seen, repeats included", type=_positive(int))

    how = p.add_argument_group("how")
    add(
        how,
        "--batch-size",
        "images an update, over all processes (512 on a GPU, 64 on a CPU, if left out)",
        type=_positive(int),
    )
    add(how, "--lr", "highest learning rate", type=_positive(float), default=Recipe.lr)
    add(
        how,
        "--warmup",
        "how long the learning rate rises",
        type=int,
        default=Recipe.warmup,
        metavar="STEPS",
    )
    add(
        how,
        "--weight-decay",
        "pull of the weights towards 0 (AdamW)",
        type=float,
        default=Recipe.weight_decay,
    )
    add(how, "--clip", "longest gradient, as a norm", type=_positive(float), default=Recipe.clip)
    add(
        how,
        "--ema",
        "how slowly the published average follows the weights, 0..1",
        type=float,
        default=Recipe.ema,
    )
    add(
        how,
        "--drop-label",
        "share of labels withheld, so that it learns to draw without",
        type=float,
        default=Recipe.drop_label,
    )
    add(how, "--seed", "of all that is random", type=int, default=Recipe.seed)

    network = p.add_argument_group("network and process")
    add(network, "--width", "channels at full resolution, a multiple of 8", type=int, default=32)
    add(
        network,
        "--mults",
        "width of each level, in widths; each level halves the resolution",
        type=int,
        nargs="+",
        default=[1, 2, 4],
    )
    add(network, "--blocks", "residual blocks a level", type=int, default=1)
    add(
        network,
        "--attention",
        "sides in pixels at which there is attention (all up to 64 but the first level, if left out)",
        type=int,
        nargs="*",
        metavar="SIDE",
    )
    add(network, "--schedule", "how the noise grows", choices=SCHEDULES, default="cosine")
    add(network, "--T", "number of times, from clean to noise", type=int, default=1000)
    add(
        network,
        "--prediction",
        "what the network learns to say",
        choices=PREDICTION_TYPES,
        default="v",
    )

    run = p.add_argument_group("running")
    add(
        run,
        "--checkpoint-every",
        "save for --resume",
        type=_positive(int),
        default=1000,
        metavar="STEPS",
    )
    add(
        run,
        "--sample-every",
        "draw RUN/samples/STEP.png",
        type=_positive(int),
        default=1000,
        metavar="STEPS",
    )
    add(run, "--device", "where to train", choices=("auto", "cpu", "cuda"), default="auto")
    add(
        run,
        "--push",
        "at the end, push to this repo on the Hub (log in first: `hf auth login`)",
        metavar="NS/NAME",
    )
    add(
        run,
        "--push-every",
        "also push now and then, in the background",
        type=_positive(float),
        metavar="MINUTES",
    )
    run.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on a GPU: compile the network and capture the step in a CUDA graph (default: yes)",
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 diverged, 2 bad input or nowhere to write, 130 stopped from outside."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return run(settle(argv), artefact.command("train", argv))
    except (ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print(
            "train: the GPU's memory is too small for this: lower --batch-size, --width or --size",
            file=sys.stderr,
        )
        return 2
    except FloatingPointError as error:
        print(
            f"train: {error}; the last good checkpoint is kept. Try a lower --lr, in another --out",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("train: stopped at once; the last checkpoint is whole", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def settle(argv: list[str]) -> argparse.Namespace:
    """The options of a run: as given, then as the resumed run had them, then the defaults.

    Raises ValueError if the run's folder holds something else than what is asked for.
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


def _positive(kind: type) -> Callable[[str], float]:
    """An argparse type: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 1e12:  # NaN compares false
            raise argparse.ArgumentTypeError(f"must be above 0 and at most 1e12, got {text[:20]}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value"
    return parse


if __name__ == "__main__":
    sys.exit(main())
