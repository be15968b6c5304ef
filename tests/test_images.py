import io

import pytest
import torch
from PIL import Image

from ddpm.frames import GIF_FRAMES, pick_frames
from ddpm.pixels import GIF_WIDTH, LIMIT, durations, from_pixels, gif, png, sheet, to_pixels


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = from_pixels(pixels)
    assert x.min().item() == pytest.approx(-LIMIT) and x.max().item() == pytest.approx(LIMIT)
    assert torch.equal(to_pixels(x), pixels)
    assert torch.equal(
        to_pixels(torch.tensor([-7.0, 7.0])), torch.tensor([0, 255], dtype=torch.uint8)
    )


def test_small_errors_of_black_are_black_and_small_errors_elsewhere_are_small():
    step = 1 / 127.5
    black, *others = from_pixels(torch.arange(256)).tolist()
    assert (
        to_pixels(torch.linspace(-7, others[0] - 0.51 * step, 99)).max() == 0
        and others[0] - black > 11 * step
    )
    for error in (-0.49 * step, 0.49 * step):
        assert to_pixels(torch.tensor(others) + error).tolist() == list(range(1, 256))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_in_reading_order_enlarged_without_smoothing(channels):
    x = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, channels, 4, 4)
    picture = sheet(x, scale=3)
    assert picture.size == ((3 * 6 - 2) * 3, (2 * 6 - 2) * 3)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    for k in range(5):
        left, top = k % 3 * 18, k // 3 * 18
        cell = picture.crop((left, top, left + 12, top + 12)).convert("L")
        assert cell.getextrema() == (int(to_pixels(x[k, 0, 0, 0])),) * 2


def test_a_png_is_lossless():
    picture = sheet(torch.randn(4, 1, 8, 8))
    assert Image.open(io.BytesIO(png(picture))).tobytes() == picture.tobytes()


@pytest.mark.parametrize("count", [1, 2, 21, 40, 41, 1001])
def test_a_gif_shows_the_first_and_the_last_frame_and_not_too_many(count):
    picked = pick_frames(count)
    assert picked[0] == 0 and picked[-1] == count - 1
    assert len(picked) == len(set(picked)) == min(count, GIF_FRAMES)


@pytest.mark.parametrize("count", [1, 2, 3, 21, 40])
def test_a_gif_takes_two_to_four_seconds(count):
    assert 2000 <= sum(durations(count)) <= 4000 and len(durations(count)) == count + 1
    # browsers slow down what is faster
    assert all(ms % 10 == 0 and ms >= 20 for ms in durations(count))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_loops_for_ever_and_begins_and_ends_with_the_result(channels):
    frames = [sheet(torch.randn(16, channels, 28, 28)) for _ in range(6)]
    shown = []
    with Image.open(io.BytesIO(gif(frames))) as image:
        assert image.n_frames == 7 and image.info["loop"] == 0 and image.width >= GIF_WIDTH
        for k in range(image.n_frames):
            image.seek(k)
            assert image.info["duration"] == durations(6)[k]
            shown.append(
                torch.frombuffer(
                    bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8
                ).float()
            )
        size = image.size
    for found, wanted in zip(shown, [frames[-1], *frames], strict=True):
        expected = torch.frombuffer(
            bytearray(wanted.resize(size, Image.Resampling.NEAREST).convert("RGB").tobytes()),
            dtype=torch.uint8,
        )
        exact = wanted is frames[-1] and channels == 1  # noise on the way has few colors
        assert (found - expected.float()).abs().mean() < (0.1 if exact else 20)


@pytest.mark.parametrize(
    ("count", "side"), [(1, 28), (4, 28), (16, 28), (64, 28), (1, 8), (64, 64)]
)
def test_a_gif_is_wide_enough_to_share(count, side):
    with Image.open(
        io.BytesIO(gif([sheet(torch.randn(count, 1, side, side)) for _ in range(2)]))
    ) as image:
        assert image.width >= GIF_WIDTH


def test_sixteen_digits_of_pure_noise_make_a_gif_of_a_megabyte():
    assert len(gif([sheet(torch.randn(16, 1, 28, 28)) for _ in range(21)])) < 1_500_000
