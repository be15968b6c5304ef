"""The Gradio app: the HTTP API and the page. `ddpm` makes all that is shown."""

import base64
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

# On a ZeroGPU Space it must come before torch; elsewhere it may be missing, and does nothing.
try:
    import spaces
except ImportError:
    spaces = None

import gradio as gr
from fastapi.responses import JSONResponse
from gradio.context import LocalContext
from gradio.route_utils import FnIndexInferError
from huggingface_hub import constants

from ddpm import GRIDS, SAMPLERS, player
from ddpm.demo import about, requests
from ddpm.demo.requests import BEST, Request
from ddpm.demo.serving import DEFAULT, Serving, Weights, on_fastest_device, pipeline
from ddpm.demo.tasks import Compare, Denoise, Film, Forward, Generate, Ladder, References, Task
from ddpm.demo.turns import Turns
from ddpm.engine.cpus import use_all
from ddpm.hub import ANY, BUILT_IN, NONE, one_line
from ddpm.settings import GUIDANCE, MAX_SEED

PATIENCE, AGAIN = 0.5, 30  # seconds to wait for weights from the Hub: at the start, and when asked
# Seconds after which a request is given up if its client has gone. With 5, some of 50 visitors at
# once on busy cores were taken for gone: they fetch, but slowly.
UNHEARD = 20
PLAYER_FILES, PAGE_FILES = Path(player.__file__).parent, Path(requests.__file__).parent
ASKED = Request()  # what the form starts with, but for the seed
RIVALS = [("ddpm", 10), ("ddim", 10), (ASKED.sampler, 10), (NONE, 20)]  # what Compare starts with
# What a link carries, by its name there: fields of Request, and how their text is read.
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

turns = Turns()
references = References()
serving = Serving(os.environ.get("DDPM_MODEL") or DEFAULT, os.environ.get("DDPM_REVISION") or None)


# --- The API: what can be asked for over HTTP too -------------------------------------------------


def generate(
    label: str = ASKED.label,
    count: int = ASKED.count,
    seed: int | None = ASKED.seed,
    steps: int = ASKED.steps,
    sampler: str = ASKED.sampler,
    time_grid: str = ASKED.time_grid,
    eta: float = ASKED.eta,
    guidance: float = ASKED.guidance,
) -> Iterator[tuple[Film, int, Film]]:
    """Samples images from noise, and streams the way there as a film; the last one is complete.

    Args:
        label: what to show, "any" (each seed chooses), a digit, or "none" (the network gets no
            label).
        count: how many images, 1 to 64. Images times network evaluations may be at most 20,000.
        seed: 0 to 2**32 - 1, of the first image; each next image has the next seed. null: random;
            the seed used is returned.
        steps: 1 to 1000.
        sampler: dpm++2m, dpm++3m, sde-dpm++2m, unipc2, unipc3, ipndm, plms, heun, euler, euler-a,
            ddim, ddpm or ddpm-large.
        time_grid: "best" (for the sampler), power, uniform, leading, linspace or karras.
        eta: 0 to 1, only for ddim.
        guidance: 0 to 20.
    """
    weights, names = _model()
    with _refusing():
        asked = Request(label, count, seed, steps, sampler, time_grid, eta, guidance)
        settings = asked.settings(names)
    for film in _films(Generate(settings), weights):
        yield film, settings.seeds[0], film  # kept too: a stopped film can be saved


def compare(
    label: str = ANY,
    count: int = 4,
    seed: int = 0,
    guidance: float = ASKED.guidance,
    sampler_1: str | None = RIVALS[0][0],
    steps_1: int = RIVALS[0][1],
    sampler_2: str | None = RIVALS[1][0],
    steps_2: int = RIVALS[1][1],
    sampler_3: str | None = RIVALS[2][0],
    steps_3: int = RIVALS[2][1],
    sampler_4: str | None = RIVALS[3][0],
    steps_4: int = RIVALS[3][1],
) -> Iterator[Film]:
    """Runs two to four samplers from the same noise, side by side, and measures their errors.

    The error is the distance from the result of 1000 steps.

    Args:
        label: what to show, "any" or a digit.
        count: 1 or 4 images.
        seed: 0 to 2**32 - 1, of the first image.
        guidance: 0 to 20.
        sampler_1: dpm++2m, dpm++3m, sde-dpm++2m, unipc2, unipc3, ipndm, plms, heun, euler, euler-a,
            ddim, ddpm or ddpm-large.
        steps_1: 1 to 1000.
        sampler_2: the second one, from the same list.
        steps_2: 1 to 1000.
        sampler_3: a third one; "none" leaves it out.
        steps_3: 1 to 1000.
        sampler_4: a fourth one; "none" leaves it out.
        steps_4: 1 to 1000.
    """
    weights, names = _model()
    ways = [(sampler_1, steps_1), (sampler_2, steps_2), (sampler_3, steps_3), (sampler_4, steps_4)]
    with _refusing():
        rivals = requests.rivals(
            names, ways, label=label, count=count, seed=seed, guidance=guidance
        )
    yield from _films(Compare(rivals), weights)


