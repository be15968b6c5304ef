"""The Gradio app: widgets and wiring. All that it shows is made in `ddpm`."""

import base64
import secrets
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gradio as gr

from ddpm import GRIDS, SAMPLERS, Frame, Images, Pipeline
from ddpm.hub import BUILT_IN
from ddpm.images import grid, pick_frames, png
from ddpm.pipeline import MAX_GUIDANCE, MAX_SEED

MODEL, ANY, BEST = "mnist", "any", "best"
MAX_COUNT, MAX_STEPS = 64, 1000
SHOW_EVERY = 0.1  # seconds: a slow walk is shown (and can be stopped) at least this often
CSS = """
.picture figure { margin: 0; }
.picture img { display: block; width: min(100%, 30rem); margin: 0 auto; image-rendering: pixelated; }
.picture figcaption { margin-top: .5rem; min-height: 3em; text-align: center; font-variant-numeric: tabular-nums; }
"""


@cache
def pipeline() -> Pipeline:
    """The model, loaded once."""
    return Pipeline.from_pretrained(MODEL)


def generate(
    label: str = ANY,
    count: int = 16,
    seed: int | None = None,
    steps: int = 20,
    sampler: str = "dpm++2m",
    time_grid: str = BEST,
    eta: float = 0.0,
    guidance: float = 0.0,
) -> Iterator[tuple]:
    """Draws images from noise and shows the way there; ends with the process as a GIF and the result as a PNG.

    Args:
        label: what to draw, "any" or a digit.
        count: how many images, 1..64.
        seed: 0..2**32 - 1, of the first image; each next image has the next seed. None (null): drawn by lot.
        steps: 1..1000. sampler: as the page lists them. time_grid: "best", or as the page lists them.
        eta: 0..1, only for ddim. guidance: 0..20, only with a digit.
    """
    try:
        _check_whole("count", count, 1, MAX_COUNT)
        _check_whole("steps", steps, 1, MAX_STEPS)
        seed = random_seed() if seed is None else seed
        _check_whole(f"seed (for {count} images)", seed, 0, MAX_SEED + 1 - count)
        if label != ANY and label not in pipeline().class_names:
            raise ValueError(f"label must be {ANY} or one of {', '.join(pipeline().class_names)}")
        if time_grid not in (BEST, *GRIDS):
            raise ValueError(f"time_grid must be one of {', '.join((BEST, *GRIDS))}")
        seeds = range(seed, seed + count)
        stream = pipeline().stream(
            seeds=seeds, labels=None if label == ANY else pipeline().class_names.index(label),
            sampler=sampler, steps=steps,
            grid=None if time_grid == BEST else time_grid, eta=eta or None, guidance=guidance)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error

    picked, kept, shown = set(pick_frames(steps + 1)), [], 0.0
    for k, frame in enumerate(stream):
        if k in picked:
            kept.append(frame)
        if k in picked or time.monotonic() - shown > SHOW_EVERY:
            shown = time.monotonic()
            picture = _picture(frame, seeds, k, steps)
            yield picture, seed, gr.skip(), gr.skip()
    images = Images(frame.x, tuple(seeds), tuple(kept))
    with tempfile.TemporaryDirectory() as folder:  # Gradio copies what is yielded into its own cache
        files = [str(Path(folder) / f"digits-{seed}.{kind}") for kind in ("gif", "png")]
        for file in files:
            images.save(file)
        yield picture, seed, *(gr.DownloadButton(value=file, interactive=True) for file in files)


def random_seed() -> int:
    """A seed drawn by lot that leaves room for MAX_COUNT images."""
    return secrets.randbelow(MAX_SEED + 2 - MAX_COUNT)


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}")


def _picture(frame: Frame, seeds: range, step: int, steps: int) -> str:
    """A frame as HTML. Only numbers go into it: nothing that a visitor typed."""
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return _figure(png(grid(frame.x)), "png", f"{len(seeds)} images at t = {frame.t:.0f}",
                   f"{which}<br>step {step} of {steps}, t = {frame.t:.0f}, {frame.nfe} network evaluations")


def _figure(data: bytes, kind: str, alt: str, caption: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def build() -> gr.Blocks:
    """The page."""
    example = _figure((BUILT_IN / MODEL / "samples.gif").read_bytes(), "gif", "noise turning into handwritten digits",
                      "An example: from noise to digits.<br>Press Generate to draw your own.")
    with gr.Blocks(title="From noise to digits", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# From noise to digits\nA small neural network turns random noise into handwritten digits, "
                    "step by step. Every seed gives a different picture, and the same seed always the same one.")
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                picture = gr.HTML(example, elem_classes="picture", label="The picture")
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", min_width=120)
                    stop = gr.Button("Stop", variant="stop", min_width=120)
                with gr.Row():
                    save_gif = gr.DownloadButton("Save as GIF", size="sm", interactive=False, min_width=120)
                    save_png = gr.DownloadButton("Save as PNG", size="sm", interactive=False, min_width=120)
            with gr.Column(scale=2, min_width=280):
                label = gr.Dropdown([ANY, *pipeline().class_names], value=ANY, label="Digit", info="What to draw.")
                guidance = gr.Slider(0, MAX_GUIDANCE, value=0, step=0.5, precision=2, label="Guidance", visible=False,
                                     info="How strongly to insist on the digit. Above 0 doubles the work.")
                count = gr.Slider(1, MAX_COUNT, value=16, step=1, precision=0, label="Images", info="How many at once.")
                seed = gr.Number(value=0, precision=0, minimum=0, maximum=MAX_SEED, label="Seed",
                                 info="Which noise to start from. The same seed gives the same picture.")
                dice = gr.Button("🎲 Roll a new seed", size="sm")
                with gr.Accordion("Sampler", open=False):
                    steps = gr.Slider(1, MAX_STEPS, value=20, step=1, precision=0, label="Steps",
                                      info="Each asks the network once (heun: twice). 20 is plenty.")
                    sampler = gr.Dropdown(list(SAMPLERS), value="dpm++2m", label="Sampler",
                                          info="The rule for each step. ddpm, euler-a and sde add fresh noise.")
                    eta = gr.Slider(0, 1, value=0, step=0.05, precision=2, label="Eta", visible=False,
                                    info="Fresh noise on the way: 0 is none, 1 as much as ddpm.")
                    time_grid = gr.Dropdown([BEST, *GRIDS], value=BEST, label="Time grid",
                                            info="Where the steps fall; best is what was measured for the sampler.")

        outputs = [picture, seed, save_gif, save_png]
        run = go.click(generate, [label, count, seed, steps, sampler, time_grid, eta, guidance], outputs,
                       api_name="generate", show_progress="hidden", concurrency_limit=1)
        stop.click(None, cancels=[run], api_visibility="private")
        dice.click(random_seed, None, seed, api_visibility="private", queue=False)
        # What has no effect is out of sight, and back at zero.
        sampler.change(lambda name: gr.Slider(value=0, visible=name == "ddim"), sampler, eta,
                       api_visibility="private", queue=False, show_progress="hidden")
        # A little guidance makes the digits clearer: the default as soon as one is asked for.
        label.change(lambda name: gr.Slider(value=float(name != ANY), visible=name != ANY), label, guidance,
                     api_visibility="private", queue=False, show_progress="hidden")
    return page.queue(max_size=32, api_open=False)


if __name__ == "__main__":
    build().launch(css=CSS, show_error=False, enable_monitoring=False, max_file_size="1mb", ssr_mode=False)
