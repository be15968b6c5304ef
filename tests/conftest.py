"""Shared fixtures: a tiny network, a tiny run, and a wall around loopback."""

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two busy processes with two threads each crawl on two cores

import torch

from ddpm import Schedule, UNet

DIGITS = Path(__file__).parent / "data"  # 400 + 100 real MNIST digits, as torchvision lays them out


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Nothing leaves this machine: a connection elsewhere fails the test at once instead of waiting."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests stay on loopback, tried {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A Hub on loopback that this process talks to, logged in as its owner; nobody waits between tries."""
    from huggingface_hub import constants

    from tests.hub_server import TOKEN, HubServer

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.waited = []
        monkeypatch.setattr("time.sleep", server.waited.append)
        yield server


def tiny_unet(seed: int = 0, **changes) -> UNet:
    """A small network in which no weight is zero, so that every part matters."""
    torch.manual_seed(seed)
    model = UNet(**{"size": 8, "width": 8, "mults": (1, 2), "attention": (False, True), "classes": 10,
                    "schedule": Schedule(T=100)} | changes)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A folder that `python -m train` wrote in a few seconds."""
    from train.__main__ import main

    out = tmp_path_factory.mktemp("run") / "tiny"
    assert main([*TINY, "--out", str(out), "--steps", "12"]) == 0
    return out


TINY = ["--data", str(DIGITS), "--width", "8", "--mults", "1", "1", "1", "--attention", "7", "--batch-size", "8",
        "--sample-every", "1000", "--checkpoint-every", "5", "--device", "cpu"]
