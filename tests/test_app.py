"""The app as a client drives it: a real Gradio server, a real client, over loopback."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import app
from ddpm import GRIDS, SAMPLERS, Pipeline
from ddpm.pixels import FRAME_MS, LAST_MS
from tests.helpers import decode, distance


@pytest.fixture(scope="module")
def client(page):
    return Client(page.local_url, verbose=False)


SMALL = {"count": 4, "steps": 3, "seed": 11}


def test_generate_streams_the_process_as_one_film(client):
    job = client.submit(**SMALL, api_name="/generate")
    film, seed = job.result(timeout=120)
    assert seed == 11 and film == job.outputs()[-1][0]
    [walk] = film["walks"]
    assert walk["seeds"] == [11, 12, 13, 14] and walk["total"] == len(walk["frames"]) == 4
    assert [frame["nfe"] for frame in walk["frames"]] == [1, 2, 3, 3]
    assert (walk["frames"][0]["t"], walk["frames"][-1]["t"]) == (1000, 0)
    for early, _ in job.outputs():
        assert early["id"] == film["id"] and early["walks"][0]["seeds"] == walk["seeds"]
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(11, 15), steps=3)
    assert walk["labels"] == list(ours.labels)
    assert distance(decode(walk["frames"][-1]["x"]), ours.sheet(scale=1)) <= 1


def test_a_seed_left_out_is_drawn_by_lot_and_shown(client):
    film, seed = client.predict(count=1, steps=1, seed=None, api_name="/generate")
    assert 0 <= seed < 2**32 and film["walks"][0]["seeds"] == [seed]
    again, _ = client.predict(count=1, steps=1, seed=seed, api_name="/generate")
    assert again["walks"][0]["frames"] == film["walks"][0]["frames"]


def test_a_digit_can_be_asked_for_with_guidance(client):
    film, _ = client.predict(**SMALL, label="7", guidance=1.0, api_name="/generate")
    assert film["walks"][0]["frames"][-1]["nfe"] == 6 and film["walks"][0]["labels"] == ["7"] * 4


@pytest.mark.parametrize(("view", "wide"), [("x", 1), ("x0", 1), ("both", 2)])
def test_the_film_generated_last_is_saved_as_a_gif(client, view, wide):
    film, _ = client.predict(**SMALL, api_name="/generate")
    path = Path(client.predict(view=view, api_name="/save_gif"))
    assert path.name == "digits-11.gif"
    with Image.open(path) as gif:
        assert gif.n_frames == len(film["walks"][0]["frames"]) == 4 and gif.info["loop"] == 0
        durations = []
        for k in range(4):
            gif.seek(k)
            durations.append(gif.info["duration"])
        assert durations == [FRAME_MS] * 3 + [LAST_MS]
        assert round(gif.width / gif.height) == wide


def test_what_is_saved_is_the_example_before_something_is_drawn_and_never_what_others_drew(client):
    fresh = Client(client.src, verbose=False)
    client.predict(**SMALL, api_name="/generate")
    path = Path(fresh.predict(api_name="/save_gif"))
    with Image.open(path) as gif:
        assert path.name == "digits-0.gif" and gif.n_frames == 21
    with pytest.raises(AppError, match="view must be one of x, x0, both"):
        client.predict(view="../../etc/passwd", api_name="/save_gif")


def test_the_other_tasks_are_served_too(client):
    film = client.predict(count=1, sampler_1="ddim", steps_1=2, sampler_2="heun", steps_2=2, sampler_3="none", sampler_4=None, api_name="/compare")
    assert [walk["title"] for walk in film["walks"]] == ["ddim · 2 steps", "heun · 2 steps"]
    assert all(walk["distance"] > 0 for walk in film["walks"])
    film = client.predict(seed=3, sampler="ddim", api_name="/ladder")
    assert [walk["frames"][-1]["nfe"] for walk in film["walks"]] == [1, 2, 5, 10, 20, 50, 100]
    film = client.predict(picture="3", seed=5, api_name="/forward")
    assert (film["walks"][0]["frames"][0]["t"], film["walks"][0]["frames"][-1]["t"]) == (1000, 0)
    mine = film["walks"][0]["frames"][-1]["x"]
    film = client.predict(picture=mine, t=300, seed=5, steps=10, api_name="/denoise")
    assert film["walks"][0]["frames"][0]["t"] == 300
    assert film == client.predict(picture="3", t=300, seed=5, steps=10, api_name="/denoise") | {"id": film["id"]}


def test_stop_ends_the_work(client):
    job = client.submit(count=64, steps=300, seed=0, api_name="/generate")
    for _ in range(600):
        if job.outputs():
            break
        time.sleep(0.1)
    job.cancel()
    quick = client.submit(**SMALL, api_name="/generate")  # there is one worker: it is free again
    assert quick.result(timeout=60)


@pytest.mark.parametrize(("settings", "words"), [
    ({"count": 0}, r"count must be a whole number in 1\.\.64"), ({"count": 65}, "count must be"), ({"count": None}, "count must be"),
    ({"steps": 0}, r"steps must be a whole number in 1\.\.1000"), ({"steps": 1e9}, "steps must be"), ({"steps": None}, "steps must be"),
    ({"seed": -1}, "seed .for 4 images. must be"), ({"seed": 2**32 - 1}, "for 4 images"), ({"sampler": "dim"}, "sampler must be one of dpm"),
    ({"sampler": None}, "sampler must be one of"), ({"time_grid": None}, "time_grid must be one of best, power"), ({"label": "eleven"}, "label must be one of any, none, 0, 1"),
    ({"label": None}, "label must be one of"), ({"guidance": -3}, r"guidance must be a number in 0\.\.20"),
    ({"eta": 0.5}, "no eta"), ({"eta": None}, "eta must be a number"), ({"count": 64, "steps": 1000}, "at most 20,000"),
    ({"sampler": ["ddim"]}, "sampler must be one of"), ({"label": ["3"]}, "label must be one of"), ({"steps": "many"}, "steps must be"),
])
def test_bad_calls_are_refused_in_words_without_a_traceback_and_the_next_one_is_served(client, capfd, settings, words):
    with pytest.raises(gr.Error, match=words):
        next(app.generate(**SMALL | settings))
    with pytest.raises(AppError, match=words) as refused:
        client.predict(**SMALL | settings, api_name="/generate")
    assert "\n" not in str(refused.value)
    assert "Traceback" not in capfd.readouterr().err
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")


@pytest.mark.parametrize(("task", "settings", "words"), [
    ("compare", {"count": 9}, "count must be one of 1, 4"), ("compare", {"sampler_1": None, "sampler_3": "none"}, "compare 2 to 4 samplers, got 1"),
    ("compare", {"steps_2": [1]}, "steps must be"), ("ladder", {"sampler": "x"}, "sampler must be"), ("ladder", {"count": 16}, "count must be"),
    ("forward", {"picture": "nine"}, "picture must be a PNG as base64"), ("forward", {"picture": None}, "picture must be a digit"), ("forward", {"seed": "x"}, "seed must be"),
    ("denoise", {"t": 0}, r"t must be a number in 1\.\.1000"), ("denoise", {"t": None}, "t must be"), ("denoise", {"label": "any?"}, "label must be"),
])
def test_the_other_tasks_refuse_in_words_too(client, capfd, task, settings, words):
    with pytest.raises(AppError, match=words):
        client.predict(**settings, api_name=f"/{task}")
    assert "Traceback" not in capfd.readouterr().err


QUERY = "?digit=7&images=4&seed=42&steps=12&sampler=ddim&grid=linspace&eta=0.5&guidance=2"
USUAL = ("any", 16, 0, 20, "unipc2", "best", 0.0, 0.0)


def test_a_link_restores_what_it_carries_and_is_run():
    assert app.restore(QUERY) == ("7", 4, 42, 12, "ddim", "linspace", 0.5, 2.0, True)
    assert app.restore("?seed=9") == ("any", 16, 9, *USUAL[3:], True)
    assert app.restore(QUERY[1:])[-1] is False  # the settings of the last visit are set, not run
    for nothing in ("", "?utm=1&__theme=dark"):
        assert app.restore(nothing) == (*[gr.skip()] * len(USUAL), False)  # what somebody has typed meanwhile stays


@pytest.mark.parametrize("query", [
    "?seed=x", "?seed=-1", "?seed=1e3", "?seed=4294967295", "?steps=0", "?steps=1001", "?images=5", "?images=64&steps=1000", "?digit=10", "?digit=none",
    "?digit=%3Cscript%3Ealert(1)%3C/script%3E", "?sampler=<img/src/onerror=alert(1)>", "?grid=power(0.3)", "?eta=nan&sampler=ddim", "?eta=0.5",
    "?guidance=inf", "?seed=" + "9" * 5000,
])
def test_a_link_that_cannot_be_followed_is_said_so_in_one_line_and_not_repeated(query, monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    assert app.restore(query) == (*USUAL, False)
    assert len(said) == 1 and said[0].startswith("This link cannot be followed: ") and "\n" not in said[0]
    assert "alert" not in said[0] and "<" not in said[0] and len(said[0]) < 300


def test_only_a_seed_can_be_picked():
    def picked(data):
        return app._picked(gr.EventData(None, data))

    assert picked({"seed": 7}) == 7 and picked({"seed": 2**32 - 1}) == 2**32 - 1
    for wrong in ({"seed": None}, {"seed": "7"}, {"seed": -1}, {"seed": 2**32}, {"seed": True}, {}, None, [7]):
        assert not isinstance(picked(wrong), int)


@pytest.mark.slow
def test_the_command_of_the_readme_starts_the_app_without_a_network():
    """python app.py in a new process answers, with a proxy that leads nowhere for all that is not loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    process = subprocess.Popen([sys.executable, "app.py"], cwd=Path(app.__file__).parent, env={
        **os.environ, **dead, "NO_PROXY": "127.0.0.1,localhost", "GRADIO_SERVER_PORT": str(port)})
    try:
        for _ in range(240):
            assert process.poll() is None
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                time.sleep(0.25)
        assert "From noise to digits" in page
    finally:
        process.terminate()
        process.wait(timeout=30)


