import io

import pytest
import torch
from PIL import Image

from ddpm.frames import GIF_FRAMES, pick_frames
from ddpm.pixels import LAST_MS, LIMIT, from_pixels, gif, png, sheet, to_pixels


def test_pixels_survive_the_way_there_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = from_pixels(pixels)
    assert x.min().item() == pytest.approx(-LIMIT) and x.max().item() == pytest.approx(LIMIT)
    assert torch.equal(to_pixels(x), pixels)
    assert torch.equal(to_pixels(torch.tensor([-7.0, 7.0])), torch.tensor([0, 255], dtype=torch.uint8))


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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_loops_for_ever_and_holds_the_result(channels):
    frames = [sheet(torch.randn(16, channels, 28, 28)) for _ in range(6)]
    data = gif(frames)
    with Image.open(io.BytesIO(data)) as image:
        durations = []
        for k in range(image.n_frames):
            image.seek(k)
            durations.append(image.info["duration"])
        assert image.n_frames == 6
        assert image.info["loop"] == 0
        assert durations[-1] == LAST_MS > max(durations[:-1])
        shown = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    expected = torch.frombuffer(bytearray(frames[-1].resize(image.size, Image.Resampling.NEAREST).convert("RGB").tobytes()), dtype=torch.uint8)
    assert (shown.float() - expected.float()).abs().mean() < (0.1 if channels == 1 else 20)


def test_sixteen_digits_of_pure_noise_make_a_gif_of_a_few_hundred_kilobytes():
    assert len(gif([sheet(torch.randn(16, 1, 28, 28)) for _ in range(21)])) < 500_000
