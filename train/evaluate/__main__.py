"""python -m train.evaluate: how good a model's images are, in figures that stand beside those of
real images."""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from ddpm import Pipeline
from ddpm.files import check_writable, write_atomic
from ddpm.pixels import png
from ddpm.samplers import SAMPLERS
from ddpm.settings import MAX_SEED, Settings

from ..data import DATASETS
from ..processes import is_first, join_processes
from ..publish import artefact
from . import beside, figures, panel, sweep
from .drawing import draw, is_pictures, labels_of, read_pictures
from .folder import BUILT_IN
from .report import table
from .yardstick import Sample, Yardstick

SAMPLES, SEEDS, SWEPT = 10_000, 3, 2_000
EVALUATIONS = (5, 10, 20)  # of a sweep
HOW = ("sampler", "steps", "grid", "guidance")  # how a model samples, labels apart


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence. What is None if left out depends on what is evaluated."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate",
        description="Evaluate a model by the images it generates, or a folder of PNGs from any "
        "source: what the worst of several judges says of them, over what it says of as "
        "many real test images (1: it cannot tell them apart), and more figures.",
        epilog="Several GPUs or machines: torchrun --nproc-per-node 8 -m train.evaluate …: the "
        "same figures in less time",
    )
    add = p.add_argument
    add(
        "model",
        help="built-in weights by name, a folder, a Hub repo NAMESPACE/NAME; or a folder of PNGs",
        metavar="MODEL",
    )
    add("--data", help="where the data set lies (default: data)", type=Path, default=Path("data"))
    which = p.add_mutually_exclusive_group().add_argument
    which(
        "--dataset",
        help="what to compare with (default: what the model was trained on; mnist for PNGs)",
        choices=DATASETS,
    )
    which(
        "--judge",
        help="folder that python -m train.evaluate.judge wrote (default: "
        "train/evaluate/judges/DATASET)",
        type=Path,
        metavar="DIR",
    )
    _add_much(p)
    add("--device", help="where to compute", choices=("auto", "cpu", "cuda"), default="auto")
    _add_how(p)
    _add_sweep(p)
    return p


def _add_much(p: argparse.ArgumentParser) -> None:
    """How many images, and where the figures go."""
    add = p.add_argument
    samples = f"(default: {SAMPLES:,}; {SWEPT:,} for --sweep; of PNGs, all)"
    add("--samples", help=f"images for a figure {samples}", type=int)
    seeds = f"repetitions, each with seeds (or PNGs) of its own (default: {SEEDS}; of PNGs, 1)"
    add("--seeds", help=seeds, type=int)
    out = "file for the figures and all that is needed to reproduce them"
    add("--out", help=f"{out} (.json; .jsonl for --sweep)", type=Path, metavar="FILE")
    shown = "picture of real test images, the first of these, and both eight times as bright"
    add("--picture", help=shown, type=Path, metavar="FILE.png")


def _add_how(p: argparse.ArgumentParser) -> None:
    how = p.add_argument_group("how the model samples").add_argument
    how("--sampler", help=f"the rule for each step (default: {Settings.sampler})")
    how("--steps", help=f"steps from noise to image (default: {Settings.steps})", type=int)
    how("--grid", help="where along the way the steps fall (default: the sampler's own)")
    how(
        "--guidance",
        help=f"weight of classifier-free guidance (default: {Settings.guidance:g})",
        type=float,
    )
    how(
        "--unlabelled",
        help="give the network no labels (else each class as often as in training)",
        action="store_const",
        const=True,
    )


