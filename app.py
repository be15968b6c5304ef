"""The Gradio app: the HTTP API and the page. `ddpm` makes all that is shown."""

import base64
import hashlib
import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

# On a ZeroGPU Space it must come before torch; elsewhere it may be missing, and does nothing.
try:
    import spaces
except ImportError:
    spaces = None

import gradio as gr
from anyio import from_thread, to_thread
from fastapi import Request as Asked
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from gradio import FileData
from gradio.context import LocalContext
from gradio.events import api
from gradio.processing_utils import save_bytes_to_cache
from gradio.route_utils import FnIndexInferError
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import get_upload_folder
from huggingface_hub import constants
from starlette.middleware import Middleware

from ddpm import GRIDS, SAMPLERS, browser, player
from ddpm.demo import about, answers, requests
from ddpm.demo import nearest as training
from ddpm.demo.http import Front
from ddpm.demo.requests import BEST, Request
from ddpm.demo.serving import DEFAULT, Serving, Weights, on_fastest_device, pipeline
from ddpm.demo.tasks import (
    Compare,
    Denoise,
    Film,
    Forward,
    Generate,
    Ladder,
    References,
    Task,
    as_images,
)
from ddpm.demo.turns import MOST, Turns
from ddpm.engine.cpus import use_all
from ddpm.hub import ANY, BUILT_IN, NONE, one_line
from ddpm.settings import GUIDANCE, MAX_SEED

PATIENCE, AGAIN = 0.5, 30  # seconds to wait for weights from the Hub: at the start, and when asked
# Seconds after which a request is given up if its client has gone. With 5, some of 50 visitors at
# once on busy cores were taken for gone: they fetch, but slowly.
UNHEARD = 20
CARD = (
    "Watch a small neural network turn random noise into images, step by step, and draw your own."
)
WRONG = "The link has settings that are not valid, and is followed without them: {wrong}."
# Under the picture in a page of someone else's.
OURS = '<a href="." target="_blank">Draw your own</a>'
GONE = "nobody fetched the result in time: it is not kept"
PLAYER_FILES, PAGE_FILES = Path(player.__file__).parent, Path(requests.__file__).parent
SCRIPTS = {
    PLAYER_FILES: ("player.js", "pad.js"),
    browser.FILES: browser.PARTS,
    PAGE_FILES: ("steps.js", "save.js", "near.js", "page.js"),
}
MOST_BYTES = 16_000_000  # of a model that a visitor's browser is asked to take
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


# --- The API: what programs can ask for, over HTTP and as tools of an MCP server ------------------

Answer = tuple[dict[str, Any], FileData, FileData, dict[str, Any] | None]


def generate(
    label: str = ASKED.label,
    count: int = ASKED.count,
    seed: int | None = ASKED.seed,
    steps: int = ASKED.steps,
    sampler: str = ASKED.sampler,
    time_grid: str = ASKED.time_grid,
    eta: float = ASKED.eta,
    guidance: float = ASKED.guidance,
    film: bool = False,
) -> tuple[dict[str, Any], FileData, FileData, list[dict[str, Any]], dict[str, Any] | None]:
    """Samples images from noise.

    Args:
        label: what to show; any: each seed chooses, none: the network gets no label.
        count: how many images. Images times network evaluations may be at most 20,000.
        seed: of the first image; each next image has the next seed. null: random.
        steps: most samplers evaluate the network once a step.
        sampler: the rule for each step.
        time_grid: where the steps are; best: the sampler's own.
        eta: how much fresh noise, only for ddim.
        guidance: how strongly to follow the label; above 0 it doubles the evaluations.
        film: whether to return every frame too.

    Returns:
        the seeds and labels
        all images as one PNG
        the way from noise as a GIF
        each image as a PNG
        every frame, or null
    """
    weights, names = _model()
    with _refusing():
        asked = Request(label, count, seed, steps, sampler, time_grid, eta, guidance)
        settings = asked.settings(names)
    found = _last(Generate(settings), weights)
    images = [  # as plain data: in lists Gradio knows no other files
        _file(png, f"digits-{seed}.png").model_dump()
        for seed, png in zip(settings.seeds, answers.singles(found), strict=True)
    ]
    told, sheet, gif, frames = _answer(found, film)
    return told, sheet, gif, images, frames


def compare(
    label: str = ANY,
    count: int = 4,
    seed: int = 0,
    guidance: float = ASKED.guidance,
    sampler_1: str = RIVALS[0][0],
    steps_1: int = RIVALS[0][1],
    sampler_2: str = RIVALS[1][0],
    steps_2: int = RIVALS[1][1],
    sampler_3: str = RIVALS[2][0],
    steps_3: int = RIVALS[2][1],
    sampler_4: str = RIVALS[3][0],
    steps_4: int = RIVALS[3][1],
    measure: bool = False,
    film: bool = False,
) -> Answer:
    """Runs two to four samplers from the same noise.

    Args:
        label: what to show; any: each seed chooses, none: the network gets no label.
        count: how many images, 1 or 4.
        seed: of the first image; each next image has the next seed.
        guidance: how strongly to follow the label; above 0 it doubles the evaluations.
        sampler_1: the first one.
        steps_1: of the first one.
        sampler_2: the second one.
        steps_2: of the second one.
        sampler_3: a third one; none leaves it out.
        steps_3: of the third one.
        sampler_4: a fourth one; none leaves it out.
        steps_4: of the fourth one.
        measure: whether to measure how far each ends from the result of 1000 steps; takes longer.
        film: whether to return every frame too.

    Returns:
        the evaluations of each sampler, and its distance if measured
        the results side by side as a PNG
        the way from noise as a GIF
        every frame, or null
    """
    weights, names = _model()
    ways = [(sampler_1, steps_1), (sampler_2, steps_2), (sampler_3, steps_3), (sampler_4, steps_4)]
    with _refusing():
        each = requests.rivals(names, ways, label=label, count=count, seed=seed, guidance=guidance)
    return _answer(_last(Compare(each, measured=measure is True), weights), film)


