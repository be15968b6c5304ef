"""Samplers against closed forms (a point mass, Gaussians, mixtures) and each other;
test_conformance.py has diffusers."""

import inspect
import weakref
from functools import partial

import numpy as np
import pytest
import torch

from ddpm import GRIDS, SAMPLERS, SCHEDULES, Schedule
from ddpm.samplers import evaluations
from tests.helpers import Mixture

MEAN, STD = 0.3, 0.5
VARIANTS = {
    **{name: sampler.walk for name, sampler in SAMPLERS.items()},
    "ddim eta=0.5": partial(SAMPLERS["ddim"].walk, eta=0.5),
    "ddim eta=1": partial(SAMPLERS["ddim"].walk, eta=1.0),
}


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


def walks(schedule):
    """Every grid at several numbers of steps; and times between whole numbers, some of them below
    1."""
    yield from (
        (grid, schedule.times(steps, grid)) for grid in GRIDS for steps in (1, 2, 5, schedule.T)
    )
    yield "between", [99.5, 51.23, 3.7, 0.4, 0.0]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_contract(name, schedule):
    schedule = Schedule(schedule, 100)
    for grid, times in walks(schedule):
        x, calls = start(), []
        before = x.clone()

        def denoise(x, t):
            assert torch.is_grad_enabled()
            calls.append((t, x.clone(), x))  # noqa: B023
            return gaussian(schedule)(x, t)

        seen = []
        for step in VARIANTS[name](denoise, schedule, x, times, noise()):
            assert torch.is_grad_enabled()
            assert step.x.dtype == step.x0.dtype == torch.float32
            assert step.x.isfinite().all() and step.x0.isfinite().all(), (grid, len(times))
            seen.append(step)
        assert [step.t for step in seen] == times
        assert seen[0].x is x and torch.equal(x, before)
        assert seen[-1].x is seen[-1].x0
        assert len(calls) == evaluations(name.split()[0], len(times) - 1)
        assert {t for t, _, _ in calls} == set(times[:-1]), (
            "the network was asked at a time that is not on the list"
        )
        assert all(torch.equal(then, now) for _, then, now in calls), "a step was changed in place"


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_stay_off_where_they_are_off_and_the_times_are_only_read(name):
    times = Schedule(T=100).times(5)
    before = list(times)
    with torch.no_grad():
        for _ in VARIANTS[name](
            gaussian(Schedule(T=100)), Schedule(T=100), start(), times, noise()
        ):
            assert not torch.is_grad_enabled()
    assert times == before


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("ddpm", 1),
        ("ddpm-large", 1),
        ("ddim eta=0.5", 1),
        ("ddim eta=1", 1),
        ("euler-a", 1),
        ("sde-dpm++2m", 2),
    ],
)
def test_the_spread_of_what_is_drawn_comes_to_that_of_the_data_with_the_order_of_the_method(
    name, order
):
    """For Gaussian data all is linear: the variance is the sum over what each single draw of noise
    contributes, exactly."""
    schedule, errors, counts = Schedule("linear"), [], (50, 100, 200)

    for steps in counts:
        lam = torch.log(torch.div(*schedule(torch.arange(1, 1001)))).numpy()
        times = [
            *np.interp(-np.linspace(lam[-1], lam[0], steps), -lam, np.arange(1, 1001)).tolist(),
            0.0,
        ]
        x, draws = torch.zeros(steps + 2, 1, 1, 1, dtype=torch.float64), iter(range(steps))
        # Image k gets noise of 1 in draw k alone, the last two none; the last one starts from 1,
        # all others from 0.
        x[-1] = 1
        one = lambda x, draws=draws: (torch.arange(len(x)) == next(draws)).to(x).view(x.shape)  # noqa: E731
        *single, plain, moved = (
            last(VARIANTS[name](gaussian(schedule), schedule, x, times, one)).flatten().tolist()
        )
        single = [value - plain for value in single]
        assert sum(abs(value) > 1e-6 for value in single) > steps / 4, (
            "hardly any of the noise arrives"
        )
        errors.append(abs((moved - plain) ** 2 + sum(v**2 for v in single) - STD**2))
    slope, _ = np.polyfit(np.log(counts), np.log(errors), 1)
    assert order - 0.3 < -slope < order + 0.6, errors


@pytest.mark.parametrize("name", VARIANTS)
def test_no_sampler_holds_on_to_more_than_a_few_images(name):
    schedule, refs, most = Schedule(T=100), [], 0

    def denoise(x, t):
        x0 = gaussian(schedule)(x, t)
        refs.append(weakref.ref(x0))
        return x0

    for step in VARIANTS[name](denoise, schedule, start(), schedule.times(50), noise()):
        refs.append(weakref.ref(step.x))
        del step
        most = max(most, sum(ref() is not None for ref in refs))
    assert 2 <= most <= 8


def test_every_sampler_has_its_grid_and_tells_its_cost():
    costs = {name: [evaluations(name, steps) for steps in (1, 2, 10)] for name in SAMPLERS}
    assert costs.pop("heun") == [1, 3, 19] and costs.pop("plms") == [1, 3, 11]
    assert all(cost == [1, 2, 10] for cost in costs.values())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
