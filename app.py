"""The Gradio app: widgets and wiring. All that it shows is made in `ddpm`."""

import base64
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

# on a ZeroGPU Space it must come before torch; elsewhere it may be missing, and does nothing if it
# is there
try:
    import spaces
except ImportError:
    spaces = None

import gradio as gr
from huggingface_hub import constants

from ddpm import GRIDS, SAMPLERS, demo, player
from ddpm.demo import ANY, BEST, NONE
from ddpm.demo.serving import DEFAULT, Serving, Weights, on_fastest_device, pipeline
from ddpm.engine.cpus import use_all
from ddpm.hub import BUILT_IN
from ddpm.pipeline import MAX_GUIDANCE, MAX_SEED
from ddpm.samplers import BEST_SAMPLER

PATIENCE, AGAIN = (
    0.5,
    30,
)  # seconds to wait for weights from the Hub: at the start, and when somebody asks again
ASSETS = Path(__file__).parent / "ddpm" / "player"
RIVALS = [("ddpm", 10), ("ddim", 10), (BEST_SAMPLER, 10), (NONE, 20)]  # what Compare starts with
# What a link carries, by its name there: the settings of `generate`, and how their text is read.
IN_LINK: dict[str, tuple[str, Callable[[str], Any]]] = {
    "digit": ("label", str),
    "images": ("count", int),
    "seed": ("seed", int),
    "steps": ("steps", int),
    "sampler": ("sampler", str),
    "grid": ("time_grid", str),
    "eta": ("eta", float),
    "guidance": ("guidance", float),
}

serving = Serving(os.environ.get("DDPM_MODEL") or DEFAULT, os.environ.get("DDPM_REVISION") or None)


# --- The API: what can be asked for over HTTP too -------------------------------------------------


def generate(
    label: str = ANY,
    count: int = 16,
    seed: int | None = None,
    steps: int = 20,
    sampler: str = BEST_SAMPLER,
    time_grid: str = BEST,
    eta: float = 0.0,
    guidance: float = 0.0,
) -> Iterator[tuple]:
    """Draws images from noise, and streams the way there as a film; the last one is complete.

    Args:
        label: what to draw, "any" (each seed its own), a digit, or "none" (the network is told
            nothing).
        count: how many images, 1 to 64. Images times network evaluations may be at most 20,000.
        seed: 0 to 2**32 - 1, of the first image; each next image has the next seed. null: drawn by
            lot, and told.
        steps: 1 to 1000.
        sampler: as the page lists them.
        time_grid: "best", or as the page lists them.
        eta: 0 to 1, only for ddim.
        guidance: 0 to 20.
    """
    weights, names = _model()
    with _refusing():
        settings = demo.checked(
            names,
            label=label,
            count=count,
            seed=seed,
            steps=steps,
            sampler=sampler,
            time_grid=time_grid,
            eta=eta,
            guidance=guidance,
        )
    seed = settings["seeds"][0]
    for film in _films("generate", weights, settings=settings):
        yield film, seed, film  # kept too: what was stopped can be saved as far as it came


def compare(
    label: str = ANY,
    count: int = 4,
    seed: int = 0,
    guidance: float = 0.0,
    sampler_1: str | None = "ddpm",
    steps_1: int = 10,
    sampler_2: str | None = "ddim",
    steps_2: int = 10,
    sampler_3: str | None = BEST_SAMPLER,
    steps_3: int = 10,
    sampler_4: str | None = NONE,
    steps_4: int = 20,
) -> Iterator[dict[str, Any]]:
    """Takes the same noise through two to four samplers side by side, and measures how far each
    ends from 1000 steps.

    Args:
        label: what to draw, "any" or a digit.
        count: 1 or 4 images.
        seed: 0 to 2**32 - 1, of the first image.
        guidance: 0 to 20.
        sampler_1: as the page lists them.
        steps_1: 1 to 1000.
        sampler_2: the second one, and its steps likewise.
        steps_2: 1 to 1000.
        sampler_3: a third one; "none" leaves it out.
        steps_3: 1 to 1000.
        sampler_4: a fourth one; "none" leaves it out.
        steps_4: 1 to 1000.
    """
    weights, names = _model()
    rivals = [
        (sampler_1, steps_1),
        (sampler_2, steps_2),
        (sampler_3, steps_3),
        (sampler_4, steps_4),
    ]
    with _refusing():
        rivals = demo.checked_rivals(
            names, rivals, label=label, count=count, seed=seed, guidance=guidance
        )
    yield from _films("compare", weights, rivals=rivals)


