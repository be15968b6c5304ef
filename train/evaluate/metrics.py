"""How alike two sets of feature vectors are: pure mathematics, in float64, that knows neither
images nor networks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = (
    2**23
)  # distances held at once: 64 MB in float64, and as much again for what is made of them


class Statistics(NamedTuple):
    """mean (D) and covariance (D×D, unbiased) of a number of vectors, in float64."""

    mean: Tensor
    covariance: Tensor
    number: int

    @classmethod
    def of(cls, features: Tensor) -> "Statistics":
        """The statistics of features, N×D. Raises ValueError for fewer than two vectors."""
        if len(features) < 2:
            raise ValueError(f"statistics need at least 2 images, got {len(features)}")
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (len(features) - 1), len(features))

    def seen_by(self, by: Tensor) -> "Statistics":
        """Those of the vectors v @ by, for by D×E."""
        return Statistics(self.mean @ by, by.T @ self.covariance @ by, self.number)


def frechet(a: Statistics, b: Statistics) -> float:
    """|mean_a - mean_b|² + tr(A + B - 2 (A B)^½): the squared Fréchet distance of two Gaussians, 0
    for equal ones.

    Heusel et al. 2017, Eq. 6; Dowson & Landau 1982. tr (A B)^½ is the sum of the singular values of
    A^½ B^½, which avoids complex values and square roots of rounding errors."""
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    distance = (
        (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    )
    return max(float(distance), 0.0)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root. Eigenvalues within rounding of 0 are 0: the root of 1e-16 is 1e-8."""
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * torch.finfo(values.dtype).eps * values.abs().amax()
    root: Tensor = vectors * values.where(values > rounding, 0.0).sqrt() @ vectors.T
    return root


def precision_recall(real: Tensor, drawn: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision: share of drawn vectors that lie within the real ones' balls; recall: the other way
    round.

    A vector's ball reaches to its k-th nearest neighbour in its own set. Kynkäänniemi et al. 2019,
    Eq. 1 and 2. real and drawn are N×D and M×D, both with more than k vectors (ValueError
    otherwise); use N = M."""
    real, drawn = real.double(), drawn.double()
    return _covered(drawn, real, _radii(real, k)), _covered(real, drawn, _radii(drawn, k))


def density_coverage(real: Tensor, drawn: Tensor, k: int = 5) -> tuple[float, float]:
    """Density: in how many real balls a drawn vector lies, over k (may exceed 1). Coverage: share
    of real balls that hold a drawn vector. Naeem et al. 2020, Eq. 2 and 3. Shapes as for
    `precision_recall`."""
    real, drawn = real.double(), drawn.double()
    radii, inside = _radii(real, k), 0.0
    covered = torch.zeros(len(real), dtype=torch.bool)
    for distances, _ in _distances(drawn, real):
        within = distances < radii
        inside += float(within.sum())
        covered |= within.any(0)
    return inside / (k * len(drawn)), covered.double().mean().item()


def nearest(vectors: Tensor, others: Tensor, *, skip: Tensor | None = None) -> Tensor:
    """Distance of each vector (N×D) to the nearest of others (M×D); in the type of vectors, N.

    skip: for each vector the index of one of the others to ignore, usually the vector itself."""
    found = []
    for distances, rows in _distances(vectors, others):
        if skip is not None:
            distances.scatter_(1, skip[rows, None], torch.inf)
        found.append(distances.amin(1))
    return torch.cat(found)


def _radii(vectors: Tensor, k: int) -> Tensor:
    """Distance of each vector to its k-th nearest neighbour, itself not counted."""
    if len(vectors) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} images, got {len(vectors)}")
    # The vector itself is among them, at distance 0: the nearest of k + 1.
    found = [
        distances.topk(k + 1, largest=False).values[:, -1]
        for distances, _ in _distances(vectors, vectors)
    ]
    return torch.cat(found)


def _covered(vectors: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of vectors that lie in at least one ball."""
    found = [(distances <= radii).any(1) for distances, _ in _distances(vectors, centres)]
    return torch.cat(found).double().mean().item()


def _distances(vectors: Tensor, others: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Euclidean distances, some rows of vectors at a time, so that memory stays bounded; and which
    rows they are.

    |a - b|² = |a|² + |b|² - 2ab, a matrix product, about a common centre, so that little is lost to
    rounding."""
    centre = others.mean(0)
    others = others - centre
    squares, height = (
        torch.linalg.vector_norm(others, dim=1).square(),
        max(1, _CHUNK // len(others)),
    )
    for start in range(0, len(vectors), height):
        rows = slice(start, start + height)
        block = vectors[rows] - centre
        squared = torch.addmm(squares, block, others.T, alpha=-2).add_(
            block.square().sum(1, keepdim=True)
        )
        yield squared.clamp_(min=0).sqrt_(), rows
