"""Which weights the app draws with, what it says of them, and the whole way from training to the
page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client
from PIL import Image

import app
from ddpm import Pipeline, hub
from ddpm.demo.serving import DEFAULT, Serving, Weights, pipeline
from tests.helpers import TINY, ask_film, decode, distance, free_port, split, tiny_unet
from tests.hub_server import OWNER, TOKEN
from train.__main__ import main as train
from train.publish import push

REPO = f"{OWNER}/digits"
pytestmark = pytest.mark.slow


@pytest.fixture
def server(hub_server):
    hub_server.lfs = ()
    hub_server.commit(REPO, hub.files(tiny_unet(), class_names=list("abcdefghij")))
    pipeline.cache_clear()
    return hub_server


def said():
    """What the page shows: notice, whether there is a button, line, command, Python, labels."""
    notice, again, line, command, python, label, *others = app._weights_in_use()[:9]
    assert [other.choices for other in others[:2]] == [label.choices] * 2
    assert others[2].choices[1:] == label.choices[1:] and others[2].choices[0][0] == "none"
    return (
        notice.value,
        again.visible,
        line,
        command.value,
        python,
        [name for name, _ in label.choices],
    )


def test_the_page_names_the_weights_and_how_to_get_them(server, monkeypatch):
    monkeypatch.setattr(app, "serving", Serving(REPO))
    app.serving.load(30)
    commit = server.repos[REPO]["branches"]["main"]
    assert app.serving.weights == Weights(REPO, commit)
    notice, again, line, command, python, labels = said()
    assert not notice and not again
    assert (
        f"[{REPO}]({server.url}/{REPO})" in line and f"({server.url}/{REPO}/tree/{commit})" in line
    )
    assert command == f"hf download {REPO} --revision {commit}"
    assert len(python.splitlines()) == 3 and labels == ["any", *"abcdefghij"]
    assert f'Pipeline.from_pretrained("{REPO}", revision="{commit}")' in python
    *_, (film, seed) = app.generate_film("b", 1, 3, 2, "unipc2", "best", 0, 0)
    assert (
        seed == 3 and len(film["walks"][0]["frames"]) == 3 and film["walks"][0]["labels"] == ["b"]
    )
    with pytest.raises(Exception, match="label must be one of any, none, a, b"):
        app.generate("7", 1, 3, 2)
    # as the page calls it
    with pytest.raises(Exception, match="class must be one of any, none, a, b"):
        next(app.generate_film("7", 1, 3, 2, "unipc2", "best", 0, 0))


def test_the_three_lines_and_the_command_do_what_they_say(server, monkeypatch, tmp_path):
    monkeypatch.setattr(app, "serving", Serving(REPO))
    app.serving.load(30)
    *_, command, python, _ = said()
    monkeypatch.chdir(tmp_path)
    exec(python, {})
    assert Path("digits.gif").stat().st_size
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *command.split()[1:], "--local-dir", "got"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert Path("got", hub.WEIGHTS).read_bytes() == server.files(REPO)[hub.WEIGHTS]


def test_built_in_weights_are_called_so(monkeypatch):
    monkeypatch.setattr(app, "serving", Serving(DEFAULT))
    app.serving.load(0)
    notice, again, line, command, python, _ = said()
    assert not notice and not again and not command
    assert (
        line.startswith("In use: built-in (`mnist`). A U-Net of ")
        and 'Pipeline.from_pretrained("mnist")' in python
    )
    monkeypatch.setenv("SPACE_ID", "ada/space")
    assert 'hf download ada/space --type space --include "ddpm/pretrained/mnist/*"' in said()[3]


@pytest.mark.parametrize("how", [{"drop": True}, {"status": 503}, {"status": 401}])
def test_a_hub_out_of_reach_is_said_and_asked_again(server, monkeypatch, how):
    server.fail("HEAD", "/resolve/", times=99, **how)
    monkeypatch.setattr(app, "serving", Serving(REPO))
    app.serving.load(30)
    assert app.serving.weights == Weights(DEFAULT) and app.serving.problem
    notice, again, line, *_ = said()
    assert (
        f"The weights of `{REPO}` could not be loaded" in notice
        and "built-in weights draw instead" in notice
    )
    assert again and "built-in" in line
    *_, film = app.generate(count=1, steps=1, seed=0, film=True)
    assert len(film["walks"][0]["frames"]) == 2
    server.failures.clear()
    assert not app.try_again()[0].value and app.serving.arrived and app.serving.problem is None


def test_a_slow_hub_does_not_hold_up_the_start(server, monkeypatch):
    server.fail("HEAD", "/resolve/", slow=2)
    monkeypatch.setattr(app, "serving", Serving(REPO))
    app.serving.load(0.2)
    assert "still on their way" in said()[0] and app.serving.weights == Weights(DEFAULT)
    app.serving.load(30)  # what is on its way is waited for, not begun again
    assert app.serving.arrived and not said()[0]
    assert sum("HEAD" in line and hub.CONFIG in line for line in server.asked) <= 2


def test_what_cannot_be_is_said_too(server, monkeypatch):
    for serving, words in (
        (Serving(REPO, "v9"), "no revision 'v9'"),
        (Serving(DEFAULT, "v9"), "not a Hub repo"),
        (Serving("minst"), "built-in weights"),
    ):
        serving.load(30)
        assert (
            words in serving.problem and not serving.arrived and serving.weights == Weights(DEFAULT)
        )


def test_a_folder_can_be_served(run, monkeypatch):
    monkeypatch.setattr(app, "serving", Serving(str(run)))
    app.serving.load(30)
    assert said()[2].startswith(f"In use: the folder `{run}`. A U-Net of ")


START = """if True:
    import app
    page = app.build()
    page.launch(**app.launch_settings(), prevent_thread_lock=True, quiet=True)
    print("url", page.local_url, flush=True)
    input()
