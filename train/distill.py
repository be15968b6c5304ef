"""python -m train.distill: a student that does in 4, 2 or 1 steps what its teacher does in many.

From the same noise the teacher has walked to an image, and some states of that walk are kept. The
student, at first a copy of the teacher, learns to jump from one to a later one: at x_t it is to
predict the x0 with which a DDIM step (Song et al. 2021, Eq. 12, eta = 0) arrives at x_s,

    x0* = (x_s - sigma_s / sigma_t * x_t) / (alpha_s - alpha_t * sigma_s / sigma_t).

That is Eq. 8 in Appendix G of Salimans & Ho 2022 (progressive distillation), over more than two
steps of the teacher. x_t is alpha_t * x0* + sigma_t * eps* for one eps*, so a jump is a clean image
and its noise like any other, and the student is trained by the loop of `python -m train`. It then
sees states that it has come to by its own jumps, too, from which it is to arrive at the same x_s:
otherwise its errors would add up.

A small network cannot learn every jump exactly. The squared error then asks for the mean of what is
possible, which shows as haze; the pseudo-Huber loss (`ddpm.diffusion.loss`) asks for about the
median, which is black where most would be.

One network learns all walks: each has times of its own, by which the network knows how far it is to
jump.
"""

import argparse
import copy
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from ddpm import Pipeline, Settings, UNet
from ddpm.diffusion import PREDICTIONS, coefficients
from ddpm.files import write_atomic
from ddpm.pixels import LIMIT

from .command import add_option, command
from .loop import Batch, Recipe, Sample, Trainer
from .options import STOPPED, add_budget, add_recipe, add_running, ended, positive, settle
from .processes import first_then_others, is_first, join_processes
from .publish import artefact, push
from .run import budget_of, complete, recipe_of, start_from

STEPS = 16  # of the teacher's walk
WALKS = {4: (0, 5, 9, 13), 2: (0, 9), 1: (0,)}  # where the student's jumps start, in those steps
MOMENTS = (0, 5, 9, 13, STEPS)  # whose states are kept
SHARES = {4: 0.5, 2: 0.3, 1: 0.2}  # of the training, for each walk
HUBER = 0.05  # of the loss; a gray level is 0.008
OWN = 0.5  # of the later jumps start from the student's own state, not the teacher's
FILE = "walks.safetensors"
FIRST_SEED = 2**31  # of the teacher's walks, far from those of an evaluation
_BATCH = 64


def times_of(teacher: Pipeline) -> dict[int, list[float]]:
    """When the student is asked in each of its walks.

    From the same state a jump of another length needs another answer, so no two are asked at the
    same time: each walk is one time earlier than the one before.
    """
    times = teacher.times(Settings([0], steps=STEPS))
    return {
        steps: [times[k] - shift for k in starts]
        for shift, (steps, starts) in enumerate(WALKS.items())
    }


class Jumps(NamedTuple):
    """All steps of all walks of the student, each a row.

    start, end: indices into MOMENTS, where the teacher's walk is then. path: the student's times
    from pure noise to 0. at: the index in path of the jump that is trained. share: of the training.
    """

    start: Tensor
    end: Tensor
    path: Tensor
    at: Tensor
    share: Tensor

    @classmethod
    def of(cls, times: dict[int, list[float]], device: torch.device) -> "Jumps":
        """Those of the walks with these times."""
        rows, longest = [], max(WALKS)
        for steps, starts in WALKS.items():
            ends, path = [*starts[1:], STEPS], [*times[steps], *[0.0] * (longest + 1 - steps)]
            for k in range(steps):
                here, there = MOMENTS.index(starts[k]), MOMENTS.index(ends[k])
                rows.append((here, there, path, k, SHARES[steps] / steps))
        start, end, paths, at, share = (
            torch.tensor(column, device=device) for column in zip(*rows, strict=True)
        )
        return cls(start, end, paths.double(), at, share)


