"""python -m train.benchmark.training: how fast training is, beside two references.

They are a plain loop, and the network of diffusers. All are measured in turns.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ddpm import SAMPLERS, Pipeline, UNet, loss
from ddpm.files import check_writable, write_atomic
from ddpm.settings import Settings

from ..__main__ import parser as train_parser
from ..command import add_option, command
from ..data import DATASETS, Data
from ..evaluate import panel
from ..evaluate.drawing import draw
from ..evaluate.folder import BUILT_IN
from ..evaluate.yardstick import Sample, Yardstick
from ..loop import Recipe, Trainer, from_data, sample_batch
from ..processes import join_processes
from ..publish import artefact, card
from ..run import build
from .sampling import Diffusers, in_turns, ratio, spread, table

# the options that mean the same as for python -m train
SHARED = ("dataset", "data", "width", "attention", "batch_size", "device")


class PlainLoop:
    """What Trainer.update does, as an eager loop.

    It has all that costs one word in PyTorch, as the Trainer: images on the device, bfloat16 on a
    GPU, channels_last and the fused optimizer.
    """

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe) -> None:
        model = model.train().to(memory_format=torch.channels_last)
        self.model = cast("UNet", model)  # or Diffusers, which has what the loss needs of it
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.data, self.recipe, self.step, self.device = data, recipe, 0, data.images.device
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.lr,
            betas=(0.9, 0.99),
            fused=True,
            weight_decay=recipe.weight_decay,
        )
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)

    def update(self) -> Tensor:
        """One step at the highest learning rate. Returns the loss, a scalar on the device."""
        recipe = self.recipe
        x0, y, t, eps = sample_batch(self.data, recipe, self.model.schedule.T, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            value = loss(self.model, x0, y, t, eps)
        self.optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, p in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(p, 1 - decay)
        return value.detach()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "python -m train.benchmark.training",
        description="How many images a second training learns from: as python -m train does it, in "
        "a plain eager loop, and with diffusers' network in that loop. The images are random: the "
        "speed does not depend on them, and no data set is needed. Or, with --to-floor: how many "
        "seconds until samples are as good as unseen real images.",
    )
    add = partial(add_option, p)
    shaped = [name for name, source in DATASETS.items() if source.shape]
    add("--dataset", "whose shape the images have", choices=shaped, default="mnist")
    add("--width", "as for python -m train", type=int)
    add("--attention", "as for python -m train", type=int, nargs="*")
    add("--batch-size", "as for python -m train", type=int)
    add("--steps", "of one measurement", type=int, default=20)
    add("--rounds", "measurements of each, by turns", type=int, default=5)
    add("--device", "where to train", choices=("auto", "cpu", "cuda"), default="auto")
    add("--out", "file for the figures", type=Path, metavar="FILE.json")
    _add_to_floor(p.add_argument_group("from the start of the process to images as good as real"))
    return p


def _add_to_floor(group: argparse._ArgumentGroup) -> None:
    add = partial(add_option, group)
    group.add_argument(
        "--to-floor", help="train on the data set, once for each of --minutes", action="store_true"
    )
    add("--minutes", "budgets, each a run of its own", type=float, nargs="+")
    add("--data", "where the data set is", type=Path, default=Path("data"), metavar="DIR")
    add("--judge", "as for python -m train.evaluate", type=Path, metavar="DIR")
    add("--samples", "images to judge a run by", type=int, default=10_000)
    add("--sampler", "what generates them, in 20 steps", choices=SAMPLERS, default=Settings.sampler)


@command("benchmark")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    _check(args)
    device = join_processes(args.device)
    origin = {
        "command": artefact.command("train.benchmark.training", argv),
        "torch": torch.__version__,
        "hardware": card.hardware(device),
        "threads": torch.get_num_threads(),
    }
    try:
        (to_floor if args.to_floor else speed)(args, device, origin)
    except torch.OutOfMemoryError as error:
        raise ValueError(str(error)) from error
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that cannot be, or do not go together."""
    for name, low in (("steps", 1), ("rounds", 1), ("samples", 6)):
        if not low <= getattr(args, name) <= 10**6:
            raise ValueError(f"--{name} must be in {low}..{10**6:,}, got {getattr(args, name)}")
    good = all(0 < each <= 10**6 for each in args.minutes or [])  # NaN compares false
    if args.to_floor != bool(args.minutes) or not good:
        raise ValueError("--to-floor and --minutes, each above 0, go together")
    if args.out:
        check_writable(args.out)
    if "RANK" in os.environ:
        raise ValueError("this measures one process: start it without torchrun")


