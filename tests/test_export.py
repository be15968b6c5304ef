"""What users of diffusers get, opened with diffusers: the same pictures from the same noise."""

import json

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)

from ddpm import Pipeline, Schedule, hub
from ddpm.files import write_atomic
from ddpm.pixels import from_pixels
from tests.helpers import tiny_unet
from train.publish.export import layout, main

SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def built_in(tmp_path_factory):
    """The built-in weights, and a folder that the command wrote of them."""
    folder = tmp_path_factory.mktemp("export") / "mnist"
    assert main(["mnist", str(folder)]) == 0
    return Pipeline.from_pretrained("mnist"), folder


def drawn_by_diffusers(folder, steps, scheduler=DDPMScheduler):
    """N×C×H×W in [0, 1]: what diffusers draws from the noise that our seeds give."""
    # Where x0 is clipped, DDIM there goes on along the old noise unless it is told to look again,
    # as ours always does.
    kind, more = (
        (DDIMPipeline, {"use_clipped_model_output": True})
        if scheduler is DDIMScheduler
        else (DDPMPipeline, {})
    )
    theirs = kind.from_pretrained(folder)
    theirs.scheduler = scheduler.from_config(theirs.scheduler.config)
    theirs.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = theirs(
        len(SEEDS), generators, num_inference_steps=steps, output_type="np", **more
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "steps"), [("ddpm", DDPMScheduler, 20), ("ddim", DDIMScheduler, 10)]
)
def test_diffusers_draws_the_same_pictures_from_the_same_noise(built_in, sampler, scheduler, steps):
    ours, folder = built_in
    x = ours.sample(
        seeds=SEEDS, labels=ours.model.classes, sampler=sampler, steps=steps, grid="uniform"
    ).x
    theirs = drawn_by_diffusers(folder, steps, scheduler)
    assert x.std() > 0.3
    torch.testing.assert_close(theirs, (x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)


def test_its_dpm_solver_which_cannot_clip_draws_nearly_the_same(built_in):
    """Pixels that it leaves beyond the range end as the same black or white; one in fifty may be
    off by more."""
    ours, folder = built_in
    x = ours.sample(
        seeds=SEEDS, labels=ours.model.classes, sampler="dpm++2m", steps=10, grid="uniform"
    ).x
    off = (
        drawn_by_diffusers(folder, 10, DPMSolverMultistepScheduler) - (x / 2 + 0.5).clamp(0, 1)
    ).abs()
    assert off.mean() < 1 / 255 and (off > 4 / 255).float().mean() < 0.02


def test_the_pictures_that_diffusers_makes_have_the_gray_levels_that_its_readme_says():
    grays = torch.arange(256, dtype=torch.uint8)
    theirs = ((from_pixels(grays) / 2 + 0.5).clamp(0, 1) * 255).round().int()
    assert theirs[:252].equal(grays[:252].int()) and theirs[252:].eq(255).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": "eps"},
        {"prediction": "x0", "channels": 3},
        {"classes": 0, "schedule": Schedule("cosine", 50)},
        {"schedule": Schedule("linear", 1000)},
        {"schedule": Schedule("linear", 10)},
    ],
)
def test_every_prediction_and_schedule_goes_over(tmp_path, changes):
    model = tiny_unet(**{"schedule": Schedule("linear", 100)} | changes)
    for name, content in layout(model, {}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_atomic(tmp_path / name, content)
    x = (
        Pipeline(model)
        .sample(seeds=SEEDS, labels=model.classes or None, sampler="ddim", steps=10, grid="uniform")
        .x
    )
    torch.testing.assert_close(
        drawn_by_diffusers(tmp_path, 10, DDIMScheduler),
        (x / 2 + 0.5).clamp(0, 1),
        rtol=0,
        atol=1e-4,
    )
    betas = DDPMPipeline.from_pretrained(tmp_path).scheduler.alphas_cumprod
    alpha, _ = model.schedule(torch.arange(1, model.schedule.T + 1))
    torch.testing.assert_close(betas.double(), alpha**2, rtol=1e-3, atol=1e-7)


def test_the_same_weights_are_the_same_bytes():
    assert layout(tiny_unet(), {}) == layout(tiny_unet(), {})
    assert all(
        json.loads(content)
        for name, content in layout(tiny_unet(), {}).items()
        if name.endswith(".json")
    )


def test_bad_input_costs_one_line(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear diary")
    assert main(["mnist", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "new")]) == 2
    assert f"has no {hub.CONFIG}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