"""


class AppProcess:
    """The app in a process of its own, on weights of a Hub at endpoint, with its own cache."""

    def __init__(self, endpoint, home, **more):
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            cwd=Path(app.__file__).parent,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(home),
                "DDPM_MODEL": REPO,
                "GRADIO_ANALYTICS_ENABLED": "0",
                **more,
            },
        )

    def __enter__(self):
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("url"):
                break
        self.client = Client(self.said.split("url ")[1].strip(), verbose=False)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_without_a_hub_and_a_cache_the_app_starts_at_once(tmp_path):
    """huggingface_hub tries for more than 20 seconds: the app does not wait until it has given up.
    (On free cores: 3 seconds.)"""
    with AppProcess(f"http://127.0.0.1:{free_port()}", tmp_path) as started:
        assert "still loading. The built-in weights draw instead" in started.said
        assert ask_film(started.client, count=1, steps=1, seed=0).result()


def test_the_whole_chain(run, tmp_path, hub_server, monkeypatch):
    """Train -> push -> a new process pulls -> the same picture -> push again -> the app serves the
    new revision."""
    server, seeds, out = hub_server, range(3, 7), tmp_path / "x.png"
    assert push.main([str(run), REPO]) == 0
    done = subprocess.run(
        [
            sys.executable,
            *split("-m ddpm --model", REPO, "--seed 3 --count 4 --steps 3 --out", out),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "empty"),
            "HF_HUB_DISABLE_XET": "1",
        },
    )
    assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr
    old = Pipeline.from_pretrained(run).sample(seeds=seeds, steps=3)
    with Image.open(out) as pulled:
        assert distance(pulled, old.sheet()) <= 1

    second = tmp_path / "second"
    assert train([*TINY, *split("--out", second, "--steps 8 --lr 0.05 --ema 0 --warmup 0")]) == 0
    assert push.main([str(second), REPO]) == 0 and server.commits(REPO) == 2
    with AppProcess(server.url, tmp_path / "app") as started:
        job = ask_film(started.client, count=4, steps=3, seed=3)
        job.result(timeout=60)
        drawn = decode(job.outputs()[-1][0]["walks"][0]["frames"][-1]["x"])
    new = Pipeline.from_pretrained(second).sample(seeds=seeds, steps=3)
    assert distance(drawn, new.sheet(scale=1)) <= 1 < distance(drawn, old.sheet(scale=1))
