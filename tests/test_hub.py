import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load, save

from ddpm import Pipeline, hub
from ddpm.files import write_atomic
from tests.helpers import split, tiny_unet
from tests.hub_server import OWNER


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, tiny_unet())
    return tmp_path


def write(folder, model, **facts):
    for name, content in hub.files(model, **facts).items():
        write_atomic(folder / name, content)


def spoil(folder, change):
    """Changes the tensors and makes the sha256 fit again."""
    weights = load((folder / hub.WEIGHTS).read_bytes())
    change(weights)
    data = save(weights)
    (folder / hub.WEIGHTS).write_bytes(data)
    edit(folder, sha256=hashlib.sha256(data).hexdigest())


def edit(folder, **changes):
    config = json.loads((folder / hub.CONFIG).read_text()) | changes
    (folder / hub.CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    "shape", [{}, {"channels": 3, "size": 32, "classes": 0, "prediction": "eps", "blocks": 2}]
)
def test_what_is_saved_comes_back(tmp_path, shape):
    model = tiny_unet(**shape)
    write(tmp_path, model, dataset="mine")
    loaded, config, commit = hub.load(tmp_path)
    assert loaded.schedule == model.schedule and loaded.prediction == model.prediction
    assert config["dataset"] == "mine" and commit is None
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert not loaded.training


def test_half_precision_files_are_loaded_as_float32(folder):
    spoil(folder, lambda weights: weights.update({name: w.half() for name, w in weights.items()}))
    model = hub.load(folder).model
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("conv_in.weight"), "lacks tensor conv_in.weight"),
        (lambda w: w.update({"evil": torch.zeros(1)}), "unknown tensor evil"),
        (
            lambda w: w.update({"conv_in.bias": torch.zeros(9)}),
            r"conv_in.bias is \[9\], config.json wants \[8\]",
        ),
        (
            lambda w: w["conv_in.bias"].fill_(float("nan")),
            "conv_in.bias holds values that are not finite",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change, words):
    spoil(folder, change)
    with pytest.raises(ValueError, match=words):
        hub.load(folder)


def test_numbers_of_another_kind_are_not_converted_in_silence(folder):
    spoil(
        folder,
        lambda weights: weights.update(
            {"conv_in.bias": weights["conv_in.bias"].to(torch.complex64)}
        ),
    )
    with pytest.raises(
        ValueError, match=r"conv_in\.bias is stored as C64; valid are F32, F16, BF16"
    ):
        hub.load(folder)


def test_a_flipped_bit_and_a_cut_file_are_noticed(folder):
    whole = (folder / hub.WEIGHTS).read_bytes()
    (folder / hub.WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256 differs"):
        hub.load(folder)
    (folder / hub.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        hub.load(folder)


HISTORY = {"commands": ["python -m train"], "images": 1, "minutes": 1.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 10**12}, "8..256"),
        ({"width": "32"}, "width"),
        ({"mults": 3}, "config.json"),
        ({"mults": [10**9]}, "mults"),
        ({"mults": [1] * 10**5}, "1 to 5"),
        ({"size": -4}, "size"),
        ({"classes": 10**9}, "classes"),
        ({"prediction": "magic"}, "v, eps, x0"),
        ({"schedule": {"name": "cosine", "T": 10**9}}, "1..10000"),
        ({"schedule": {"nme": 1}}, "nme"),
        ({"schedule": 3}, "config.json"),
        ({"attention": [True, "no"]}, "attention"),
        ({"blocks": None}, "blocks"),
        ({"size": float("nan")}, "size"),
        ({"class_names": ["a"]}, "class_names"),
        ({"class_names": [1] * 10}, "class_names"),
        ({"sha256": None}, "sha256"),
        ({"class_counts": [1]}, "class_counts"),
        ({"class_counts": 10 * [0]}, "class_counts"),
        ({"class_counts": 10 * [-1]}, "class_counts"),
        ({"class_counts": 10 * [1.5]}, "class_counts"),
        ({"class_counts": 10 * [10**30]}, "class_counts"),
        ({"class_counts": {}}, "class_counts"),
        *(
            ({"history": HISTORY | changes}, "history")
            for changes in (
                {"images": -1},
                {"images": 10**400},
                {"images": 1.5},
                {"images": True},
                {"minutes": float("nan")},
                {"minutes": "9"},
                {"commands": "python -m train"},
                {"commands": [3]},
                {"commands": ["python -m train\n```"]},
                {"commands": ["<script>"]},
            )
        ),
        ({"history": ["python -m train"]}, "history"),
        ({"history": {}}, "history"),
    ],
)
def test_nonsense_in_the_config_is_refused_in_one_line(folder, changes, words):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=words) as error:
        hub.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("[1]", "must hold an object"),
        ("{}", "lacks channels"),
        ("[" * 100_000, "not valid JSON"),
        (" " * 2_000_000, "has 2,000,000 bytes, it may have 1,000,000"),
        ("\udcff", "JSON"),
    ],
)
def test_a_config_that_is_none_is_refused(folder, text, words):
    (folder / hub.CONFIG).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=words):
        hub.load(folder)


