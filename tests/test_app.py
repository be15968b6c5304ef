"""The app as a client drives it: a real Gradio server, a real client, over loopback."""

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
from ddpm import Pipeline
from tests.helpers import ask_film, decode, distance


@pytest.fixture(scope="module")
def client(page):
    return Client(page.local_url, verbose=False)


SMALL = {"count": 4, "steps": 3, "seed": 11}


def test_generate_streams_the_process_as_one_film(client):
    job = ask_film(client, **SMALL)
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
    film, seed = ask_film(client, count=1, steps=1, seed=None).result()
    assert 0 <= seed < 2**32 and film["walks"][0]["seeds"] == [seed]
    again, _ = ask_film(client, count=1, steps=1, seed=seed).result()
    assert again["walks"][0]["frames"] == film["walks"][0]["frames"]


def test_a_digit_can_be_asked_for_with_guidance(client):
    film, _ = ask_film(client, **SMALL, label="7", guidance=1.0).result()
    assert film["walks"][0]["frames"][-1]["nfe"] == 6 and film["walks"][0]["labels"] == ["7"] * 4


def test_the_other_tasks_are_served_too(client):
    film = ask_film(
        client,
        "compare",
        count=1,
        sampler_1="ddim",
        steps_1=2,
        sampler_2="heun",
        steps_2=2,
        sampler_3="none",
        sampler_4=None,
    ).result()
    assert [walk["title"] for walk in film["walks"]] == ["ddim · 2 steps", "heun · 2 steps"]
    assert all(walk["distance"] > 0 for walk in film["walks"])
    film = ask_film(client, "ladder", seed=3, sampler="ddim").result()
    assert [walk["frames"][-1]["nfe"] for walk in film["walks"]] == [1, 2, 5, 10, 20, 50, 100]
    film = ask_film(client, "denoise", picture="3", t=300, seed=5, steps=10).result()
    assert film["walks"][0]["frames"][0]["t"] == 300


def test_stop_ends_the_work(client):
    job = ask_film(client, count=64, steps=300, seed=0)
    for _ in range(600):
        if job.outputs():
            break
        time.sleep(0.1)
    job.cancel()
    quick = ask_film(client, **SMALL)  # there is one worker: it is free again
    assert quick.result(timeout=60)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, r"count must be a whole number in 1\.\.64"),
        ({"count": 65}, "count must be"),
        ({"count": None}, "count must be"),
        ({"steps": 0}, r"steps must be a whole number in 1\.\.1000"),
        ({"steps": 1e9}, "steps must be"),
        ({"steps": None}, "steps must be"),
        ({"seed": -1}, "seed .for 4 images. must be"),
        ({"seed": 2**32 - 1}, "for 4 images"),
        ({"sampler": "dim"}, "sampler must be one of dpm"),
        ({"sampler": None}, "sampler must be one of"),
        ({"time_grid": None}, "time_grid must be one of best, power"),
        ({"label": "eleven"}, "label must be one of any, none, 0, 1"),
        ({"label": None}, "label must be one of"),
        ({"guidance": -3}, r"guidance must be a number in 0\.\.20"),
        ({"eta": 0.5}, "no eta"),
        ({"eta": None}, "eta must be a number"),
        ({"count": 64, "steps": 1000}, "at most 20,000"),
        ({"sampler": ["ddim"]}, "sampler must be one of"),
        ({"label": ["3"]}, "label must be one of"),
        ({"steps": "many"}, "steps must be"),
    ],
)
def test_bad_calls_are_refused_in_words_without_a_traceback_and_the_next_one_is_served(
    client, capfd, settings, words
):
    with pytest.raises(gr.Error, match=words):
        app.generate(**SMALL | settings)
    as_on_the_page = (
        words.replace("count must", "images must")
        .replace("label must", "digit must")
        .replace("time_grid", "time grid")
    )
    with pytest.raises(AppError, match=words):
        client.predict(**SMALL | settings, api_name="/generate")
    with pytest.raises(AppError, match=as_on_the_page) as refused:
        ask_film(client, **SMALL | settings).result()
    assert "\n" not in str(refused.value)
    assert "Traceback" not in capfd.readouterr().err
    assert ask_film(client, count=1, steps=1, seed=0).result()


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("compare", {"count": 9}, "(count|images) must be one of 1, 4"),
        ("compare", {"sampler_1": None, "sampler_3": "none"}, "compare 2 to 4 samplers, got 1"),
        ("compare", {"steps_2": [1]}, "steps must be"),
        ("ladder", {"sampler": "x"}, "sampler must be"),
        ("ladder", {"count": 16}, "(count|images) must be"),
        ("denoise", {"picture": "nine"}, "picture must be a PNG as base64"),
        ("denoise", {"picture": None}, "picture must be a digit"),
        ("denoise", {"seed": "x"}, "seed must be"),
        ("denoise", {"t": 0}, r"t must be a number in 1\.\.1000"),
        ("denoise", {"t": None}, "t must be"),
        ("denoise", {"label": "any?"}, "(label|digit) must be"),
    ],
)
def test_the_other_tasks_refuse_in_words_too(client, capfd, task, settings, words):
    with pytest.raises(AppError, match=words):
        client.predict(**settings, api_name=f"/{task}")
    with pytest.raises(AppError, match=words):
        ask_film(client, task, **settings).result()
    assert "Traceback" not in capfd.readouterr().err