def _add_sweep(p: argparse.ArgumentParser) -> None:
    title = "comparing samplers: the worst judge over its floor, for each combination of"
    many = p.add_argument_group(title).add_argument
    many(
        "--sweep", help="compare; what --out has already is not computed again", action="store_true"
    )
    many("--samplers", help="(default: all)", nargs="+")
    usual = " ".join(map(str, EVALUATIONS))
    evaluations = f"network evaluations an image (default: {usual})"
    many("--evaluations", help=evaluations, type=int, nargs="+")
    many("--grids", help="(default: each sampler's own)", nargs="+")
    many("--plot", help="picture to write", type=Path, metavar="FILE.png")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        run(args, artefact.command("train.evaluate", argv))
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def run(args: argparse.Namespace, command: str) -> None:
    """Evaluates as the options say. Raises ValueError or OSError with a line for the user."""
    pictures = is_pictures(args.model)
    _check(args, pictures)
    device = join_processes(args.device)
    pipeline = None if pictures else Pipeline.from_pretrained(args.model, device=device)
    dataset = args.dataset or ("mnist" if pipeline is None else pipeline.config.get("dataset"))
    if args.judge is None and (dataset is None or dataset not in list(DATASETS)):
        raise ValueError(
            f"{args.model} does not say what it was trained on: name a --dataset or a --judge"
        )
    yardstick = Yardstick.open(args.judge or BUILT_IN / str(dataset), args.data, device)
    if pipeline is not None:
        _check_fit(args, pipeline, yardstick)
    if args.sweep and pipeline is not None:
        plan = sweep.Plan(
            args.samples or SWEPT,
            not args.unlabelled,
            args.samplers,
            args.evaluations or list(EVALUATIONS),
            args.grids,
        )
        sweep.run(pipeline, yardstick, plan, args.out, args.plot)
        return
    started = time.perf_counter()
    sets, facts = _read(args, yardstick) if pipeline is None else _draw(args, pipeline)
    facts["seconds"] = round(time.perf_counter() - started, 1)
    if not is_first():  # one process measures; the others only sample
        return
    if args.picture:
        write_atomic(args.picture, png(beside.picture(yardstick.test.images, sets[0][0])))
    report = {"command": command, "model": args.model, **facts}
    report |= _origin(yardstick, facts["samples"])
    report |= measure(yardstick, sets)
    print(table(report))
    if args.out:
        write_atomic(args.out, (json.dumps(report, indent=2) + "\n").encode())


def measure(yardstick: Yardstick, sets: list[tuple[Tensor, Tensor | None]]) -> dict[str, Any]:
    """All figures of sets of images (uint8 N×C×H×W, and labels or None).

    `worst` and `panel` are of the judges (`panel.report`). `figures`: of each the values, their
    mean and standard deviation (None for a single set), and what as many real images score: test
    images (floor) and training images (subset)."""
    each, judged = [], []
    floor = panel.floor(yardstick, len(sets[0][0]))
    with tqdm(total=len(sets) + 1, desc="measuring", unit="set", leave=False) as bar:
        for pixels, labels in sets:
            sample = Sample(yardstick, pixels, labels)
            judged.append(panel.figures(sample))
            each.append(figures.of(sample))
            bar.update()
        real, subset = figures.of_real(yardstick, len(sets[0][0]))
        bar.update()
    found = {}
    for name in each[0]:
        values = [one[name] for one in each]
        found[name] = {
            "mean": mean(values),
            "std": stdev(values) if len(values) > 1 else None,
            "values": values,
            "floor": real[name],
            "subset": subset[name],
        }
    return panel.report(judged, floor) | {"figures": found}


def _check(args: argparse.Namespace, pictures: bool) -> None:
    """Raises ValueError for options that do not go together, or cannot be."""
    for name, low in (("samples", 6), ("seeds", 1)):
        if getattr(args, name) is not None and not low <= getattr(args, name) <= 10**6:
            raise ValueError(f"--{name} must be in {low}..{10**6:,}, got {getattr(args, name)}")
    if (args.samples or SAMPLES) * (args.seeds or SEEDS) > MAX_SEED:
        raise ValueError(f"there are only {MAX_SEED + 1:,} seeds: lower --samples or --seeds")
    refused = _refused(args, pictures)
    for name, why in refused.items():
        if getattr(args, name) is not None and getattr(args, name) is not False:
            raise ValueError(f"--{name} cannot be used here: {why}")
    if args.sweep and args.out is None:
        raise ValueError("--sweep needs --out FILE.jsonl, where it keeps what is done")
    for path in (args.out, args.plot, args.picture):
        if path is not None:
            check_writable(path)


