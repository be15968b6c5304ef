"""A small classifier, whose features say how alike two sets of images are in what they show."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 128
ARCHITECTURE = ("channels", "size", "classes")
_BATCH = 500


class Seen(NamedTuple):
    """What the classifier makes of N images: features float32 N×128, and probabilities of the
    classes, float32 N×classes."""

    features: Tensor
    probabilities: Tensor


class Classifier(nn.Module):
    """Four convolutions, a layer of 128 features, and a linear layer that names the class.

    channels: 1 or 3. size: side of the images in pixels, 4..256. classes: 2..1000. Raises
    ValueError for others."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        for name, value, low, high in (
            ("channels", channels, 1, 3),
            ("size", size, 4, 256),
            ("classes", classes, 2, 1000),
        ):
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
        self.channels, self.size, self.classes = channels, size, classes
        self.conv1 = nn.Conv2d(channels, 32, 5, stride=2, padding=2)
        self.norm1 = nn.GroupNorm(8, 32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, 64)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.norm3 = nn.GroupNorm(8, 64)
        self.conv4 = nn.Conv2d(64, 128, 3, padding=1)
        self.norm4 = nn.GroupNorm(8, 128)
        self.hidden = nn.Linear(128 * 3 * 3, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer, N×128, for images x, N×C×H×W in [-1, 1]."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))
        x = F.relu(self.norm3(self.conv3(x)) + x)
        x = F.relu(self.norm4(self.conv4(x)))
        x = F.adaptive_avg_pool2d(x, 3).flatten(1)
        return F.relu(self.hidden(F.dropout(x, 0.3, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        logits: Tensor = self.out(F.dropout(self.features(x), 0.3, self.training))
        return logits

    @torch.inference_mode()
    def look(self, pixels: Tensor, progress: Callable[[int], object] = lambda count: None) -> Seen:
        """What it makes of images, uint8 N×C×H×W, on the CPU.

        progress is called after each batch."""
        features, probabilities = [], []
        for batch in torch.split(pixels, _BATCH):
            seen = self.features(scaled(batch.to(self.out.weight.device)))
            features.append(seen.cpu())
            probabilities.append(self.out(seen).softmax(1).cpu())
            progress(len(batch))
        return Seen(torch.cat(features), torch.cat(probabilities))


def scaled(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]. Not as `ddpm.pixels` does it for the network that is
    judged: judges must not change with it."""
    return pixels.float() / 127.5 - 1
