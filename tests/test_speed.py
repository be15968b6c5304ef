"""python -m train.benchmark.sampling: that what is compared is the same work. How fast it is
depends on the machine."""

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler

from ddpm import SAMPLERS, hub
from ddpm.files import write_atomic
from ddpm.samplers import evaluations
from tests.helpers import in_diffusers, split, tiny_unet
from train.benchmark import sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    for name, content in hub.files(tiny_unet()).items():
        write_atomic(out / name, content)
    return str(out)


@pytest.fixture
def student(folder, tmp_path, monkeypatch):
    """A built-in model called quick that was distilled from that of the folder, beside one that was
    not."""
    teacher = json.loads((Path(folder) / hub.CONFIG).read_text())["sha256"]
    distilled = {"distilled": {"teacher": teacher, "walks": {"2": [100.0, 40.5], "1": [99.0]}}}
    for model, facts in (("quick", distilled), ("other", {})):
        for name, content in hub.files(tiny_unet(1), **facts).items():
            (tmp_path / "built-in" / model).mkdir(parents=True, exist_ok=True)
            write_atomic(tmp_path / "built-in" / model / name, content)
    monkeypatch.setattr(hub, "BUILT_IN", tmp_path / "built-in")


def test_every_contestant_has_the_same_size_and_the_same_work():
    for changes in (
        {},
        {"classes": 0},
        {"channels": 3, "mults": (1, 2, 2), "attention": (False, True, True), "blocks": 2},
    ):
        model = tiny_unet(**changes)
        theirs = sampling.Diffusers(model).eval()
        assert sum(p.numel() for p in theirs.parameters()) == sum(
            p.numel() for p in model.parameters()
        )
        assert sampling.work_of(theirs, model) == sampling.work_of(model, model) > 0
        assert set(sampling.contestants(model)) == set(sampling.CONTESTANTS)


def test_work_is_two_operations_for_each_weight_and_place():
    model = tiny_unet(mults=(1,), attention=(False,), classes=0)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    pixels = {torch.nn.Conv2d: 64, torch.nn.Linear: 1}
    dense = sum(2 * m.weight.numel() * pixels[type(m)] for m in layers)
    attention = model.middle[0].attention
    c = attention.norm.num_channels
    # its four linear layers work on all 64 pixels, not on one
    dense += sum(2 * c * c * 63 for _ in range(4))
    dense += 2 * 2 * 64 * 64 * c  # and every pixel looks at every other, twice
    assert sampling.work_of(model, model) == dense


def test_their_loop_draws_what_their_pipeline_draws():
    """So it is diffusers that is measured, not something slower."""
    model = tiny_unet(classes=0)
    theirs = sampling.Diffusers(model).eval().requires_grad_(False)
    theirs.network.load_state_dict(in_diffusers(model).state_dict())
    pipeline = DDIMPipeline(
        theirs.network, DDIMScheduler(num_train_timesteps=100, prediction_type="v_prediction")
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        2, torch.Generator().manual_seed(0), num_inference_steps=10, output_type="np"
    ).images
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = sampling._their_loop("DDIM", 10, model, theirs, x, None)()
    assert drawn.std() > 0.1
    torch.testing.assert_close(
        (drawn / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1),
        torch.from_numpy(expected),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.slow
def test_all_tables_are_printed_and_written(folder, student, tmp_path, capsys):
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    out = tmp_path / "speed.json"
    options = [
        "--model",
        folder,
        *split("--batches 1 3 --steps 4 --sampler ipndm --rounds 2 --out", out),
    ]
    assert sampling.main(options) == 0
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert (
        list(report["engines"])
        == list(sampling.CONTESTANTS)
        == ["ONNX Runtime", "PyTorch", "diffusers"]
    )
    for count in ("1", "3"):
        figures = report["one_evaluation"][count]
        for name in report["engines"]:
            for what in ("ms", "share_of_matmul", "faster_than_diffusers"):
                figure = figures[name][what]
                assert (
                    len(figure["values"]) == 2
                    and 0 < figure["min"] <= figure["median"] <= figure["max"]
                )
            assert figures[name]["peak_memory_mb"] > 50
            assert f"{figures[name]['ms']['median']:.2f}" in printed
        assert figures["diffusers"]["faster_than_diffusers"]["values"] == [1, 1]
    assert {name: figure["evaluations"] for name, figure in report["pictures"].items()} == {
        "ONNX Runtime, ipndm": 4,
        "ONNX Runtime, quick": 2,
        "PyTorch, ipndm": 4,
        "PyTorch, quick": 2,
        "diffusers, DDIM": 50,
        "diffusers, DDPM": 100,
    }
    rows = [line.split()[0] for line in printed.splitlines() if line]
    assert rows[-len(SAMPLERS) :] == list(report["samplers"]) == list(SAMPLERS)
    assert "--sampler ipndm" in report["command"] and report["threads"] == torch.get_num_threads()


def test_who_lacks_a_package_sits_out(folder, capsys, monkeypatch):
    monkeypatch.setattr(sampling, "peak_memory", lambda *_: {})
    for package in ("diffusers", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert (
        sampling.main(["--model", folder, "--batches", "1", "--steps", "2", "--rounds", "1"]) == 0
    )
    said = capsys.readouterr()
    assert "PyTorch" in said.out and "× DDPM" in said.out and "diffusers, DD" not in said.out
    assert "ONNX Runtime is left out" in said.err and "diffusers is left out" in said.err


def test_rounds_are_compared_with_each_other():
    assert sampling.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {
        "median": 2,
        "min": 1,
        "max": 3,
        "values": [2, 3, 1],
    }
    calls = []
    took = sampling.in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert calls == list("ababab") and {name: len(values) for name, values in took.items()} == {
        "a": 2,
        "b": 2,
    }


def test_the_steps_named_are_those_of_the_measurement():
    """README's table of speed is of the sampler and the evaluations that the command measures
    unasked."""
    text = (hub.BUILT_IN.parents[1] / "README.md").read_text()
    assert (
        f"| ONNX Runtime, `{sampling.SAMPLER}` | {evaluations(sampling.SAMPLER, sampling.STEPS)} |"
        in text
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rounds", "0"], "--rounds must be 1"),
        (["--steps", "0"], "1..100"),
        (["--steps", "101"], "1..100"),
        (["--model", "mnist-fast"], "distilled: it samples with ddim in 4, 2, 1 steps"),
        (["--model", "nowhere"], "no model at 'nowhere'"),
        (["--batches", "0"], "--batches must be in"),
        (["--batches", "2000"], "--batches must be in"),
        (["--out", "nowhere/a.json"], "cannot write"),
        (["--out", "."], "cannot write"),
    ],
)
def test_bad_options_cost_one_line_and_exit_code_2(
    folder, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    assert sampling.main(["--model", folder, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