def ladder(
    label: str = ANY, count: int = 1, seed: int = 0, sampler: str = BEST_SAMPLER
) -> Iterator[dict[str, Any]]:
    """Draws the same seed in 1, 2, 5, 10, 20, 50 and 100 steps: what a step buys.

    Args:
        label: what to draw, "any" or a digit.
        count: 1 or 4 images.
        seed: 0 to 2**32 - 1, of the first image.
        sampler: as the page lists them.
    """
    weights, names = _model()
    with _refusing():
        settings = demo.checked_ladder(names, label=label, count=count, seed=seed, sampler=sampler)
    yield from _films("ladder", weights, settings=settings)


def forward(picture: str = "5", seed: int = 0) -> Iterator[dict[str, Any]]:
    """Drowns a picture in noise, and shows what the network sees in it at each moment.

    Args:
        picture: "0" to "9" for a digit that comes with the app, or any small PNG as base64 (a data
            URI too).
        seed: 0 to 2**32 - 1, of the noise.
    """
    weights, names = _model()
    with _refusing():
        picture = demo.checked_picture(picture)
        seed = demo.checked(names, count=1, seed=seed)["seeds"][0]
    yield from _films("forward", weights, picture=picture, seed=seed)


def denoise(
    picture: str = "5",
    t: float = 500,
    seed: int = 0,
    label: str = NONE,
    sampler: str = BEST_SAMPLER,
    steps: int = 50,
) -> Iterator[dict[str, Any]]:
    """Drowns a picture in noise up to a time, and lets the model find its way back from there.

    Args:
        picture: "0" to "9" for a digit that comes with the app, or any small PNG as base64 (a data
            URI too).
        t: 1 (hardly any noise) to 1000 (nothing else).
        seed: 0 to 2**32 - 1, of the noise.
        label: what the model is told: "none" (nothing) or a digit.
        sampler: as the page lists them.
        steps: 1 to 1000, of the whole way; only those below t are taken.
    """
    weights, names = _model()
    with _refusing():
        picture = demo.checked_picture(picture)
        settings = demo.checked(
            names, label=label, count=1, seed=seed, sampler=sampler, steps=steps
        )
        t = demo.checked_time(pipeline(weights), t)
    yield from _films("denoise", weights, picture=picture, t=t, settings=settings)


def save_gif(film: dict[str, Any], view: str = "x") -> Iterator[str]:
    """The film generated last in this session, as far as it came, as a GIF; before any, the one the
    page opens with.

    Args:
        view: "x" (the noisy images), "x0" (what the network believes), or "both" side by side.
    """
    with _refusing():
        content = player.as_gif(film["walks"][0], view)
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # Gradio copies what is yielded into its own cache
        path = Path(folder) / f"digits-{film['walks'][0]['seeds'][0]}.gif"
        path.write_bytes(content)
        yield str(path)


# --- Behind it ------------------------------------------------------------------------------------


def _model() -> tuple[Weights, tuple[str, ...]]:
    """The weights to draw with now, and the names of their classes."""
    weights = serving.weights  # read once: others may arrive at any moment
    return weights, pipeline(weights).class_names


def _on_gpu(task: Callable) -> Callable:
    """On a ZeroGPU Space: run it in a process that has a GPU. Elsewhere it stays what it is."""
    return spaces.GPU(task) if spaces else task