def ladder(
    label: str = ANY,
    count: int = 1,
    seed: int = 0,
    sampler: str = ASKED.sampler,
    measure: bool = False,
    film: bool = False,
) -> Answer:
    """Samples the same seed in 1, 2, 5, 10, 20, 50 and 100 steps: what more steps improve.

    Args:
        label: what to show; any: each seed chooses, none: the network gets no label.
        count: how many images, 1 or 4.
        seed: of the first image; each next image has the next seed.
        sampler: the rule for each step.
        measure: whether to measure how far each ends from the result of 1000 steps; takes longer.
        film: whether to return every frame too.

    Returns:
        the evaluations of each number of steps, and its distance if measured
        the results side by side as a PNG
        the way from noise as a GIF
        every frame, or null
    """
    weights, names = _model()
    with _refusing():
        settings = requests.ladder(names, label=label, count=count, seed=seed, sampler=sampler)
    return _answer(_last(Ladder(settings, measured=measure is True), weights), film)


def forward(picture: str = "5", seed: int = 0, film: bool = False) -> Answer:
    """Adds noise to a picture, and shows what the network predicts from it.

    Args:
        picture: 0 to 9 for a digit that comes with the app, or a small PNG as base64.
        seed: of the noise.
        film: whether to return every frame too.

    Returns:
        the times and signal-to-noise ratios of nine moments
        these as a PNG, above with noise and below as predicted
        more of them as a GIF
        every frame, or null
    """
    weights, names = _model()
    with _refusing():
        png = requests.picture(picture)
        [seed] = Request(count=1, seed=seed).settings(names).seeds
    found = _last(Forward(png, seed), weights)
    told: dict[str, Any] = {"seed": seed, "moments": answers.moments(found)}
    sheet, gif = answers.forward(found), answers.animation(found, "both")
    name = f"noise-{seed}"
    return told, _file(sheet, f"{name}.png"), _file(gif, f"{name}.gif"), found if film else None


def denoise(
    picture: str = "5",
    t: float = 500,
    seed: int = 0,
    label: str = NONE,
    sampler: str = ASKED.sampler,
    steps: int = 50,
    film: bool = False,
) -> Answer:
    """Adds noise to a picture up to a time, and lets the model remove the noise from there.

    Args:
        picture: 0 to 9 for a digit that comes with the app, or a small PNG as base64.
        t: from 1, hardly any noise, to 1000, only noise.
        seed: of the noise.
        label: what it is; any: the seed chooses, none: the network gets no label.
        sampler: the rule for each step.
        steps: of the whole way; only those below t are taken.
        film: whether to return every frame too.

    Returns:
        the evaluations
        the result as a PNG
        the way there as a GIF
        every frame, or null
    """
    return _answer(_last(*_denoising(picture, t, seed, label, sampler, steps)), film)


def nearest(picture: str = "5") -> tuple[dict[str, Any], FileData]:
    """Finds the training images that are nearest to a picture: is it a copy?

    Args:
        picture: 0 to 9 for a digit that comes with the app, or a small PNG as base64.

    Returns:
        the distances, what is usual for real test images, and what that means
        the three nearest training images as a PNG, a little blurred
    """
    weights, _ = _model()
    with _refusing():
        png = requests.picture(picture)
        if (index := _index(weights)) is None:
            raise ValueError("there is no index of the images that this model was trained on")
        told, found = training.told(index, as_images(pipeline(weights), png))
    return told, _file(answers.row(found), "nearest.png")


PUBLIC = (generate, compare, ladder, forward, denoise, nearest)


def _serve(page: gr.Blocks) -> None:
    """Makes PUBLIC endpoints, without a place in Gradio's queue: `turns` says who computes."""
    for task in PUBLIC:
        api(task, api_name=task.__name__, queue=False, **AT_ONCE)
    for endpoint in page.fns.values():
        if endpoint.fn in PUBLIC:
            valid = requests.schema(few=endpoint.fn in (compare, ladder))
            # So that a program need not know which weights are served.
            usual = pipeline(serving.weights).usual if endpoint.fn is generate else {}
            for name, widget in zip(
                signature(endpoint.fn).parameters, endpoint.inputs, strict=True
            ):
                told = vars(widget)
                told["value"] = usual.get(name, told["value"])
                told["_api_info"].update(
                    valid.get(name, valid.get(name[:-2], {}))
                )  # steps_1: steps


def _last(task: Task, weights: Weights) -> Film:
    """The complete film of a task."""
    *_, film = _films(task, weights)
    return film


def _answer(film: Film, whole: bool) -> Answer:
    told, name = answers.told(film), f"digits-{film['walks'][0]['seeds'][0]}"
    sheet = _file(answers.sheet(film), f"{name}.png")
    return told, sheet, _file(answers.animation(film), f"{name}.gif"), film if whole else None


