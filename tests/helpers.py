"""What several test files use: small networks and runs, pictures compared, and data whose denoiser
is known exactly."""

import base64
import io
import os
import resource
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm import Schedule, UNet

DIGITS = Path(__file__).parent / "data"  # 400 + 100 real MNIST digits, as torchvision lays them out


def split(*parts: str | Path) -> list[str]:
    """The words of a command line: text is taken apart at its spaces, a path is one word."""
    words = (part.split() if isinstance(part, str) else [str(part)] for part in parts)
    return [word for each in words for word in each]


# Options of `python -m train` that make a run of a few seconds.
TINY = split("--data", DIGITS, "--width 8 --mults 1 1 1 --attention 7 --batch-size 8")
TINY += split("--sample-every 1000 --checkpoint-every 5 --device cpu")
# What `python -m train.evaluate` writes, but for the sha256 of the weights.
REPORT = {
    "command": "python -m train.evaluate --model x",
    "samples": 10_000,
    "repetitions": 3,
    "judge": {"dataset": "mnist"},
    "settings": {"sampler": "ddim", "steps": 9, "guidance": 0.0, "labels": True},
    "worst": {"judge": "texture", "ratio": 1.25, "spread": 0.1},
    "panel": {
        "texture": {
            "figure": 0.025,
            "values": [0.025],
            "floor": 0.02,
            "ratio": 1.25,
            "spread": None,
        }
    },
    "figures": {"frechet": {"mean": 2.03125, "std": 0.02, "floor": 2.5, "subset": 2.25}},
}

# The browser that is there. In CI a machine without one is a fault, not a reason to skip.
CHROMIUM = next(
    filter(
        None,
        map(
            shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        ),
    ),
    None,
)
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="no Chromium here (apt-get install chromium)",
    ),
]
SCREENSHOTS = Path(os.environ.get("DDPM_SCREENSHOTS") or Path(__file__).parent / "screenshots")


def tiny_unet(seed: int = 0, **changes) -> UNet:
    """A small network in which no weight is zero, so that every part matters."""
    torch.manual_seed(seed)
    model = UNet(
        **{
            "size": 8,
            "width": 8,
            "mults": (1, 2),
            "attention": (False, True),
            "classes": 10,
            "schedule": Schedule(T=100),
        }
        | changes
    )
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


def rounded(pipeline):
    """The same model with the weights that a page holds: float16."""
    for p in pipeline.model.parameters():
        p.data = p.data.half().float()
    return pipeline


def in_diffusers(model: UNet):
    """The same network as diffusers' UNet2DModel, with the same weights, loaded strictly."""
    from diffusers import UNet2DModel  # here, because this import takes seconds

    from train.publish.export import names_in_diffusers, network

    theirs = UNet2DModel(
        **network(model), num_class_embeds=model.classes + 1 if model.classes else None
    )
    names = names_in_diffusers(model)
    weights = {}
    for name, weight in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        weights[f"{names[module]}.{kind}"] = weight
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval()


def decode(uri: str) -> Image.Image:
    """The picture in a data URI."""
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def distance(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures, in gray levels; one is rounding."""
    assert a.size == b.size
    a, b = (
        torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).int()
        for picture in (a, b)
    )
    return (a - b).abs().max().item()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What the page sends when nothing was changed, by the film that it asks for.
FORMS = {
    "generate": {
        "label": "any",
        "count": 16,
        "seed": 0,
        "steps": 20,
        "sampler": "unipc2",
        "time_grid": "best",
        "eta": 0,
        "guidance": 0,
    },
    "compare": {
        "label": "any",
        "count": 4,
        "seed": 0,
        "guidance": 0,
        "sampler_1": "ddpm",
        "steps_1": 10,
        "sampler_2": "ddim",
        "steps_2": 10,
        "sampler_3": "unipc2",
        "steps_3": 10,
        "sampler_4": "none",
        "steps_4": 20,
    },
    "ladder": {"label": "any", "count": 1, "seed": 0, "sampler": "unipc2"},
    "denoise": {
        "picture": "5",
        "t": 500,
        "seed": 0,
        "label": "none",
        "sampler": "unipc2",
        "steps": 50,
    },
}


def ask_film(client, name: str = "generate", **asked):
    """The job of a client of Gradio that asks for a film as the page does: its form, with these
    fields changed."""
    return client.submit(*(FORMS[name] | asked).values(), api_name=f"/{name}_film")


@contextmanager
def full_disk(limit=100):
    """A limit on the size of files stands for the full disk: the system refuses the write half-way
    either way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Mixture:
    """Equally likely Gaussians of one standard deviation around means (K pixels wide; K = 1: every
    pixel by itself).

    Its denoiser, probability flow and moments are known exactly: what the samplers are tested
    against.
    """

    def __init__(self, schedule: Schedule, means=((-0.6,), (0.8,)), std: float = 0.4) -> None:
        self.schedule, self.means, self.std = (
            schedule,
            torch.tensor(means, dtype=torch.float64),
            std,
        )

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
        """Where the probability flow takes x from t to s, K = 1: on a line it keeps every quantile.
        By bisection."""
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
        return self.means.mean(0), spread.T @ spread / len(self.means) + self.std**2 * torch.eye(
            self.means.shape[1]
        )

    def _cdf(self, x: Tensor, t: float) -> Tensor:
        alpha, std = self.at(t)
        return torch.special.ndtr((x[..., None] - alpha * self.means[:, 0]) / std).mean(-1)
