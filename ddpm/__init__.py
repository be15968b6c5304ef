"""A denoising diffusion model for small images, from scratch.

    from ddpm import Pipeline
    images = Pipeline.from_pretrained("mnist").sample(seeds=range(16))
    images.save("digits.gif")

Symbols, the same in every file:

    t        time, from 0 (clean) to T (pure noise); the network was trained at whole numbers
    x, x_t   the noisy image at t: x_t = alpha(t) * x0 + sigma(t) * eps, N×C×H×W float32
    x0       the clean image, in [-LIMIT, LIMIT] (`ddpm.pixels`); also the network's estimate of it
    eps      standard normal noise
    v        alpha * eps - sigma * x0: what the network predicts by default
    alpha    how much signal there is at t; the square root of the papers' alpha_bar
    sigma    how much noise there is at t; alpha**2 + sigma**2 = 1
    snr      signal-to-noise ratio, alpha**2 / sigma**2
    y        labels; y == classes stands for "no label"
    eta      how much fresh noise DDIM adds, 0..1
    nfe      network evaluations spent on an image so far
    walk     the way of a sampler from noise to images, one Step at a time
    grid     the times that a walk visits, falling from T to 0
    film     a walk, or several side by side, as plain data for the player

Read on in this order: schedule, diffusion, unet, samplers, pipeline.
"""

from .diffusion import add_noise, denoiser, loss
from .frames import Frame
from .images import Images
from .pipeline import Pipeline
from .samplers import SAMPLERS, Step
from .schedule import GRIDS, SCHEDULES, Schedule
from .settings import Settings, Start
from .unet import UNet

__version__ = "0.9.0"

__all__ = [
    "GRIDS",
    "SAMPLERS",
    "SCHEDULES",
    "Frame",
    "Images",
    "Pipeline",
    "Schedule",
    "Settings",
    "Start",
    "Step",
    "UNet",
    "add_noise",
    "denoiser",
    "loss",
]