def test_a_point_mass_is_recovered_exactly(name, steps):
    schedule, c = Schedule(T=100), torch.tensor([-1.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
    x = last(
        VARIANTS[name](
            point_mass(c),
            schedule,
            start(),
            schedule.times(steps, SAMPLERS[name.split()[0]].grid),
            noise(),
        )
    )
    # the last step adds differences of eps that are all but zero
    rounding = 1e-4 if name in ("ipndm", "plms") else 0
    torch.testing.assert_close(x, c.expand_as(x), rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("name", "order", "counts", "equal"),
    [
        ("ddim", 1, (32, 64, 128), "lam"),
        ("euler", 1, (32, 64, 128), "lam"),
        ("heun", 2, (32, 64, 128), "ratio"),
        ("dpm++2m", 2, (32, 64, 128), "lam"),
        ("dpm++3m", 3, (64, 128, 256), "lam"),
        ("unipc2", 3, (32, 64, 128), "lam"),
        ("unipc3", 4, (32, 64, 128), "lam"),  # the corrector adds one to the name
        ("ipndm", 4, (128, 256, 512), "ratio"),
        ("plms", 4, (128, 256, 512), "ratio"),
    ],
)
def test_the_error_falls_with_the_order_of_the_method(name, order, counts, equal):
    """Against the closed form for a mixture. Strides are equal in lam, or in sigma / alpha, as the
    method assumes."""
    schedule = Schedule("cosine")
    data, (first, end) = Mixture(schedule), (1000, 20) if equal == "lam" else (960, 150)
    x = data.std_at(first) * torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1)
    exact, t = data.flow(x, first, end), torch.linspace(first, end, 200_001, dtype=torch.float64)
    alpha, sigma = schedule(t)
    measure = torch.log(alpha / sigma) if equal == "lam" else -sigma / alpha
    errors = []
    for steps in counts:
        places = np.linspace(float(measure[0]), float(measure[-1]), steps + 1)
        times = [*np.interp(places, measure.numpy(), t.numpy()).tolist()[:-1], float(end), 0.0]
        *_, there, _ = SAMPLERS[name].walk(data.denoise, schedule, x, times, noise())
        errors.append((there.x - exact).abs().max().item())
    slope, _ = np.polyfit(np.log(counts), np.log(errors), 1)
    assert -slope == pytest.approx(order, abs=0.5), errors


@pytest.mark.parametrize(
    "name", ["ddpm", "ddpm-large", "ddim eta=0.5", "ddim eta=1", "euler-a", "sde-dpm++2m"]
)
@pytest.mark.slow
def test_a_mixture_is_drawn_with_its_mean_and_covariance(name):
    """Two pixels, strongly correlated: what a sampler draws has the mean and the covariance of the
    data."""
    schedule, n = Schedule(), 10_000
    data = Mixture(schedule, means=((-0.6, -0.5), (0.8, 0.6)), std=0.3)
    x = noise(1)(torch.empty(n, 1, 1, 2, dtype=torch.float64))
    x = last(
        VARIANTS[name](data.denoise, schedule, x, schedule.times(200, "uniform"), noise())
    ).flatten(1)
    mean, covariance = data.moments()
    variance = covariance.max().item()
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=4 * (variance / n) ** 0.5)
    torch.testing.assert_close(
        x.T.cov(), covariance, rtol=0, atol=4 * variance * (2 / n) ** 0.5 + 0.005
    )


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize(
    ("one", "other"), [("ddpm", "ddim eta=1"), ("euler-a", "ddim eta=1"), ("euler", "ddim")]
)
def test_some_methods_are_one_under_two_names(one, other, steps):
    schedule = Schedule()
    a, b = (
        last(
            VARIANTS[name](
                gaussian(schedule),
                schedule,
                start(dtype=torch.float64),
                schedule.times(steps),
                noise(),
            )
        )
        for name in (one, other)
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["dpm++2m", "dpm++3m", "unipc2", "unipc3"])
def test_one_step_of_any_order_is_ddim(name):
    schedule = Schedule()
    a, b = (
        last(SAMPLERS[name].walk(gaussian(schedule), schedule, start(), schedule.times(1), noise()))
        for name in ("ddim", name)
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_euler_is_euler_of_k_diffusion(steps):
    """Written out in x / alpha, where the noise has standard deviation sigma / alpha: x + (x - x0)
    / sigma * d sigma."""
    schedule = Schedule("linear")
    times = schedule.times(steps, "uniform")
    levels = [float(s / a) for a, s in (schedule(t) for t in times)]
    x = start(dtype=torch.float64)
    ours = last(SAMPLERS["euler"].walk(gaussian(schedule), schedule, x, times, noise()))
    y = x * (1 + levels[0] ** 2) ** 0.5
    for t, here, there in zip(times, levels, levels[1:], strict=False):
        x0 = gaussian(schedule)(y / (1 + here**2) ** 0.5, t)
        y = y + (y - x0) / here * (there - here)
    torch.testing.assert_close(ours, y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_says_which_samplers_add_noise(name):
    drawn = []
    schedule = Schedule(T=100)
    walk = SAMPLERS[name].walk(
        point_mass(torch.zeros(1, 1, 2, 2)),
        schedule,
        start(),
        schedule.times(5),
        lambda x: drawn.append(x) or x,
    )
    assert len(list(walk)) == 6
    assert bool(drawn) == SAMPLERS[name].fresh_noise


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_names_the_settings_that_a_sampler_has(name):
    known = list(inspect.signature(SAMPLERS[name].walk).parameters)
    assert known == ["denoise", "schedule", "x", "times", "randn_like", *SAMPLERS[name].settings]
    for setting, bounds in SAMPLERS[name].settings.items():
        bounds.check(setting, inspect.signature(SAMPLERS[name].walk).parameters[setting].default)
