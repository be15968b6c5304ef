"""Every sampler that diffusers has gives the same images there, from the same noise and the same
predictions.

`python -m pytest tests/test_conformance.py -v` lists them. The network is the exact denoiser of a
mixture, which is not linear in x; the settings are those under which diffusers computes the
published method, and a test of its own shows where it does not. diffusers works in float32
throughout and differs by as much as that costs it.
"""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from ddpm import SAMPLERS, SCHEDULES, Schedule
from ddpm.diffusion import PREDICTIONS
from tests.helpers import Mixture

MEANS, STD = ((-0.6,), (0.8,), (1.3,)), 0.1  # some of it beyond 1, so that clipping matters
THEIR_NAME = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}

ddpm = partial(
    DDPMScheduler, variance_type="fixed_small", steps_offset=0, timestep_spacing="trailing"
)
ddpm_large = partial(ddpm, variance_type="fixed_large", timestep_spacing="leading")
dpm = partial(
    DPMSolverMultistepScheduler,
    solver_type="midpoint",
    euler_at_final=False,
    final_sigmas_type="zero",
    timestep_spacing="trailing",
)
sde_dpm = partial(dpm, solver_order=2, algorithm_type="sde-dpmsolver++")
unipc = partial(
    UniPCMultistepScheduler,
    solver_type="bh2",
    predict_x0=True,
    lower_order_final=True,
    disable_corrector=[],
    final_sigmas_type="zero",
    timestep_spacing="trailing",
)
ddim = partial(DDIMScheduler, set_alpha_to_one=True, steps_offset=0, timestep_spacing="leading")
euler = partial(EulerDiscreteScheduler, final_sigmas_type="zero", timestep_spacing="trailing")
euler_a = partial(EulerAncestralDiscreteScheduler, timestep_spacing="trailing")
heun = partial(HeunDiscreteScheduler, timestep_spacing="leading")
plms = partial(
    PNDMScheduler,
    skip_prk_steps=True,
    set_alpha_to_one=True,
    steps_offset=0,
    timestep_spacing="leading",
)
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}, {"clip_sample": False}
THRESHOLD = {"thresholding": True, "sample_max_value": 1.0}, {}
EVERY = ("eps", "v", "x0")

# ours, with settings: theirs, our grid, how theirs clips and does not (None: it cannot),
# predictions it knows
CASES = {
    "ddpm": (ddpm, "uniform", CLIP, EVERY),
    "ddpm-large": (ddpm_large, "leading", CLIP, EVERY),
    "ddim": (ddim, "leading", CLIP, EVERY),
    "ddim eta=0.5": (ddim, "leading", CLIP, EVERY),
    "ddim eta=1": (ddim, "leading", CLIP, EVERY),
    "dpm++2m": (partial(dpm, solver_order=2, lower_order_final=True), "uniform", THRESHOLD, EVERY),
    "sde-dpm++2m": (sde_dpm, "uniform", THRESHOLD, EVERY),
    "unipc2": (partial(unipc, solver_order=2), "uniform", THRESHOLD, EVERY),
    "unipc3": (partial(unipc, solver_order=3), "uniform", THRESHOLD, EVERY),
    "euler": (euler, "uniform", None, EVERY),
    "euler-a": (euler_a, "uniform", None, ("eps", "v")),
    "heun": (heun, "leading", None, EVERY),
    "plms": (plms, "leading", None, ("eps",)),
}
NOISY = "ddpm", "ddpm-large", "ddim eta=0.5", "ddim eta=1", "sde-dpm++2m", "euler-a"
ETA = {"ddim eta=0.5": 0.5, "ddim eta=1": 1.0}


def mixture(schedule, x, t):
    """E[x0 | x_t], exactly, in float64."""
    alpha, sigma = (float(c) for c in schedule(t))
    return Mixture(schedule, MEANS, STD).denoise(x.double()[..., None], t)[..., 0], alpha, sigma


def network(schedule, prediction, x, t):
    """What a perfect network says, in float32."""
    x0, alpha, sigma = mixture(schedule, x, t)
    return (
        PREDICTIONS[prediction].target(x0, (x.double() - alpha * x0) / sigma, alpha, sigma).float()
    )


def theirs(scheduler, x, schedule, prediction, settings):
    """Their walk. Returns the noise as our process has it, and the image."""
    start = None
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        start = scaled if start is None else start
        out = network(schedule, prediction, scaled, float(t) + 1)
        x = scheduler.step(out, t, x, **settings).prev_sample
    return start, x


def ours(name, x, schedule, times, prediction, clip, seed):
    generator = torch.Generator().manual_seed(seed)
    to_x0 = PREDICTIONS[prediction].x0

    def denoise(x, t):
        alpha, sigma = (float(c) for c in schedule(t))
        x0 = to_x0(network(schedule, prediction, x, t), x, alpha, sigma)
        return x0.clamp(-1, 1) if clip else x0

    sampler = (
        partial(SAMPLERS["ddim"].walk, eta=ETA[name])
        if name in ETA
        else SAMPLERS[name.split()[0]].walk
    )
    *_, last = sampler(
        denoise, schedule, x, times, lambda x: torch.randn(x.shape, generator=generator)
    )
    return last.x