def test_a_pickle_is_never_opened(folder, tmp_path):
    (folder / hub.WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"has no model\.safetensors"):
        hub.load(folder)


@pytest.mark.parametrize("source", ["minst", "no such folder/x/y", ""])
def test_a_name_that_is_nothing_says_what_could_be(source):
    with pytest.raises(ValueError, match="built-in weights"):
        Pipeline.from_pretrained(source)


def test_a_revision_of_a_folder_is_refused(folder):
    with pytest.raises(ValueError, match="not a Hub repo"):
        Pipeline.from_pretrained(folder, revision="main")


def test_a_hub_out_of_reach_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="cannot be reached") as error:
        hub.load("someone/something")
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(
        "os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="cannot write .*file: No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


REPO = f"{OWNER}/digits"


@pytest.fixture
def server(hub_server):
    """A Hub with a tiny network in ada/digits."""
    hub_server.lfs = ()
    hub_server.commit(REPO, hub.files(tiny_unet()))
    return hub_server


def same_picture(*pipelines):
    a, b = (pipeline.sample(seeds=[3], steps=2).x for pipeline in pipelines)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_weights_come_from_the_hub_and_then_from_the_cache(server):
    pipeline = Pipeline.from_pretrained(REPO)
    same_picture(pipeline, Pipeline(tiny_unet()))
    assert pipeline.commit == server.repos[REPO]["branches"]["main"]
    server.asked.clear()
    same_picture(Pipeline.from_pretrained(REPO, revision=pipeline.commit), pipeline)
    assert server.asked == []  # cached and pinned: no request at all
    server.fail("HEAD", "/", times=99, status=503)
    same_picture(Pipeline.from_pretrained(REPO), pipeline)  # cached: a Hub that is down is no harm


@pytest.mark.slow
def test_a_new_process_pulls_and_then_asks_nothing(server, tmp_path):
    """The command line, with an empty cache and the Hub's address from the environment."""

    def draw(*options):
        out = tmp_path / "x.png"
        done = subprocess.run(
            [
                sys.executable,
                *split("-m ddpm --model", REPO, "--count 1 --seed 3 --steps 2"),
                *options,
                "--out",
                str(out),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")},
        )
        assert done.returncode == 0, done.stderr
        return out.read_bytes()

    first = draw()
    server.asked.clear()
    assert draw("--revision", server.repos[REPO]["branches"]["main"]) == first
    assert server.asked == []


def test_a_revision_may_be_a_tag_a_branch_or_a_commit(server):
    old = server.repos[REPO]["branches"]["main"]
    server.repos[REPO]["tags"]["v1"] = old
    server.repos[REPO]["branches"]["next"] = old
    new = server.commit(REPO, hub.files(tiny_unet(seed=1)))
    assert Pipeline.from_pretrained(REPO).commit == new
    assert {
        Pipeline.from_pretrained(REPO, revision=name).commit for name in ("v1", "next", old)
    } == {old}


def test_the_branch_may_move_between_two_files(server, monkeypatch):
    """Config and weights are of one commit in any case."""
    read = hub._read_config
    monkeypatch.setattr(
        hub,
        "_read_config",
        lambda path: (server.commit(REPO, hub.files(tiny_unet(seed=1))), read(path))[1],
    )
    same_picture(Pipeline.from_pretrained(REPO), Pipeline(tiny_unet()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ada/nothing"], "no Hub repo that is open to you"),
        ([REPO, "v9"], "no revision 'v9'"),
        ([REPO, 40 * "0"], "no revision"),
        (["ada/a--b"], "not a valid Hub repo name"),
    ],
)
def test_what_the_hub_does_not_have_is_said(server, arguments, words):
    refused(words, *arguments)


def refused(words, *arguments):
    with pytest.raises((ValueError, OSError), match=words) as error:
        hub.load(*(arguments or [REPO]))
    assert "\n" not in str(error.value)


def test_what_is_not_open_is_refused_in_one_line(server, monkeypatch):
    server.repos[REPO]["private"] = True
    monkeypatch.delenv("HF_TOKEN")
    refused("hf auth login")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"status": 500}, "cannot be reached"),
        ({"status": 403}, "cannot be reached"),
        ({"drop": True}, "did not give"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_line(server, how, words):
    server.fail("HEAD", "/resolve/", times=99, **how)
    refused(words)


def test_a_connection_cut_in_the_middle_of_a_file_is_taken_up_again(server):
    server.fail("GET", hub.WEIGHTS, cut=True)
    same_picture(Pipeline.from_pretrained(REPO), Pipeline(tiny_unet()))


def test_a_flipped_byte_or_a_mere_pickle_from_the_hub_is_refused(server):
    files = hub.files(tiny_unet())
    weights = files[hub.WEIGHTS]
    server.commit(REPO, {hub.WEIGHTS: weights[:-1] + bytes([weights[-1] ^ 1])})
    refused("sha256 differs")
    server.commit(REPO, {hub.WEIGHTS: weights[: len(weights) // 2]})
    refused("not a whole safetensors file")
    server.commit("ada/pickle", {hub.CONFIG: files[hub.CONFIG], "pytorch_model.bin": weights})
    refused(r"lacks config\.json or model\.safetensors", "ada/pickle")
    assert not [line for line in server.asked if "pytorch_model" in line]


@pytest.mark.parametrize(
    "changes", [{"width": 10**9}, {"mults": [16] * 9}, {"schedule": {"T": 10**9}}]
)
def test_weights_of_a_monstrous_config_are_not_even_downloaded(server, changes):
    config = json.loads(server.files(REPO)[hub.CONFIG]) | changes
    server.commit(REPO, {hub.CONFIG: json.dumps(config).encode()})
    refused("must be")
    assert not [line for line in server.asked if hub.WEIGHTS in line]


def test_files_that_are_too_large_are_not_downloaded(server):
    server.commit(REPO, {hub.WEIGHTS: b"x" * 3_000_000})
    refused("not downloaded")
    server.commit(REPO, {hub.CONFIG: b" " * 2_000_000})
    refused("not downloaded")
    assert not [line for line in server.asked if line.startswith("GET") and hub.WEIGHTS in line]


def test_a_file_damaged_in_the_cache_is_named_and_comes_anew_once_it_is_deleted(server):
    commit = server.repos[REPO]["branches"]["main"]
    cached = Path(hf_hub_download(REPO, hub.WEIGHTS, revision=commit)).resolve()
    cached.write_bytes(cached.read_bytes()[:-1] + b"?")
    with pytest.raises(
        ValueError, match="sha256 differs.*; to download it again, delete it"
    ) as error:
        hub.load(REPO, commit)
    Path(str(error.value).partition(":")[0]).unlink()
    same_picture(Pipeline.from_pretrained(REPO, revision=commit), Pipeline(tiny_unet()))
