"""python -m train.evaluate.alike: pairs of images, compared."""

import pytest
import torch

from ddpm import hub
from tests.helpers import tiny_unet
from train.evaluate import alike


def noise(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)


def test_of_pairs_the_share_and_the_distances_are_those_written_out():
    """Images of one gray level each: all distances are differences of these."""
    ours, theirs = (
        torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
        for levels in ([10, 100, 210], [0, 200, 205])
    )
    share, twin, other = alike.alike(ours, theirs)
    assert share == pytest.approx(2 / 3)  # of 100, 0 and 200 are as near: the first of them counts
    assert twin == pytest.approx(((10**2 + 100**2 + 5**2) / 3) ** 0.5)
    squares = [190**2, 195**2, 100**2, 105**2, 210**2, 10**2]
    assert other == pytest.approx((sum(squares) / 6) ** 0.5)


def test_the_same_images_are_alike_and_those_of_other_seeds_are_not():
    images = noise(20)
    assert alike.alike(images, images)[:2] == (1.0, 0.0)
    assert alike.alike(images, images.roll(1, 0))[0] == 0.0
    share, twin, other = alike.alike(images, noise(20, seed=1))
    assert share < 0.3 and twin == pytest.approx(other, rel=0.1)


def test_a_student_beside_its_teacher(capsys):
    assert alike.main(["mnist-fast", "mnist", "--samples", "8", "--device", "cpu"]) == 0
    found = capsys.readouterr().out
    assert "mnist-fast in 4 steps beside mnist in 100, 8 seeds: 100.0% are nearest" in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "1"], "--samples must be in 2..1024, got 1"),
        (["--steps", "3"], "in 4, 2, 1 steps"),
        (["--steps", "0"], "in 4, 2, 1 steps"),
    ],
)
def test_bad_input_is_refused_in_one_line(capsys, options, words):
    assert alike.main(["mnist-fast", "mnist", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_images_of_another_kind_are_refused(tmp_path, capsys):
    for name, content in hub.files(tiny_unet()).items():
        (tmp_path / name).write_bytes(content)
    assert alike.main(["mnist-fast", str(tmp_path)]) == 2
    assert "do not make images of the same kind" in capsys.readouterr().err
