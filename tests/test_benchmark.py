"""python -m train.benchmark.training: that what is compared is the same work. How fast it is
depends on the machine."""

import copy
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from ddpm.unet import UNet
from tests.helpers import DIGITS, in_diffusers, split, tiny_unet
from train.benchmark import training
from train.data import DATASETS, Data
from train.evaluate.panel import Verdict
from train.loop import Recipe, Trainer, from_data

pytestmark = pytest.mark.slow

TINY = ["--width", "8", "--batch-size", "4", "--device", "cpu"]
RECIPE = Recipe(8, lr=2**-9)  # a number that the float32 of a captured learning rate holds too


def digits() -> Data:
    return DATASETS["mnist"].training(DIGITS, None)


def small() -> UNet:
    return tiny_unet(size=28, mults=(1, 1, 1), attention=(False, False, True))


def test_the_plain_loop_does_the_work_of_the_trainer():
    model = small()
    trainer = Trainer(copy.deepcopy(model), from_data(digits(), RECIPE, model.schedule.T), RECIPE)
    plain = training.PlainLoop(model, digits(), RECIPE)
    plain.generator.set_state(trainer.generator.get_state())  # it has drawn one batch already
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        torch.testing.assert_close(plain.update(), trainer.update(RECIPE.lr))
    for ours, theirs in ((trainer.model, plain.model), (trainer.ema, plain.ema)):
        theirs = theirs.state_dict()
        for name, weight in ours.state_dict().items():
            torch.testing.assert_close(weight, theirs[name], rtol=1e-5, atol=1e-6, msg=name)
            assert not torch.equal(weight, before[name]), f"{name} was not trained"


def test_the_network_of_diffusers_is_ours():
    model = small()
    theirs = training.Diffusers(model)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())
    theirs.network.load_state_dict(in_diffusers(model).state_dict(), strict=True)
    x, t, y = torch.randn(3, 1, 28, 28), torch.tensor([1.0, 37.0, 100.0]), torch.tensor([0, 5, 10])
    torch.testing.assert_close(theirs(x, t, y), model(x, t, y), rtol=1e-4, atol=1e-4)


def test_all_contestants_are_measured_and_written(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert (
        training.main(
            [*TINY, "--attention", "7", "--steps", "2", "--rounds", "2", "--out", str(out)]
        )
        == 0
    )
    report = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert list(report["figures"]) == ["ours", "plain loop", "diffusers in that loop"]
    for name, figure in report["figures"].items():
        rate = figure["images_per_second"]
        assert len(rate["values"]) == 2 and 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert name in printed and f"{rate['median']:,.1f}" in printed
    assert set(report["figures"]["ours"]["ours_faster_by"]["values"]) == {1}
    assert report["batch_size"] == 4 and "--attention 7" in report["command"]


def test_without_diffusers_the_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert training.main([*TINY, "--batch-size", "2", "--steps", "1", "--rounds", "1"]) == 0
    assert "diffusers in that loop  not installed" in capsys.readouterr().out


def test_budgets_are_runs_of_their_own_up_to_the_floor(referee, tmp_path, capsys, monkeypatch):
    out = tmp_path / "floor.json"
    judged = split("--data", DIGITS, "--judge", referee, "--samples 10 --out", out)
    options = [*TINY, *split("--attention 7 --to-floor --minutes 0.001"), *judged]
    capsys.readouterr()
    assert training.main(options) == 0
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    (only,) = report["runs"]
    assert only["minutes"] == 0.001 and only["seconds"] > 0.06, "the start of the process counts"
    assert only["ratio"] > 1 and report["seconds_to_floor"] is None and "not reached" in printed

    took = iter([9.0, 7.0, 8.0])
    monkeypatch.setattr(training, "_train", lambda args, minutes, folder: next(took))
    monkeypatch.setattr(training.Pipeline, "from_pretrained", lambda source, device: None)
    test, ratios = digits().images[:10], iter([0.9, 99.0, 1.0])
    monkeypatch.setattr(training, "draw", lambda *args, **settings: test)
    monkeypatch.setattr(
        training.panel, "worst", lambda found, floor: Verdict("texture", next(ratios), None)
    )
    assert training.main([*options, "--minutes", "3", "1", "2"]) == 0
    assert "reached after 8.0 s" in capsys.readouterr().out
    assert [run["seconds"] for run in json.loads(out.read_text())["runs"]] == [9, 7, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], "--steps must be in"),
        (["--rounds", "-1"], "--rounds must be in"),
        (["--width", "12"], "multiple of 8"),
        (["--attention", "13"], "[28, 14, 7]"),
        (["--batch-size", "0"], "batch-size"),
        (["--out", "nowhere/a.json"], "cannot write"),
        (["--to-floor"], "go together"),
        (["--minutes", "1"], "go together"),
        (["--to-floor", "--minutes", "nan"], "above 0"),
        (["--to-floor", "--minutes", "1", "--samples", "1"], "--samples must be in"),
        (["--to-floor", "--minutes", "1", "--width", "12"], "multiple of 8"),
        (["--to-floor", "--minutes", "1", "--judge", "nowhere"], "no judges in"),
    ],
)
def test_bad_options_cost_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_not_taken_for_a_fast_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ValueError, match="exit code 1"):
        training._train(training.parser().parse_args(TINY), 1.0, tmp_path)


def test_torchrun_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    assert training.main(TINY) == 2
    assert "without torchrun" in capsys.readouterr().err


def test_any_data_set_with_a_shape_of_its_own_can_be_chosen():
    for name, source in DATASETS.items():
        if source.shape is None:
            with pytest.raises(SystemExit):
                training.parser().parse_args(["--dataset", name])
        else:
            options = training.parser().parse_args(
                [*TINY, "--dataset", name, "--attention", str(source.shape[1])]
            )
            _, data, _ = training.start(options, torch.device("cpu"))
            assert data.images.shape[1:] == (source.shape[0], source.shape[1], source.shape[1])


def test_without_a_name_the_benchmarks_are_named():
    done = subprocess.run(
        [sys.executable, "-m", "train.benchmark"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
    for module in ("train.benchmark.sampling", "train.benchmark.training"):
        assert f"python -m {module}" in done.stderr and find_spec(module)