def _file(content: bytes, name: str) -> FileData:
    """A file for a client to fetch; Gradio deletes it within the hour (`delete_cache`)."""
    path = save_bytes_to_cache(content, name, get_upload_folder())
    return FileData(path=path, orig_name=name)


# --- The films that the page plays, as they grow --------------------------------------------------


def generate_film(
    label: str,
    count: int,
    seed: int | None,
    steps: int,
    sampler: str,
    time_grid: str,
    eta: float,
    guidance: float,
) -> Iterator[tuple[Any, Any]]:
    """The film of `generate`, and its first seed."""
    weights, names = _model()
    with _refusing():
        asked = Request(label, count, seed, steps, sampler, time_grid, eta, guidance)
        settings = asked.settings(names, _said())
    for film in _films(Generate(settings), weights):
        yield film, gr.skip() if "before" in film else settings.seeds[0]


def compare_film(
    label: str, count: int, seed: int, guidance: float, *samplers_and_steps: Any
) -> Iterator[Film]:
    """The film of `compare`, measured: a sampler and its steps, four times."""
    weights, names = _model()
    ways = list(zip(samplers_and_steps[::2], samplers_and_steps[1::2], strict=True))
    with _refusing():
        asked = {"label": label, "count": count, "seed": seed, "guidance": guidance}
        rivals = requests.rivals(names, ways, _said(), **asked)
    yield from _films(Compare(rivals), weights)


def ladder_film(label: str, count: int, seed: int, sampler: str) -> Iterator[Film]:
    """The film of `ladder`, measured."""
    weights, names = _model()
    with _refusing():
        asked = {"label": label, "count": count, "seed": seed, "sampler": sampler}
        settings = requests.ladder(names, _said(), **asked)
    yield from _films(Ladder(settings), weights)


def denoise_film(
    picture: str, t: float, seed: int, label: str, sampler: str, steps: int
) -> Iterator[Film]:
    """The film of `denoise`; of a distilled model from the nearest of its own times."""
    model = pipeline(serving.weights)
    if model.walks and isinstance(t, int | float):
        sampler, steps = model.usual.values()
        t = min(model.walks[steps], key=lambda own: abs(own - t))
    yield from _films(*_denoising(picture, t, seed, label, sampler, steps, _said()))


# --- Behind the API -------------------------------------------------------------------------------


def _model() -> tuple[Weights, tuple[str, ...]]:
    """The weights to use now, and the names of their classes."""
    weights = serving.weights  # read once: others may arrive at any moment
    return weights, pipeline(weights).class_names


def _said() -> dict[str, str]:
    """What the page calls the fields of a request that have other names there."""
    label = "digit" if _draws_digits() else "class"
    return {"label": label, "count": "images", "time_grid": "time grid"}


def _denoising(
    picture: str,
    t: float,
    seed: int,
    label: str,
    sampler: str,
    steps: int,
    said: Mapping[str, str] = requests.NOTHING,
) -> tuple[Task, Weights]:
    weights, names = _model()
    with _refusing():
        png = requests.picture(picture)
        asked = Request(label, 1, seed, steps, sampler)
        t = requests.time(t, pipeline(weights).model.schedule.T)
        return Denoise(png, t, asked.settings(names, said)), weights


def _run(task: Task, weights: Weights) -> Iterator[Film]:
    """Runs a task. Only plain values go in and out: it may be another process."""
    with _refusing():
        yield from task.films(on_fastest_device(weights), references)


# On a ZeroGPU Space it runs in a process that has a GPU.
_computed: Callable[[Task, Weights], Iterator[Film]] = spaces.GPU(_run) if spaces else _run


def _films(task: Task, weights: Weights) -> Iterator[Film]:
    """The films of a task, in turns with those of all other requests.

    While it waits: films without walks that say how many are `before` it.
    """
    with _refusing():
        films = _computed(task, weights)
        for film in turns.share(films, task.work, _listener(), _who()):
            yield {"id": "", "walks": [], "before": film} if isinstance(film, int) else film


def _who() -> list[str]:
    """The address and the session of the present request, as far as they are known."""
    request = LocalContext.request.get(None)
    if request is None:  # called from Python
        return []
    address = request.client.host if request.client else ""
    if os.environ.get("SPACE_ID"):  # there a proxy asks for all
        address = request.headers.get("x-forwarded-for", address).split(",")[0].strip()
    session = getattr(request, "session_hash", None)
    return [address, session] if session else [address]


def _listener() -> Callable[[], bool]:
    """Whether the client still fetches what the present request yields.

    Gradio would compute to the end: a client that has gone would keep the network busy.
    """
    request, blocks = LocalContext.request.get(None), LocalContext.blocks.get(None)
    if request is None or blocks is None:  # called from Python
        return lambda: True
    event = LocalContext.event_id.get(None)
    if event is None:  # not from the queue: the client holds the line until it has the answer
        asked = getattr(request, "request", request)
        return lambda: not from_thread.run(asked.is_disconnected)
    _forget(blocks._queue)
    return _fetched(blocks._queue, str(request.session_hash), event)


def _fetched(queue: Any, session: str, event_id: str) -> Callable[[], bool]:
    """Whether a client still fetches its messages from Gradio's queue.

    It has gone if the same message is the oldest for UNHEARD seconds.
    """
    oldest, since = _oldest(queue, session), time.monotonic()
    event = queue.event_ids_to_events.get(event_id)
    if event and oldest and oldest.event_id == event._id:  # not even that it waits was heard
        since = event.enqueue_time

    def listens() -> bool:
        nonlocal oldest, since
        now, seen = time.monotonic(), _oldest(queue, session)
        if seen is None or seen is not oldest:
            oldest, since = seen, now
        elif now - since >= UNHEARD:
            # Unread messages would stay. The client then gets only the reason for stopping.
            queue.pending_messages_per_session[session]._queue.clear()
            return False
        return True

    return listens


