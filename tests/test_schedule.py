import itertools
import math

import pytest
import torch

from ddpm import GRIDS, SCHEDULES, Schedule

EVERY = [Schedule(name, T) for name in SCHEDULES for T in (1, 2, 10, 1000)]


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_whole_numbers_give_the_cumulative_product_of_the_betas(schedule):
    betas = SCHEDULES[schedule.name](schedule.T)
    alpha, sigma = schedule(torch.arange(1, schedule.T + 1))
    torch.testing.assert_close(alpha**2, torch.cumprod(1 - betas, 0), rtol=1e-9, atol=0)
    torch.testing.assert_close(sigma**2, 1 - torch.cumprod(1 - betas, 0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_variance_is_preserved_and_noise_only_grows(schedule):
    t = torch.linspace(0, schedule.T, 3001, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-12, atol=1e-12)
    assert (alpha[0], sigma[0]) == (1, 0)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() >= 0).all()


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_log_snr_is_linear_between_whole_numbers(schedule):
    def log_snr(t):
        alpha, sigma = schedule(t)
        return 2 * (alpha / sigma).log()

    t = torch.arange(1, schedule.T, dtype=torch.float64)
    torch.testing.assert_close(
        log_snr(t + 0.25), 0.75 * log_snr(t) + 0.25 * log_snr(t + 1), rtol=1e-7, atol=1e-7
    )


def test_linear_and_cosine_are_those_of_the_papers():
    betas = SCHEDULES["linear"](1000)
    assert (betas[0].item(), betas[-1].item()) == pytest.approx((1e-4, 0.02))
    alpha, _ = Schedule("cosine")(500)
    assert alpha.item() ** 2 == pytest.approx(
        (math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 999, 1000])
def test_grids_fall_from_T_to_0(grid, steps):
    times = Schedule().times(steps, grid)
    assert len(times) == steps + 1
    assert times[-1] == 0
    assert all(s < t for t, s in itertools.pairwise(times))
    if grid == "karras":
        assert times[0] == pytest.approx(991.978, abs=1e-3)  # where sigma / alpha is 80
    elif grid != "leading" or steps == 1000:
        assert times[0] == 1000
    else:
        # DDIM's own grid starts low, by its definition
        assert times[0] == 1 + (steps - 1) * (1000 // steps)


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("linear"), Schedule("linear", 50)])
def test_karras_strides_are_equal_in_the_root_of_the_noise(schedule):
    alpha, sigma = schedule(torch.tensor(schedule.times(20, "karras(5, 0.5, 40)")[:-1]))
    root = (sigma / alpha) ** (1 / 5)
    torch.testing.assert_close(
        root,
        torch.linspace(40 ** (1 / 5), 0.5 ** (1 / 5), 20, dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )


def test_karras_ends_are_brought_inside_the_schedule():
    times = Schedule("linear").times(20, "karras(7, 1e-4, 1e5)")
    assert (times[0], times[-2]) == pytest.approx((1000, 1))


def test_grids_take_parameters_in_parentheses():
    schedule = Schedule()
    assert (
        schedule.times(4, "power")
        == schedule.times(4, " power ( 0.5 ) ")
        == schedule.times(4, "power()")
    )
    assert schedule.times(4, "power(1)") == schedule.times(4, "uniform")
    assert schedule.times(2, "power(2)") == [1000, 250, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "cosin"}, "cosine, linear"),
        ({"name": ["linear"]}, "cosine, linear"),
        ({"T": 0}, "1..10000"),
        ({"T": 10**9}, "1..10000"),
        ({"T": 1.5}, "1..10000"),
        ({"T": True}, "1..10000"),
    ],
)
def test_bad_schedules_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**arguments)


@pytest.mark.parametrize(
    ("steps", "grid", "words"),
    [
        (0, "power", r"1\.\.1000"),
        (1001, "power", r"1\.\.1000"),
        (2.0, "power", r"1\.\.1000"),
        (5, "karas", "power, uniform, leading, linspace"),
        (5, None, "power, uniform"),
        (5, "power(x)", r"power\(rho\)"),
        (5, "power(1, 2)", r"power\(rho\)"),
        (5, "uniform(1)", "no parameters"),
        (5, "power(nan)", r"0\.1\.\.3"),
        (5, "power(1e999)", r"0\.1\.\.3"),
        (5, "karras(7, 3, 2)", "sigma_max must be a number in 3"),
        (5, "karras(7, 1, 1)", "leave no room"),
        (5, "karras(7, 1e-4, 2e-4)", "leave no room"),
        (5, "power(0.5", "unknown grid"),
    ],
)
def test_bad_times_are_refused(steps, grid, words):
    with pytest.raises(ValueError, match=words):
        Schedule().times(steps, grid)


def test_a_schedule_is_a_value():
    assert Schedule("linear", 10) == Schedule("linear", 10)
    assert len({Schedule(), Schedule("cosine", 1000)}) == 1