@dataclass(frozen=True)
class Walks:
    """What is kept of the teacher's walks.

    states: float16 M×N×C×H×W at MOMENTS. labels: int64 N.
    """

    states: Tensor
    labels: Tensor

    @classmethod
    def sampled(cls, teacher: Pipeline, count: int, drop_label: float) -> "Walks":
        """Of count noises; a share of drop_label of them has no label."""
        classes, states, labels = teacher.model.classes, [], []
        with tqdm(total=count, desc="the teacher's walks", unit="walk", leave=False) as bar:
            for first in range(0, count, _BATCH):
                seeds = range(FIRST_SEED + first, FIRST_SEED + min(first + _BATCH, count))
                y = [_label(teacher, seed, drop_label) for seed in seeds]
                settings = Settings(seeds, y if classes else None, steps=STEPS)
                frames = list(teacher.stream(settings))
                states.append(torch.stack([frames[k].x.cpu().half() for k in MOMENTS]))
                labels += y
                bar.update(len(seeds))
        return cls(torch.cat(states, 1), torch.tensor(labels))

    def save(self, path: Path) -> None:
        """Writes them into one file, whole or not at all."""
        write_atomic(path, save({"states": self.states, "labels": self.labels}))

    @classmethod
    def load(cls, path: Path) -> "Walks":
        """What `save` wrote. Raises ValueError if it is damaged."""
        try:
            return cls(**load_file(path))
        except (SafetensorError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged: delete it, and the teacher walks again"
            ) from error

    def fingerprint(self) -> str:
        """The sha256 of states and labels."""
        digest = hashlib.sha256(self.states.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Walks":
        """The same, on the device."""
        return Walks(self.states.to(device), self.labels.to(device))


def _label(teacher: Pipeline, seed: int, drop_label: float) -> int:
    """The class that the seed chooses or, for a share of the seeds, no label."""
    classes, k = teacher.model.classes, seed - FIRST_SEED
    dropped = int((k + 1) * drop_label) > int(k * drop_label)
    return classes if dropped or not classes else teacher.label_of(seed)


def from_walks(
    walks: Walks, student: UNet, times: dict[int, list[float]], recipe: Recipe
) -> Sample:
    """Random jumps of random walks, as the trainer takes them: x0*, label, t and eps*.

    All is on one device.
    """
    jumps = Jumps.of(times, walks.states.device)

    def sample(generator: torch.Generator, part: slice) -> Batch:
        random: dict[str, Any] = {"generator": generator, "device": walks.states.device}
        n = recipe.batch_size
        rows = torch.randint(walks.states.shape[1], (n,), **random)[part]
        which = torch.multinomial(jumps.share, n, replacement=True, generator=generator)[part]
        own = (torch.rand(n, **random) < OWN)[part]
        y, path, at = walks.labels[rows], jumps.path[which], jumps.at[which]
        x = walks.states[jumps.start[which], rows].float()
        x = torch.where(own[:, None, None, None], walks.states[0, rows].float(), x)
        for k in range(max(WALKS) - 1):  # on the student's own way to where its jump starts
            going = own & (k < at)
            x[going] = _step(student, x[going], y[going], path[going, k], path[going, k + 1])
        t, s = path.gather(1, at[:, None])[:, 0], path.gather(1, at[:, None] + 1)[:, 0]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            coefficients(student.schedule, each) for each in (t, s)
        )
        shrink, arrival = sigma_s / sigma_t, walks.states[jumps.end[which], rows].float()
        x0 = (arrival - shrink * x) / (alpha_s - alpha_t * shrink)
        return x0, y, t.float(), (x - alpha_t * x0) / sigma_t

    return sample


