"""The network against diffusers' UNet2DModel: the same weights, the same output."""

import itertools

import pytest
import torch

from ddpm import Schedule, UNet, loss
from ddpm.unet import Downsample, ResidualBlock, Upsample
from tests.helpers import DIGITS, in_diffusers, tiny_unet


@pytest.mark.parametrize(
    "shape",
    [
        {
            "channels": 1,
            "size": 28,
            "width": 32,
            "mults": (1, 2, 4),
            "attention": (False, True, True),
        },
        {
            "channels": 3,
            "size": 32,
            "width": 16,
            "mults": (1, 2, 2),
            "attention": (False, True, False),
            "blocks": 2,
        },
        {"channels": 1, "size": 8, "width": 8, "mults": (1, 3), "attention": (True, True)},
        {"channels": 1, "size": 8, "width": 8, "mults": (2,), "attention": (False,), "classes": 0},
    ],
)
def test_the_same_weights_give_the_same_output_as_in_diffusers(shape):
    model = tiny_unet(**shape)
    x, t = torch.randn(3, model.channels, model.size, model.size), torch.tensor([1.0, 37.0, 100.0])
    y = torch.tensor([0, 5, model.classes]) if model.classes else None
    with torch.no_grad():
        ours = model(x, t, y)
        # there the first training time is 0
        theirs = in_diffusers(model)(x, t - 1, class_labels=y).sample
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_default_network_has_the_published_size():
    assert 2.8e6 < sum(p.numel() for p in UNet().parameters()) < 3.0e6


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_every_parameter_gets_a_gradient(channels, size):
    model = tiny_unet(
        channels=channels, size=size, mults=(1, 2, 4), attention=(False, True, True)
    ).train()
    x0, eps = torch.randn(2, 11, channels, size, size)
    loss(model, x0, torch.arange(11), torch.arange(1.0, 12), eps).backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    # Softmax does not see what is added to all keys alike.
    assert [name for name in without if not name.endswith("attention.k.bias")] == []


def test_no_label_is_the_default_and_is_a_label_of_its_own():
    model = tiny_unet()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5.0, 50.0])
    assert torch.equal(model(x, t), model(x, t, torch.tensor([10, 10])))
    assert not torch.allclose(model(x, t), model(x, t, torch.tensor([3, 10])))


def test_images_in_a_batch_do_not_see_each_other():
    model = tiny_unet()
    x, t, y = torch.randn(5, 1, 8, 8), torch.linspace(1, 100, 5), torch.arange(5)
    alone = torch.cat([model(x[k : k + 1], t[k : k + 1], y[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(model(x, t, y), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_eight_images_can_be_learnt_by_heart():
    from ddpm.pixels import from_pixels
    from train.data import DATASETS

    torch.manual_seed(0)
    x0 = from_pixels(DATASETS["mnist"].training(DIGITS, None).images[:8])
    model = UNet(
        width=16, mults=(1, 2, 2), attention=(False, False, True), schedule=Schedule(T=100)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # little is to be seen at t = 90: it must remember
    t, eps = (torch.full((8,), 90.0), torch.randn(8, 1, 28, 28))
    first = loss(model, x0, None, t, eps).item()
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(model, x0, None, t, eps)
        value.backward()
        optimizer.step()
    assert value.item() < first / 50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": 2}, "grayscale"),
        ({"size": 30}, "multiple of 4"),
        ({"size": 10**9}, "4..256"),
        ({"width": 10**9}, "8..256"),
        ({"width": 12}, "multiple of 8"),
        ({"blocks": 0}, "blocks"),
        ({"blocks": True}, "blocks"),
        ({"mults": ()}, "mults"),
        ({"mults": (1, 2, 10**6)}, "mults"),
        ({"attention": (True,)}, "attention"),
        ({"attention": (1, 0, 1)}, "attention"),
        ({"classes": -1}, "classes"),
        ({"prediction": "noise"}, "v, eps, x0"),
    ],
)
def test_bad_shapes_are_refused_before_memory_is_taken(changes, words):
    with pytest.raises(ValueError, match=words):
        UNet(**changes)


def test_blocks_are_called_alike():
    """Every block takes (x, emb), so that forward is a plain loop."""
    emb = torch.randn(2, 32)
    for block in itertools.chain(
        *(getattr(tiny_unet(), part) for part in ("down", "middle", "up"))
    ):
        channels = (
            block.conv1.in_channels if isinstance(block, ResidualBlock) else block.conv.in_channels
        )
        side = {Downsample: 4, Upsample: 16}.get(type(block), 8)
        assert block(torch.randn(2, channels, 8, 8), emb).shape[-1] == side