PUBLIC = {"/generate", "/compare", "/ladder", "/forward", "/denoise", "/save_gif"}


def test_the_named_tasks_are_public_and_nothing_else(client):
    api = client.view_api(return_format="dict")
    assert set(api["named_endpoints"]) == PUBLIC and not api["unnamed_endpoints"]


def test_every_parameter_of_the_api_is_typed_and_has_a_default(client):
    for name, endpoint in client.view_api(return_format="dict")["named_endpoints"].items():
        for parameter in endpoint["parameters"]:
            assert parameter["type"].get("type") and parameter["parameter_has_default"], (name, parameter)


def test_private_events_cannot_be_called_by_a_name(client):
    for name in ("/restore", "/try_again", "/_weights_in_use", "/_picked", "/random_seed", "/lambda"):
        with pytest.raises(ValueError, match="Cannot find a function"):
            client.predict(api_name=name)


def test_nobody_watches_and_nothing_large_is_taken(client):
    for path in ("monitoring", "monitoring/summary"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{client.src}{path}", timeout=10)
    large = b"--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a\"\r\n\r\n" + b"0" * 2_000_000 + b"\r\n--x--\r\n"
    request = urllib.request.Request(f"{client.src}gradio_api/upload", large, {"Content-Type": "multipart/form-data; boundary=x"})
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request, timeout=10)


def test_the_tasks_are_tools_of_an_mcp_server_where_the_extra_is_installed(client):
    if not importlib.util.find_spec("mcp"):
        pytest.skip("the extra gradio[mcp] is not installed")
    tools = {tool["name"].split("_", 1)[-1] if tool["name"] not in PUBLIC else tool["name"]: tool
             for tool in json.load(urllib.request.urlopen(f"{client.src}gradio_api/mcp/schema", timeout=30))}
    for name in ("generate", "compare", "ladder", "forward", "denoise"):
        [tool] = [tool for key, tool in tools.items() if key.endswith(name)]
        assert tool["description"] and tool["inputSchema"]["properties"]


@pytest.mark.parametrize("task", [app.generate, app.compare, app.ladder, app.denoise], ids=lambda task: task.__name__)
def test_the_api_names_every_sampler_and_grid(task):
    words = set(re.findall(r"[\w+-]+", task.__doc__))
    assert words >= set(SAMPLERS)
    assert task is not app.generate or words >= set(GRIDS)
