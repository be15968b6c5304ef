"""python -m train.evaluate.alike STUDENT TEACHER: does the same seed show the same image?"""

import argparse
import sys
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import Pipeline, Settings
from ddpm.settings import MAX_IMAGES

from ..command import add_option, command
from ..processes import join_processes
from .drawing import draw, labels_of

LONG = 100  # steps of the teacher, enough to be where its walk would end with any number


def alike(ours: Tensor, theirs: Tensor) -> tuple[float, float, float]:
    """How alike pairs of images are, uint8 N×C×H×W each, N of at least 2.

    Returns the share of ours that are nearer to their twin than to every other image of theirs, and
    two root mean square distances in gray levels: to the twin, and to all others of theirs.
    """
    a, b = (images.flatten(1).double() for images in (ours, theirs))
    squares = torch.cdist(a, b).square() / a.shape[1]
    twins, n = squares.diagonal(), len(a)
    nearest = (squares.argmin(1) == torch.arange(n)).double().mean()
    others = (squares.sum() - twins.sum()) / (n * (n - 1))
    return nearest.item(), twins.mean().sqrt().item(), others.sqrt().item()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m train.evaluate.alike", description=__doc__)
    what = "built-in weights, a folder or NAMESPACE/NAME"
    p.add_argument("student", metavar="STUDENT", help=f"the model: {what}")
    p.add_argument("teacher", metavar="TEACHER", help=f"what it is compared with: {what}")
    add_option(p, "--samples", f"pairs of images, 2..{MAX_IMAGES}", type=int, default=1000)
    p.add_argument("--steps", help="of the student, if not its usual ones", type=int)
    add_option(p, "--device", "where to compute", choices=("auto", "cpu", "cuda"), default="auto")
    return p


@command("alike")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 130 interrupted."""
    args = parser().parse_args(argv)
    if not 2 <= args.samples <= MAX_IMAGES:
        raise ValueError(f"--samples must be in 2..{MAX_IMAGES}, got {args.samples}")
    device = join_processes(args.device)
    load = partial(Pipeline.from_pretrained, device=device)
    student, teacher = load(args.student), load(args.teacher)
    models = (student.model, teacher.model)
    shapes = [(model.channels, model.size, model.classes) for model in models]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{args.student} and {args.teacher} do not make images of the same kind")
    usual = student.usual | ({} if args.steps is None else {"steps": args.steps})
    how = Settings([0], **usual), Settings([0], steps=LONG)
    for pipeline, each in zip((student, teacher), how, strict=True):
        pipeline.times(each)  # raises if they cannot be
    seeds = range(args.samples)
    labels = labels_of(student, seeds, labelled=True)
    with tqdm(total=2 * args.samples, unit="image", leave=False) as bar:
        ours, theirs = (
            draw(pipeline, each, seeds, labels=labels, progress=bar.update)
            for pipeline, each in zip((student, teacher), how, strict=True)
        )
    nearest, twin, other = alike(ours, theirs)
    print(
        f"{args.student} in {usual['steps']} steps beside {args.teacher} in {LONG}, "
        f"{args.samples:,} seeds: {nearest:.1%} are nearest to the teacher's image of the same "
        f"seed; the difference is {twin:.1f} gray levels, to its other images {other:.1f} (root "
        "mean square)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