def _oldest(queue: Any, session: str) -> Any:
    messages = queue.pending_messages_per_session.get(session)
    return next(iter(messages._queue), None) if messages else None


_kept: dict[str, tuple[Any, float]] = {}  # the oldest message of each session, and since when
_forgetting = threading.Lock()


def _forget(queue: Any) -> None:
    """Drops finished results that nobody fetched for UNHEARD seconds: Gradio would keep them."""
    if not _forgetting.acquire(blocking=False):
        return
    try:
        now, before = time.monotonic(), dict(_kept)
        _kept.clear()
        for session in list(queue.pending_messages_per_session):
            oldest = _oldest(queue, session)
            if oldest is None or getattr(oldest, "success", None) is False:
                continue
            seen, since = before.get(session, (None, now))
            _kept[session] = oldest, since if seen is oldest else now
            if now - _kept[session][1] >= UNHEARD:
                _drop(queue, session)
    finally:
        _forgetting.release()


def _drop(queue: Any, session: str) -> None:
    """Replaces unfetched results by the reason. Does nothing while a task is still at work."""
    events = list(queue.pending_event_ids_session.get(session, ()))
    messages = queue.pending_messages_per_session.get(session)
    if messages and not any(event in queue.event_ids_to_events for event in events):
        messages._queue.clear()
        for event in events:
            failed = ProcessCompletedMessage(output={"error": GONE}, success=False)
            messages._queue.append(failed.model_copy(update={"event_id": event}))


