import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, save

from ddpm import Pipeline, hub
from ddpm.files import write_atomic
from tests.conftest import tiny_unet


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


@pytest.mark.parametrize("shape", [{}, {"channels": 3, "size": 32, "classes": 0, "prediction": "eps", "blocks": 2}])
def test_what_is_saved_comes_back(tmp_path, shape):
    model = tiny_unet(**shape)
    write(tmp_path, model, dataset="mine")
    loaded, config = hub.load(tmp_path)
    assert loaded.schedule == model.schedule and loaded.prediction == model.prediction
    assert config["dataset"] == "mine"
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True))
    assert not loaded.training


def test_half_precision_files_are_loaded_as_float32(folder):
    spoil(folder, lambda weights: weights.update({name: w.half() for name, w in weights.items()}))
    model, _ = hub.load(folder)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: w.pop("conv_in.weight"), "lacks tensor conv_in.weight"),
    (lambda w: w.update({"evil": torch.zeros(1)}), "unknown tensor evil"),
    (lambda w: w.update({"conv_in.bias": torch.zeros(9)}), r"conv_in.bias is \[9\], config.json wants \[8\]"),
    (lambda w: w["conv_in.bias"].fill_(float("nan")), "conv_in.bias holds values that are not finite"),
])
def test_tensors_that_do_not_fit_are_named(folder, change, words):
    spoil(folder, change)
    with pytest.raises(ValueError, match=words):
        hub.load(folder)


def test_numbers_of_another_kind_are_not_converted_in_silence(folder):
    spoil(folder, lambda weights: weights.update({"conv_in.bias": weights["conv_in.bias"].to(torch.complex64)}))
    with pytest.raises(ValueError, match=r"conv_in\.bias is stored as C64; valid are F32, F16, BF16"):
        hub.load(folder)


def test_a_flipped_bit_and_a_cut_file_are_noticed(folder):
    whole = (folder / hub.WEIGHTS).read_bytes()
    (folder / hub.WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="sha256 differs"):
        hub.load(folder)
    (folder / hub.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        hub.load(folder)


@pytest.mark.parametrize(("changes", "words"), [
    ({"width": 10**12}, "8..256"), ({"width": "32"}, "width"), ({"mults": 3}, "config.json"), ({"mults": [10**9]}, "mults"),
    ({"mults": [1] * 10**5}, "1 to 5"), ({"size": -4}, "size"), ({"classes": 10**9}, "classes"), ({"prediction": "magic"}, "v, eps, x0"),
    ({"schedule": {"name": "cosine", "T": 10**9}}, "1..10000"), ({"schedule": {"nme": 1}}, "nme"), ({"schedule": 3}, "config.json"),
    ({"attention": [True, "no"]}, "attention"), ({"blocks": None}, "blocks"), ({"size": float("nan")}, "size"),
    ({"class_names": ["a"]}, "class_names"), ({"class_names": [1] * 10}, "class_names"), ({"sha256": None}, "sha256"),
])
def test_nonsense_in_the_config_is_refused_in_one_line(folder, changes, words):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=words) as error:
        hub.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "words"), [
    ("", "not valid JSON"), ("[1]", "must hold an object"), ("{}", "lacks channels"), ("[" * 100_000, "not valid JSON"),
    (" " * 2_000_000, "larger than 1 MB"), ("\udcff", "JSON"),
])
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
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="cannot write .*file: No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


class Repo(BaseHTTPRequestHandler):
    """A Hub with one repo, someone/digits, in `files`; it answers as the real one does and notes what was asked."""

    commit = "c0ffee" + 34 * "0"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.server.asked.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        error = ("RepoNotFound" if repo != "someone/digits" else
                 "RevisionNotFound" if revision not in ("main", self.commit) else
                 "EntryNotFound" if name not in self.server.files else None)
        content = b"" if error else self.server.files[name]
        self.send_response(404 if error else 200)
        if error:
            self.send_header("X-Error-Code", error)
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repo)
    server.files, server.asked = hub.files(tiny_unet()), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load_in_a_new_process(server, cache, *arguments):
    """The endpoint is read when huggingface_hub is imported, so this needs a process of its own."""
    code = ("import sys; from ddpm import Pipeline\n"
            "try: print(Pipeline.from_pretrained(sys.argv[1], revision=(sys.argv[2:] or [None])[0]).sample("
            "seeds=[3], steps=2).x.sum().item())\n"
            "except (ValueError, OSError) as error: print('refused:', error)")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False, env={
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(cache)})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_weights_come_from_the_hub_and_then_from_the_cache(server, tmp_path):
    expected = Pipeline(tiny_unet()).sample(seeds=[3], steps=2).x.sum().item()
    assert float(load_in_a_new_process(server, tmp_path, "someone/digits")) == pytest.approx(expected, abs=1e-3)
    server.asked.clear()
    assert float(load_in_a_new_process(server, tmp_path, "someone/digits", Repo.commit)) == pytest.approx(expected, abs=1e-3)
    # Cached and pinned: nothing is asked about the repo. (Once a day huggingface_hub fetches a list of its own.)
    assert not [line for line in server.asked if "someone/digits" in line]


@pytest.mark.parametrize(("arguments", "words"), [
    (["someone/nothing"], "no Hub repo that is open to you"), (["someone/digits", "v9"], "no revision 'v9'"),
])
def test_what_the_hub_does_not_have_is_said(server, tmp_path, arguments, words):
    said = load_in_a_new_process(server, tmp_path, *arguments)
    assert said.startswith("refused:") and words in said


def test_a_flipped_byte_or_a_mere_pickle_from_the_hub_is_refused(server, tmp_path):
    weights = server.files[hub.WEIGHTS]
    server.files[hub.WEIGHTS] = weights[:-1] + bytes([weights[-1] ^ 1])
    assert "sha256 differs" in load_in_a_new_process(server, tmp_path / "a", "someone/digits")
    server.files["pytorch_model.bin"] = server.files.pop(hub.WEIGHTS)
    assert "lacks config.json or model.safetensors" in load_in_a_new_process(server, tmp_path / "b", "someone/digits")
    assert not [line for line in server.asked if "pytorch_model" in line]
