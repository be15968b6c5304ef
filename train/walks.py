"""python -m train.walks: learns walks of few steps, for the sampler "learned".

A walk of S steps has S - 1 times (the first evaluation is at T) and S - 1 factors, by which each
step but the first extrapolates from the last two estimates of x0 (`ddpm.samplers.learned`). Both
are found by gradient descent through the walk: from the same noise it is to end where a walk of
many steps ends. The network stays as it is, and no judge of train/evaluate has a part in it. After
LD3 (Tong et al. 2025), S4S (Frankel et al. 2025) and BNS (Shaul et al. 2024).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import Pipeline, Settings, UNet
from ddpm.diffusion import PREDICTIONS, coefficients
from ddpm.files import check_writable, write_atomic
from ddpm.pixels import LIMIT
from ddpm.schedule import LEARNED_FILE

from .command import add_option, command
from .processes import join_processes
from .publish import artefact

STEPS = range(2, 11)  # of the walks
LONG = 40  # steps of the walks whose ends are the targets
COUNT, HELD_OUT = 640, 128  # noises in all, and those of them that are for the report alone
UNLABELLED = 5  # one noise in so many has no label
FIRST_SEED = 3 * 2**30  # far from those of an evaluation
BATCH, UPDATES = 16, 100
RATES = 0.03, 0.02  # Adam's learning rates, of the times' strides (logarithms) and the factors


class Ways(NamedTuple):
    """Noises, labels (None if the model has no classes), and where long walks from there end."""

    noise: Tensor
    labels: Tensor | None
    end: Tensor

    def part(self, rows: slice | Tensor) -> "Ways":
        """Some of them."""
        labels = None if self.labels is None else self.labels[rows]
        return Ways(self.noise[rows], labels, self.end[rows])


def long_ways(pipeline: Pipeline) -> Ways:
    """COUNT walks of LONG steps."""
    classes, ways = pipeline.model.classes, []
    seeds = range(FIRST_SEED, FIRST_SEED + COUNT)
    for first in tqdm(range(0, COUNT, BATCH), desc="long walks", leave=False):
        part = seeds[first : first + BATCH]
        labels = [pipeline.label_of(k) if k % UNLABELLED else classes for k in part]
        how = Settings(part, labels if classes else None, steps=LONG)
        *_, last = frames = list(pipeline.stream(how))
        ways.append((frames[0].x, torch.tensor(labels), last.x))
    noise, y, end = (torch.cat(values) for values in zip(*ways, strict=True))
    return Ways(noise, y.to(noise.device) if classes else None, end)


class Walk:
    """A walk of at least 2 steps that can be learned. strides and reach are what is learned."""

    def __init__(self, model: UNet, steps: int, device: torch.device) -> None:
        self.model = model
        strides = -torch.tensor(model.schedule.times(steps, "power(1.2)"), device=device).diff()
        self.strides = strides.log().requires_grad_()
        self.reach = torch.tensor([0.5] * (steps - 2) + [0.0], device=device, requires_grad=True)

    def times(self) -> Tensor:
        """Of the evaluations, as falling shares of T."""
        passed = self.strides.softmax(0).cumsum(0)[:-1]
        return torch.cat([torch.ones_like(passed[:1]), 1 - passed])

    def end(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Where `ddpm.samplers.learned` ends, differentiable in times and factors."""
        model, before = self.model, None
        at = self.times() * model.schedule.T
        alphas, sigmas = coefficients(model.schedule, torch.cat([at, torch.zeros_like(at[:1])]))
        for k, t in enumerate(at):
            alpha, sigma = alphas[k], sigmas[k]
            out = model(x, t.expand(len(x)), y)
            x0 = PREDICTIONS[model.prediction].x0(out, x, alpha, sigma).clamp(-LIMIT, LIMIT)
            target = x0 if before is None else x0 + self.reach[k - 1] * (x0 - before)
            shrink, before = sigmas[k + 1] / sigma, x0
            x = shrink * x + (alphas[k + 1] - alpha * shrink) * target
        return x

    def error(self, ways: Ways) -> Tensor:
        """Mean square of the distance between its ends and theirs, a scalar."""
        return (self.end(ways.noise, ways.labels) - ways.end).square().mean()

    def found(self) -> dict[str, list[float]]:
        """What `ddpm.schedule.LearnedWalk` keeps."""
        return {
            "times": [round(share, 5) for share in self.times().tolist()],
            "reach": [round(factor, 4) for factor in self.reach.tolist()],
        }


def learn(model: UNet, steps: int, ways: Ways, bar: "tqdm[Any]") -> Walk:
    """A walk of so many steps whose ends are near those of ways."""
    walk = Walk(model, steps, ways.noise.device)
    rates = zip((walk.strides, walk.reach), RATES, strict=True)
    optimizer = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in rates])
    cooling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, UPDATES)
    generator = torch.Generator().manual_seed(0)
    for _ in range(UPDATES):
        rows = torch.randint(len(ways.noise), (BATCH,), generator=generator)
        optimizer.zero_grad()
        walk.error(ways.part(rows)).backward()
        optimizer.step()
        cooling.step()
        bar.update(steps)
    return walk


def compared(pipeline: Pipeline, steps: int, walk: Walk, ways: Ways) -> str:
    """A line: the root mean square of the distance to where long walks end, beside unipc2's."""
    with torch.no_grad():
        ours = walk.error(ways).sqrt().item()
    seeds = range(FIRST_SEED, FIRST_SEED + len(ways.noise))
    labels = None if ways.labels is None else ways.labels.tolist()
    usual = pipeline.sample(seeds, labels=labels, sampler="unipc2", steps=steps).x
    plain = (usual.to(ways.end.device) - ways.end).square().mean().sqrt().item()
    return f"{steps:2} evaluations: {ours:.4f} from the end of a long walk; unipc2 {plain:.4f}"


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m train.walks`."""
    p = argparse.ArgumentParser(
        "python -m train.walks",
        description='Learn walks of few steps for the sampler "learned": their times, and how far '
        "each step extrapolates.",
    )
    p.add_argument("model", metavar="MODEL", help="built-in weights, a folder or NAMESPACE/NAME")
    add_option(p, "--out", "file to write", type=Path, default=LEARNED_FILE, metavar="FILE.json")
    add_option(p, "--device", "where to compute", choices=("auto", "cpu", "cuda"), default="auto")
    return p


@command("walks")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    check_writable(args.out)
    pipeline = Pipeline.from_pretrained(args.model, device=join_processes(args.device))
    times, least = pipeline.model.schedule.T, max(STEPS)
    if pipeline.walks or times < least:
        raise ValueError(
            f"walks cannot be learned for {args.model}: the model must not be distilled, and its T "
            f"must be at least {least}"
        )
    ways, found = long_ways(pipeline), []
    held_out, seen = ways.part(slice(HELD_OUT)), ways.part(slice(HELD_OUT, None))
    model = pipeline.model.requires_grad_(False).to(memory_format=torch.channels_last)
    with tqdm(total=sum(STEPS) * UPDATES, desc="learning", unit="step") as bar:
        for steps in STEPS:
            walk = learn(model, steps, seen, bar)
            bar.write(compared(pipeline, steps, walk, held_out))
            found.append(walk.found())
    told = {
        "command": artefact.command("train.walks", argv),
        "weights": pipeline.config["sha256"],
        "walks": found,
    }
    write_atomic(args.out, (json.dumps(told, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