@contextmanager
def _refusing() -> Iterator[None]:
    """An error in a request is shown to the user, in one line."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def restore(query: str) -> tuple[Any, ...]:
    """The settings of a link (or of the last visit) for the widgets, and whether to run them.

    Each setting is checked; the usual one stands in for what cannot be, and a warning names it.
    """
    model = pipeline(serving.weights)
    pairs = parse_qsl(query.removeprefix("?")[:1000], keep_blank_values=True)
    asked = {key: value for key, value in pairs if key in IN_LINK}
    usual = replace(ASKED, seed=0, **model.usual)
    if not asked and not model.walks:  # what the visitor has typed meanwhile stays
        return *[gr.skip()] * len(asdict(usual)), False
    found, wrong = _from_link(usual, asked)
    if wrong:
        gr.Warning(WRONG.format(wrong=wrong))
    return *asdict(found).values(), query.startswith("?")


def _from_link(usual: Request, asked: dict[str, str]) -> tuple[Request, str]:
    """The settings of a link that are valid, and a message about the others, or ""."""
    model = pipeline(serving.weights)
    names = model.class_names
    said, wrong = {**_said(), "time_grid": "grid"}, []
    for key, (name, read) in IN_LINK.items():
        if key not in asked:
            continue
        try:
            try:
                changed = replace(usual, **{name: read(asked[key])})
            except ValueError:
                raise ValueError(f"{key} must be a number") from None
            requests.one_of(said["count"], changed.count, requests.COUNTS)
            requests.one_of(said["label"], changed.label, (ANY, *names))
            model.times(changed.settings(names, said))
            usual = changed
        except ValueError as error:
            wrong.append(str(error) if str(error).startswith(key) else f"{key}: {error}")
    return usual, "; ".join(wrong)


def _linked(task: Callable[..., Any]) -> dict[str, Any]:
    """What a link to Compare or Steps can hold: a name there for each usual value."""
    said = {"label": "digit", "count": "images"}
    return {
        said.get(name, name): argument.default
        for name, argument in signature(task).parameters.items()
        if name not in ("measure", "film")
    }


def restore_form(task: Callable[..., Any], query: str) -> list[Any]:
    """The settings of a link to Compare or Steps for its widgets, as `restore`."""
    asked = dict(parse_qsl(query.removeprefix("?")[:1000], keep_blank_values=True))
    usual, wrong, names = _linked(task), [], _model()[1]
    if not asked:
        return [gr.skip()] * len(usual)
    for key in usual.keys() & asked.keys():
        try:
            try:
                changed = usual | {key: type(usual[key])(asked[key])}
            except ValueError:
                raise ValueError(f"{key} must be a number") from None
            requests.one_of("digit", changed["digit"], (ANY, *names))
            _checked(task, list(changed.values()))
            usual = changed
        except ValueError as error:
            wrong.append(str(error) if str(error).startswith(key) else f"{key}: {error}")
    if wrong:
        gr.Warning(WRONG.format(wrong="; ".join(sorted(wrong))))
    return list(usual.values())


def _checked(task: Callable[..., Any], values: list[Any]) -> None:
    """Raises ValueError if Compare or Steps cannot be asked for that."""
    names, said = _model()[1], _said()
    if task is compare:
        asked = dict(zip(("label", "count", "seed", "guidance"), values, strict=False))
        ways = list(zip(values[4::2], values[5::2], strict=True))
        requests.rivals(names, ways, said, **asked)
    else:
        requests.ladder(
            names, said, **dict(zip(("label", "count", "seed", "sampler"), values, strict=True))
        )


def _picked(event: gr.EventData) -> tuple[Any, Any]:
    """Number and first seed of the images that are seen, once one is singled out or let go."""
    found = event._data if isinstance(event._data, dict) else {}
    count, seed = found.get("count"), found.get("seed")
    if count not in requests.COUNTS or type(seed) is not int or not 0 <= seed <= MAX_SEED:
        return gr.skip(), gr.skip()
    return count, seed


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
    steps: Any  # of a distilled model few; the others are hidden for it
    sampler: Any
    guidance: Any
    more: Any
    compare: Any
    ladder: Any
    no_compare: Any  # what stands there instead
    no_ladder: Any


def _weights_in_use() -> Shown:
    """What the page shows about the weights now."""
    weights = serving.weights  # read once: others may arrive at any moment
    model = pipeline(weights)
    notice = _notice()
    line, command = _source(weights)
    revision = f', revision="{weights.commit}"' if weights.commit else ""
    load = f'Pipeline.from_pretrained("{weights.source}"{revision})'
    python = f"images = {load}.sample(seeds=range(16))"
    classes, free = [ANY, *model.class_names], not model.walks
    return Shown(
        notice=gr.Markdown(notice, visible=bool(notice)),
        again=gr.Button(visible=bool(notice)),
        line=line,
        command=gr.Code(command, visible=bool(command)),
        python=f'from ddpm import Pipeline\n{python}\nimages.save("digits.gif")',
        label=gr.Radio(classes),
        label_of_compare=gr.Dropdown(classes),
        label_of_ladder=gr.Dropdown(classes),
        hint=gr.Dropdown([NONE, *model.class_names]),
        steps=gr.HTML(only=sorted(model.walks) or None),
        sampler=gr.Dropdown(visible=free),
        guidance=gr.Slider(visible=free),
        more=gr.Accordion(visible=free),
        compare=gr.Column(visible=free),
        ladder=gr.Column(visible=free),
        no_compare=gr.Markdown(visible=not free),
        no_ladder=gr.Markdown(visible=not free),
    )


def _notice() -> str:
    """Says that the weights which were asked for are not there, and why; "" if they are."""
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


def _title() -> str:
    return f"From noise to {'digits' if _draws_digits() else 'images'}"


@lru_cache(2)
def _example(weights: Weights) -> Film:
    """The film that the page opens with."""
    model = pipeline(weights)
    settings = Request(seed=0, **model.usual).settings(model.class_names)
    *_, film = Generate(settings).films(model, references)
    return film


async def _card() -> bytes:
    """The picture of the card of a link."""
    return answers.card(await to_thread.run_sync(_example, serving.weights))


async def _poster() -> bytes:
    """The images that the film of the page ends with."""
    return answers.sheet(await to_thread.run_sync(_example, serving.weights))


def try_again() -> Shown:
    """Asks the Hub once more for the weights that the app was told to use."""
    serving.load(AGAIN)
    return _weights_in_use()


def _index_path(weights: Weights) -> Path:
    return training.path_of(pipeline(weights), weights.source, serving.built_in)


@lru_cache(2)
def _index(weights: Weights) -> training.Index | None:
    """The index of the training images, if there is one for these weights."""
    path = _index_path(weights)
    return training.load(path) if path.is_file() else None


# --- The engine in the visitor's browser ----------------------------------------------------------


@lru_cache(2)
def _opening(weights: Weights) -> tuple[bytes, str]:
    """What a browser needs to draw with these weights, as JSON, and its sha256 as an ETag."""
    given = browser.opening(pipeline(weights))
    if len(given["data"]) > MOST_BYTES:
        size, most = len(given["data"]) / 1e6, MOST_BYTES / 1e6
        given = {"refused": f"the model is too large for a browser: {size:.0f} of {most:.0f} MB"}
    given |= {"worker": "\n".join(browser.SCRIPTS), "index": _index_path(weights).is_file()}
    body = json.dumps(given).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()}"'


def _engine(asked: Asked) -> Response:
    """The same over HTTP. A browser that has it is only told so."""
    body, tag = _opening(serving.weights)
    kept = {"ETag": tag, "Cache-Control": "no-cache"}
    if asked.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=kept)
    return Response(body, media_type="application/json", headers=kept)


def _one_file() -> Response:
    """The page of one file that draws with these weights."""
    try:
        return Response(browser.page(pipeline(serving.weights)), media_type="text/html")
    except ValueError as error:
        return JSONResponse({"detail": one_line(error)}, status_code=422)


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
STEPS = """
    const steps = element.querySelector("ddpm-steps");
    const show = () => customElements.whenDefined("ddpm-steps")
        .then(() => { steps.only = props.only ?? null; steps.value = props.value; });
    watch(["value", "only"], show);
    show();
    steps.addEventListener("input", () => { props.value = steps.value; trigger("input"); });
"""
TOOLS = {
    "Hand": "Every digit from the same noise: they have the same slant and stroke, like one hand.",
    "Morph": "Pick two digits, and drag from one to the other. Every mixture of their noise is "
    "noise too, and the model draws a digit from it.",
    "Mend": "Rub out a part. The model finishes it, and what is left stays as it is.",
}
NO_CHOICE = (
    "These weights are distilled: they draw in their own few steps, so there is nothing to compare."
)
SAVE = """
    customElements.whenDefined("ddpm-save").then(() =>
        element.querySelector("ddpm-save").offer(page.entries(%s)));
