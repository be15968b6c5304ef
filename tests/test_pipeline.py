import pytest
import torch
from PIL import Image

from ddpm import SAMPLERS, Pipeline, Settings
from ddpm.diffusion import denoiser
from ddpm.pixels import LIMIT, to_pixels
from ddpm.samplers import affordable_steps
from tests.helpers import tiny_unet


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(tiny_unet())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_gives_the_same_image_alone_and_in_any_batch(pipeline, sampler):
    together = pipeline.sample(seeds=[7, 8, 9], steps=10, sampler=sampler).x
    for k, seed in enumerate([7, 8, 9]):
        alone = pipeline.sample(seeds=[seed], steps=10, sampler=sampler).x
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_a_stream_runs_from_noise_to_images_and_counts_evaluations(pipeline):
    frames = list(pipeline.stream(Settings(seeds=[0, 1], steps=5)))
    assert len(frames) == 6
    assert (frames[0].t, frames[-1].t) == (100, 0)
    assert [frame.nfe for frame in frames] == [1, 2, 3, 4, 5, 5]
    assert torch.equal(frames[-1].x, frames[-1].x0)
    assert torch.equal(pipeline.sample(seeds=[0, 1], steps=5).x, frames[-1].x)
    assert list(pipeline.stream(Settings(seeds=[0], steps=5, labels=3, guidance=1.0)))[-1].nfe == 10


def test_without_labels_each_seed_draws_a_class_and_all_classes_come_up_equally_often(pipeline):
    drawn = [pipeline.label_of(seed) for seed in range(2000)]
    for start in (0, 7, 1000):
        for count in (10, 16, 100, 1000):
            shares = [drawn[start : start + count].count(k) for k in range(10)]
            assert max(shares) - min(shares) <= 3
    free = pipeline.sample(seeds=range(4), steps=4).x
    assert torch.equal(free, pipeline.sample(seeds=range(4), steps=4, labels=drawn[:4]).x)


def test_each_class_comes_up_as_often_as_in_training(pipeline):
    counts = [50, 0, 1, 9, 40, 0, 0, 0, 0, 0]
    drawn = [
        Pipeline(pipeline.model, {"class_counts": counts}).label_of(seed)
        for seed in range(5000, 6000)
    ]
    assert all(abs(drawn.count(label) - 10 * count) <= 3 for label, count in enumerate(counts))


def test_no_label_is_a_label_of_its_own(pipeline):
    told, untold = (pipeline.sample(seeds=[0], steps=4, labels=label).x for label in (None, 10))
    assert (told - untold).abs().max() > 1e-3
    model = pipeline.model
    *_, alone = SAMPLERS["unipc2"].walk(
        denoiser(model),
        model.schedule,
        noise_of(model, 0),
        model.schedule.times(4, SAMPLERS["unipc2"].grid),
        torch.randn_like,
    )
    torch.testing.assert_close(untold, alone.x)


def noise_of(model, seed):
    return torch.randn(
        1, model.channels, model.size, model.size, generator=torch.Generator().manual_seed(seed)
    )


def test_labels_may_be_one_for_all_or_one_each(pipeline):
    every = pipeline.sample(seeds=[0, 0], steps=4, labels=[3, None]).x
    three, free = (pipeline.sample(seeds=[0], steps=4, labels=label).x for label in (3, None))
    torch.testing.assert_close(every, torch.cat([three, free]), rtol=0, atol=1e-4)
    assert (three - free).abs().max() > 1e-3


