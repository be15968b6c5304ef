"""The app as a visitor's browser drives it: a real Gradio server, a real client, over loopback."""

import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import app


@pytest.fixture(scope="module")
def client():
    page = app.build()
    page.launch(prevent_thread_lock=True, quiet=True, css=app.CSS, show_error=False, enable_monitoring=False,
                server_name="127.0.0.1", ssr_mode=False)
    yield Client(page.local_url, verbose=False)
    page.close()


SMALL = {"count": 4, "steps": 3, "seed": 11}


def picture(html):
    return Image.open(io.BytesIO(base64.b64decode(re.search("base64,([^\"]+)", html)[1])))


def test_generate_streams_the_process_and_ends_with_files(client):
    job = client.submit(**SMALL, api_name="/generate")
    *_, gif, png = job.result(timeout=120)
    shown = [html for html, *_ in job.outputs()]
    assert len(shown) >= 4
    assert "step 0 of 3, t = 1000" in shown[0]
    assert "step 3 of 3, t = 0, 3 network evaluations" in shown[-1]
    assert "seeds 11 to 14" in shown[-1]
    path = gif["value"] if isinstance(gif, dict) else gif
    with Image.open(path) as image:
        assert image.n_frames == 4 and image.info["loop"] == 0
    path = png["value"] if isinstance(png, dict) else png
    final = Image.open(path)
    assert picture(shown[-1]).resize(final.size, Image.Resampling.NEAREST).tobytes() == final.tobytes()


def test_a_seed_left_out_is_drawn_by_lot_and_shown(client):
    job = client.submit(count=1, steps=1, seed=None, api_name="/generate")
    job.result(timeout=120)
    html, seed, *_ = job.outputs()[0]
    assert 0 <= seed < 2**32 and f"seed {seed}<" in html
    again = client.submit(count=1, steps=1, seed=seed, api_name="/generate")
    again.result(timeout=120)
    assert again.outputs()[0][0] == html


def test_a_digit_can_be_asked_for_with_guidance(client):
    job = client.submit(**SMALL, label="7", guidance=1.0, api_name="/generate")
    job.result(timeout=120)
    assert "6 network evaluations" in job.outputs()[-1][0]


def test_stop_ends_the_work(client):
    job = client.submit(count=64, steps=1000, seed=0, api_name="/generate")
    for _ in range(600):
        if job.outputs():
            break
        time.sleep(0.1)
    job.cancel()
    quick = client.submit(**SMALL, api_name="/generate")  # there is one worker: it is free again
    assert quick.result(timeout=60)


@pytest.mark.parametrize(("settings", "words"), [
    ({"count": 0}, None), ({"count": 65}, None), ({"count": None}, None),
    ({"steps": 0}, None), ({"steps": 1e9}, None), ({"steps": None}, None),
    ({"seed": -1}, None), ({"seed": 2**32 - 1}, "for 4 images"), ({"sampler": "dim"}, None),
    ({"sampler": None}, "unknown sampler"), ({"time_grid": None}, "time_grid must be one of best, power"), ({"label": "eleven"}, None),
    ({"label": None}, "label must be any or one of"), ({"guidance": -3}, None),
    ({"eta": 0.5}, "no eta"), ({"eta": None}, None),
    ({"sampler": ["ddim"]}, "unknown sampler"), ({"label": ["3"]}, "label must be any or one of"), ({"steps": "many"}, None),
])
def test_bad_calls_are_refused_and_the_next_one_is_served(client, settings, words):
    if words:  # without words, Gradio itself refuses what the widget cannot hold
        with pytest.raises(gr.Error, match=words):
            next(app.generate(**SMALL | settings))
    with pytest.raises(AppError, match=words or "exception|Value|value|Minimum|less|greater|choices"):
        client.predict(**SMALL | settings, api_name="/generate")
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")


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


def test_only_generate_is_a_public_endpoint(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/generate"}