def speed(args: argparse.Namespace, device: torch.device, origin: dict[str, Any]) -> None:
    """Measures the images a second of each contestant; prints them, and writes args.out."""
    model, data, recipe = start(args, device)
    size = sum(p.numel() for p in model.parameters())
    found = contestants(model, data, recipe)
    rates = measure(
        {name: update for name, (_, update) in found.items() if update},
        args.steps,
        args.rounds,
        recipe.batch_size,
        torch.cuda.synchronize if device.type == "cuda" else lambda: None,
    )
    rows, figures = [], {}
    for name, (how, _) in found.items():
        figures[name] = _compared(how, rates["ours"], rates.get(name))
        rows.append([name, how, *_cells(figures[name])])
    print(
        f"{recipe.batch_size} random images a step, {size / 1e6:.2f} M parameters, "
        f"{origin['hardware']}, {origin['threads']} threads, {args.rounds} rounds of {args.steps} "
        "steps"
    )
    print(table("images/s||median|min|max|ours is faster by|min|max", rows))
    facts = {
        "dataset": args.dataset,
        "batch_size": recipe.batch_size,
        "parameters": size,
        "steps": args.steps,
        "rounds": args.rounds,
        "figures": figures,
    }
    _write(args.out, origin | facts)


def _compared(how: str, ours: list[float], theirs: list[float] | None) -> dict[str, Any]:
    """One contestant's figures, compared within each round.

    Other work of the machine slows all of a round alike. theirs: images a second by round; None if
    it was not measured.
    """
    if theirs is None:
        return {"how": how}
    return {"how": how, "images_per_second": spread(theirs), "ours_faster_by": ratio(ours, theirs)}


def _cells(figure: dict[str, Any]) -> list[str]:
    """One contestant's figures as cells of the table."""
    return [
        format(figure[what][of], form) if what in figure else ""
        for what, form in (("images_per_second", ",.1f"), ("ours_faster_by", ".2f"))
        for of in ("median", "min", "max")
    ]


def start(args: argparse.Namespace, device: torch.device) -> tuple[UNet, Data, Recipe]:
    """The network and the recipe as python -m train has them, and random images.

    Raises ValueError for options that it would refuse.
    """
    options = train_parser().parse_args([])
    vars(options).update(
        {name: value for name in SHARED if (value := getattr(args, name)) is not None}
    )
    if options.batch_size is None:
        options.batch_size = 512 if device.type == "cuda" else 64
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.__dataclass_fields__})
    torch.manual_seed(recipe.seed)
    shape = DATASETS[args.dataset].shape
    assert shape is not None  # the command line offers no others
    channels, side = shape
    images = torch.randint(256, (60_000, channels, side, side), dtype=torch.uint8)
    data = Data(images, torch.randint(10, (len(images),)), tuple("0123456789"))
    return build(options, data).to(device), data.to(device), recipe


def contestants(
    model: UNet, data: Data, recipe: Recipe
) -> dict[str, tuple[str, Callable[[], object] | None]]:
    """Name -> how it works, and the function that takes one step (None: it is not installed)."""
    plain = PlainLoop(copy.deepcopy(model), data, recipe).update
    theirs: tuple[str, Callable[[], object] | None] = "not installed", None
    with suppress(ModuleNotFoundError):
        theirs = "eager", PlainLoop(Diffusers(model).to(data.images.device), data, recipe).update
    trainer = Trainer(model, from_data(data, recipe, model.schedule.T), recipe)
    ours = (
        "compiled, one CUDA graph" if trainer.graph else "eager",
        lambda: trainer.update(recipe.lr),
    )
    return {"ours": ours, "plain loop": ("eager", plain), "diffusers in that loop": theirs}


