import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import DIGITS
from train.data import DATASETS, _torchvision

folder = DATASETS["folder"].training


def picture(path, mode="L", size=(10, 8), value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)
    return path


def test_mnist_is_read_as_it_is():
    data = DATASETS["mnist"].training(DIGITS, None)
    assert data.images.shape == (400, 1, 28, 28) and data.images.dtype == torch.uint8
    assert data.labels.shape == (400,) and data.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "folder"), [("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_the_relatives_of_mnist_are_read_from_their_own_folders(tmp_path, name, folder):
    shutil.copytree(DIGITS / "MNIST", tmp_path / folder)  # the same file format
    data = DATASETS[name].training(tmp_path, None)
    assert data.images.shape == (400, 1, 28, 28)
    assert len(data.classes) == 10


def test_colour_data_sets_become_channels_first():
    """CIFAR-10's own files are checksummed, so a stand-in with its attributes is read instead."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    cifar = type(
        "CIFAR10",
        (),
        {
            "__init__": lambda self, root, train, download: None,
            "data": pixels,
            "targets": [3, 1, 4, 1, 5],
            "classes": list("abcdefghij"),
        },
    )
    data = _torchvision(cifar, (3, 32)).training(Path(), None)
    assert data.images.shape == (5, 3, 32, 32)
    assert data.images[2, 1, 7, 9] == pixels[2, 7, 9, 1]
    assert data.labels.tolist() == [3, 1, 4, 1, 5]


def test_subfolders_are_classes(tmp_path):
    picture(tmp_path / "cat" / "a.png", "RGB", value=10)
    picture(tmp_path / "cat" / "deep" / "b.jpg", "RGB", value=10)
    picture(tmp_path / "dog" / "c.png", "RGBA", value=200)
    (tmp_path / "notes.txt").write_text("not an image")
    data = folder(tmp_path, 16)
    assert data.images.shape == (3, 3, 16, 16)
    assert data.classes == ("cat", "dog") and data.labels.tolist() == [0, 0, 1]


def test_loose_images_have_no_classes_and_are_cut_to_their_central_square(tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = folder(tmp_path, 8)
    assert data.classes == () and data.images.shape == (1, 1, 8, 8)
    assert (data.images == 255).all()


def test_sixteen_bits_a_pixel_are_scaled_not_clipped(tmp_path):
    picture(tmp_path / "a.png", "I;16", value=0x8000)
    assert (folder(tmp_path, 8).images == 0x80).all()


def test_photos_stand_upright_and_transparency_is_white(tmp_path):
    turned = Image.new("L", (16, 8), 0)
    turned.paste(255, (0, 0, 8, 8))  # left half white
    exif = turned.getexif()
    exif[0x0112] = 6  # "turn me a quarter to the right"
    turned.save(tmp_path / "a.png", exif=exif)
    data = folder(tmp_path, 8).images[0, 0]
    assert data[:4].float().mean() > 250 > 5 > data[4:].float().mean()  # now the upper half is
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "a.png")
    assert (folder(tmp_path, 8).images == 255).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_range_of_values_that_nobody_knows_is_refused(tmp_path, mode):
    Image.new(mode, (8, 8), 1).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif cannot be read .*32 bits"):
        folder(tmp_path, 8)


def test_a_gray_palette_is_gray(tmp_path):
    Image.new("L", (8, 8), 90).convert("P").save(tmp_path / "a.gif")
    data = folder(tmp_path, 8)
    assert data.images.shape == (1, 1, 8, 8)
    assert (data.images == 90).all()
    Image.new("RGB", (8, 8), (90, 0, 0)).convert("P").save(tmp_path / "a.gif")
    assert folder(tmp_path, 8).images.shape == (1, 3, 8, 8)


def test_hidden_files_are_not_seen_and_others_are_told(tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"left by a file manager")
    picture(tmp_path / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "b.heic").write_bytes(b"a photo")
    assert len(folder(tmp_path, 8).images) == 1
    assert "1 files" in (said := capsys.readouterr().err) and ".heic" in said


@pytest.mark.parametrize("size", [0, 3, 257, 2_000_000])
def test_sizes_are_bounded_before_memory_is_taken(tmp_path, size):
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"--size must be in 4\.\.256"):
        folder(tmp_path, size)


def test_the_default_size_is_32(tmp_path):
    picture(tmp_path / "a.png")
    assert folder(tmp_path, None).images.shape == (1, 1, 32, 32)


def test_bad_folders_are_refused_and_the_culprit_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        folder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match="has no images"):
        folder(tmp_path, 8)
    good = picture(tmp_path / "a" / "good.png")
    cut = tmp_path / "a" / "cut.png"
    cut.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        folder(tmp_path, 8)
    cut.write_bytes(b"")
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        folder(tmp_path, 8)
    cut.unlink()
    picture(tmp_path / "b" / "colour.png", "RGB")
    with pytest.raises(
        ValueError, match=r"mixed channels: .*good\.png is grayscale but .*colour\.png is RGB"
    ):
        folder(tmp_path, 8)
    (tmp_path / "b" / "colour.png").unlink()
    picture(tmp_path / "stray.png")
    with pytest.raises(ValueError, match=r"stray\.png lies beside the class folders"):
        folder(tmp_path, 8)


def test_a_size_for_a_data_set_that_has_one_is_refused():
    with pytest.raises(ValueError, match="--size is for --dataset folder"):
        DATASETS["mnist"].training(DIGITS, 32)


def test_a_missing_and_a_truncated_data_set_are_said_in_one_line(tmp_path):
    with pytest.raises(OSError, match="MNIST is not .*cannot be downloaded") as error:
        DATASETS["mnist"].training(tmp_path / "empty", None)
    assert "\n" not in str(error.value)
    shutil.copytree(DIGITS, tmp_path / "cut")
    images = tmp_path / "cut" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for content in (images.read_bytes()[:1000], b"", b"not an idx file at all"):
        images.write_bytes(content)
        with pytest.raises(OSError, match=r"MNIST is not .*: \S"):
            DATASETS["mnist"].training(tmp_path / "cut", None)