"""
MENU = '<div class="saving"><ddpm-save></ddpm-save><span role="status"></span></div>'
TOOL = (
    SAVE % "element.firstElementChild"
    + """
    page.tool(element.firstElementChild, props.digits);
    element.firstElementChild.addEventListener("ask", (event) => {
        page.wanted = event.detail;
        trigger("ask");
    });
"""
)
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# All may start at once: `turns` decides who computes, and refuses what is too much. Each holds one
# of Gradio's threads meanwhile.
AT_ONCE: dict[str, Any] = {"concurrency_limit": None, "concurrency_id": "network"}
THREADS = MOST + 36
# `preprocess`: bad input is refused by ddpm.demo with one line, not by Gradio with a traceback in
# the log.
WORK: dict[str, Any] = {
    **AT_ONCE,
    "api_visibility": "undocumented",
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
    what = "handwritten digits" if _draws_digits() else "images"
    page = gr.Blocks(title=_title(), analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.Markdown(
            f"# {_title()}\nA small neural network turns random noise into {what}, step by step. "
            "The same seed always gives the same picture. Or [draw](?tab=draw) one yourself.",
            elem_classes="masthead",
        )
        notice = gr.Markdown(visible=False)
        again = gr.Button("Try again", size="sm", visible=False)
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Generate"):
                form, others = _generate_tab(page)
            with gr.Tab("Draw"):
                hint = _draw_tab()
            for name, words in TOOLS.items():
                with gr.Tab(name):
                    gr.Markdown(words)
                    _tool(name.lower())
            label_of_compare, compare, no_compare = _tab_of_choice("Compare", _compare_tab, page)
            label_of_ladder, ladder, no_ladder = _tab_of_choice("Steps", _ladder_tab, page)
            with gr.Tab("Weights"):
                line, command, python = _weights_tab()
        gr.HTML(OURS, elem_classes="embed-only")
        labels = (form.label, label_of_compare, label_of_ladder, hint)
        choices = (form.steps, form.sampler, form.guidance, others, compare, ladder)
        told = (notice, again, line, command, python)
        shown = Shown(*told, *labels, *choices, no_compare, no_ladder)
        _serve(page)
        page.load(_weights_in_use, None, list(shown), queue=False, **QUIET)
        private: dict[str, Any] = {"api_visibility": "private"}
        tried = again.click(try_again, None, list(shown), show_progress_on=notice, **private)
        tried.success(None, None, None, js="() => page.reopen()", queue=False, **QUIET)
    page.queue(max_size=MOST, api_open=False)
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
    return (
        gr.Button(words, variant="primary", elem_id=elem_id, min_width=110, scale=2),
        gr.Button("Stop", elem_id=f"stop-{elem_id}", min_width=80),
    )


def _film(elem_id: str, value: Film | None = None, how: str = "") -> gr.HTML:
    """The player. Its value is a film; its event `pick` has the image that a visitor chose.

    how: attributes of the player.
    """
    template = f"<ddpm-player {how}></ddpm-player>"
    view = gr.HTML(value, html_template=template, js_on_load=PLAYER, elem_id=elem_id)
    # Not by a class of its own: Gradio would write a stub file beside this one.
    view.api_info = lambda: FILM  # type: ignore[method-assign]  # for the API page
    return view


def _draws_digits() -> bool:
    return bool(pipeline(serving.weights).config.get("dataset") == "mnist")


def _what() -> str:
    return "Digit" if _draws_digits() else "Class"


def _label() -> gr.Dropdown:
    info = "What to draw; any: each seed chooses."
    return gr.Dropdown([ANY, *_names()], value=ANY, label=_what(), min_width=140, info=info)


def _few(value: int) -> gr.Dropdown:
    counts, info = list(requests.FEW), "How many of each."
    return gr.Dropdown(counts, value=value, label="Images", info=info, min_width=140)


def _seed(info: str | None = None) -> gr.Number:
    bounds: dict[str, Any] = {"precision": 0, "minimum": 0, "maximum": MAX_SEED}
    return gr.Number(value=0, label="Seed", info=info, min_width=140, **bounds)


def _steps(value: int, label: str, only: list[int] | None = None) -> gr.HTML:
    """A slider with logarithmic stops, and a field for any number of steps; or only for these."""
    template = f'<ddpm-steps label="{label}" most="{requests.MAX_STEPS}"></ddpm-steps>'
    view = gr.HTML(value, html_template=template, js_on_load=STEPS, min_width=160, only=only)
    view.api_info = lambda: {"type": "integer"}  # type: ignore[method-assign]
    return view


def _guidance(*, visible: bool = True) -> gr.Slider:
    how: dict[str, Any] = {"label": "Guidance", "min_width": 140, "visible": visible}
    return gr.Slider(0, GUIDANCE.high, 0, step=0.5, precision=2, **how)


def _sampler(value: str = ASKED.sampler, *, visible: bool = True) -> gr.Dropdown:
    choices = [
        (f"{name} (adds noise)" if sampler.fresh_noise else name, name)
        for name, sampler in SAMPLERS.items()
    ]
    how: dict[str, Any] = {"label": "Sampler", "min_width": 140, "visible": visible}
    return gr.Dropdown(choices, value=value, **how)


class _Form(NamedTuple):
    """The widgets of `generate`, in the order of its arguments."""

    label: gr.Radio
    images: gr.Dropdown
    seed: gr.Number
    steps: gr.HTML
    sampler: gr.Dropdown
    time_grid: gr.Dropdown
    eta: gr.Slider
    guidance: gr.Slider


def _form() -> tuple[_Form, gr.Accordion]:
    """What can be set in the first tab; whatever changes is drawn at once. Also what holds the
    settings that few need."""
    model = pipeline(serving.weights)
    usual, free = model.usual, not model.walks  # a distilled model leaves no choice but the steps
    label = gr.Radio([ANY, *_names()], value=ANY, label=_what(), elem_classes="chips")
    with gr.Row(elem_classes="fields"):
        seed = _seed()
        dice = gr.Button("Roll", size="lg", min_width=80, scale=0, elem_id="dice")
        counts = list(requests.COUNTS)
        count = gr.Dropdown(counts, value=ASKED.count, label="Images", min_width=80)
    dice.click(None, None, seed, js=f"() => page.roll({requests.COUNTS[-1]})", queue=False, **QUIET)
    steps = _steps(usual["steps"], "Steps", sorted(model.walks) or None)
    with gr.Row(elem_classes="fields"):
        sampler = _sampler(usual["sampler"], visible=free)
        guidance = _guidance(visible=free)
    with gr.Accordion("More", open=False, visible=free) as others:
        more = "Fresh noise on the way: 0 is none, 1 as much as ddpm."
        eta = gr.Slider(0, 1, 0, step=0.05, precision=2, label="Eta", visible=False, info=more)
        where = "Where the steps fall; best is the sampler's own."
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
    return _Form(label, count, seed, steps, sampler, time_grid, eta, guidance), others


def _generate_tab(page: gr.Blocks) -> tuple[_Form, gr.Accordion]:
    """The first tab; returns as `_form`."""
    example = _example(serving.weights)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            film = _film("film", example | {"loop": True}, "menu")
        with gr.Column(scale=1, min_width=280, elem_id="form"):
            form, others = _form()
            with gr.Row():
                go, stop = _go_and_stop("Generate", "generate")
                menu = "<ddpm-save></ddpm-save>"
                offer = SAVE % 'page.player("film")'
                gr.HTML(html_template=menu, js_on_load=offer, min_width=100, elem_id="save")
            gr.HTML('<p id="says" role="status"></p>')
            gr.HTML("<ddpm-near></ddpm-near>", elem_id="near")
    ask = gr.Button(visible="hidden", elem_id="ask")  # the server, where the browser cannot
    latest = {"trigger_mode": "always_last"}
    drawn = gr.Number(precision=0, visible=False, label="Seed")  # the form may have another by now
    run = _wire(ask, stop, generate_film, list(form), film, drawn, **latest)
    leave = gr.Button(visible="hidden", elem_id="leave")  # the visitor wants something else
    leave.click(None, cancels=[run], api_visibility="private")
    for end in (run.success, run.failure):
        end(None, None, None, js="() => page.told()", queue=False, **QUIET)
    film.pick(_picked, None, [form.images, form.seed], queue=False, **QUIET)
    _wire_form(page, form, go)
    return form, others


def _wire_form(page: gr.Blocks, form: _Form, go: gr.Button) -> None:
    """Whatever changes is drawn (page.js); a link, or the last visit, is restored."""
    settings: list[Any] = list(form)
    here: dict[str, Any] = {"queue": False, **QUIET}
    for event in (go.click, form.seed.submit):
        event(None, settings, None, js="(...values) => page.draw(values, true)", **here)
    for widget in settings:
        for event in (widget.change, widget.input):
            event(None, settings, None, js="(...values) => page.draw(values)", **here)
    query, go_on = gr.Textbox(visible=False), gr.Checkbox(visible=False)
    restored = page.load(
        restore,
        query,
        [*settings, go_on],
        js="() => page.recall()",
        concurrency_limit=None,
        **QUIET,
    )
    restored.then(None, settings, None, js="(...values) => page.begin(values)", **here)


def _tab_of_choice(
    name: str, fill: Callable[[gr.Blocks, gr.Tab], gr.Dropdown], page: gr.Blocks
) -> tuple[gr.Dropdown, gr.Column, gr.Markdown]:
    """A tab that makes no sense for a distilled model.

    Returns what `fill` returns, what holds all of it, and what stands there instead.
    """
    # Gradio 6.31 does not hide a tab once the page is there.
    free = not pipeline(serving.weights).walks
    with gr.Tab(name) as tab:
        instead = gr.Markdown(NO_CHOICE, visible=not free)
        with gr.Column(visible=free) as content:
            label = fill(page, tab)
    return label, content, instead


def _compare_tab(page: gr.Blocks, tab: gr.Tab) -> gr.Dropdown:
    """The same noise through several samplers; returns the widget that lists the classes."""
    gr.Markdown(
        "The same noise through two to four samplers, side by side and in step. When all have "
        "arrived, each is compared with the result of a thousand steps."
    )
    with gr.Row():
        go, stop = _go_and_stop("Compare", "compare")
    film = _film("compare-film", None, "menu")
    with gr.Row():
        label, count, seed = _label(), _few(requests.FEW[-1]), _seed()
        guidance = _guidance()
    rivals: list[Any] = []
    with gr.Row():
        for k, (name, steps) in enumerate(RIVALS, 1):
            with gr.Column(min_width=200):
                names = [*([NONE] if k > 2 else []), *SAMPLERS]
                rivals.append(gr.Dropdown(names, value=name, label=f"Sampler {k}"))
                rivals.append(_steps(steps, f"Steps {k}"))
    asked = [label, count, seed, guidance, *rivals]
    _wire(go, stop, compare_film, asked, film)
    _link(page, "compare", compare, asked, go, film)
    _open_with(tab, film, go)
    return label


def _ladder_tab(page: gr.Blocks, tab: gr.Tab) -> gr.Dropdown:
    """One seed in ever more steps; returns the widget that lists the classes."""
    gr.Markdown(
        "The same seed in 1, 2, 5, … 100 steps: what more steps improve. The chart shows how far "
        "each ends from the result of a thousand steps."
    )
    with gr.Row():
        go, stop = _go_and_stop("Draw all seven", "climb")
    film = _film("steps-film", None, "joined menu")
    with gr.Row():
        label, count, seed, sampler = _label(), _few(requests.FEW[0]), _seed(), _sampler()
    asked = [label, count, seed, sampler]
    _wire(go, stop, ladder_film, asked, film)
    _link(page, "steps", ladder, asked, go, film)
    _open_with(tab, film, go)
    return label


def _draw_tab() -> gr.Dropdown:
    """What a visitor draws, with noise, and what comes back; returns the list of classes."""
    digits = "data:image/png;base64," + base64.b64encode(requests.DIGITS.read_bytes()).decode()
    tool = _tool("draw", digits=digits)
    # Where the browser cannot, the server draws. These are its arguments.
    picture, t = gr.Textbox("5", visible=False), gr.Number(500, visible=False)
    seed, steps = (gr.Number(k, precision=0, visible=False) for k in (0, 50))
    hint = gr.Dropdown([NONE, *_names()], value=NONE, visible=False)
    sampler = gr.Dropdown(list(SAMPLERS), value=ASKED.sampler, visible=False)
    film = gr.JSON(visible=False)
    asked = [picture, t, seed, hint, sampler, steps]
    js = "(...asked) => page.askFor(asked)"
    latest: dict[str, Any] = {"trigger_mode": "always_last"} | WORK
    run = tool.ask(denoise_film, asked, film, api_name="denoise_film", js=js, **latest)
    run.success(None, film, None, js="(film) => page.came(film)", queue=False, **QUIET)
    return hint


def _tool(name: str, **props: Any) -> gr.HTML:
    """A tool of ddpm/browser that draws in the visitor's browser."""
    template = f"<ddpm-{name}></ddpm-{name}>{MENU}"
    return gr.HTML(html_template=template, js_on_load=TOOL, elem_id=name, **props)


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
    **how: Any,
) -> Any:
    """A button that runs a task, which fills the film and the others, and one that stops it.

    how: settings of the click. Returns the run.
    """
    halt = f'() => page.halt("{film.elem_id}")'
    run = go.click(task, asked, [film, *others], api_name=task.__name__, **how, **WORK)
    run.failure(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, None, None, js=halt, queue=False, **QUIET)
    stop.click(None, cancels=[run], api_visibility="private")
    return run