def ladder(
    label: str = ANY, count: int = 1, seed: int = 0, sampler: str = ASKED.sampler
) -> Iterator[Film]:
    """Samples the same seed in 1, 2, 5, 10, 20, 50 and 100 steps: what more steps improve.

    Args:
        label: what to show, "any" or a digit.
        count: 1 or 4 images.
        seed: 0 to 2**32 - 1, of the first image.
        sampler: dpm++2m, dpm++3m, sde-dpm++2m, unipc2, unipc3, ipndm, plms, heun, euler, euler-a,
            ddim, ddpm or ddpm-large.
    """
    weights, names = _model()
    with _refusing():
        settings = requests.ladder(names, label=label, count=count, seed=seed, sampler=sampler)
    yield from _films(Ladder(settings), weights)


def forward(picture: str = "5", seed: int = 0) -> Iterator[Film]:
    """Adds noise to a picture, and shows what the network predicts from it at each moment.

    Args:
        picture: "0" to "9" for a digit that comes with the app, or any small PNG as base64 (a data
            URI too).
        seed: 0 to 2**32 - 1, of the noise.
    """
    weights, names = _model()
    with _refusing():
        png = requests.picture(picture)
        [seed] = Request(count=1, seed=seed).settings(names).seeds
    yield from _films(Forward(png, seed), weights)


def denoise(
    picture: str = "5",
    t: float = 500,
    seed: int = 0,
    label: str = NONE,
    sampler: str = ASKED.sampler,
    steps: int = 50,
) -> Iterator[Film]:
    """Adds noise to a picture up to a time, and lets the model remove the noise from there.

    Args:
        picture: "0" to "9" for a digit that comes with the app, or any small PNG as base64 (a data
            URI too).
        t: 1 (hardly any noise) to 1000 (only noise).
        seed: 0 to 2**32 - 1, of the noise.
        label: the model's label: "none" (it gets none) or a digit.
        sampler: dpm++2m, dpm++3m, sde-dpm++2m, unipc2, unipc3, ipndm, plms, heun, euler, euler-a,
            ddim, ddpm or ddpm-large.
        steps: 1 to 1000, of the whole way; only those below t are taken.
    """
    weights, names = _model()
    with _refusing():
        png = requests.picture(picture)
        asked = Request(label, 1, seed, steps, sampler)
        t = requests.time(t, pipeline(weights).model.schedule.T)
        task = Denoise(png, t, asked.settings(names))
    yield from _films(task, weights)


def save_gif(film: Film, view: str = "x") -> Iterator[str]:
    """Saves the film that was generated last in this session as a GIF, as far as it came.

    Before any was generated, it is the film that the page opens with.

    Args:
        view: "x" (the noisy images), "x0" (what the network predicts), or "both" side by side.
    """
    with _refusing():
        content = player.as_gif(film["walks"][0], view)
    with tempfile.TemporaryDirectory() as folder:  # Gradio copies the file into its own cache
        path = Path(folder) / f"digits-{film['walks'][0]['seeds'][0]}.gif"
        path.write_bytes(content)
        yield str(path)


# --- Behind the API -------------------------------------------------------------------------------


def _model() -> tuple[Weights, tuple[str, ...]]:
    """The weights to use now, and the names of their classes."""
    weights = serving.weights  # read once: others may arrive at any moment
    return weights, pipeline(weights).class_names


def _run(task: Task, weights: Weights) -> Iterator[Film]:
    """Runs a task. Only plain values go in and out: it may be another process."""
    with _refusing():
        yield from task.films(on_fastest_device(weights), references)


# On a ZeroGPU Space it runs in a process that has a GPU.
_computed: Callable[[Task, Weights], Iterator[Film]] = spaces.GPU(_run) if spaces else _run