def difference(name, schedule, steps, prediction, clip):
    theirs_is, grid, clips, _ = CASES[name]
    options = {} if clips is None else clips[0] if clip else clips[1]
    scheduler = theirs_is(
        num_train_timesteps=schedule.T,
        prediction_type=THEIR_NAME[prediction],
        trained_betas=SCHEDULES[schedule.name](schedule.T).numpy(),
        **options,
    )
    scheduler.set_timesteps(steps)
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * float(
        scheduler.init_noise_sigma
    )
    settings = {}
    if name in NOISY:
        settings["generator"] = torch.Generator().manual_seed(5)
    if name.startswith("ddim"):
        settings |= {"use_clipped_model_output": True, "eta": ETA.get(name, 0.0)}
    start, expected = theirs(scheduler, x, schedule, prediction, settings)
    image = ours(name, start, schedule, schedule.times(steps, grid), prediction, clip, seed=5)
    return (image - expected).abs().max().item()


def tolerance(name, schedule, steps, prediction):
    """1e-5, or 2e-4 with fresh noise; on cosine 5e-5 and 5e-4. More only where float32 divides by
    something small:

    an eps prediction is divided by alpha to get x0, which counts for less the more steps follow;
    the Euler family there works in x / alpha from the start; heun and plms divide by the sigma of t
    = 1 with few steps.
    """
    least = (
        (5e-4 if name in NOISY else 5e-5)
        if schedule.name == "cosine"
        else 2e-4
        if name in NOISY
        else 1e-5
    )
    alpha = float(schedule(schedule.times(steps, CASES[name][1])[0])[0])
    if name in ("heun", "plms"):
        least = max(least, 1e-4)
    if name in ("euler", "euler-a"):
        return max(least, 2**-21 / alpha)
    return max(least, 2**-21 / alpha / steps) if prediction == "eps" else least


SHORT = [
    (steps, prediction, clip)
    for steps in (1, 2, 5, 10, 50)
    for prediction in EVERY
    for clip in (False, True)
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("T", [1000, 200])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_the_images_are_those_of_diffusers(name, schedule, T):
    schedule = Schedule(schedule, T)
    every = [
        (steps, prediction, clip)
        for steps, prediction, clip in SHORT
        if prediction in CASES[name][3] and (CASES[name][2] or not clip)
    ]
    # see test_a_first_step_of_heun_wants_a_bounded_start
    if not (name == "heun" and schedule.name == "cosine"):
        whole = (False, True) if CASES[name][2] and T == 200 else (False,)
        every += [(T, "v" if "v" in CASES[name][3] else "eps", clip) for clip in whole]
    for case in every:
        assert difference(name, schedule, *case) <= tolerance(name, schedule, *case[:2]), case


@pytest.mark.parametrize(
    "schedule",
    [Schedule("linear"), Schedule("linear", 200), Schedule("cosine"), Schedule("cosine", 200)],
)
def test_ipndm_is_that_of_diffusers(schedule):
    """Theirs takes the sigmas themselves as its "betas", and eps from x and v, as v is wanted
    there. It cannot clip."""
    for steps in (1, 2, 5, 10, 50):
        times = schedule.times(steps, "leading")
        _, sigmas = schedule(torch.tensor(times))
        scheduler = IPNDMScheduler(trained_betas=sigmas.numpy())
        scheduler.set_timesteps(steps)
        start = x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
        for time, t in zip(times, scheduler.timesteps, strict=False):
            x = scheduler.step(network(schedule, "v", x, time), t, x).prev_sample
        for prediction in EVERY:
            image = ours("ipndm", start, schedule, times, prediction, False, 0)
            assert (image - x).abs().max() <= 1e-4, (steps, prediction)


def test_their_karras_times_are_ours():
    scheduler = EulerDiscreteScheduler(
        trained_betas=SCHEDULES["linear"](1000).numpy(), use_karras_sigmas=True
    )
    scheduler.set_timesteps(12)
    np.testing.assert_allclose(
        scheduler.timesteps.numpy() + 1,
        Schedule("linear").times(12, "karras(7, 1e-4, 1e5)")[:-1],
        rtol=1e-3,
    )


# --- Where diffusers 0.42 does not compute the published method -----------------------------------


def closed_form(schedule, x):
    """Where the exact deterministic flow takes x, for data N(0.3, 0.5**2): to the same quantile."""
    alpha, sigma = (float(c) for c in schedule(schedule.T))
    return 0.3 + 0.5 * (x.double() - 0.3 * alpha) / (alpha**2 * 0.25 + sigma**2) ** 0.5


def gaussian(schedule, x, t):
    alpha, sigma = (float(c) for c in schedule(t))
    return 0.3 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - alpha * 0.3)