def _refused(args: argparse.Namespace, pictures: bool) -> dict[str, str]:
    """Options that have no meaning beside the others, and why."""
    if pictures:
        return dict.fromkeys((*HOW, "unlabelled", "sweep"), f"{args.model} is a folder of PNGs")
    if args.sweep:
        why = "--sweep tries several ways to draw, from the same seeds"
        return dict.fromkeys((*HOW, "seeds", "picture"), why)
    return dict.fromkeys(("samplers", "evaluations", "grids", "plot"), "it belongs to --sweep")


def _check_fit(args: argparse.Namespace, pipeline: Pipeline, yardstick: Yardstick) -> None:
    """Raises ValueError if the judges cannot read what the model draws, or it cannot draw so."""
    model, judge = pipeline.model, yardstick.networks.classifier
    for name in ("channels", "size"):
        if getattr(model, name) != getattr(judge, name):
            raise ValueError(
                f"the model draws images of {name} {getattr(model, name)}, but the judge reads "
                f"{name} {getattr(judge, name)}: name another with --judge or --dataset"
            )
    if (args.unlabelled or args.guidance) and not model.classes:
        raise ValueError(f"{args.model} knows no classes: leave out --unlabelled and --guidance")
    if args.unlabelled and args.guidance:
        raise ValueError("--guidance needs labels: leave out --unlabelled")


def _draw(
    args: argparse.Namespace, pipeline: Pipeline
) -> tuple[list[tuple[Tensor, Tensor | None]], dict[str, Any]]:
    """Seeds 0, 1, 2, …, as many for each repetition as there are samples; and what belongs into the
    report."""
    asked = {name: getattr(args, name) for name in HOW if getattr(args, name) is not None}
    how = Settings([0], **pipeline.usual | asked)
    if not pipeline.walks:
        # by name: the table may change
        how = replace(how, grid=how.grid or SAMPLERS[how.sampler].grid)
    pipeline.times(how)  # what cannot be is refused before the first image
    labelled = bool(pipeline.model.classes) and not args.unlabelled
    count, repetitions = args.samples or SAMPLES, args.seeds or SEEDS
    sets = []
    with tqdm(
        total=count * repetitions, desc="drawing", unit="image", leave=False, disable=not is_first()
    ) as bar:
        for start in range(0, count * repetitions, count):
            seeds = range(start, start + count)
            labels = labels_of(pipeline, seeds, labelled=labelled)
            pixels = draw(pipeline, how, seeds, labels=labels, progress=bar.update)
            sets.append((pixels, torch.tensor(labels) if labelled else None))
    return sets, {
        "weights_sha256": pipeline.config.get("sha256"),
        "samples": count,
        "repetitions": repetitions,
        "first_seeds": list(range(0, count * repetitions, count)),
        "settings": {name: getattr(how, name) for name in HOW} | {"labels": labelled},
    }


def _read(
    args: argparse.Namespace, yardstick: Yardstick
) -> tuple[list[tuple[Tensor, Tensor | None]], dict[str, Any]]:
    """The PNGs of a folder by name, as many for each repetition as there are samples; and what goes
    into the report."""
    repetitions, judge = args.seeds or 1, yardstick.networks.classifier
    wanted = args.samples and args.samples * repetitions
    with tqdm(total=wanted, desc="reading", unit="image", leave=False) as bar:
        pixels = read_pictures(Path(args.model), wanted, judge.channels, judge.size, bar.update)
    count = len(pixels) // repetitions
    if count < 6:
        raise ValueError(
            f"{args.model} has {len(pixels)} PNGs: too few for {repetitions} repetition(s) of at "
            "least 6"
        )
    parts = pixels.split(count)[:repetitions]
    return [(part, None) for part in parts], {"samples": count, "repetitions": repetitions}


def _origin(yardstick: Yardstick, count: int) -> dict[str, Any]:
    """What the figures were taken with, and how many real images each of them saw."""
    config, kept = yardstick.config, yardstick.reference
    told = ("dataset", "sha256", "texture_sha256", "reference_sha256", "accuracy", "command")
    half, test = min(count, len(kept.subset_nearest)), min(count, len(kept.test_nearest))
    return {
        "judge": {name: config.get(name) for name in told},
        "near": kept.near,
        "torch": torch.__version__,
        "real_images": {
            "frechet": len(yardstick.train.images),
            "neighbours": half,
            "floor": test,
            "subset": half,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
