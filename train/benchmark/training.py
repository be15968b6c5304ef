"""python -m train.benchmark.training: how fast training is, beside a plain loop and diffusers'
network, measured in turns."""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ddpm import SAMPLERS, Pipeline, UNet, loss
from ddpm.files import write_atomic
from ddpm.pixels import from_pixels
from ddpm.samplers import BEST_SAMPLER
from train.benchmark.sampling import Diffusers, spread

from ..__main__ import parser as train_parser
from ..data import Data
from ..evaluate import panel
from ..evaluate.drawing import draw
from ..evaluate.folder import BUILT_IN
from ..evaluate.report import aligned
from ..evaluate.yardstick import Sample, Yardstick
from ..loop import Recipe, Trainer
from ..publish import artefact, card
from ..run import build, join_processes

SHAPES = {
    "mnist": (1, 28),
    "fashion-mnist": (1, 28),
    "kmnist": (1, 28),
    "cifar10": (3, 32),
}  # channels, side
SHARED = (
    "dataset",
    "data",
    "width",
    "attention",
    "batch_size",
    "device",
)  # mean what they mean for python -m train


class PlainLoop:
    """What Trainer.update does, as an eager loop that leaves out nothing that is to be had for a
    word: images on the device, bfloat16 on a GPU, channels_last and the fused optimizer, as ours.
    """

    def __init__(self, model: nn.Module, data: Data, recipe: Recipe) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)
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
        """One step at the highest learning rate. Returns the loss."""
        recipe, images, n = self.recipe, self.data.images, self.recipe.batch_size
        random = {"generator": self.generator, "device": self.device}
        index = torch.randint(len(images), (n,), **random)
        t = torch.randint(1, self.model.schedule.T + 1, (n,), **random).float()
        y = self.data.labels[index].masked_fill(
            torch.rand(n, **random) < recipe.drop_label, self.model.classes
        )
        eps = torch.randn(n, *images.shape[1:], **random)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            value = loss(self.model, from_pixels(images[index]), y, t, eps)
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, p in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(p, 1 - decay)
        return value.detach()


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m train.benchmark.training",
        description="How many images a second training learns from: as python -m train does it, in a plain eager loop, "
        "and with diffusers' network in that loop. The images are random: speed does not depend on them, and no data "
        "set is needed. Or, with --to-floor: how many seconds until drawn images are as good as unseen real ones.",
    )

    def add(group: argparse._ActionsContainer, name: str, help: str, **settings: Any) -> None:
        shown = settings.get("default")
        group.add_argument(
            name, help=help if shown is None else f"{help} (default: {shown})", **settings
        )

    add(p, "--dataset", "whose shape the images have", choices=SHAPES, default="mnist")
    for name, kind, many in (
        ("width", int, None),
        ("attention", int, "*"),
        ("batch-size", int, None),
    ):
        add(p, f"--{name}", "as for python -m train", type=kind, nargs=many)
    add(p, "--steps", "of one measurement", type=int, default=20)
    add(p, "--rounds", "measurements of each, in turns", type=int, default=5)
    add(p, "--device", "where to train", choices=("auto", "cpu", "cuda"), default="auto")
    add(p, "--out", "file for the figures", type=Path, metavar="FILE.json")
    floor = p.add_argument_group("from the start of the process to images as good as real ones")
    floor.add_argument(
        "--to-floor", help="train on the data set, once for each of --minutes", action="store_true"
    )
    add(floor, "--minutes", "budgets, each a run of its own", type=float, nargs="+")
    add(floor, "--data", "where the data set lies", type=Path, default=Path("data"), metavar="DIR")
    add(floor, "--judge", "as for python -m train.evaluate", type=Path, metavar="DIR")
    add(floor, "--samples", "images to judge a run by", type=int, default=10_000)
    add(
        floor,
        "--sampler",
        "how they are drawn, in 20 steps",
        choices=SAMPLERS,
        default=BEST_SAMPLER,
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        for name, low in (("steps", 1), ("rounds", 1), ("samples", 6)):
            if not low <= getattr(args, name) <= 10**6:
                raise ValueError(f"--{name} must be in {low}..{10**6:,}, got {getattr(args, name)}")
        if args.to_floor != bool(args.minutes) or not all(
            0 < each <= 10**6 for each in args.minutes or []
        ):
            raise ValueError("--to-floor and --minutes, each above 0, go together")
        if args.out and (args.out.is_dir() or not args.out.parent.is_dir()):
            raise ValueError(f"cannot write {args.out}: it is a folder, or its folder is not there")
        if "RANK" in os.environ:
            raise ValueError("this measures one process: start it without torchrun")
        device = join_processes(args.device)
        origin = {
            "command": artefact.command("train.benchmark.training", argv),
            "torch": torch.__version__,
            "hardware": card.hardware(device),
            "threads": torch.get_num_threads(),
        }
        (to_floor if args.to_floor else speed)(args, device, origin)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        print(f"benchmark: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: interrupted", file=sys.stderr)
        return 130
    return 0


def speed(args: argparse.Namespace, device: torch.device, origin: dict[str, Any]) -> None:
    """Measures images a second of one optimizer step, for all contestants in turns; prints, and
    writes args.out."""
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
    rows, figures = (
        [("images/s", "", "median", "min", "max", "ours is faster by", "min", "max")],
        {},
    )
    for name, (how, _) in found.items():
        figures[name], shown = {"how": how}, []
        if name in rates:
            # Round by round: what else the machine does in a round slows all of them down.
            times = [ours / theirs for ours, theirs in zip(rates["ours"], rates[name], strict=True)]
            figures[name] |= {
                "images_per_second": spread(rates[name]),
                "ours_faster_by": spread(times),
            }
            shown = [
                f"{figures[name][what][of]:{form}}"
                for what, form in (("images_per_second", ",.1f"), ("ours_faster_by", ".2f"))
                for of in ("median", "min", "max")
            ]
        rows.append((name, how, *(shown or [""] * 6)))
    print(
        f"{recipe.batch_size} random images a step, {size / 1e6:.2f} M parameters, {origin['hardware']}, "
        f"{origin['threads']} threads, {args.rounds} rounds of {args.steps} steps",
        *aligned(rows),
        sep="\n",
    )
    _write(
        args.out,
        origin
        | {
            "dataset": args.dataset,
            "batch_size": recipe.batch_size,
            "parameters": size,
            "steps": args.steps,
            "rounds": args.rounds,
            "figures": figures,
        },
    )


def start(args: argparse.Namespace, device: torch.device) -> tuple[UNet, Data, Recipe]:
    """The network and the recipe as python -m train has them, and random images. Raises
    ValueError."""
    options = train_parser().parse_args([])
    vars(options).update(
        {name: value for name in SHARED if (value := getattr(args, name)) is not None}
    )
    if options.batch_size is None:
        options.batch_size = 512 if device.type == "cuda" else 64
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.__dataclass_fields__})
    torch.manual_seed(recipe.seed)
    channels, side = SHAPES[args.dataset]
    images = torch.randint(256, (60_000, channels, side, side), dtype=torch.uint8)
    data = Data(images, torch.randint(10, (len(images),)), tuple("0123456789"))
    return build(options, data).to(device), data.to(device), recipe