def _films(task: Task, weights: Weights) -> Iterator[Film]:
    """The films of a task, in turns with those of all other requests."""
    with _refusing():
        yield from turns.share(_computed(task, weights), task.work, _listener())


def _listener() -> Callable[[], bool]:
    """Whether the client still fetches what the present request yields.

    Gradio keeps results until they are fetched, and would compute to the end: a client that has
    gone would keep the network busy. It has gone if the same message is the oldest for UNHEARD
    seconds.
    """
    request, blocks = LocalContext.request.get(None), LocalContext.blocks.get(None)
    if request is None or blocks is None:  # called from Python
        return lambda: True
    queue = blocks._queue

    def messages() -> Any:
        found = queue.pending_messages_per_session.get(request.session_hash)
        return found._queue if found else ()

    def first() -> Any:
        return next(iter(messages()), None)

    oldest, since = first(), time.monotonic()
    event = queue.event_ids_to_events.get(LocalContext.event_id.get(None) or "")
    if event and oldest and oldest.event_id == event._id:  # not even that it waits was heard
        since = event.enqueue_time

    def listens() -> bool:
        nonlocal oldest, since
        now, seen = time.monotonic(), first()
        if seen is None or seen is not oldest:
            oldest, since = seen, now
        elif now - since >= UNHEARD:
            messages().clear()  # or they would stay; why it was given up will be the only one
            return False
        return True

    return listens


@contextmanager
def _refusing() -> Iterator[None]:
    """An error in a request is shown to the user, in one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def restore(query: str) -> tuple[Any, ...]:
    """The settings of a link (or of the last visit) for the widgets, and whether to run them.

    Each setting is checked.
    """
    pairs = parse_qsl(query.removeprefix("?")[:1000])
    asked = {key: value for key, value in pairs if key in IN_LINK}
    usual = replace(ASKED, seed=0)
    if not asked:  # what the visitor has typed meanwhile stays
        return *[gr.skip()] * len(asdict(usual)), False
    try:
        found, good = _from_link(usual, asked), True
    except ValueError as error:
        gr.Warning(f"This link cannot be followed: {error}. The usual settings are set instead.")
        found, good = usual, False
    return *asdict(found).values(), good and query.startswith("?")


def _from_link(usual: Request, asked: dict[str, str]) -> Request:
    """The request of a link, if the form can show it. Raises ValueError that says why not."""
    found = usual
    for key, text in asked.items():
        name, read = IN_LINK[key]
        try:
            found = replace(found, **{name: read(text)})
        except ValueError:
            raise ValueError(f"{key} must be a number") from None
    if found.count not in requests.COUNTS or found.label == NONE:
        counts = ", ".join(map(str, requests.COUNTS))
        raise ValueError(f"images must be one of {counts}, the digit one of the page's")
    found.settings(_model()[1])
    return found


def _picked(event: gr.EventData) -> Any:
    """The seed of the image that was singled out becomes the seed."""
    seed = event._data.get("seed") if isinstance(event._data, dict) else None
    return seed if type(seed) is int and 0 <= seed <= MAX_SEED else gr.skip()


class Shown(NamedTuple):
    """What the page shows about the weights: widgets, or new values for them."""

    notice: Any  # that the built-in ones are used instead, and the button to try again
    again: Any
    line: Any  # which they are
    command: Any  # two ways to get them
    python: Any
    label: Any  # the widgets that list the classes
    label_of_compare: Any
    label_of_ladder: Any
    hint: Any


def _weights_in_use() -> Shown:
    """What the page shows about the weights now."""
    weights = serving.weights  # read once: others may arrive at any moment
    model = pipeline(weights)
    notice = _notice()
    line, command = _source(weights)
    revision = f', revision="{weights.commit}"' if weights.commit else ""
    load = f'Pipeline.from_pretrained("{weights.source}"{revision})'
    python = f"images = {load}.sample(seeds=range(16))"
    classes = [ANY, *model.class_names]
    return Shown(
        notice=gr.Markdown(notice, visible=bool(notice)),
        again=gr.Button(visible=bool(notice)),
        line=line,
        command=gr.Code(command, visible=bool(command)),
        python=f'from ddpm import Pipeline\n{python}\nimages.save("digits.gif")',
        label=gr.Dropdown(classes),
        label_of_compare=gr.Dropdown(classes),
        label_of_ladder=gr.Dropdown(classes),
        hint=gr.Dropdown([NONE, *model.class_names]),
    )


def _notice() -> str:
    """That the weights which were asked for are not there, and why; "" if they are."""
    if serving.arrived:
        return ""
    problem = serving.problem
    why = f"could not be loaded: {problem}." if problem else "are still on their way."
    return f"⚠️ The weights of `{serving.source}` {why} **The built-in weights draw instead.**"


def _source(weights: Weights) -> tuple[str, str]:
    """Which weights they are, in Markdown; and the command that downloads them, or ""."""
    source, commit = weights
    model = pipeline(weights)
    space = os.environ.get("SPACE_ID")  # there the built-in weights are files of the Space
    hub = f"{constants.ENDPOINT}/{source}"
    if commit:
        line = f"[{source}]({hub}) at revision [{commit[:7]}]({hub}/tree/{commit})"
        told, command = f"[Its card]({hub}) shows how good it is.", f"hf download {source}"
        command += f" --revision {commit}"
    else:
        folder = BUILT_IN / source if serving.built_in else Path(source)
        line = f"built-in (`{source}`)" if serving.built_in else f"the folder `{source}`"
        told, command = about.quality(model, folder), ""
        if space:
            files = f"ddpm/pretrained/{source}/*"
            command = f'hf download {space} --type space --include "{files}"'
    zero = os.environ.get("SPACES_ZERO_GPU")
    engine = "a GPU of ZeroGPU" if zero else on_fastest_device(weights).engine.text
    line = f"In use: {line}. {about.about(model)} {told} It is computed by {engine}."
    if space:
        line += f" The code is [in this Space]({constants.ENDPOINT}/spaces/{space}/tree/main)."
    return line, command


def try_again() -> Shown:
    """Asks the Hub once more for the weights that the app was told to use."""
    serving.load(AGAIN)
    return _weights_in_use()


# --- The page -------------------------------------------------------------------------------------

FILM = {
    "type": "object",
    "description": "{id, walks: [{title, seeds, labels, total, frames: [{t, snr, nfe, x, x0}]}]}"
    ", x and x0 being PNGs as data URIs",
}
PLAYER = """
    const player = element.querySelector("ddpm-player");
    const show = () => customElements.whenDefined("ddpm-player")
        .then(() => player.show(props.value));
    watch("value", show);
    show();
    player.addEventListener("pick", (event) => trigger("pick", event.detail));