def measure(
    updates: dict[str, Callable[[], object]],
    steps: int,
    rounds: int,
    batch: int,
    wait: Callable[[], None],
) -> dict[str, list[float]]:
    """Images a second of each, for each round.

    wait: returns when the device has finished its work.
    """

    def repeated(update: Callable[[], object]) -> Callable[[], None]:
        def work() -> None:
            for _ in range(steps):
                update()
            wait()

        return work

    took = in_turns({name: repeated(update) for name, update in updates.items()}, rounds)
    return {name: [steps * batch / value for value in values] for name, values in took.items()}


def to_floor(args: argparse.Namespace, device: torch.device, origin: dict[str, Any]) -> None:
    """Runs python -m train for each budget and evaluates the result.

    Prints the results, and writes args.out after each run. Each budget is a run of its own because
    the learning rate falls to 0 with the budget: the images of a longer run are not as good
    half-way.
    """
    start(args, torch.device("cpu"))  # bad options show here, before anything long
    yardstick = Yardstick.open(args.judge or BUILT_IN / args.dataset, args.data, device)
    if yardstick.config["dataset"] != args.dataset:
        raise ValueError(
            f"the judge is one of {yardstick.config['dataset']}: name another --judge or --dataset"
        )
    facts = origin | {
        "dataset": args.dataset,
        "judge_sha256": yardstick.config["reference_sha256"],
        "samples": args.samples,
        "sampler": args.sampler,
    }
    reached, runs, floor = None, [], panel.floor(yardstick, args.samples)
    for minutes in args.minutes:
        runs.append(_run(args, minutes, yardstick, floor, device))
        good = [run["seconds"] for run in runs if run["ratio"] <= 1]
        reached = min(good, default=None)
        _write(args.out, facts | {"runs": runs, "seconds_to_floor": reached})
    rows = [
        [f"{run['minutes']:g}", f"{run['seconds']:.1f}", f"{run['ratio']:.2f}", run["judge"]]
        for run in runs
    ]
    print(
        f"{args.samples:,} images by {args.sampler}, {origin['hardware']}; floor: what the worst "
        "judge says of as many real test images"
    )
    print(table("--minutes|seconds|× floor|worst judge", rows))
    print(f"floor: {f'reached after {reached:.1f} s' if reached else 'not reached'}")


def _run(
    args: argparse.Namespace,
    minutes: float,
    yardstick: Yardstick,
    floor: panel.Floor,
    device: torch.device,
) -> dict[str, Any]:
    """Trains with this budget and evaluates the result."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = _train(args, minutes, Path(folder))
        pipeline = Pipeline.from_pretrained(str(Path(folder, "run")), device=device)
    with tqdm(total=args.samples, desc="sampling", unit="image", leave=False) as bar:
        how = Settings([0], sampler=args.sampler)
        pixels = draw(pipeline, how, range(args.samples), progress=bar.update)
    worst = panel.worst(panel.figures(Sample(yardstick, pixels)), floor)
    return {"minutes": minutes, "seconds": seconds} | worst._asdict()


def _train(args: argparse.Namespace, minutes: float, folder: Path) -> float:
    """Trains into folder/run. Returns the seconds from the start of that process to its end."""
    line = [sys.executable, "-m", "train", "--minutes", str(minutes), "--out", str(folder / "run")]
    for name in SHARED:
        if (value := getattr(args, name)) is not None:
            line += [
                f"--{name.replace('_', '-')}",
                *map(str, value if isinstance(value, list) else [value]),
            ]
    # What an earlier run has compiled must not be found: it would save time.
    caches = {name: str(folder / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    begin = time.perf_counter()
    done = subprocess.run(line, env=os.environ | caches, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise ValueError(
            f"python -m train with --minutes {minutes:g} ended with exit code {done.returncode}"
        )
    return time.perf_counter() - begin


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path:
        write_atomic(path, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
