"""Did it copy? The index of training images: what it finds is what is there, and nothing in its
file is trusted."""

import pytest
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save

from ddpm import Pipeline
from ddpm.demo import nearest
from ddpm.hub import BUILT_IN
from ddpm.pixels import from_pixels, to_pixels
from tests.helpers import DIGITS
from train.evaluate.nearest import AXES, grouped, main, make
from train.evaluate.reference import as_vectors, real_images


@pytest.fixture(scope="module")
def digits():
    """400 real training images, N×1×28×28."""
    return real_images("mnist", DIGITS)[0].images


@pytest.fixture(scope="module")
def index(digits):
    return make(as_vectors(digits))._replace(
        fade=torch.tensor(12.0), usual=torch.tensor([2.0, 3.0, 6.0])
    )


def test_every_training_image_finds_itself(index, digits):
    flat = as_vectors(digits)
    distances, which = index.find(flat)
    assert (
        (which[:, 0] == torch.arange(400)).all()
        and (distances[:, 0] < 1e-2).all()
        and (distances[:, 1] > 0.5).all()
    )
    assert (index.pictures(which[:, 0]) - flat).abs().mean() < 0.03


def test_distances_are_those_of_pixels_but_for_what_the_index_leaves_out(index, digits):
    flat, x = as_vectors(digits), as_vectors(real_images("mnist", DIGITS)[1].images)
    distances, which = index.find(x)
    true = (x[:, None] - flat[which]).square().sum(-1).sqrt()
    assert (distances - true).abs().mean() < 0.5 and (
        (true.amin(1) - torch.cdist(x, flat).amin(1)) < 0.3
    ).float().mean() > 0.9


def test_what_is_told_of_a_copy_and_of_another_image(index, digits):
    facts, found = nearest.told(index, from_pixels(digits[:1]))
    assert found.shape == (3, 1, 28, 28) and facts["training_images"] == 400
    assert facts["distances"][0] == 0 and "may be a copy" in facts["words"]
    facts, _ = nearest.told(index, from_pixels(255 - digits[:1]))
    assert facts["usual"] == [3, 6] and facts["copy_below"] == 2
    assert facts["words"] == (
        f"The nearest of 400 training images is {facts['distances'][0]:.1f} away"
        " (0 is the same image). Of real test images it is usually 3.0 to 6.0."
        " (Blurred, as all of them have to fit into 2 MB.)"
    )
    with pytest.raises(ValueError, match="another size"):
        nearest.told(index, torch.zeros(1, 1, 8, 8))


def test_a_file_holds_the_index(index, tmp_path):
    (tmp_path / "a").write_bytes(index.to_bytes())
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(index, nearest.load(tmp_path / "a"), strict=True)
    )


def changed(**parts):
    """Of the content of a file: the same with tensors changed by functions (None: left out)."""

    def change(content):
        tensors = from_bytes(content)
        for name, how in parts.items():
            tensors[name] = how(tensors.get(name))
        return save({name: part.contiguous() for name, part in tensors.items() if part is not None})

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-9], "not a whole safetensors file"),
        (lambda _: b"", "not a whole"),
        (lambda content: content + bytes(2_000_000), "more than the"),
        (changed(mean=lambda _: None), "not the tensors"),
        (changed(more=lambda _: torch.zeros(1)), "not the tensors"),
        (changed(codes=lambda codes: codes.int()), "not the tensors"),
        (changed(codes=lambda codes: codes[:-1]), "do not fit"),
        (changed(codes=lambda codes: codes[:, :2]), "do not fit"),
        (changed(points=lambda points: points[:, :100]), "do not fit"),
        (changed(axes=lambda axes: axes[:, 1:]), "do not fit"),
        (changed(mean=lambda mean: mean[1:]), "do not fit"),
        (changed(scales=lambda scales: scales[1:]), "do not fit"),
        (changed(usual=lambda usual: usual / 0), "do not fit"),
        (changed(fade=lambda _: torch.tensor(0.0)), "do not fit"),
        (changed(usual=lambda usual: usual[1:]), "do not fit"),
    ],
)
def test_a_damaged_index_is_refused_in_words(index, tmp_path, damage, words):
    (tmp_path / "a").write_bytes(damage(index.to_bytes()))
    with pytest.raises(ValueError, match=words) as refusal:
        nearest.load(tmp_path / "a")
    assert "\n" not in str(refusal.value)


def test_groups_are_about_as_hard_to_describe():
    spread = [-0.1 * k for k in range(40)]
    found = grouped(spread, 10)
    assert sorted(axis for each in found for axis in each) == list(range(40)) and {
        len(each) for each in found
    } == {AXES}
    sums = [sum(spread[k] for k in each) for each in found]
    assert max(sums) - min(sums) < 0.5


@pytest.mark.parametrize("name", ["mnist", "mnist-fast"])
def test_the_built_in_index_knows_real_training_images(name, digits):
    path = nearest.path_of(Pipeline.from_pretrained(name), name, built_in=True)
    assert path.parent == BUILT_IN / "mnist" and path.stat().st_size <= nearest.MOST_BYTES
    index = nearest.load(path)
    assert index.codes.shape[1] == 60_000
    for image in digits[:5]:
        facts, [first, *_] = nearest.told(index, from_pixels(image[None]))
        assert (
            facts["distances"][0] < 0.01
            and "may be a copy" in facts["words"]
            and (to_pixels(first).float() - image).abs().mean() < 20
        )


def test_the_command_writes_an_index_beside_a_run(run, capsys):
    path = run / nearest.FILE
    assert main([str(run), "--data", str(DIGITS)]) == 0
    assert (
        nearest.load(path).codes.shape[1] == 400
        and "see the nearest training image" in capsys.readouterr().out
    )
    path.unlink()


def test_what_has_no_index_is_said_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2 and main(["mnist", "--data", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(line.startswith("nearest: ") for line in said)
    with pytest.raises(ValueError, match="holds"):
        make(torch.zeros(3, 784))