"""
PAD = """
    const pad = element.querySelector("ddpm-pad");
    pad.addEventListener("ink", (event) => {
        props.value = event.detail.picture;
        trigger("ink");
    });
    customElements.whenDefined("ddpm-pad").then(() => pad.offer(props.digits, 5));
"""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# `preprocess`: bad input is refused by ddpm.demo with one line, not by Gradio with a traceback in
# the log.
WORK: dict[str, Any] = {
    "concurrency_limit": 16,  # they take turns; each holds one of Gradio's 40 threads meanwhile
    "concurrency_id": "network",
    "show_progress": "hidden",
    "preprocess": False,
}


def build() -> gr.Blocks:
    """The page."""
    use_all()
    # A folder needs no network: wait for it.
    serving.load(AGAIN if Path(serving.source).is_dir() else PATIENCE)
    if not serving.arrived:
        why = serving.problem or "still loading"
        print(f"{serving.source}: {why}. The built-in weights draw instead.", flush=True)
    title, what = ("digits", "handwritten digits") if _draws_digits() else ("images", "images")
    name = f"From noise to {title}"
    page = gr.Blocks(title=name, analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.Markdown(
            f"# {name}\nA small neural network turns random noise into {what}, step by step. Every "
            "seed gives a different picture, and the same seed always the same one.",
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
            line, command, python = _weights_tab()
        shown = Shown(
            notice, again, line, command, python, label, label_of_compare, label_of_ladder, hint
        )
        page.load(_weights_in_use, None, list(shown), queue=False, **QUIET)
        again.click(try_again, None, list(shown), api_visibility="private", show_progress_on=notice)
    page.queue(max_size=64, api_open=False)
    # Not in a class of our own: Gradio would write a stub file beside this one.
    page.preprocess_data = _in_words(page.preprocess_data)  # type: ignore[method-assign]
    return page


def _in_words(preprocess: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but what Gradio refuses (too few values, files that nobody uploaded) is refused in
    one line, not with a traceback in the log."""

    async def preprocess_in_words(*args: Any, **more: Any) -> Any:
        try:
            return await preprocess(*args, **more)
        except ValueError as error:
            raise gr.Error(one_line(error), print_exception=False) from error

    return preprocess_in_words


