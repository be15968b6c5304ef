"""The two-sample test: a network trained from nothing to tell images from real training images.

Lopez-Paz & Oquab 2017. It is the one judge that learns what is wrong with the very images that it
judges; nothing is known to it beforehand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .textures import TextureNet, fit

WIDTHS = (16, 48)
BATCH, LR = 100, 4e-3
STEPS = 800  # of each fold; fewer for few images
EPOCHS = 16  # at most: more would only memorise the images


def auc(images: Tensor, real: Tensor, seed: int = 0) -> float:
    """The chance that the network, shown an image and a real one that it has not seen, knows which
    is which: 0.5 if it is guessing, 1 if it never errs.

    images, real: uint8 N×C×H×W and M×C×H×W. Two networks, each trained on one half of both and
    asked about the other half; the mean of the two."""
    found = []
    for fold in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(len(part), generator=generator) for part in (images, real)]
        known = images[orders[0][fold::2]], real[orders[1][fold::2]]
        asked = images[orders[0][1 - fold :: 2]], real[orders[1][1 - fold :: 2]]
        network = _trained(*known, generator)
        found.append(rank_auc(*(_score(network, part) for part in asked)))
    return sum(found) / len(found)


def rank_auc(above: Tensor, below: Tensor) -> float:
    """Share of pairs (one of each) in which the one of above is the larger; ties count a half.
    Mann & Whitney 1947."""
    scores = torch.cat([above, below]).double()
    _, which, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2.0)[which]  # ties share their mean rank
    total = float(ranks[: len(above)].sum())
    return (total - len(above) * (len(above) + 1) / 2) / (len(above) * len(below))


def odds(chance: float) -> float:
    """chance / (1 - chance): how often it is right for each time that it is wrong, at most 99."""
    return chance / max(1 - chance, 0.01 * chance / 0.99)


def _trained(images: Tensor, real: Tensor, generator: torch.Generator) -> TextureNet:
    """A network that gives images high numbers and real ones low ones."""
    pixels = torch.cat([images, real])
    targets = (torch.arange(len(pixels)) < len(images)).float()
    weight = len(pixels) / 2 / torch.tensor([len(real), len(images)])  # both kinds count the same

    def loss_of(outputs: Tensor, wanted: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], wanted, weight[wanted.long()])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = TextureNet(images.shape[1], WIDTHS, 1)
    batch = min(BATCH, -(-len(pixels) // 8))  # small sets: as many steps need smaller batches
    return fit(
        network.to(memory_format=torch.channels_last),
        len(pixels),
        lambda rows: (pixels[rows], targets[rows]),
        loss_of,
        steps=min(STEPS, EPOCHS * len(pixels) // batch),
        batch=batch,
        lr=LR,
        generator=generator,
    )


@torch.inference_mode()
def _score(network: TextureNet, images: Tensor) -> Tensor:
    return torch.cat([network(part)[:, 0] for part in torch.split(images, 1000)])