def test_only_frames_for_a_gif_are_kept_and_files_hold_what_they_say(pipeline, tmp_path):
    images = pipeline.sample(seeds=range(3), steps=100)
    assert len(images.frames) == 40
    images.save(tmp_path / "a.gif")
    images.save(tmp_path / "a.PNG")
    images.save(tmp_path / "folder")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 41
    assert Image.open(tmp_path / "a.PNG").size == images.sheet().size
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        f"{k:010d}.png" for k in range(3)
    ]
    images.save(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text().count('"snr": ') == 40
    assert "<iframe srcdoc=" in images._repr_html_()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": "dim"}, "ddim, ddpm"),
        ({"grid": "karas"}, "power, uniform"),
        ({"steps": 0}, r"1\.\.100"),
        ({"steps": 101}, r"1\.\.100"),
        ({"steps": 2.0}, r"1\.\.100"),
        ({"steps": None}, r"1\.\.100"),
        ({"guidance": float("nan"), "labels": 1}, r"0\.\.20"),
        ({"guidance": -1, "labels": 1}, r"0\.\.20"),
        ({"guidance": 1, "labels": 10}, "label"),
        ({"labels": 11}, r"0\.\.9, or 10 for none"),
        ({"labels": -1}, r"0\.\.9"),
        ({"labels": "3"}, r"0\.\.9"),
        ({"labels": [1, 2]}, "2 labels for 1"),
        ({"eta": 0.5}, "no eta"),
        ({"eta": 1.5, "sampler": "ddim"}, r"0\.\.1"),
        ({"eta": "x", "sampler": "ddim"}, r"0\.\.1"),
        ({"seeds": []}, r"1\.\.1024"),
        ({"seeds": range(5000)}, r"1\.\.1024"),
        ({"seeds": [-1]}, "4294967295"),
        ({"seeds": [2**32]}, "4294967295"),
        ({"seeds": [1.5]}, "4294967295"),
    ],
)
def test_bad_settings_are_refused_at_once_with_the_valid_ones(pipeline, settings, words):
    with pytest.raises(ValueError, match=words):
        pipeline.stream(Settings(**{"seeds": [0]} | settings))


def test_huge_images_are_refused_before_memory_is_taken():
    large = Pipeline(
        tiny_unet(channels=3, size=256, mults=(1, 2, 2), attention=(False, False, True))
    )
    with pytest.raises(ValueError, match=r"1\.\.21 images of this model"):
        large.stream(Settings(seeds=range(22)))
    with pytest.raises(ValueError, match=r"1\.\.1024 images"):
        Pipeline(tiny_unet()).stream(Settings(seeds=range(10**12)))


def test_an_image_set_is_shown_in_a_line(pipeline):
    assert repr(pipeline.sample(seeds=[4, 5], steps=1)) == "Images(2 of [1, 8, 8], seeds 4..5)"


@pytest.mark.parametrize("name", ["", "a.jpg", "no/such/folder/a.png"])
def test_a_name_that_cannot_be_written_is_refused(pipeline, tmp_path, name):
    with pytest.raises((ValueError, OSError), match="cannot write"):
        pipeline.sample(seeds=[0], steps=1).save(tmp_path / name if name else "")
    assert list(tmp_path.iterdir()) == []


def test_rgb_images_work_all_the_way(tmp_path):
    images = Pipeline(
        tiny_unet(channels=3, size=32, mults=(1, 1, 1), attention=(False, False, True))
    ).sample(seeds=range(2), steps=2)
    assert images.x.shape == (2, 3, 32, 32)
    images.save(tmp_path / "a.gif")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_builtin_weights_draw_strokes_on_a_dark_ground(sampler):
    """On the sampler's own grid, with 5, 10 or 20 evaluations: as much ink as real digits have (13
    % of the area), and no pixel far outside of black and white."""
    pipeline = Pipeline.from_pretrained("mnist")
    for budget in (5, 10, 20):
        x = pipeline.sample(
            seeds=range(8), steps=affordable_steps(sampler, budget), sampler=sampler
        ).x
        assert 0.07 < to_pixels(x).float().mean() / 255 < 0.20, budget
        beyond = x.abs() - LIMIT
        assert beyond.max() < 1.2 and (beyond > 0.2).float().mean() < 0.02, budget
