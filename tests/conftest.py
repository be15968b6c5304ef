"""Fixtures that several test files use, and a wall around loopback. Plain functions are in
helpers.py."""

import os
import socket

import pytest

# Before torch, which only the fixtures import: the process that hands out the tests never needs it.
# Two busy processes with two threads each crawl on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Gradio looks for a free one from here on
    os.environ["GRADIO_SERVER_PORT"] = str(7860 + 100 * int(worker[2:]))

SLOW = {"page", "referee"}  # fixtures that start the app or train for a while


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Two processes for all tests, none for files or tests that are named: to start more would take
    longer than it saves."""
    return 2 if config.args_source == config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(items):
    """Whatever uses a slow fixture is slow; other tests say so themselves, by pytest.mark.slow."""
    for item in items:
        if SLOW & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Nothing leaves this machine: a connection elsewhere fails the test at once instead of
    waiting."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"tests stay on loopback, tried {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A Hub on loopback that this process talks to, logged in as its owner; nobody waits between
    tries."""
    from huggingface_hub import constants

    from tests.hub_server import TOKEN, HubServer

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.waited = []
        monkeypatch.setattr("time.sleep", server.waited.append)
        yield server


@pytest.fixture(scope="module")
def page():
    """The app as it is served: a real Gradio server on a free port of loopback."""
    import app

    page = app.build()
    page.launch(
        **app.launch_settings(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1"
    )
    yield page
    page.close()


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    from tests.helpers import CHROMIUM

    assert CHROMIUM, "CI must have a Chromium: .ci/run installs it"
    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A folder that `python -m train` wrote in a few seconds."""
    from tests.helpers import TINY
    from train.__main__ import main

    out = tmp_path_factory.mktemp("run") / "tiny"
    assert main([*TINY, "--out", str(out), "--steps", "12"]) == 0
    return out


@pytest.fixture(scope="session")
def referee(tmp_path_factory):
    """A folder that `python -m train.evaluate.judge` wrote in seconds: its judges see little, but
    always the same."""
    from tests.helpers import DIGITS
    from train.evaluate import judge, panel

    out = tmp_path_factory.mktemp("judge") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        # floors that are kept need not be measured in every test
        patch.setattr(panel, "COUNTS", (6, 20))
        assert (
            judge.main(
                ["--data", str(DIGITS), "--out", str(out), "--epochs", "8", "--steps", "150"]
            )
            == 0
        )
    return out
