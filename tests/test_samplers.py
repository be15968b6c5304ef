"""Samplers against closed forms (a point mass, a Gaussian), against each other, and against diffusers."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from ddpm import GRIDS, SAMPLERS, SCHEDULES, Schedule
from ddpm.diffusion import PREDICTIONS

MEAN, STD = 0.3, 0.5
VARIANTS = {**SAMPLERS, "ddim eta=0.5": partial(SAMPLERS["ddim"], eta=0.5), "ddim eta=1": partial(SAMPLERS["ddim"], eta=1.0)}


def point_mass(c):
    """The exact denoiser where all data is the one image c."""
    return lambda x, t: c.expand_as(x).clone()


def gaussian(schedule):
    """The exact denoiser E[x0 | x_t] of data N(MEAN, STD**2)."""

    def denoise(x, t):
        alpha, sigma = (float(c) for c in schedule(t))
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)

    return denoise


def noise(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def start(n=3, dtype=torch.float32):
    return noise(1)(torch.empty(n, 1, 2, 2, dtype=dtype))


def last(steps):
    *_, step = steps
    return step.x


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 5, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_contract(name, grid, steps, schedule):
    schedule = Schedule(schedule, 100)
    x, times, calls = start(), schedule.times(steps, grid), []
    before = x.clone()

    def denoise(x, t):
        assert torch.is_grad_enabled()
        calls.append((t, x.clone(), x))
        return gaussian(schedule)(x, t)

    seen = []
    for step in VARIANTS[name](denoise, schedule, x, times, noise()):
        assert torch.is_grad_enabled()
        assert step.x.dtype == step.x0.dtype == torch.float32
        assert step.x.isfinite().all() and step.x0.isfinite().all()
        seen.append(step)
    assert [step.t for step in seen] == times
    assert seen[0].x is x and torch.equal(x, before)
    assert seen[-1].x is seen[-1].x0
    assert [t for t, _, _ in calls] == times[:-1]
    assert all(torch.equal(then, now) for _, then, now in calls), "a step was changed in place"


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
def test_a_point_mass_is_recovered_exactly(name, steps):
    schedule, c = Schedule(T=100), torch.tensor([-1.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
    x = last(VARIANTS[name](point_mass(c), schedule, start(), schedule.times(steps), noise()))
    assert torch.equal(x, c.expand_as(x))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_the_error_falls_with_the_order_of_the_method(name, order):
    """Gaussian data: the flow is a scaling, known in closed form. Steps are equal in half log-SNR, from T to t = 20."""
    schedule, x = Schedule("linear"), start(dtype=torch.float64)
    t = torch.linspace(1000, 20, 50_001, dtype=torch.float64)
    lam = torch.log(torch.div(*schedule(t)))

    def spread(t):  # (mean, standard deviation) of x_t
        alpha, sigma = (float(c) for c in schedule(t))
        return MEAN * alpha, math.hypot(alpha * STD, sigma)

    (mean_T, std_T), (mean, std) = spread(1000.0), spread(20.0)
    exact = mean + std * (x - mean_T) / std_T
    counts, errors = [16, 32, 64, 128], []
    for steps in counts:
        places = torch.searchsorted(lam, torch.linspace(lam[0], lam[-1], steps + 1, dtype=torch.float64))
        times = [*t[places.clamp(max=50_000)].tolist(), 0.0]
        *_, at_20, _ = SAMPLERS[name](gaussian(schedule), schedule, x, times, noise())
        errors.append((at_20.x - exact).abs().max().item())
    slope, _ = np.polyfit(np.log(counts), np.log(errors), 1)
    assert -slope == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("name", VARIANTS)
def test_gaussian_data_is_drawn_with_its_mean_and_spread(name):
    schedule, n = Schedule(), 40_000
    x = noise(1)(torch.empty(n, 1, 1, 1, dtype=torch.float64))
    x = last(VARIANTS[name](gaussian(schedule), schedule, x, schedule.times(250, "uniform"), noise()))
    assert x.mean().item() == pytest.approx(MEAN, abs=5 * STD / n**0.5)
    assert x.std().item() == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_ddim_with_all_the_noise_is_ddpm(steps):
    schedule = Schedule()
    a, b = (last(VARIANTS[name](gaussian(schedule), schedule, start(dtype=torch.float64), schedule.times(steps), noise()))
            for name in ("ddpm", "ddim eta=1"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_two_steps_of_dpm_solver_have_no_slope_to_use_and_are_ddim():
    schedule = Schedule()
    a, b = (last(SAMPLERS[name](gaussian(schedule), schedule, start(), schedule.times(2), noise()))
            for name in ("ddim", "dpm++2m"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def mixture(schedule):
    """The exact denoiser of a mixture of two Gaussians a pixel: unlike one Gaussian, not linear in x."""
    means, std = torch.tensor([-0.6, 0.8]), 0.1

    def denoise(x, t):
        alpha, sigma = (float(c) for c in schedule(t))
        var = alpha**2 * std**2 + sigma**2
        d = x[..., None] - alpha * means
        weight = torch.softmax(-(d**2) / (2 * var), -1)
        return (weight * (means + alpha * std**2 / var * d)).sum(-1)

    return denoise


def theirs(scheduler, x, schedule, generator):
    """The same walk in diffusers, from the same noise: (times, image)."""
    times, denoise = [float(t) + 1 for t in scheduler.timesteps], mixture(schedule)
    for t in scheduler.timesteps:
        alpha, sigma = (float(c) for c in schedule(float(t) + 1))
        x0 = denoise(x, float(t) + 1)
        out = PREDICTIONS["v"].target(x0, (x - alpha * x0) / sigma, alpha, sigma)
        x = scheduler.step(out, t, x, **generator).prev_sample
    return [*times, 0.0], x


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 1000])
@pytest.mark.parametrize(("sampler", "theirs_is", "settings"), [
    ("ddpm", DDPMScheduler, {"variance_type": "fixed_small", "steps_offset": 0, "timestep_spacing": "trailing"}),
    ("ddim", DDIMScheduler, {"set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "leading"}),
    ("dpm++2m", DPMSolverMultistepScheduler, {
        "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": True,
        "euler_at_final": False, "final_sigmas_type": "zero", "timestep_spacing": "trailing"}),
])
def test_conformance_with_diffusers(name, steps, sampler, theirs_is, settings):
    schedule = Schedule(name)
    clip = {} if sampler == "dpm++2m" else {"clip_sample": False}
    scheduler = theirs_is(num_train_timesteps=1000, prediction_type="v_prediction",
                           trained_betas=SCHEDULES[name](1000).numpy(), **clip, **settings)
    scheduler.set_timesteps(steps)
    x = start()
    generator = {"generator": torch.Generator().manual_seed(5)} if sampler != "dpm++2m" else {}
    times, expected = theirs(scheduler, x, schedule, generator)

    ours = torch.Generator().manual_seed(5)
    x = last(SAMPLERS[sampler](mixture(schedule), schedule, x, times, lambda x: torch.randn(x.shape, generator=ours)))
    tolerance = 5e-4 if name == "cosine" else 2e-4 if sampler == "ddpm" else 1e-5  # diffusers works in float32 here
    torch.testing.assert_close(x, expected, rtol=0, atol=tolerance)
