"""Whatever computes the network, the pictures are the same; and nothing that is wrong with it stops
a picture."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from ddpm import SAMPLERS, Pipeline, engine
from ddpm.__main__ import main
from ddpm.engine import onnx
from ddpm.samplers import affordable_steps
from tests.helpers import split, tiny_unet
from train.benchmark.sampling import CONTESTANTS, THEIRS

TOLERANCE = 1e-3  # of pictures in [-1, 1]: an eighth of a gray level
try:
    import onnxruntime
except ImportError:  # it is optional
    onnxruntime = None
needs_onnx_runtime = pytest.mark.skipif(
    onnxruntime is None, reason="ONNX Runtime cannot be imported"
)
OURS = [name for name in CONTESTANTS if name != THEIRS and (onnxruntime or name != "ONNX Runtime")]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_engine_draws_the_pictures_of_the_plain_model(sampler, monkeypatch):
    plain = Pipeline.from_pretrained("mnist")
    monkeypatch.setattr(
        Pipeline, "engine", property(lambda self: engine.Engine(self.model, "the model as it is"))
    )
    for settings in ({"steps": 5}, {"steps": 8, "labels": [3, None, 7], "guidance": 2.0}):
        settings |= {
            "seeds": range(3),
            "sampler": sampler,
            "steps": affordable_steps(sampler, settings["steps"]),
        }
        expected = plain.sample(**settings)
        for name in OURS:
            found = CONTESTANTS[name](plain.model)
            with monkeypatch.context() as patch:
                patch.setattr(Pipeline, "engine", property(lambda self, found=found: found))
                images = Pipeline(plain.model).sample(**settings)
            torch.testing.assert_close(images.x, expected.x, rtol=0, atol=TOLERANCE, msg=name)
            for frame, other in zip(images.frames, expected.frames, strict=True):
                torch.testing.assert_close(frame.x0, other.x0, rtol=0, atol=TOLERANCE)
                # a frame is a tensor like any other
                frame.x0.clone().requires_grad_().square().sum().backward()
                frame.x.add_(1)


@needs_onnx_runtime
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": 0},
        {"channels": 3, "size": 32},
        {"blocks": 2},
        {"mults": (2,), "attention": (False,)},
        {"mults": (1, 1, 2), "attention": (True, True, True), "width": 16},
        {"prediction": "eps"},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 3, 2 * engine._MOST + 1])
def test_the_graph_says_what_the_network_says(changes, count):
    model = tiny_unet(**changes)
    x, t = torch.randn(count, model.channels, model.size, model.size), 1 + 99 * torch.rand(count)
    run = engine.onnx_runtime(model).run
    with torch.no_grad():
        for y in [None] + [torch.randint(model.classes + 1, (count,))] * bool(model.classes):
            torch.testing.assert_close(run(x, t, y), model(x, t, y), rtol=1e-4, atol=1e-4)
            apart = x.transpose(2, 3)  # not contiguous
            torch.testing.assert_close(run(apart, t, y), model(apart, t, y), rtol=1e-4, atol=1e-4)


def test_numbers_are_written_as_protocol_buffers_have_them():
    """Examples of https://protobuf.dev/programming-guides/encoding, and the two ends of int64."""
    assert onnx._varint(150) == b"\x96\x01" and onnx._varint(0) == b"\0"
    assert (
        onnx._varint(-1) == b"\xff" * 9 + b"\x01"
        and onnx._varint(2**63 - 1) == b"\xff" * 8 + b"\x7f"
    )
    assert onnx._message((1, 150)) == b"\x08\x96\x01"
    assert onnx._message((2, "testing")) == b"\x12\x07testing"
    assert onnx._message((3, onnx._message((1, 150)))) == b"\x1a\x03\x08\x96\x01"
    assert onnx._message((1, 0.5)) == b"\x0d\0\0\0\x3f"


def test_weights_that_may_change_are_drawn_with_as_they_are():
    model = tiny_unet()
    pipeline = Pipeline(model)
    before = pipeline.sample(seeds=[0], steps=2).x
    with torch.no_grad():
        model.conv_out.bias += 0.5
    assert (pipeline.sample(seeds=[0], steps=2).x - before).abs().max() > 0.1
    assert pipeline.engine.text.startswith("PyTorch")


