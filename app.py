"""The Gradio app: widgets and wiring. All that it shows is made in `ddpm`."""

import base64
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:  # on a ZeroGPU Space it must come before torch; elsewhere it may be missing, and does nothing if it is there
    import spaces
except ImportError:
    spaces = None

import gradio as gr
from huggingface_hub import constants

from ddpm import GRIDS, SAMPLERS, Frame, Images
from ddpm.cpus import use_all
from ddpm.hub import BUILT_IN
from ddpm.images import gif, grid, pick_frames, png
from ddpm.pipeline import MAX_GUIDANCE, MAX_SEED
from ddpm.serving import DEFAULT, Serving, Weights, on_fastest_device, pipeline

ANY, BEST = "any", "best"
PATIENCE, AGAIN = 0.5, 30  # seconds to wait for weights from the Hub: at the start, and when somebody asks again
MAX_COUNT, MAX_STEPS = 64, 1000
SHOW_EVERY = 0.1  # seconds: a slow walk is shown (and can be stopped) at least this often
CSS = """
.picture figure { margin: 0; }
.picture img { display: block; width: min(100%, 30rem); margin: 0 auto; image-rendering: pixelated; }
.picture figcaption { margin-top: .5rem; min-height: 3em; text-align: center; font-variant-numeric: tabular-nums; }
"""


serving = Serving(os.environ.get("DDPM_MODEL") or DEFAULT, os.environ.get("DDPM_REVISION") or None)


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
    weights = serving.weights
    with _refusing():
        _check_whole("count", count, 1, MAX_COUNT)
        _check_whole("steps", steps, 1, MAX_STEPS)
        seed = random_seed() if seed is None else seed
        _check_whole(f"seed (for {count} images)", seed, 0, MAX_SEED + 1 - count)
        names = pipeline(weights).class_names
        if label != ANY and label not in names:
            raise ValueError(f"label must be {ANY} or one of {', '.join(names)}")
        if time_grid not in (BEST, *GRIDS):
            raise ValueError(f"time_grid must be one of {', '.join((BEST, *GRIDS))}")
        settings = {"labels": None if label == ANY else names.index(label), "sampler": sampler, "steps": steps,
                    "grid": None if time_grid == BEST else time_grid, "eta": eta or None, "guidance": guidance}

    for picture, as_gif, as_png in _draw(weights, range(seed, seed + count), settings):  # noqa: B007
        if as_gif is None:
            yield picture, seed, gr.skip(), gr.skip()
    with tempfile.TemporaryDirectory() as folder:  # Gradio copies what is yielded into its own cache
        files = {Path(folder) / f"digits-{seed}.gif": as_gif, Path(folder) / f"digits-{seed}.png": as_png}
        for path, content in files.items():
            path.write_bytes(content)
        yield picture, seed, *(gr.DownloadButton(value=str(path), interactive=True) for path in files)


def _on_gpu(task: Callable) -> Callable:
    """On a ZeroGPU Space: run it in a process that has a GPU. Elsewhere it stays what it is."""
    return spaces.GPU(task) if spaces else task


@_on_gpu
def _draw(weights: Weights, seeds: range, settings: dict[str, Any]) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """Pictures as HTML, and with the last one the GIF and the PNG. Only text and bytes: it may be another process."""
    with _refusing():
        stream = on_fastest_device(weights).stream(seeds=seeds, **settings)
    steps = settings["steps"]
    picked, kept, shown = set(pick_frames(steps + 1)), [], 0.0
    for k, frame in enumerate(stream):
        if k in picked:
            kept.append(frame)
        if k in picked or time.monotonic() - shown > SHOW_EVERY:
            shown = time.monotonic()
            picture = _picture(frame, seeds, k, steps)
            yield picture, None, None
    images = Images(frame.x, tuple(seeds), tuple(kept))
    yield picture, gif([frame.x for frame in images.frames]), png(images.grid())


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with a request goes to whoever made it, in one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


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


def _weights_in_use() -> tuple[Any, ...]:
    """What the page says of the weights: a notice and its button, which they are, two ways to get them, the labels."""
    source, commit = serving.weights
    notice = ""
    if not serving.arrived:
        why = f"could not be loaded: {serving.problem}." if serving.problem else "are still on their way."
        notice = f"⚠️ The weights of `{serving.source}` {why} **The built-in weights draw instead.**"
    load = f'Pipeline.from_pretrained("{source}")'
    if commit:
        hub = f"{constants.ENDPOINT}/{source}"
        line = f"[{source}]({hub}) at revision [{commit[:7]}]({hub}/tree/{commit})"
        load = f'Pipeline.from_pretrained("{source}", revision="{commit}")'
        command = f"hf download {source} --revision {commit}"
    else:
        line = f"built-in (`{source}`)" if serving.built_in else f"the folder `{source}`"
        space = os.environ.get("SPACE_ID")  # there the built-in weights are files of the Space
        command = f'hf download {space} --type space --include "ddpm/pretrained/{source}/*"' if space else ""
    python = f"from ddpm import Pipeline\nimages = {load}.sample(seeds=range(16))\nimages.save(\"digits.gif\")"
    return (gr.Markdown(notice, visible=bool(notice)), gr.Button(visible=bool(notice)), f"In use: {line}",
            gr.Code(command, visible=bool(command)), python,
            gr.Dropdown([ANY, *pipeline(serving.weights).class_names], value=ANY))


def try_again() -> tuple[Any, ...]:
    """Asks the Hub once more for the weights that the app was told to use."""
    serving.load(AGAIN)
    return _weights_in_use()


def build() -> gr.Blocks:
    """The page."""
    use_all()
    serving.load(PATIENCE)
    if not serving.arrived:
        print(f"{serving.source}: {serving.problem or 'still loading'}. The built-in weights draw instead.", flush=True)
    example = _figure((BUILT_IN / DEFAULT / "samples.gif").read_bytes(), "gif", "noise turning into handwritten digits",
                      "An example: from noise to digits.<br>Press Generate to draw your own.")
    with gr.Blocks(title="From noise to digits", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# From noise to digits\nA small neural network turns random noise into handwritten digits, "
                    "step by step. Every seed gives a different picture, and the same seed always the same one.")
        notice = gr.Markdown(visible=False)
        again = gr.Button("Try again", size="sm", visible=False)
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
                label = gr.Dropdown([ANY, *pipeline(serving.weights).class_names], value=ANY, label="Digit",
                                    info="What to draw.")
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

        with gr.Accordion("Weights", open=False):
            line = gr.Markdown()
            command = gr.Code(language="shell", label="Download them", interactive=False, lines=1, buttons=["copy"])
            python = gr.Code(language="python", label="Use them, in the folder that holds ddpm/", interactive=False,
                             lines=3, buttons=["copy"], wrap_lines=True)

        shown = [notice, again, line, command, python, label]
        page.load(_weights_in_use, None, shown, api_visibility="private", queue=False, show_progress="hidden")
        again.click(try_again, None, shown, api_visibility="private", show_progress_on=notice)
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