@torch.no_grad()
def _step(student: UNet, x: Tensor, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The DDIM step of the student from t to s, as `ddpm.samplers` does it, for times of each."""
    alpha, sigma = coefficients(student.schedule, t)
    out = student(x, t.float(), y)
    x0 = PREDICTIONS[student.prediction].x0(out, x, alpha, sigma).clamp(-LIMIT, LIMIT)
    eps = (x - alpha * x0) / sigma
    alpha, sigma = coefficients(student.schedule, s)
    return alpha * x0 + sigma * eps


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m train.distill`."""
    p = argparse.ArgumentParser(
        "python -m train.distill",
        description="Distill a model into one of the same network that samples in 4, 2 or 1 steps. "
        "The run's folder ends up as that of `python -m train`.",
        epilog="It may be stopped, resumed, and run by torchrun as `python -m train`.",
    )
    what = p.add_argument_group("what and where")
    teacher = "the teacher: built-in weights, a folder or NAMESPACE/NAME on the Hub"
    what.add_argument("model", metavar="MODEL", help=f"{teacher} (not with --resume)", nargs="?")
    what.add_argument("--out", help="folder of the run", type=Path, metavar="RUN", required=True)
    init = "start from this student, a model of the same network, instead of a copy of the teacher"
    what.add_argument("--init", metavar="STUDENT", help=init)
    resume = "go on from the checkpoint in RUN, with its settings"
    what.add_argument("--resume", action="store_true", help=resume)
    add_option(what, "--walks", "walks of the teacher", type=positive(int), default=20_000)
    add_budget(p.add_argument_group("how long (10 minutes on a GPU, 60 on a CPU, if left out)"))
    add_recipe(p.add_argument_group("how"))
    add_running(p.add_argument_group("running"))
    p.set_defaults(lr=5e-4, ema=0.999)
    return p


@command("distill", interrupted=STOPPED)
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 diverged, 2 bad input or nowhere to write, 130 stopped from outside."""
    argv = sys.argv[1:] if argv is None else argv
    return ended(
        "distill", lambda: run(settle(parser(), argv), artefact.command("train.distill", argv))
    )


def run(args: argparse.Namespace, command: str) -> int:
    """Distills as the options say and writes args.out. Returns the exit code. Raises as
    `train.run.run`."""
    if args.model is None:
        raise ValueError("name the model to distill: python -m train.distill MODEL --out RUN")
    device = join_processes(args.device)
    budget, recipe = budget_of(args, device), recipe_of(args)
    if args.push and is_first():
        push.check(args.push)
    teacher = Pipeline.from_pretrained(args.model, device=device)
    if teacher.walks or teacher.model.prediction == "eps" or teacher.model.schedule.T < 2 * STEPS:
        raise ValueError(
            f"{args.model} cannot be distilled: a teacher is no distilled model, predicts v or x0 "
            f"(eps says nothing about the image in pure noise), and has T of at least {2 * STEPS}"
        )
    told, student = teacher.config, copy.deepcopy(teacher.model).requires_grad_(True)
    before = told.get("history") or artefact.NO_HISTORY
    if args.init and not args.resume:
        before = start_from(args.init, student)
    file = args.out / FILE
    with first_then_others():
        if is_first() and not (args.resume and file.is_file()):
            args.out.mkdir(parents=True, exist_ok=True)
            Walks.sampled(teacher, args.walks, args.drop_label).save(file)
        walks = Walks.load(file)
    times = times_of(teacher)
    sample = from_walks(walks.to(device), student, times, recipe)
    trainer = Trainer(student, sample, recipe, huber=HUBER, compile=args.compile)
    facts = {name: told.get(name) for name in ("dataset", "class_names", "class_counts")}
    facts["distilled"] = {"teacher": told["sha256"], "walks": times}
    words = f"{args.walks:,} walks of {told['sha256'][:12]} ({facts['dataset']}) in {STEPS} steps"
    fingerprint = told["sha256"] + walks.fingerprint()
    source = f"the weights of {args.model}, or the walks in {file}, are"
    subject = artefact.Subject(facts, words, source, fingerprint)
    return complete(args, trainer, subject, budget, command, before, module="train.distill")


if __name__ == "__main__":
    sys.exit(main())