@_on_gpu
def _films(task: str, weights: Weights, **asked: Any) -> Iterator[dict[str, Any]]:
    """Runs a task of `ddpm.demo`. Only plain data goes in and out: it may be another process."""
    with _refusing():
        yield from demo.TASKS[task](on_fastest_device(weights), **asked)


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with a request goes to whoever made it, in one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def restore(query: str) -> tuple[Any, ...]:
    """The settings of a link (or of the last visit), each checked, for the widgets; and whether to
    run them."""
    asked = {
        key: value for key, value in parse_qsl(query.removeprefix("?")[:1000]) if key in IN_LINK
    }
    defaults = {
        "label": ANY,
        "count": 16,
        "seed": 0,
        "steps": 20,
        "sampler": BEST_SAMPLER,
        "time_grid": BEST,
        "eta": 0.0,
        "guidance": 0.0,
    }
    if not asked:  # what somebody has typed meanwhile stays
        return *[gr.skip()] * len(defaults), False
    settings, good = dict(defaults), True
    try:
        for key, text in asked.items():
            name, read = IN_LINK[key]
            try:
                settings[name] = read(text)
            except ValueError:
                raise ValueError(f"{key} must be a number") from None
        if settings["count"] not in demo.COUNTS or settings["label"] == NONE:
            raise ValueError(
                f"images must be one of {', '.join(map(str, demo.COUNTS))}, the digit one of the page's"
            )
        demo.checked(_model()[1], **settings)
    except ValueError as error:
        gr.Warning(f"This link cannot be followed: {error}. The usual settings are set instead.")
        settings, good = defaults, False
    return *settings.values(), good and query.startswith("?")


def _picked(event: gr.EventData) -> Any:
    """The seed of the image that was singled out becomes the seed."""
    seed = event._data.get("seed") if isinstance(event._data, dict) else None
    return seed if type(seed) is int and 0 <= seed <= MAX_SEED else gr.skip()


def _weights_in_use() -> tuple[Any, ...]:
    """What the page says of the weights: a notice and its button, which they are, two ways to get
    them, the labels."""
    source, commit = weights = serving.weights  # read once: others may arrive at any moment
    drawing = pipeline(weights)
    space = os.environ.get(
        "SPACE_ID"
    )  # there the built-in weights are files of the Space, and so is the code
    notice = ""
    if not serving.arrived:
        why = (
            f"could not be loaded: {serving.problem}."
            if serving.problem
            else "are still on their way."
        )
        notice = f"⚠️ The weights of `{serving.source}` {why} **The built-in weights draw instead.**"
    engine = (
        "a GPU of ZeroGPU"
        if os.environ.get("SPACES_ZERO_GPU")
        else on_fastest_device(weights).engine.text
    )
    load = f'Pipeline.from_pretrained("{source}")'
    if commit:
        hub = f"{constants.ENDPOINT}/{source}"
        line = f"[{source}]({hub}) at revision [{commit[:7]}]({hub}/tree/{commit})"
        load = f'Pipeline.from_pretrained("{source}", revision="{commit}")'
        command = f"hf download {source} --revision {commit}"
        told = f"[Its card]({hub}) tells how good it is."
    else:
        line = f"built-in (`{source}`)" if serving.built_in else f"the folder `{source}`"
        told = demo.quality(drawing, BUILT_IN / source if serving.built_in else Path(source))
        command = (
            f'hf download {space} --type space --include "ddpm/pretrained/{source}/*"'
            if space
            else ""
        )
    python = f'from ddpm import Pipeline\nimages = {load}.sample(seeds=range(16))\nimages.save("digits.gif")'
    return (
        gr.Markdown(notice, visible=bool(notice)),
        gr.Button(visible=bool(notice)),
        f"In use: {line}. {demo.about(drawing)} {told} It is computed by {engine}."
        + (
            f" The code is [in this Space]({constants.ENDPOINT}/spaces/{space}/tree/main)."
            if space
            else ""
        ),
        gr.Code(command, visible=bool(command)),
        python,
        *(gr.Dropdown([ANY, *drawing.class_names]) for _ in range(3)),
        gr.Dropdown([NONE, *drawing.class_names]),
    )


def try_again() -> tuple[Any, ...]:
    """Asks the Hub once more for the weights that the app was told to use."""
    serving.load(AGAIN)
    return _weights_in_use()


# --- The page -------------------------------------------------------------------------------------

