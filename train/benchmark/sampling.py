"""python -m train.benchmark.sampling: how fast images are sampled, beside diffusers.

It also shows where the time goes. In each round everything is measured once, one after another, and
compared within the round: other work of the machine then slows all of it down alike. Milliseconds
depend on the machine, their ratios hardly.
"""

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ddpm import hub
from ddpm.diffusion import denoiser
from ddpm.engine import Engine, onnx_runtime, pytorch
from ddpm.engine.cpus import use_all
from ddpm.files import check_writable, write_atomic
from ddpm.pipeline import Pipeline
from ddpm.samplers import SAMPLERS, Sampler, evaluations
from ddpm.settings import Settings
from ddpm.unet import Network, UNet

from ..command import add_option, command
from ..publish import artefact, export

MATMUL = 2048  # side of the square matrices whose product shows what the machine can do
PICTURES = 16
# as many as the table in README.md has
SAMPLER, STEPS = Settings.sampler, 10
DDPM_STEPS, DDIM_STEPS = 1000, 50  # as in their papers
THEIRS = "diffusers"


class Diffusers(nn.Module):
    """diffusers' UNet2DModel of the same size as ours, called as ours is.

    Raises ModuleNotFoundError if diffusers is not installed.
    """

    def __init__(self, ours: UNet) -> None:
        from diffusers import UNet2DModel  # only measurements need it

        super().__init__()
        self.schedule, self.prediction, self.classes = ours.schedule, ours.prediction, ours.classes
        labels = ours.classes + 1 if ours.classes else None
        theirs: Any = UNet2DModel(**export.network(ours), num_class_embeds=labels)
        self.network: nn.Module = theirs  # its types do not show that it is one

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """x N×C×H×W, t N times, y N labels -> N×C×H×W."""
        out: Tensor = self.network(x, t - 1, class_labels=y).sample  # there the first time is 0
        return out


def _diffusers(model: UNet) -> Engine:
    import diffusers

    network = Diffusers(model).eval().requires_grad_(False)
    return Engine(torch.no_grad()(network), f"diffusers {diffusers.__version__}, UNet2DModel")


# What computes a network of the same size. Whatever is not installed is left out.
CONTESTANTS: dict[str, Callable[[UNet], Engine]] = {
    "ONNX Runtime": onnx_runtime,
    "PyTorch": lambda model: pytorch(model.to(memory_format=torch.channels_last)),
    THEIRS: _diffusers,
}