def contestants(
    model: UNet, data: Data, recipe: Recipe
) -> dict[str, tuple[str, Callable[[], object] | None]]:
    """Name -> how it works, and the function that takes one step (None: it is not installed)."""
    plain = PlainLoop(copy.deepcopy(model), data, recipe).update
    try:
        theirs = "eager", PlainLoop(Diffusers(model).to(data.images.device), data, recipe).update
    except ModuleNotFoundError:
        theirs = "not installed", None
    trainer = Trainer(model, data, recipe)
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
    """Images a second of each, of each round. wait returns when the device has done what it was
    told."""
    rates: dict[str, list[float]] = {name: [] for name in updates}
    for _ in tqdm(range(rounds + 1), unit="round", leave=False):
        for name, update in updates.items():
            wait()
            begin = time.perf_counter()
            for _ in range(steps):
                update()
            wait()
            rates[name].append(steps * batch / (time.perf_counter() - begin))
    return {name: values[1:] for name, values in rates.items()}  # the first round warms up


def to_floor(args: argparse.Namespace, device: torch.device, origin: dict[str, Any]) -> None:
    """Runs python -m train for each budget and evaluates what it made; prints, and writes args.out
    after each run.

    The learning rate falls to 0 with the budget, so a run's images are at their best at its end and
    not before."""
    start(args, torch.device("cpu"))  # what is wrong with the options shows now
    yardstick = Yardstick.open(args.judge or BUILT_IN / args.dataset, args.data, device)
    if yardstick.config["dataset"] != args.dataset:
        raise ValueError(
            f"the judge is one of {yardstick.config['dataset']}: name another --judge or --dataset"
        )
    floor, reached, runs = panel.floor(yardstick, args.samples), None, []
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            seconds = _train(args, minutes, Path(folder))
            pipeline = Pipeline.from_pretrained(str(Path(folder, "run")), device=device)
        with tqdm(total=args.samples, desc="drawing", unit="image", leave=False) as bar:
            pixels = draw(
                pipeline, range(args.samples), progress=bar.update, sampler=args.sampler, steps=20
            )
        worst = panel.worst(panel.figures(Sample(yardstick, pixels)), floor)
        runs.append({"minutes": minutes, "seconds": seconds} | worst._asdict())
        reached = min((run["seconds"] for run in runs if run["ratio"] <= 1), default=None)
        _write(
            args.out,
            origin
            | {
                "dataset": args.dataset,
                "judge_sha256": yardstick.config["reference_sha256"],
                "samples": args.samples,
                "sampler": args.sampler,
                "runs": runs,
                "seconds_to_floor": reached,
            },
        )
    rows = [("--minutes", "worst judge", "seconds", "× floor")]
    rows += [
        (f"{run['minutes']:g}", run["judge"], f"{run['seconds']:.1f}", f"{run['ratio']:.2f}")
        for run in runs
    ]
    print(
        f"{args.samples:,} images by {args.sampler}, {origin['hardware']}",
        *aligned(rows),
        f"floor: {f'reached after {reached:.1f} s' if reached else 'not reached'}",
        sep="\n",
    )


def _train(args: argparse.Namespace, minutes: float, folder: Path) -> float:
    """Trains into folder/run. Returns the seconds from the start of that process to its end."""
    command = [
        sys.executable,
        "-m",
        "train",
        "--minutes",
        str(minutes),
        "--out",
        str(folder / "run"),
    ]
    for name in SHARED:
        if (value := getattr(args, name)) is not None:
            command += [
                f"--{name.replace('_', '-')}",
                *map(str, value if isinstance(value, list) else [value]),
            ]
    # What an earlier run compiled would be a head start.
    caches = {name: str(folder / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    begin = time.perf_counter()
    done = subprocess.run(command, env=os.environ | caches, stdout=subprocess.DEVNULL, check=False)
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