FILM = {
    "type": "object",
    "description": "{id, walks: [{title, seeds, labels, total, frames: [{t, snr, nfe, x, x0}]}]}"
    ", x and x0 being PNGs as data URIs",
}
CSS = """
.gradio-container { width: 100%; max-width: 1080px; margin: 0 auto; }
.masthead h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); letter-spacing: -.02em; margin: .4rem 0 .4rem; }
.masthead h1::after { content: ""; display: block; height: 9px; margin-top: .5rem; background: var(--primary-500);
  mask: url("GRAIN") 0 0 / 100% 100%; }
.masthead p { max-width: 44rem; }
.weights-line p { overflow-wrap: anywhere; }
.gradio-container button[role=tab].selected { color: var(--primary-600); }
.dark .gradio-container button[role=tab].selected { color: var(--primary-300); }
@media (max-width: 480px) {
  .gradio-container .main.fillable { padding: 12px; }
  .gradio-container .tab-container button, .gradio-container .tab-wrapper button { padding: 0 7px; font-size: 13.5px; }
}
"""
_PLAYER = "document.querySelector('#{} ddpm-player')"
# What was asked for goes into the address and is kept for the next visit; a click copies the
# address.
_NAMES = json.dumps(list(IN_LINK))
_QUERY = f"""const pairs = {_NAMES}.map((name, k) => [name, values[k]]).filter(([, value]) => value !== null);
  const query = new URLSearchParams(pairs).toString();"""  # null: a seed field left empty
REMEMBER = f"""(...values) => {{ {_QUERY}
  try {{ localStorage.setItem("ddpm", query); history.replaceState(null, "", "?" + query); }} catch {{}}
}}"""
COPY = f"""async (...values) => {{ {_QUERY}
  const link = location.origin + location.pathname + "?" + query, button = document.querySelector("#copy");
  try {{ await navigator.clipboard.writeText(link); }} catch {{ prompt("The link:", link); return; }}
  const words = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => {{ button.textContent = words; }}, 1500);
}}"""
RECALL = f"""() => {{ const ours = new Set({_NAMES}), asked = new URLSearchParams(location.search); let kept = "";
  for (const name of [...asked.keys()]) if (!ours.has(name)) asked.delete(name);
  try {{ kept = localStorage.getItem("ddpm") || ""; }} catch {{}}
  return asked.size ? "?" + asked : kept; }}"""
RUN = """(go) => { if (go) document.querySelector("#generate").click(); }"""
DOWNLOAD = """(file) => { const link = document.createElement("a");
  link.href = file.url; link.download = file.orig_name; link.click(); }"""
PLAYER = """
    const player = element.querySelector("ddpm-player");
    const show = () => customElements.whenDefined("ddpm-player").then(() => player.show(props.value));
    watch("value", show);
    show();
    player.addEventListener("pick", (event) => trigger("pick", event.detail));
"""
PAD = """
    const pad = element.querySelector("ddpm-pad");
    pad.addEventListener("ink", (event) => { props.value = event.detail.picture; trigger("ink"); });
    customElements.whenDefined("ddpm-pad").then(() => pad.offer(props.digits, 5));
"""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# `preprocess`: what Gradio would refuse, with a traceback in the log, is refused by ddpm.demo, in
# words.
WORK: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "network",
    "show_progress": "hidden",
    "preprocess": False,
}