def _link(
    page: gr.Blocks,
    tab: str,
    task: Callable[..., Any],
    asked: list[Any],
    go: gr.Button,
    film: gr.HTML,
) -> None:
    """Puts what a tab was asked for into the address, restores it from there, and offers to save
    its film."""
    here: dict[str, Any] = {"queue": False, **QUIET}
    names = json.dumps(list(_linked(task)))
    go.click(None, asked, None, js=f"(...values) => page.ran('{tab}', {names}, values)", **here)
    query = gr.Textbox(visible=False)
    restored = page.load(
        partial(restore_form, task),
        query,
        asked,
        js=f"() => page.queryOf('{tab}')",
        concurrency_limit=None,
        **QUIET,
    )
    restored.then(None, None, None, js=f"() => page.arrive('{tab}')", **here)
    gr.HTML(html_template=MENU, js_on_load=SAVE % f'page.player("{film.elem_id}")')


def _open_with(tab: gr.Tab, film: gr.HTML, go: gr.Button) -> None:
    """Presses the button when the tab is opened for the first time."""
    js = f'() => page.openWith("{film.elem_id}", "{go.elem_id}")'
    tab.select(None, None, None, queue=False, js=js, **QUIET)


def _head() -> str:
    """The page's own style and scripts. As `css`, Gradio would confine rules to its inside."""
    grain = "data:image/svg+xml," + quote((PLAYER_FILES / "grain.svg").read_text(encoding="utf-8"))
    css = (PAGE_FILES / "page.css").read_text(encoding="utf-8").replace("GRAIN", grain)
    scripts = [
        *(
            (folder / name).read_text(encoding="utf-8")
            for folder, names in SCRIPTS.items()
            for name in names
        ),
        f"page.names = {json.dumps(list(IN_LINK))};",
        f"page.times = {json.dumps(browser.TIMES)};",
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
    card: dict[str, Any] = {"title": _title(), "text": CARD, "picture": _card, "poster": _poster}
    return {
        "head": _head(),
        "theme": theme,
        "show_error": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "max_threads": THREADS,
        "ssr_mode": False,
        "state_session_capacity": 200,
        "run_history": False,
        "app_kwargs": {
            "exception_handlers": {FnIndexInferError: _no_such_task},
            "routes": [APIRoute("/engine.json", _engine), APIRoute("/page.html", _one_file)],
            "middleware": [Middleware(Front, **card)],
        },
        "footer_links": ["api", "gradio", "settings"],
        "mcp_server": importlib.util.find_spec("mcp") is not None,
    }


if __name__ == "__main__":
    build().launch(**launch_settings())