def contestants(model: UNet) -> dict[str, Engine]:
    """The contestants whose packages are installed."""
    found = {}
    for name, start in CONTESTANTS.items():
        try:
            found[name] = start(model)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def inputs(model: UNet, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, t and y for `count` images; y goes through the classes in turn."""
    y = torch.arange(count) % model.classes if model.classes else None
    return (
        torch.randn(count, model.channels, model.size, model.size),
        torch.full((count,), model.schedule.T / 2),
        y,
    )


def work_of(network: Network, model: UNet) -> int:
    """Floating-point operations for one image in matrix products and convolutions.

    An addition and a multiplication count as two.
    """
    attention = sdpa_kernel(SDPBackend.MATH)  # as matrix products, which the counter knows
    with FlopCounterMode(display=False) as counter, attention, torch.no_grad():
        network(*inputs(model, 1))
    return int(counter.get_total_flops())


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round, after a round of warm-up."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            took[name].append(seconds(work))
    return {name: values[1:] for name, values in took.items()}


def spread(values: list[float]) -> dict[str, Any]:
    """Median, minimum, maximum, and all values."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """The spread of above / below, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def one_evaluation(
    model: UNet, engines: dict[str, Engine], count: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """For each engine, the time of one evaluation of `count` images.

    That is: milliseconds, how many times as long diffusers takes, and the share of the
    floating-point rate that a product of two float32 matrices reaches here.
    """
    given, repeats = inputs(model, count), max(1, 64 // count)
    a = torch.randn(MATMUL, MATMUL)

    def repeated(run: Network) -> Callable[[], object]:
        return lambda: [run(*given) for _ in range(repeats)]

    took = in_turns(
        {name: repeated(engine.run) for name, engine in engines.items()} | {"": lambda: a @ a},
        rounds,
    )
    product = [2 * MATMUL**3 / value for value in took.pop("")]
    took = {name: [value / repeats for value in values] for name, values in took.items()}
    work, figures = count * work_of(model, model), {}
    for name, values in took.items():
        figures[name] = {
            "ms": spread([1e3 * value for value in values]),
            "share_of_matmul": ratio([work / value for value in values], product),
        }
        if THEIRS in took:
            figures[name]["faster_than_diffusers"] = ratio(took[THEIRS], values)
    return figures | {"matmul": {"gflops": spread([rate / 1e9 for rate in product])}}


def students(pipeline: Pipeline) -> dict[str, Pipeline]:
    """The built-in models that were distilled from this one, by name."""
    found = {folder.name: Pipeline.from_pretrained(folder) for folder in hub.BUILT_IN.iterdir()}
    return {
        name: each
        for name, each in sorted(found.items())
        if each.walks and each.config["distilled"]["teacher"] == pipeline.config["sha256"]
    }


def pictures(
    pipeline: Pipeline, engines: dict[str, Engine], sampler: str, steps: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """For each engine, seconds to PICTURES finished images.

    Ours in `steps` steps, its students in theirs, diffusers with its own loops.
    """
    model = pipeline.model
    x, _, y = inputs(model, PICTURES)

    def ours(who: Pipeline, run: Network, **how: Any) -> tuple[int, Callable[[], object]]:
        settings = Settings(range(PICTURES), **how)
        denoise, times = denoiser(who.model, y, run=run), who.times(settings)
        walk = partial(settings.walk, denoise, model.schedule, x, times, torch.randn_like)
        return settings.evaluations, lambda: list(walk())

    fast, here = students(pipeline), [name for name in engines if name != THEIRS]
    ways = {}
    for name in here:
        how = {"sampler": sampler, "steps": steps}
        ways[f"{name}, {sampler}"] = ours(pipeline, engines[name].run, **how)
        for called, student in fast.items():
            run = CONTESTANTS[name](student.model).run
            ways[f"{name}, {called}"] = ours(student, run, **student.usual)
    if THEIRS in engines:
        for name, most in (("DDIM", DDIM_STEPS), ("DDPM", DDPM_STEPS)):
            count = min(most, model.schedule.T)
            ways[f"{THEIRS}, {name}"] = (
                count,
                _their_loop(name, count, model, engines[THEIRS].run, x, y),
            )
    took = in_turns({name: work for name, (_, work) in ways.items()}, rounds)
    slowest = took.get(f"{THEIRS}, DDPM")
    return {
        name: {"evaluations": ways[name][0], "seconds": spread(values)}
        | ({"faster_than_ddpm": ratio(slowest, values)} if slowest else {})
        for name, values in took.items()
    }


def _their_loop(
    name: str, steps: int, model: UNet, run: Network, x: Tensor, y: Tensor | None
) -> Callable[[], Tensor]:
    """Sampling as diffusers' own pipelines do it, without their progress bar."""
    import diffusers

    scheduler = getattr(diffusers, f"{name}Scheduler")(
        num_train_timesteps=model.schedule.T, prediction_type=export.PREDICTIONS[model.prediction]
    )

    def sample() -> Tensor:
        scheduler.set_timesteps(steps)
        image = x
        for t in scheduler.timesteps:
            out = run(image, (t + 1).expand(len(image)), y)
            image = scheduler.step(out, t, image).prev_sample
        return image

    return sample


def overhead(
    model: UNet, network: Network, steps: int, rounds: int
) -> Iterator[tuple[str, float, float]]:
    """For each sampler: its name, its own seconds per evaluation, and the network's for one image.

    Medians over the rounds; the sampler alone is measured with a denoiser that computes nothing.
    """
    schedule, (x, _, y) = model.schedule, inputs(model, 1)
    x0, denoise, times = torch.zeros_like(x), denoiser(model, y, run=network), schedule.times(steps)

    def alone(sampler: Sampler) -> Callable[[], object]:
        return lambda: list(sampler.walk(lambda _x, _t: x0, schedule, x, times, torch.randn_like))

    def ten_evaluations() -> object:
        return [denoise(x, schedule.T / 2) for _ in range(10)]

    for name, sampler in SAMPLERS.items():
        took = in_turns({"own": alone(sampler), "whole": ten_evaluations}, rounds)
        yield (
            name,
            statistics.median(took["own"]) / evaluations(name, steps),
            statistics.median(took["whole"]) / 10,
        )


def peak_memory(source: str, name: str, batches: list[int]) -> dict[int, float]:
    """The peak memory, in MB, by batch size, of a process that evaluates the network.

    Each size has a process of its own; libraries are included. Empty where it is not known (not on
    Linux).
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_memory, source, name, torch.get_num_threads(), batches).result()


def _peak_memory(source: str, name: str, threads: int, batches: list[int]) -> dict[int, float]:
    torch.set_num_threads(threads)
    model, found, status = Pipeline.from_pretrained(source).model, {}, Path("/proc/self/status")
    run = CONTESTANTS[name](model).run
    for count in sorted(batches) if status.exists() else []:
        for _ in range(3):
            run(*inputs(model, count))
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        found[count] = int(peak.split()[1]) / 1e3
    return found


def _cpu() -> str:
    """The CPU in words."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def _cells(spread: dict[str, Any], form: str) -> list[str]:
    return [format(spread[which], form) for which in ("median", "min", "max")]


def table(head: str, rows: list[list[str]]) -> str:
    """A text table, the first column aligned to the left, the others to the right.

    head: the titles of the columns, separated by |.
    """
    rows = [head.split("|"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "python -m train.benchmark.sampling",
        description="How long the network takes, by what computes it and beside diffusers' of the "
        f"same size; how long {PICTURES} images of equal quality take; and what each sampler costs "
        "beside the network.",
    )
    add = partial(add_option, p)
    add("--model", "as for python -m ddpm", default="mnist", metavar="WEIGHTS")
    p.add_argument(
        "--batches",
        type=int,
        nargs="+",
        default=[1, 4, 16, 64],
        metavar="N",
        help="images at once, 1..1024 each (default: 1 4 16 64)",
    )
    add("--sampler", "ours", choices=SAMPLERS, default=SAMPLER, metavar="SAMPLER")
    add(
        "--steps",
        "steps of ours that make images as good as real ones, as python -m train.evaluate measures",
        type=int,
        default=STEPS,
    )
    add("--rounds", "measurements, of which the median counts", type=int, default=5)
    add("--out", "file for the figures", type=Path, metavar="FILE.json")
    return p


@command("benchmark")
def main(argv: list[str] | None = None) -> int:
    """Prints the tables. Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    if args.rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, got {args.rounds}")
    if not all(1 <= count <= 1024 for count in args.batches):
        raise ValueError(f"--batches must be in 1..1024, got {' '.join(map(str, args.batches))}")
    if args.out:
        check_writable(args.out)
    threads = use_all()
    pipeline = Pipeline.from_pretrained(args.model)
    pipeline.times(Settings([0], sampler=args.sampler, steps=args.steps))  # raises if it cannot be
    report = {
        "command": artefact.command("train.benchmark.sampling", argv),
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "threads": threads,
        "torch": torch.__version__,
    }
    report |= measure(pipeline, args)
    if args.out:
        write_atomic(args.out, (json.dumps(report, indent=2) + "\n").encode())
    return 0


def measure(pipeline: Pipeline, args: argparse.Namespace) -> dict[str, Any]:
    """Prints each table as soon as it is measured. Returns all figures."""
    model = pipeline.model
    engines = contestants(model)
    size, work = sum(p.numel() for p in model.parameters()), work_of(model, model)
    print(
        f"{_cpu()}, {torch.get_num_threads()} threads, {date.today()}; {size / 1e6:.2f} M "
        f"parameters, {work / 1e9:.3f} GFLOP an image; medians of {args.rounds} rounds, with "
        "minimum and maximum"
    )
    return {
        "parameters": size,
        "flop_an_image": work,
        "engines": {name: engine.text for name, engine in engines.items()},
        "one_evaluation": _measure_evaluations(model, engines, args),
        "pictures": _measure_pictures(pipeline, engines, args),
        "samplers": _measure_samplers(model, engines, args),
    }


def _measure_evaluations(
    model: UNet, engines: dict[str, Engine], args: argparse.Namespace
) -> dict[int, dict[str, dict[str, Any]]]:
    """`one_evaluation` for each batch size, with peak memory; prints the table."""
    peaks = {name: peak_memory(args.model, name, args.batches) for name in engines}
    rows, by_count = [], {}
    for count in tqdm(args.batches, unit="batch", leave=False):
        by_count[count] = one_evaluation(model, engines, count, args.rounds)
        for name in engines:
            figures = by_count[count][name]
            figures["peak_memory_mb"] = peaks[name].get(count, math.nan)
            faster = figures.get("faster_than_diffusers")
            rows.append(
                [
                    f"{count} image{'s' if count > 1 else ''}, {name}",
                    *_cells(figures["ms"], ".2f"),
                    *(_cells(faster, ".2f") if faster else [""] * 3),
                    f"{figures['share_of_matmul']['median']:.0%}",
                    f"{figures['peak_memory_mb']:.0f} MB",
                ]
            )
    rate = statistics.median(each["matmul"]["gflops"]["median"] for each in by_count.values())
    print(
        f"\nshare: of the {rate:.0f} GFLOP/s of a product of {MATMUL}×{MATMUL} float32 matrices, "
        "measured in the same rounds"
    )
    print(table("one evaluation of|ms|min|max|× diffusers|min|max|share|peak memory", rows))
    return by_count


def _measure_pictures(
    pipeline: Pipeline, engines: dict[str, Engine], args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """`pictures`; prints the table."""
    found = pictures(pipeline, engines, args.sampler, args.steps, args.rounds)
    rows = []
    for name, figures in found.items():
        faster = figures.get("faster_than_ddpm")
        rows.append(
            [
                name,
                str(figures["evaluations"]),
                *_cells(figures["seconds"], ".3f"),
                *(_cells(faster, ".1f") if faster else [""] * 3),
            ]
        )
    print("\n" + table(f"{PICTURES} pictures by|evaluations|s|min|max|× DDPM|min|max", rows))
    return found


def _measure_samplers(
    model: UNet, engines: dict[str, Engine], args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """`overhead` beside the first engine; prints the table."""
    name, engine = next(iter(engines.items()))
    rows, found = [], {}
    for sampler, own, whole in overhead(model, engine.run, args.steps, args.rounds):
        rows.append([sampler, f"{own * 1e6:.0f}", f"{whole * 1e6:.0f}", f"{own / whole:.1%}"])
        found[sampler] = {"own_us": own * 1e6, "network_us": whole * 1e6}
    print("\n" + table(f"sampler|its own us / evaluation|{name} us / evaluation|share", rows))
    return found


if __name__ == "__main__":
    sys.exit(main())
