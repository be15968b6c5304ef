"""A small network that sees single gray levels: what two judges of the panel are made of.

A classifier of digits is blind to what does not change the digit: noise of one gray level, a faint
haze. Here the first layer sees every pixel, in inputs in which the levels next to black
are as far apart as black and white, and the last is a mean over all places, which finds a faint
trace that is everywhere."""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

VIEWS = 2  # of each colour, by `encode`
_LOG_WHITE = math.log(1 + 255 / 8)
_BATCH = 500


def encode(pixels: Tensor) -> Tensor:
    """Images, uint8 N×C×H×W, as float32 N×2C×H×W: gray levels, and a logarithm of them that spreads
    those next to black (0 to 8 lie as far apart as 8 to 24)."""
    x = pixels.float()
    return torch.cat([x / 127.5 - 1, (1 + x / 8).log() / _LOG_WHITE], 1)


class TextureNet(nn.Module):
    """Two convolutions that see every pixel (4×4, then 3×3, each at half the resolution of what it
    sees), the mean over all places, and a linear layer.

    channels: of the images, 1 or 3. widths: channels of the two layers. outputs: numbers for an
    image."""

    def __init__(self, channels: int, widths: tuple[int, int], outputs: int) -> None:
        super().__init__()
        first, second = widths
        self.conv1 = nn.Conv2d(VIEWS * channels, first, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.out = nn.Linear(second, outputs)
        # While it is trained; by batch and not by image, so that contrast stays visible.
        self.norm1: nn.Module = nn.BatchNorm2d(first)
        self.norm2: nn.Module = nn.BatchNorm2d(second)

    def fold(self) -> "TextureNet":
        """Puts the norms of training into the convolutions, which then say the same alone. Returns
        the network, in eval mode."""
        self.eval()
        self.conv1 = fuse_conv_bn_eval(self.conv1, cast(nn.BatchNorm2d, self.norm1))
        self.conv2 = fuse_conv_bn_eval(self.conv2, cast(nn.BatchNorm2d, self.norm2))
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """Means over all places of the last layer, float32 N×second, for images uint8 N×C×H×W."""
        x = encode(pixels).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x))).mean((2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """N×outputs."""
        out: Tensor = self.out(self.features(pixels))
        return out

    @torch.inference_mode()
    def look(self, pixels: Tensor) -> Tensor:
        """Square roots of the features of any number of images, on the CPU. The root shortens long
        tails, so the distance between two sets of real images varies less."""
        device = self.out.weight.device
        parts = [self.features(part.to(device)).cpu() for part in torch.split(pixels, _BATCH)]
        return torch.cat(parts).sqrt()


def fit(
    network: TextureNet,
    count: int,
    batch_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    batch: int,
    lr: float,
    generator: torch.Generator,
    progress: Callable[[float], object] = lambda loss: None,
) -> TextureNet:
    """Trains network by AdamW with one cycle of the learning rate, and returns it folded.

    batch_of: images and targets of some of the indices 0..count - 1. loss_of: of outputs and
    targets. progress is called with the loss of each step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    network.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        rows, order = order[:batch], order[batch:]
        images, targets = batch_of(rows)
        loss = loss_of(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        progress(loss.item())
    return network.fold()