QUERY = "?digit=7&images=4&seed=42&steps=12&sampler=ddim&grid=linspace&eta=0.5&guidance=2"
USUAL = ("any", 16, 0, 20, "unipc2", "best", 0.0, 0.0)


def test_a_link_restores_what_it_carries_and_is_run():
    assert app.restore(QUERY) == ("7", 4, 42, 12, "ddim", "linspace", 0.5, 2.0, True)
    assert app.restore("?seed=9") == ("any", 16, 9, *USUAL[3:], True)
    assert app.restore(QUERY[1:])[-1] is False  # the settings of the last visit are set, not run
    for nothing in ("", "?utm=1&__theme=dark"):
        # what somebody has typed meanwhile stays
        assert app.restore(nothing) == (*[gr.skip()] * len(USUAL), False)


WRONG = [  # the query, what else it sets, what it is said about the rest
    ("?seed=x", {}, "seed must be a number"),
    ("?seed=-1", {}, "seed (for 16 images) must be"),
    ("?seed=1e3", {}, "seed must be a number"),
    ("?seed=4294967295", {}, "seed (for 16 images)"),
    ("?steps=0", {}, "steps must be"),
    ("?steps=5000&seed=3", {2: 3}, "steps must be a whole number in 1..1000"),
    ("?steps=&digit=4", {0: "4"}, "steps must be a number"),
    ("?images=5", {}, "images must be one of 1, 4, 9, 16, 25, 36, 64"),
    (
        "?images=64&steps=1000",
        {1: 64},
        "steps: images × network evaluations must be at most 20,000",
    ),
    ("?digit=10&seed=7", {2: 7}, "digit must be one of any, 0, 1"),
    ("?digit=none&steps=5", {3: 5}, "digit must be one of any, 0, 1"),
    ("?digit=%3Cscript%3Ealert(1)%3C/script%3E", {}, "digit must be"),
    ("?sampler=<img/src/onerror=alert(1)>&images=4", {1: 4}, "sampler must be"),
    ("?grid=power(0.3)", {}, "grid must be one of best, power"),
    ("?eta=nan&sampler=ddim", {4: "ddim"}, "eta must be"),
    ("?eta=0.5", {}, "eta: sampler unipc2 has no eta"),
    ("?guidance=inf&digit=2", {0: "2"}, "guidance must be"),
    ("?seed=" + "9" * 5000, {}, "seed (for 16 images) must be"),
    ("?seed=x&steps=0&digit=7", {0: "7"}, "seed must be a number; steps must be a whole number"),
]


