"""python -m train.evaluate.nearest MODEL: an index of the training images beside a model's files,
from which the page answers whether an image is a copy."""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import Pipeline
from ddpm.demo.nearest import MOST_BYTES, Index, path_of
from ddpm.files import check_writable, write_atomic
from ddpm.hub import BUILT_IN

from ..command import add_option, command
from ..data import DATASETS
from . import metrics
from .members import ODD
from .reference import NEAR, as_vectors, real_images, tested

BYTES, AXES = 30, 4  # of each image, at most; axes that one byte stands for
POINTS, ROUNDS, LOOKED_AT = 256, 12, 15_000  # of k-means, and how many images it looks at
TRIED = 2000  # test images, of which it is measured what is usual, and how often it is right


@command("nearest")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate.nearest",
        description="Write an index of a model's training images (2 MB at most) beside its files: "
        "with it the page shows the training images nearest to an image.",
    )
    p.add_argument("model", help="built-in weights by name, or a folder", metavar="MODEL")
    add_option(p, "--data", "where the data set lies", type=Path, default=Path("data"))
    args = p.parse_args(argv)
    print(run(args.model, args.data))
    return 0


def run(model: str, data: Path) -> str:
    """Writes the index; returns how good it is, in a line. Raises ValueError or OSError."""
    pipeline = Pipeline.from_pretrained(model)
    dataset = pipeline.config.get("dataset")
    if dataset not in list(DATASETS):
        raise ValueError(f"{model} does not say which of {', '.join(DATASETS)} it was trained on")
    path = path_of(pipeline, model, "/" not in model and (BUILT_IN / model).is_dir())
    check_writable(path)
    train, test = real_images(dataset, data, pipeline.model.size if dataset == "folder" else None)
    flat, others = as_vectors(train.images), as_vectors(test.images[tested(test)[:TRIED]])
    index = make(flat)
    exact = metrics.nearest(others, flat)
    usual = torch.quantile(exact, torch.tensor([NEAR, ODD, 1 - ODD]))
    index = fitted(index, others, exact)._replace(usual=usual)
    write_atomic(path, index.to_bytes())
    size, low, high = path.stat().st_size, *usual[1:].tolist()
    how = f"{rightness(index, others, exact, flat)} (usual: {low:.1f} to {high:.1f})"
    return f"{path}: {size:,} bytes. {how}"


def make(flat: Tensor) -> Index:
    """The index of images N×D, 0..1. What is measured on others (fade, usual) is not known yet."""
    count, size = flat.shape
    room = (MOST_BYTES - 4 * size - 10_000) // (count + AXES * (size + 2 * POINTS))
    groups = min(BYTES, size // AXES, count // AXES, room)
    if groups < 1:
        raise ValueError(
            f"no index of {MOST_BYTES:,} bytes holds {count:,} images of {size} values"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, spread, axes = torch.pca_lowrank(flat, groups * AXES, niter=4)
        order = torch.tensor(grouped(spread.log().tolist(), groups)).flatten()
        axes = axes[:, order]
        scales = axes.abs().amax(0) / 127
        axes = (axes / scales).round()
        mean = flat.mean(0)
        along = ((flat - mean) @ (axes * scales)).view(count, groups, AXES)
        parts = [cluster(along[:, m].contiguous()) for m in tqdm(range(groups), leave=False)]
    points, codes = zip(*parts, strict=True)
    return Index(
        mean,
        axes.to(torch.int8),
        scales,
        torch.stack(points).half(),
        torch.stack(codes).to(torch.uint8),
        torch.tensor(1.0),
        torch.zeros(3),
    )


def grouped(spread: list[float], groups: int) -> list[list[int]]:
    """Axes by group, so that all groups are about as hard to describe (Ge et al. 2013, 3.2).

    spread: the logarithm of each axis's, falling."""
    found: list[list[int]] = [[] for _ in range(groups)]
    for axis in range(len(spread)):
        open_ = [each for each in found if len(each) < AXES]
        min(open_, key=lambda each: sum(spread[k] - spread[-1] for k in each)).append(axis)
    return found


def cluster(places: Tensor) -> tuple[Tensor, Tensor]:
    """POINTS points (fewer if there are fewer places), and the number of the nearest for each."""
    some = places[torch.randperm(len(places))[:LOOKED_AT]]
    points = some[:POINTS]
    for _ in range(ROUNDS):
        which = closest(some, points)
        number = torch.bincount(which, minlength=len(points))[:, None]
        sums = torch.zeros_like(points).index_add_(0, which, some)
        points = torch.where(number > 0, sums / number, points)
    return points, closest(places, points)


def closest(places: Tensor, points: Tensor) -> Tensor:
    """The number of the point nearest to each place."""
    return torch.cdist(places, points).argmin(1)


def fitted(index: Index, images: Tensor, exact: Tensor) -> Index:
    """The index with the fade that makes its distances right, on average.

    exact: the distance of each of the images to the nearest training image."""
    seen, out, _ = index.look(images)
    fades = torch.arange(1.0, 100.0)
    told = (seen[:, :1] + 2 * out * (1 - torch.exp(-seen[:, :1] / fades))).sqrt()
    return index._replace(fade=fades[(told.mean(0) - exact.mean()).abs().argmin()])


def rightness(index: Index, images: Tensor, exact: Tensor, flat: Tensor) -> str:
    """How often what the index shows is the nearest, how far from it otherwise, and how wrong the
    distances are, in a line."""
    distances, which = index.find(images)
    shown = (flat[which] - images[:, None]).square().sum(-1).sqrt().amin(1)
    farther = (shown - exact).clamp(min=0)
    wrong = farther > 0.01
    off = (distances[:, 0] - exact).square().mean().sqrt().item()
    return (
        f"Of {len(images):,} test images, {1 - wrong.double().mean().item():.1%} see the nearest "
        f"training image among those shown; the others see one that is "
        f"{farther[wrong].mean().item():.2f} farther, on average. Distances are told with an error "
        f"of {off:.2f} in root mean square"
    )


if __name__ == "__main__":
    sys.exit(main())