def build() -> gr.Blocks:
    """The page."""
    use_all()
    serving.load(
        AGAIN if Path(serving.source).is_dir() else PATIENCE
    )  # a folder needs no network: wait for it
    if not serving.arrived:
        print(
            f"{serving.source}: {serving.problem or 'still loading'}. The built-in weights draw instead.",
            flush=True,
        )
    title, what = ("digits", "handwritten digits") if _draws_digits() else ("images", "images")
    with gr.Blocks(
        title=f"From noise to {title}", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gr.Markdown(
            f"# From noise to {title}\nA small neural network turns random noise into {what}, "
            "step by step. Every seed gives a different picture, and the same seed always the same one.",
            elem_classes="masthead",
        )
        notice = gr.Markdown(visible=False)
        again = gr.Button("Try again", size="sm", visible=False)
        with gr.Tab("Generate"):
            label = _generate_tab(page)
        with gr.Tab("Compare") as tab:
            label_of_compare = _compare_tab(tab)
        with gr.Tab("Steps") as tab:
            label_of_ladder = _ladder_tab(tab)
        with gr.Tab("Noise"):
            hint = _noise_tab()
        with gr.Tab("Weights"):
            line = gr.Markdown(elem_classes="weights-line")
            command = gr.Code(
                language="shell",
                label="Download them",
                interactive=False,
                lines=1,
                buttons=["copy"],
            )
            python = gr.Code(
                language="python",
                label="Use them, in the folder that holds ddpm/",
                interactive=False,
                lines=3,
                buttons=["copy"],
                wrap_lines=True,
            )
            gr.Markdown(
                "To train your own: `python -m train --dataset mnist --data data --out runs/mnist`; with your "
                "own pictures: `python -m train --dataset folder --data my_pictures --size 32 --out runs/mine`"
            )
        shown = [
            notice,
            again,
            line,
            command,
            python,
            label,
            label_of_compare,
            label_of_ladder,
            hint,
        ]
        page.load(_weights_in_use, None, shown, queue=False, **QUIET)
        again.click(try_again, None, shown, api_visibility="private", show_progress_on=notice)
    return page.queue(max_size=64, api_open=False)


def _names() -> tuple[str, ...]:
    return _model()[1]


def _go_and_stop(words: str, elem_id: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        return (
            gr.Button(words, variant="primary", elem_id=elem_id, min_width=110, scale=2),
            gr.Button("Stop", elem_id=f"stop-{elem_id}", min_width=80),
        )


def _film(elem_id: str, value: dict[str, Any] | None = None) -> gr.HTML:
    """The player. Its value is a film; its event `pick` tells of an image singled out."""
    view = gr.HTML(
        value, html_template="<ddpm-player></ddpm-player>", js_on_load=PLAYER, elem_id=elem_id
    )
    view.api_info = lambda: (
        FILM
    )  # not by a class of its own: Gradio would write a stub file beside this one
    return view


def _draws_digits() -> bool:
    return pipeline(serving.weights).config.get("dataset") == "mnist"


def _label() -> gr.Dropdown:
    return gr.Dropdown(
        [ANY, *_names()],
        value=ANY,
        label="Digit" if _draws_digits() else "Class",
        min_width=140,
        info="What to draw; any: each seed its own.",
    )


def _seed() -> gr.Number:
    return gr.Number(
        value=0,
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        label="Seed",
        info="Which noise to start from. The same seed gives the same picture.",
    )


def _sampler(value: str = BEST_SAMPLER, **settings: Any) -> gr.Dropdown:
    return gr.Dropdown(
        list(SAMPLERS),
        value=value,
        **{
            "label": "Sampler",
            "info": "The rule for each step. ddpm, euler-a and sde add fresh noise.",
        }
        | settings,
    )


def _generate_tab(page: gr.Blocks) -> gr.Dropdown:
    """The first tab; returns the widget that lists the classes."""
    weights, names = _model()
    most = pipeline(weights).model.schedule.T
    *_, example = demo.generate(pipeline(weights), demo.checked(names, seed=0, steps=min(20, most)))
    last = gr.State(example, time_to_live=3600)
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            go, stop = _go_and_stop("Generate", "generate")
            film = _film("film", example | {"loop": True})
            with gr.Row():
                save = gr.Button("Save GIF", size="sm", min_width=110, elem_id="save")
                copy = gr.Button("Copy link", size="sm", min_width=110, elem_id="copy")
        with gr.Column(scale=2, min_width=280):
            label = _label()
            count = gr.Dropdown(
                list(demo.COUNTS), value=16, label="Images", info="How many at once."
            )
            seed = _seed()
            dice = gr.Button("🎲 Roll a new seed", size="sm")
            with gr.Accordion("Sampler", open=False):
                steps = gr.Slider(
                    1,
                    demo.MAX_STEPS,
                    value=20,
                    step=1,
                    precision=0,
                    label="Steps",
                    info="Each asks the network once (heun: twice). 20 is plenty.",
                )
                sampler = _sampler()
                eta = gr.Slider(
                    0,
                    1,
                    value=0,
                    step=0.05,
                    precision=2,
                    label="Eta",
                    visible=False,
                    info="Fresh noise on the way: 0 is none, 1 as much as ddpm.",
                )
                guidance = gr.Slider(
                    0,
                    MAX_GUIDANCE,
                    value=0,
                    step=0.5,
                    precision=2,
                    label="Guidance",
                    info="How strongly to insist on the digit. Above 0 doubles the work.",
                )
                time_grid = gr.Dropdown(
                    [BEST, *GRIDS],
                    value=BEST,
                    label="Time grid",
                    info="Where the steps fall; best is what was measured for the sampler.",
                )
    settings = [label, count, seed, steps, sampler, time_grid, eta, guidance]
    run = _wire(go, stop, generate, settings, film, seed, last)
    run.success(None, settings, None, js=REMEMBER, queue=False, **QUIET)
    dice.click(demo.random_seed, None, seed, queue=False, **QUIET)
    film.pick(_picked, None, seed, queue=False, **QUIET)
    copy.click(None, settings, None, js=COPY, queue=False, **QUIET)
    view, file = gr.Textbox("x", visible=False), gr.File(visible=False)
    save.click(
        save_gif,
        [last, view],
        file,
        js=f"(last) => [last, {_PLAYER.format('film')}.view]",
        api_name="save_gif",
        show_progress="hidden",
        preprocess=False,
    ).success(None, file, None, js=DOWNLOAD, queue=False, **QUIET)
    # What has no effect is out of sight, and back at zero.
    sampler.change(
        lambda name: (
            gr.Slider(visible=True) if name == "ddim" else gr.Slider(value=0, visible=False)
        ),
        sampler,
        eta,
        queue=False,
        **QUIET,
    )
    query, go_on = gr.Textbox(visible=False), gr.Checkbox(visible=False)
    page.load(restore, query, [*settings, go_on], js=RECALL, concurrency_limit=None, **QUIET).then(
        None, go_on, None, js=RUN, queue=False, **QUIET
    )
    return label


def _compare_tab(tab: gr.Tab) -> gr.Dropdown:
    """The same noise through several samplers; returns the widget that lists the classes."""
    gr.Markdown(
        "The same noise through two to four samplers, side by side and in step. When all have arrived, each is "
        "measured against where a thousand steps lead."
    )
    go, stop = _go_and_stop("Compare", "compare")
    film = _film("compare-film")
    with gr.Row():
        label = _label()
        count = gr.Dropdown(
            list(demo.FEW), value=4, label="Images", info="How many of each.", min_width=140
        )
        seed = _seed()
        guidance = gr.Slider(
            0,
            MAX_GUIDANCE,
            value=0,
            step=0.5,
            precision=2,
            label="Guidance",
            min_width=140,
            info="How strongly to insist on the digit.",
        )
    rivals = []
    with gr.Row():
        for k, (name, count_of_steps) in enumerate(RIVALS, 1):
            with gr.Column(min_width=200):
                rivals += [
                    gr.Dropdown(
                        [*([NONE] if k > 2 else []), *SAMPLERS], value=name, label=f"Sampler {k}"
                    ),
                    gr.Slider(
                        1,
                        demo.MAX_STEPS,
                        value=count_of_steps,
                        step=1,
                        precision=0,
                        label=f"Steps {k}",
                    ),
                ]
    _wire(go, stop, compare, [label, count, seed, guidance, *rivals], film)
    _open_with(tab, film, go)
    return label


def _ladder_tab(tab: gr.Tab) -> gr.Dropdown:
    """One seed in ever more steps; returns the widget that lists the classes."""
    gr.Markdown(
        "The same seed in 1, 2, 5, … 100 steps: what a step buys. The chart tells how far each ends from where "
        "a thousand steps lead."
    )
    go, stop = _go_and_stop("Draw all seven", "climb")
    film = _film("steps-film")
    with gr.Row():
        label = _label()
        count = gr.Dropdown(
            list(demo.FEW), value=1, label="Images", info="How many of each.", min_width=140
        )
        seed = _seed()
        sampler = _sampler()
    _wire(go, stop, ladder, [label, count, seed, sampler], film)
    _open_with(tab, film, go)
    return label


def _noise_tab() -> gr.Dropdown:
    """The forward process, and back from where one likes; returns the widget that lists the
    classes."""
    gr.Markdown(
        "A picture drowns in noise as you drag to the left: that is all a diffusion model is trained on. x̂₀ is "
        "what it believes to see. Stop where you like, and let it find its way back."
    )
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            pad = gr.HTML(
                "5",
                html_template="<ddpm-pad></ddpm-pad>",
                js_on_load=PAD,
                elem_id="pad",
                digits="data:image/png;base64,"
                + base64.b64encode(demo.DIGITS.read_bytes()).decode(),
            )
            seed = _seed()
        with gr.Column(scale=3, min_width=280):
            film = _film("noise-film")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            hint = gr.Dropdown(
                [NONE, *_names()],
                value=NONE,
                label="Told the model",
                info="Which digit it is; none: nothing.",
            )
            sampler = _sampler()
            steps = gr.Slider(
                1,
                demo.MAX_STEPS,
                value=50,
                step=1,
                precision=0,
                label="Steps",
                info="Of the whole way; only those that are left are taken.",
            )
            go, stop = _go_and_stop("Denoise from here", "denoise")
        with gr.Column(scale=3, min_width=280):
            back = _film("back-film")
    pad.ink(forward, [pad, seed], film, trigger_mode="always_last", api_name="forward", **WORK)
    for event in (seed.submit, seed.input):
        event(
            forward, [pad, seed], film, trigger_mode="always_last", api_visibility="private", **WORK
        )
    t = gr.Number(500, visible=False)
    _wire(
        go,
        stop,
        denoise,
        [pad, t, seed, hint, sampler, steps],
        back,
        js=f"(...asked) => {{ asked[1] = Math.max(1, {_PLAYER.format('noise-film')}.time); return asked; }}",
    )
    return hint


def _wire(
    go: gr.Button,
    stop: gr.Button,
    task: Callable,
    asked: list[Any],
    film: gr.HTML,
    *others: Any,
    **more: Any,
) -> Any:
    """A button that runs a task, which fills the film and the others, and one that stops it.
    Returns the run."""
    halt = f"() => {{ {_PLAYER.format(film.elem_id)}.halt(); }}"
    run = go.click(task, asked, [film, *others], api_name=task.__name__, **WORK, **more)
    run.failure(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, cancels=[run], api_visibility="private")
    return run


def _open_with(tab: gr.Tab, film: gr.HTML, go: gr.Button) -> None:
    """Presses the button when the tab is opened for the first time: a page opens with a picture,
    not with a form."""
    tab.select(
        None,
        None,
        None,
        queue=False,
        **QUIET,
        js=f"""() => setTimeout(() => {{
        if (!{_PLAYER.format(film.elem_id)}.walks.length) document.querySelector("#{go.elem_id}").click(); }}, 50)""",
    )


def launch_settings() -> dict[str, Any]:
    """What Gradio takes at launch: the look, the player's script, and what nobody may do."""
    grain = "data:image/svg+xml," + quote((ASSETS / "grain.svg").read_text(encoding="utf-8"))
    # In the head, not as `css`: there Gradio confines every rule to the inside of the page.
    head = [
        f"<style>{CSS.replace('GRAIN', grain)}</style>",
        *(
            f"<script>{(ASSETS / name).read_text(encoding='utf-8')}</script>"
            for name in ("player.js", "pad.js")
        ),
    ]
    theme = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )  # the system's own: nothing is fetched
    pale = (
        "block_info_text_color",
        "body_text_color_subdued",
    )  # too pale to read, as Gradio has them
    theme.set(
        **dict.fromkeys(pale, "*neutral_600"),
        **{f"{name}_dark": "*neutral_400" for name in pale},
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    return {
        "head": "\n".join(head),
        "theme": theme,
        "show_error": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "ssr_mode": False,
        "state_session_capacity": 200,
        "run_history": False,
        "footer_links": ["api", "gradio", "settings"],
        "mcp_server": importlib.util.find_spec("mcp") is not None,
    }


if __name__ == "__main__":
    build().launch(**launch_settings())