@pytest.mark.parametrize(
    ("query", "kept", "words"), WRONG, ids=[query[:20] for query, _, _ in WRONG]
)
def test_of_a_link_what_cannot_be_is_named_and_falls_back_alone(query, kept, words, monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    expected = [kept.get(k, value) for k, value in enumerate(USUAL)]
    assert app.restore(query) == (*expected, True)
    assert len(said) == 1 and words in said[0] and "\n" not in said[0]
    assert (
        "alert" not in said[0]
        and "<" not in said[0]
        and "none" not in said[0]
        and len(said[0]) < 300
    )


def test_messages_name_the_field_as_the_page_does(monkeypatch):
    monkeypatch.setattr(app, "_draws_digits", lambda: False)
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    app.restore("?digit=twelve")
    assert "digit: class must be one of any, 0, 1" in said[0]


def test_only_a_count_and_a_seed_can_be_picked():
    def picked(data):
        return app._picked(gr.EventData(None, data))

    for seed in (7, 2**32 - 1):
        assert picked({"seed": seed, "count": 16}) == (16, seed)
    seeds = ({"count": 1, "seed": seed} for seed in (None, "7", -1, 2**32, True))
    counts = ({"count": count, "seed": 7} for count in (None, "1", 0, 3, [1]))
    for wrong in (*seeds, *counts, {}, None, [7]):
        assert not any(isinstance(each, int) for each in picked(wrong)), wrong


@pytest.mark.slow
def test_the_command_of_the_readme_starts_the_app_without_a_network():
    """python app.py in a new process answers, with a proxy that leads nowhere for all that is not
    loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dead = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=Path(app.__file__).parent,
        env={
            **os.environ,
            **dead,
            "NO_PROXY": "127.0.0.1,localhost",
            "GRADIO_SERVER_PORT": str(port),
        },
    )
    try:
        for _ in range(240):
            assert process.poll() is None
            try:
                page = (
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                )
                break
            except OSError:
                time.sleep(0.25)
        assert "From noise to digits" in page
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_private_events_cannot_be_called_by_a_name(client):
    private = "/restore /try_again /save_gif /_weights_in_use /_picked /random_seed /lambda"
    for name in private.split():
        with pytest.raises(ValueError, match="Cannot find a function"):
            client.predict(api_name=name)


def test_nobody_watches_and_nothing_large_is_taken(client):
    for path in ("monitoring", "monitoring/summary"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{client.src}{path}", timeout=10)
    large = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        + b"0" * 2_000_000
        + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(
        f"{client.src}gradio_api/upload", large, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    # it is refused before all of it was sent: the client may see that first
    with pytest.raises(urllib.error.URLError, match="413|Broken pipe|reset"):
        urllib.request.urlopen(request, timeout=10)


def head(page, headers=()):
    """What the page says of itself to other sites, by name."""
    request = urllib.request.Request(page.local_url, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
        assert len(text.encode()) == int(answer.headers["Content-Length"])
    found = re.findall(r'<meta\s+(?:property|name)="([^"]+)"\s+content="([^"]*)"', text)
    assert len(found) == len(dict(found)), "each only once"
    return dict(found)


def test_a_link_to_the_page_has_a_card_of_its_own(page):
    tags = head(page)
    assert tags["og:title"] == tags["twitter:title"] == "From noise to digits"
    assert tags["og:description"] == tags["description"] == app.CARD and len(app.CARD) < 160
    assert (
        tags["og:image"] == tags["twitter:image"] == f"{page.local_url}card.png"
        and tags["twitter:card"] == "summary_large_image"
    )
    assert not any(
        "gradio" in value.lower()
        for name, value in tags.items()
        if name.startswith(("og:", "twitter:"))
    )
    with urllib.request.urlopen(tags["og:image"], timeout=60) as answer, Image.open(answer) as card:
        assert card.format == "PNG" and card.size == (1210, 590)
        noise, digits = (
            card.crop((0, 0, 590, 590)).convert("L"),
            card.crop((620, 0, 1210, 590)).convert("L"),
        )
        black = [sum(part.histogram()[:30]) / 590**2 for part in (noise, digits)]
        assert black[0] < 0.5 < black[1]  # digits stand on black


def test_the_card_is_found_behind_a_proxy_and_names_no_tag_of_the_asker(page):
    tags = head(page, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ada-space.hf.space"})
    assert (
        tags["og:image"] == "https://ada-space.hf.space/card.png"
        and tags["og:url"] == "https://ada-space.hf.space/"
    )
    assert head(page, {"X-Forwarded-Host": 'x"><script>'})["og:title"] == "From noise to digits"
