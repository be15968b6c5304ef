"""python -m ddpm.benchmark: what the samplers cost beside the network, measured side by side in one run."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch

from .diffusion import denoiser
from .pipeline import Pipeline
from .samplers import SAMPLERS, evaluations


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def overhead(pipeline: Pipeline, steps: int, rounds: int) -> Iterator[tuple[str, float, float]]:
    """For each sampler, its name, its own seconds an evaluation, and those of the network for one image.

    The sampler's are taken with a denoiser that does nothing, in turns with the network's: medians over the rounds.
    """
    model, schedule = pipeline.model, pipeline.model.schedule
    x = torch.randn(1, model.channels, model.size, model.size)
    x0, network, times = torch.zeros_like(x), denoiser(model), schedule.times(steps)
    for name, sampler in SAMPLERS.items():
        own, whole, cost = [], [], evaluations(name, steps)
        for _ in range(rounds + 1):
            walk = sampler(lambda _x, _t: x0, schedule, x, times, torch.randn_like)
            own.append(seconds(lambda: list(walk)) / cost)  # noqa: B023
            whole.append(seconds(lambda: [network(x, schedule.T / 2) for _ in range(10)]) / 10)
        yield name, statistics.median(own[1:]), statistics.median(whole[1:])  # the first round warms up


def main(argv: list[str] | None = None) -> int:
    """Prints the table. Exit code: 0 done, 2 bad input."""
    p = argparse.ArgumentParser(
        "python -m ddpm.benchmark",
        description="What each sampler costs beside the network, as a share of one network evaluation of one image.")
    p.add_argument("--model", default="mnist", help="as for python -m ddpm (default: mnist)")
    p.add_argument("--steps", type=int, default=50, help="steps of a walk (default: 50)")
    p.add_argument("--rounds", type=int, default=5, help="measurements, of which the median counts (default: 5)")
    args = p.parse_args(argv)
    try:
        if args.rounds < 1:
            raise ValueError(f"--rounds must be 1 or more, got {args.rounds}")
        pipeline = Pipeline.from_pretrained(args.model)
        pipeline.model.schedule.times(args.steps)
    except (ValueError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(f"{args.steps} steps of one image, {torch.get_num_threads()} threads, median of {args.rounds}")
    print(f"{'sampler':<14}{'sampler / evaluation':>22}{'network / evaluation':>22}{'share':>8}")
    for name, own, whole in overhead(pipeline, args.steps, args.rounds):
        print(f"{name:<14}{own * 1e6:>19.0f} us{whole * 1e6:>19.0f} us{own / whole:>8.1%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