def test_their_ddim_takes_the_wrong_previous_time_where_steps_do_not_divide_T():
    """They go to t - T // S, wherever the next time is. Ours arrives where the closed form does,
    five times closer."""
    schedule, steps = Schedule("linear"), 300
    scheduler = DDIMScheduler(
        trained_betas=SCHEDULES["linear"](1000).numpy(),
        set_alpha_to_one=True,
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="sample",
    )
    scheduler.set_timesteps(steps)
    noise = x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        x = scheduler.step(gaussian(schedule, x, float(t) + 1), t, x).prev_sample
    *_, image = SAMPLERS["ddim"].walk(
        lambda x, t: gaussian(schedule, x, t),
        schedule,
        noise,
        schedule.times(steps, "uniform"),
        None,
    )
    exact = closed_form(schedule, noise)
    assert (image.x - exact).abs().max() < 0.2 * (x - exact).abs().max()


def test_their_plms_averages_v_over_times_where_it_should_average_eps():
    """The same network, saying v instead of eps, must give the same image: ours does, theirs does
    not."""
    schedule = Schedule("linear")
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    v, eps = (
        ours("plms", x, schedule, schedule.times(10, "leading"), says, False, 0)
        for says in ("v", "eps")
    )
    torch.testing.assert_close(v, eps, rtol=0, atol=1e-5)
    case = CASES["plms"]
    ends = []
    for says in ("v", "eps"):
        scheduler = case[0](
            trained_betas=SCHEDULES["linear"](1000).numpy(), prediction_type=THEIR_NAME[says]
        )
        scheduler.set_timesteps(10)
        ends.append(theirs(scheduler, x, schedule, says, {})[1])
    assert (ends[0] - ends[1]).abs().max() > 0.1


def test_their_ddpm_with_the_large_variance_leaves_noise_in_the_image_on_the_trailing_grid():
    """The last time is then not 0, and they add noise at every other. Ours ends in the network's
    x0, as Algorithm 2 does."""
    schedule, c = Schedule("linear"), 0.5
    scheduler = DDPMScheduler(
        trained_betas=SCHEDULES["linear"](1000).numpy(),
        variance_type="fixed_large",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="sample",
    )
    scheduler.set_timesteps(10)
    noise = x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        x = scheduler.step(
            torch.full_like(x, c), t, x, generator=torch.Generator().manual_seed(0)
        ).prev_sample
    *_, image = SAMPLERS["ddpm-large"].walk(
        lambda x, t: torch.full_like(x, c),
        schedule,
        noise,
        schedule.times(10, "uniform"),
        torch.randn_like,
    )
    assert (x - c).abs().max() > 0.1
    assert torch.equal(image.x, torch.full_like(x, c))


def test_their_third_order_solver_is_of_second_order():
    """Both at the same times, equal in lam: up to the first step of third order the images agree.
    Then the error of theirs, against the closed form at t = 1, falls like a second order's, that of
    ours like a third order's."""
    schedule, errors = Schedule("linear"), {"ours": [], "theirs": []}
    data, start = Mixture(schedule), torch.linspace(-2, 2, 9).view(-1, 1, 1, 1)
    exact, whole = data.flow(start.double(), 1000, 1), torch.arange(1, 1001)
    lam = torch.log(torch.div(*schedule(whole))).numpy()
    for steps in (32, 64, 128):
        times = [*np.interp(-np.linspace(lam[-1], lam[0], steps), -lam, whole).tolist(), 0.0]
        scheduler = dpm(
            solver_order=3,
            lower_order_final=False,
            prediction_type="sample",
            use_lu_lambdas=True,
            trained_betas=SCHEDULES["linear"](1000).numpy(),
        )
        scheduler.set_timesteps(steps)
        *first, at_1, _ = SAMPLERS["dpm++3m"].walk(
            lambda x, t: data.denoise(x.double(), t).float(), schedule, start, times, None
        )
        x = start
        for k, t in enumerate(times[:-2]):
            x = scheduler.step(
                data.denoise(x.double(), t).float(), scheduler.timesteps[k], x
            ).prev_sample
            if k < 2:
                torch.testing.assert_close(x, first[k + 1].x, rtol=0, atol=1e-5)
        errors["ours"].append((at_1.x - exact).abs().max().item())
        errors["theirs"].append((x - exact).abs().max().item())
    order = {
        whose: -np.polyfit(np.log([32, 64, 128]), np.log(error), 1)[0]
        for whose, error in errors.items()
    }
    assert order["ours"] > 2.5 > order["theirs"], (order, errors)


@pytest.mark.parametrize("name", ["heun", "plms"])
def test_a_first_step_of_heun_wants_a_bounded_start(name):
    """At T the cosine schedule has sigma / alpha = 20,000: one straight stride from there goes far
    astray. (Facts of the method: diffusers does the same.) The Karras grid starts at 80, and with
    it ours comes to the closed form.
    """
    schedule = Schedule("cosine")
    noise = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    wild, tame = (
        list(
            SAMPLERS[name].walk(
                lambda x, t: gaussian(schedule, x, t),
                schedule,
                noise,
                schedule.times(20, grid),
                None,
            )
        )[-1].x
        for grid in ("uniform", "karras")
    )
    exact = closed_form(schedule, noise)
    assert (tame - exact).abs().max() < 0.05 < 0.5 < (wild - exact).abs().max()