@needs_onnx_runtime
def test_the_engine_is_chosen_once_and_says_what_it_is(capsys, tmp_path):
    pipeline = Pipeline.from_pretrained("mnist")
    assert pipeline.engine is pipeline.engine
    assert pipeline.engine.text == f"ONNX Runtime {onnxruntime.__version__} on cpu, {threads()}"
    assert (
        main(["--steps", "1", "--count", "1", "--out", str(tmp_path / "a.png"), "--verbose"]) == 0
    )
    assert f"engine: {pipeline.engine.text}\n" in capsys.readouterr().out


def threads():
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


class Failing(types.ModuleType):
    """A package that is there, and no more."""

    __version__ = "9.9"

    def set_default_logger_severity(self, level):
        pass

    class SessionOptions:
        def add_session_config_entry(self, name, value):
            pass

    class InferenceSession:
        def __init__(self, *args, **settings):
            raise RuntimeError("no kernel\nfor this CPU")


class Foreign(Failing):
    """One that answers, but something else."""

    class InferenceSession:
        def __init__(self, *args, **settings):
            pass

        def run(self, _, given):
            return [given["x"] * np.float32(np.nan)]


class Older(Failing):
    """One in which a name has changed."""

    def __getattribute__(self, name):
        if name == "SessionOptions":
            raise AttributeError("module 'onnxruntime' has no attribute 'SessionOptions'")
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "is not installed"),
        (types.ModuleType("onnxruntime"), "does not work: module 'onnxruntime' has no attribute"),
        (Failing("onnxruntime"), "does not work: no kernel for this CPU"),
        (Foreign("onnxruntime"), "does not work: it is off by nan"),
        (
            Older("onnxruntime"),
            "does not work: module 'onnxruntime' has no attribute 'SessionOptions'",
        ),
    ],
    ids=["missing", "empty", "failing", "foreign", "older"],
)
def test_without_a_package_that_works_pytorch_draws_and_says_so(
    monkeypatch, capsys, tmp_path, module, words
):
    expected = Pipeline.from_pretrained("mnist").sample(seeds=range(2), steps=3)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    pipeline = Pipeline.from_pretrained("mnist")
    torch.testing.assert_close(
        pipeline.sample(seeds=range(2), steps=3).x, expected.x, rtol=0, atol=TOLERANCE
    )
    assert (
        pipeline.engine.text.startswith("PyTorch")
        and f"ONNX Runtime {words}" in pipeline.engine.text
    )
    assert (
        main(["--steps", "1", "--count", "1", "--out", str(tmp_path / "a.png"), "--verbose"]) == 0
    )
    said = capsys.readouterr().out
    assert words in said and said.count("\n") == 2


@pytest.mark.slow
def test_a_broken_package_and_a_read_only_machine_do_not_stop_a_picture(tmp_path):
    """A real process, whose home and temporary folder are not to be written to, and whose package
    lacks a library.

    And nothing is left there: by default, ONNX Runtime 1.29 and later identifies the machine and
    reports on it.
    """
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        'raise ImportError("libonnx.so: cannot open\\nshared object file")'
    )
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    cases = [(str(tmp_path), "cannot be imported: libonnx.so: cannot open shared object file")]
    for path, words in cases + [("", "engine: ONNX Runtime")] * bool(onnxruntime):
        done = subprocess.run(
            [
                sys.executable,
                *split("-m ddpm --seed 0 --steps 1 --count 1 --verbose --out", tmp_path / "a.png"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "HOME": str(locked),
                "TMPDIR": str(locked),
                "XDG_CACHE_HOME": str(locked),
            },
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout and list(locked.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.slow
def test_a_process_that_was_forked_has_an_engine_of_its_own():
    """As ZeroGPU does it: the threads of the parent's engine are not there any more."""
    code = """if True:
        import os, torch
        from ddpm import Pipeline
        torch.set_num_threads(2)
        pipeline = Pipeline.from_pretrained("mnist")
        first = pipeline.engine
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # those of torch itself do not outlive a fork either
            assert pipeline.engine is not first
            x = pipeline.sample(seeds=range(4), steps=2).x
            os._exit(0 if torch.isfinite(x).all() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pipeline.engine is first
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