def _no_such_task(_: Any, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": one_line(error)}, status_code=404)


def _names() -> tuple[str, ...]:
    return _model()[1]


def _go_and_stop(words: str, elem_id: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        return (
            gr.Button(words, variant="primary", elem_id=elem_id, min_width=110, scale=2),
            gr.Button("Stop", elem_id=f"stop-{elem_id}", min_width=80),
        )


def _film(elem_id: str, value: Film | None = None) -> gr.HTML:
    """The player. Its value is a film; its event `pick` has the image that a visitor chose."""
    template = "<ddpm-player></ddpm-player>"
    view = gr.HTML(value, html_template=template, js_on_load=PLAYER, elem_id=elem_id)
    # Not by a class of its own: Gradio would write a stub file beside this one.
    view.api_info = lambda: FILM  # type: ignore[method-assign]  # for the API page
    return view


def _draws_digits() -> bool:
    return bool(pipeline(serving.weights).config.get("dataset") == "mnist")


def _label() -> gr.Dropdown:
    return gr.Dropdown(
        [ANY, *_names()],
        value=ANY,
        label="Digit" if _draws_digits() else "Class",
        min_width=140,
        info="What to draw; any: each seed chooses.",
    )


def _few(value: int) -> gr.Dropdown:
    counts, info = list(requests.FEW), "How many of each."
    return gr.Dropdown(counts, value=value, label="Images", info=info, min_width=140)


def _seed() -> gr.Number:
    return gr.Number(
        value=0,
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        label="Seed",
        info="Which noise to start from. The same seed gives the same picture.",
    )


def _steps(value: int, label: str, info: str | None = None) -> gr.Slider:
    return gr.Slider(1, requests.MAX_STEPS, value, step=1, precision=0, label=label, info=info)


def _guidance(info: str, **more: Any) -> gr.Slider:
    most = GUIDANCE.high
    return gr.Slider(0, most, 0, step=0.5, precision=2, label="Guidance", info=info, **more)


def _sampler() -> gr.Dropdown:
    noisy = ", ".join(name for name, sampler in SAMPLERS.items() if sampler.fresh_noise)
    info = f"The rule for each step. {noisy} add fresh noise."
    return gr.Dropdown(list(SAMPLERS), value=ASKED.sampler, label="Sampler", info=info)


class _Form(NamedTuple):
    """The widgets of `generate`, in the order of its arguments."""

    label: gr.Dropdown
    images: gr.Dropdown
    seed: gr.Number
    steps: gr.Slider
    sampler: gr.Dropdown
    time_grid: gr.Dropdown
    eta: gr.Slider
    guidance: gr.Slider


def _form() -> _Form:
    """What can be set in the first tab."""
    label = _label()
    counts = list(requests.COUNTS)
    count = gr.Dropdown(counts, value=ASKED.count, label="Images", info="How many at once.")
    seed = _seed()
    dice = gr.Button("🎲 Roll a new seed", size="sm")
    dice.click(requests.random_seed, None, seed, queue=False, **QUIET)
    with gr.Accordion("Sampler", open=False):
        cost = f"Each evaluates the network once (heun: twice). {ASKED.steps} is plenty."
        steps = _steps(ASKED.steps, "Steps", cost)
        sampler = _sampler()
        more = "Fresh noise on the way: 0 is none, 1 as much as ddpm."
        eta = gr.Slider(0, 1, 0, step=0.05, precision=2, label="Eta", visible=False, info=more)
        guidance = _guidance("How strongly to follow the label. Above 0 doubles the work.")
        where = "Where the steps fall; best is what was measured for the sampler."
        time_grid = gr.Dropdown([BEST, *GRIDS], value=BEST, label="Time grid", info=where)
    # What has no effect is out of sight, and back at zero.
    sampler.change(
        lambda name: (
            gr.Slider(visible=True)
            if "eta" in SAMPLERS[name].settings
            else gr.Slider(value=0, visible=False)
        ),
        sampler,
        eta,
        queue=False,
        **QUIET,
    )
    return _Form(label, count, seed, steps, sampler, time_grid, eta, guidance)


def _generate_tab(page: gr.Blocks) -> gr.Dropdown:
    """The first tab; returns the widget that lists the classes."""
    weights, names = _model()
    model = pipeline(weights)
    steps = min(ASKED.steps, model.model.schedule.T)
    *_, example = Generate(Request(seed=0, steps=steps).settings(names)).films(model, references)
    last = gr.State(example, time_to_live=3600)
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            go, stop = _go_and_stop("Generate", "generate")
            film = _film("film", example | {"loop": True})
            with gr.Row():
                save = gr.Button("Save GIF", size="sm", min_width=110, elem_id="save")
                copy = gr.Button("Copy link", size="sm", min_width=110, elem_id="copy")
        with gr.Column(scale=2, min_width=280):
            form = _form()
    settings = list(form)
    run = _wire(go, stop, generate, settings, film, form.seed, last)
    remember = "(...values) => page.remember(values)"
    run.success(None, settings, None, js=remember, queue=False, **QUIET)
    film.pick(_picked, None, form.seed, queue=False, **QUIET)
    copied = "(...values) => page.copy(values)"
    copy.click(None, settings, None, js=copied, queue=False, **QUIET)
    _wire_saving(save, last)
    query, go_on = gr.Textbox(visible=False), gr.Checkbox(visible=False)
    restored = page.load(
        restore,
        query,
        [*settings, go_on],
        js="() => page.recall()",
        concurrency_limit=None,
        **QUIET,
    )
    click = '(go) => { if (go) page.click("generate"); }'
    restored.then(None, go_on, None, js=click, queue=False, **QUIET)
    return form.label


def _wire_saving(save: gr.Button, last: gr.State) -> None:
    """The button that downloads the last film as a GIF, in the view that is on."""
    view, file = gr.Textbox("x", visible=False), gr.File(visible=False)
    made = save.click(
        save_gif,
        [last, view],
        file,
        js='(last) => [last, page.player("film").view]',
        api_name="save_gif",
        show_progress="hidden",
        preprocess=False,
    )
    made.success(None, file, None, js="(file) => page.download(file)", queue=False, **QUIET)


def _compare_tab(tab: gr.Tab) -> gr.Dropdown:
    """The same noise through several samplers; returns the widget that lists the classes."""
    gr.Markdown(
        "The same noise through two to four samplers, side by side and in step. When all have "
        "arrived, each is compared with the result of a thousand steps."
    )
    go, stop = _go_and_stop("Compare", "compare")
    film = _film("compare-film")
    with gr.Row():
        label, count, seed = _label(), _few(requests.FEW[-1]), _seed()
        guidance = _guidance("How strongly to follow the label.", min_width=140)
    rivals: list[Any] = []
    with gr.Row():
        for k, (name, steps) in enumerate(RIVALS, 1):
            with gr.Column(min_width=200):
                names = [*([NONE] if k > 2 else []), *SAMPLERS]
                rivals.append(gr.Dropdown(names, value=name, label=f"Sampler {k}"))
                rivals.append(_steps(steps, f"Steps {k}"))
    _wire(go, stop, compare, [label, count, seed, guidance, *rivals], film)
    _open_with(tab, film, go)
    return label


def _ladder_tab(tab: gr.Tab) -> gr.Dropdown:
    """One seed in ever more steps; returns the widget that lists the classes."""
    gr.Markdown(
        "The same seed in 1, 2, 5, … 100 steps: what more steps improve. The chart shows how far "
        "each ends from the result of a thousand steps."
    )
    go, stop = _go_and_stop("Draw all seven", "climb")
    film = _film("steps-film")
    with gr.Row():
        label, count, seed, sampler = _label(), _few(requests.FEW[0]), _seed(), _sampler()
    _wire(go, stop, ladder, [label, count, seed, sampler], film)
    _open_with(tab, film, go)
    return label


def _noise_tab() -> gr.Dropdown:
    """The forward process, and back from any time; returns the widget that lists the classes."""
    gr.Markdown(
        "A picture gets noisier as you drag to the left: that is all a diffusion model is trained "
        "on. x̂₀ is the clean image it predicts. Stop where you like, and let it remove the noise."
    )
    digits = "data:image/png;base64," + base64.b64encode(requests.DIGITS.read_bytes()).decode()
    template = "<ddpm-pad></ddpm-pad>"
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            pad = gr.HTML("5", html_template=template, js_on_load=PAD, elem_id="pad", digits=digits)
            seed = _seed()
        with gr.Column(scale=3, min_width=280):
            film = _film("noise-film")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            told = "Which digit it is; none: nothing."
            hint = gr.Dropdown([NONE, *_names()], value=NONE, label="Told the model", info=told)
            sampler = _sampler()
            steps = _steps(50, "Steps", "Of the whole way; only those that are left are taken.")
            go, stop = _go_and_stop("Denoise from here", "denoise")
        with gr.Column(scale=3, min_width=280):
            back = _film("back-film")
    latest: dict[str, Any] = {"trigger_mode": "always_last"} | WORK
    pad.ink(forward, [pad, seed], film, api_name="forward", **latest)
    for event in (seed.submit, seed.input):
        event(forward, [pad, seed], film, api_visibility="private", **latest)
    t = gr.Number(500, visible=False)
    held = 'Math.max(1, page.player("noise-film").time)'
    js = f"(...asked) => {{ asked[1] = {held}; return asked; }}"
    _wire(go, stop, denoise, [pad, t, seed, hint, sampler, steps], back, js=js)
    return hint


def _weights_tab() -> tuple[gr.Markdown, gr.Code, gr.Code]:
    """Which weights are in use, and how to get or train some: the line, the command, the Python."""
    line = gr.Markdown(elem_classes="weights-line")
    how: dict[str, Any] = {"interactive": False, "buttons": ["copy"]}
    command = gr.Code(language="shell", label="Download them", lines=1, **how)
    where = "Use them, in the folder that holds ddpm/"
    python = gr.Code(language="python", label=where, lines=3, wrap_lines=True, **how)
    gr.Markdown(
        "To train your own: `python -m train --dataset mnist --data data --out runs/mnist`; with "
        "your own pictures: `python -m train --dataset folder --data my_pictures --size 32 --out "
        "runs/mine`"
    )
    return line, command, python


def _wire(
    go: gr.Button,
    stop: gr.Button,
    task: Callable[..., Iterator[Any]],
    asked: list[Any],
    film: gr.HTML,
    *others: Any,
    js: str | None = None,
) -> Any:
    """A button that runs a task, which fills the film and the others, and one that stops it.

    js changes the request before it is sent. Returns the run.
    """
    halt = f'() => page.player("{film.elem_id}").halt()'
    run = go.click(task, asked, [film, *others], api_name=task.__name__, js=js, **WORK)
    run.failure(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, cancels=[run], api_visibility="private")
    return run


def _open_with(tab: gr.Tab, film: gr.HTML, go: gr.Button) -> None:
    """Presses the button when the tab is opened for the first time."""
    js = f'() => page.openWith("{film.elem_id}", "{go.elem_id}")'
    tab.select(None, None, None, queue=False, js=js, **QUIET)


def _head() -> str:
    """The page's own style and scripts. As `css`, Gradio would confine rules to its inside."""
    grain = "data:image/svg+xml," + quote((PLAYER_FILES / "grain.svg").read_text(encoding="utf-8"))
    css = (PAGE_FILES / "page.css").read_text(encoding="utf-8").replace("GRAIN", grain)
    scripts = [
        (PAGE_FILES / "page.js").read_text(encoding="utf-8"),
        f"page.names = {json.dumps(list(IN_LINK))};",
        *((PLAYER_FILES / name).read_text(encoding="utf-8") for name in ("player.js", "pad.js")),
    ]
    return "\n".join([f"<style>{css}</style>", *(f"<script>{s}</script>" for s in scripts)])


def launch_settings() -> dict[str, Any]:
    """What Gradio takes at launch: the look, the player's script, and what is forbidden."""
    theme = gr.themes.Default(  # the system's own fonts: nothing is fetched
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    pale = ("block_info_text_color", "body_text_color_subdued")  # too pale to read, as they are
    theme.set(
        **dict.fromkeys(pale, "*neutral_600"),
        **{f"{name}_dark": "*neutral_400" for name in pale},
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    return {
        "head": _head(),
        "theme": theme,
        "show_error": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "ssr_mode": False,
        "state_session_capacity": 200,
        "run_history": False,
        "app_kwargs": {"exception_handlers": {FnIndexInferError: _no_such_task}},
        "footer_links": ["api", "gradio", "settings"],
        "mcp_server": importlib.util.find_spec("mcp") is not None,
    }


if __name__ == "__main__":
    build().launch(**launch_settings())
