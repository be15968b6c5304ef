"""Data whose denoiser, flow and moments are known exactly: a mixture of Gaussians, the oracle of the sampler tests."""

import torch
from torch import Tensor

from ddpm import Schedule


class Mixture:
    """Equally likely Gaussians of one standard deviation around means (K pixels wide; K = 1: every pixel by itself)."""

    def __init__(self, schedule: Schedule, means=((-0.6,), (0.8,)), std: float = 0.4) -> None:
        self.schedule, self.means, self.std = schedule, torch.tensor(means, dtype=torch.float64), std

    def at(self, t: float) -> tuple[float, float]:
        """alpha, and the standard deviation of each component of x_t."""
        alpha, sigma = (float(c) for c in self.schedule(t))
        return alpha, (alpha**2 * self.std**2 + sigma**2) ** 0.5

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """E[x0 | x_t] for x N×1×H×K, by Bayes' rule."""
        alpha, std = self.at(t)
        d = x[..., None, :] - alpha * self.means.to(x)
        weight = torch.softmax(-d.square().sum(-1) / (2 * std**2), -1)[..., None]
        return (weight * (self.means.to(x) + alpha * self.std**2 / std**2 * d)).sum(-2)

    def flow(self, x: Tensor, t: float, s: float) -> Tensor:
        """Where the probability flow takes x from t to s, K = 1: on a line it keeps every quantile. By bisection."""
        quantile = self._cdf(x, t)
        low, high = torch.full_like(x, -50), torch.full_like(x, 50)
        for _ in range(100):
            middle = (low + high) / 2
            below = self._cdf(middle, s) < quantile
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def std_at(self, t: float) -> float:
        """A length to measure x_t in."""
        return self.at(t)[1]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the data."""
        spread = self.means - self.means.mean(0)
        return self.means.mean(0), spread.T @ spread / len(self.means) + self.std**2 * torch.eye(self.means.shape[1])

    def _cdf(self, x: Tensor, t: float) -> Tensor:
        alpha, std = self.at(t)
        return torch.special.ndtr((x[..., None] - alpha * self.means[:, 0]) / std).mean(-1)
