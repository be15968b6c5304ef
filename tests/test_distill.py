"""python -m train.distill: what a student learns, and that its model is one like any other."""

import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from ddpm import Pipeline, Schedule, Settings, Start, hub
from ddpm.diffusion import coefficients
from ddpm.samplers import SAMPLERS
from tests.helpers import DIGITS, TINY, split, tiny_unet
from tests.hub_server import OWNER
from train import distill
from train.__main__ import main as train
from train.evaluate import sweep
from train.evaluate.__main__ import main as evaluate
from train.loop import Recipe
from train.publish import export, push
from train.run import _Watcher

SHORT = ["--walks", "12", "--batch-size", "8", "--checkpoint-every", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def teacher():
    return Pipeline(tiny_unet(schedule=Schedule(T=200)), {"sha256": "0" * 64})


@pytest.fixture(scope="module")
def walks(teacher):
    return distill.Walks.sampled(teacher, 40, 0.25)


@pytest.fixture(scope="module")
def student_run(run, tmp_path_factory):
    """A folder that `python -m train.distill` wrote in a few seconds."""
    out = tmp_path_factory.mktemp("student") / "fast"
    assert distill.main([str(run), "--out", str(out), "--steps", "4", *SHORT]) == 0
    return out


def sampled(walks, teacher, count=400, part=slice(None)):
    times = distill.times_of(teacher)
    sample = distill.from_walks(walks, teacher.model, times, Recipe(count))
    return times, sample(torch.Generator().manual_seed(0), part)


def column(values):
    return values[:, None, None, None]


def test_the_walks_are_the_teachers_and_a_share_has_no_label(teacher, walks):
    assert walks.states.shape == (len(distill.MOMENTS), 40, 1, 8, 8)
    assert (walks.labels == teacher.model.classes).sum() == 10
    seeds = [distill.FIRST_SEED + k for k in range(3)]
    frames = list(teacher.stream(Settings(seeds, walks.labels[:3].tolist(), steps=distill.STEPS)))
    for moment, states in zip(distill.MOMENTS, walks.states, strict=True):
        torch.testing.assert_close(states[:3].float(), frames[moment].x, rtol=1e-3, atol=1e-3)


def test_the_student_is_never_asked_two_things_at_one_time(teacher):
    times = distill.times_of(teacher)
    every = [t for walk in times.values() for t in walk]
    assert len(every) == sum(times) == len(set(every))
    assert all(walk == sorted(walk, reverse=True) and min(walk) >= 1 for walk in times.values())


def test_a_ddim_step_with_what_the_student_should_predict_arrives_where_the_teacher_was(
    teacher, walks, monkeypatch
):
    monkeypatch.setattr(distill, "OWN", 0.0)
    times, (x0, y, t, eps) = sampled(walks, teacher)
    seen = set()
    for steps, starts in distill.WALKS.items():
        path, ends = [*times[steps], 0.0], [*starts[1:], distill.STEPS]
        for k in range(steps):
            rows = t.double().sub(path[k]).abs() < 1e-3
            seen.add((steps, k))
            start, arrival = (
                walks.states[distill.MOMENTS.index(m)].float() for m in (starts[k], ends[k])
            )
            for time, states in ((path[k], start), (path[k + 1], arrival)):
                alpha, sigma = coefficients(
                    teacher.model.schedule, torch.tensor([time], dtype=torch.float64)
                )
                came = alpha * x0[rows] + sigma * eps[rows]  # of one walk among all, with its label
                apart = (came[:, None] - states[None]).abs().amax((2, 3, 4))
                nearest = apart.min(1)
                assert len(came) > 10 and nearest.values.max() < 5e-3
                assert torch.equal(walks.labels[nearest.indices], y[rows])
    assert len(seen) == 7


def test_later_jumps_also_start_from_where_the_student_comes_to(teacher, walks, monkeypatch):
    """Its own way is the walk that the pipeline takes with it."""
    monkeypatch.setattr(distill, "OWN", 1.0)
    times, (x0, _, t, eps) = sampled(walks, teacher)
    config = {"distilled": {"teacher": "0" * 64, "walks": times}}
    seeds = [distill.FIRST_SEED + k for k in range(40)]
    for steps, walk in times.items():
        student = Pipeline(teacher.model, config)
        frames = list(student.stream(Settings(seeds, walks.labels.tolist(), "ddim", steps)))
        for k, time in enumerate(walk):
            rows = t.double().sub(time).abs() < 1e-3
            alpha, sigma = coefficients(
                teacher.model.schedule, torch.tensor([time], dtype=torch.float64)
            )
            apart = (alpha * x0[rows] + sigma * eps[rows])[:, None] - frames[k].x[None]
            # noise is kept in half precision
            assert apart.abs().amax((2, 3, 4)).amin(1).max() < 2e-2


def test_the_processes_together_see_the_whole_batch(teacher, walks):
    _, whole = sampled(walks, teacher, 30)
    for rank in range(3):
        _, share = sampled(walks, teacher, 30, slice(rank, None, 3))
        for ours, all_of_it in zip(share, whole, strict=True):
            torch.testing.assert_close(ours, all_of_it[rank::3], rtol=1e-4, atol=1e-4)


def test_a_student_needs_not_be_told_how_to_sample(student_run, capsys):
    student = Pipeline.from_pretrained(student_run)
    images = student.sample(seeds=range(3))
    assert images.frames[-1].nfe == 4 and len(images.frames) == 5
    assert student.sample([0], steps=1).frames[-1].nfe == 1
    assert student.names(Settings([0, 1])) == [str(student.label_of(seed)) for seed in (0, 1)]
    card = (student_run / "README.md").read_text()
    assert "distilled for walks of 4, 2, 1 evaluations" in card and "12 walks of" in card


@pytest.mark.parametrize(
    "asked",
    [
        {"sampler": "unipc2"},
        {"steps": 3},
        {"steps": 20},
        {"grid": "uniform"},
        {"guidance": 1.0},
        {"eta": 0.5},
    ],
)
def test_what_makes_no_sense_for_a_student_is_refused_in_one_line(student_run, asked):
    student = Pipeline.from_pretrained(student_run)
    with pytest.raises(
        ValueError, match=r"distilled: it samples with ddim in 4, 2, 1 steps"
    ) as error:
        student.sample([0], **asked)
    assert "\n" not in str(error.value)


def test_a_student_starts_from_an_image_at_its_own_times(student_run):
    student = Pipeline.from_pretrained(student_run)
    x0 = student.sample([3]).x
    for k, t in enumerate(student.walks[4]):
        noisy, *_, end = student.stream(Settings([5], sampler="ddim", steps=4, start=Start(x0, t)))
        assert (noisy.t, end.t, end.nfe) == (t, 0, 4 - k)
        alpha, sigma = coefficients(student.model.schedule, torch.tensor([t], dtype=torch.float64))
        eps = torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(
            noisy.x, (alpha * x0 + sigma * eps).float(), rtol=1e-4, atol=1e-4
        )
    assert len(list(student.forward(x0, seeds=[0], times=[*student.walks[4], 0.0]))) == 5
    with pytest.raises(
        ValueError, match=r"its walk of 2 steps starts at one of [\d., ]+, not 500.5"
    ):
        student.stream(Settings([5], sampler="ddim", steps=2, start=Start(x0, 500.5)))
    with pytest.raises(ValueError, match="knows no other times than its own"):
        student.forward(x0, seeds=[0], times=[500.0])


def test_a_stopped_run_that_is_resumed_ends_with_the_same_weights(
    run, student_run, tmp_path, monkeypatch, capsys
):
    out, look = tmp_path / "again", _Watcher.look

    def stop(watcher, record):
        look(watcher, record)
        if record.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_Watcher, "look", stop)
        assert distill.main([str(run), "--out", str(out), "--steps", "4", *SHORT]) == 130
    assert f"python -m train.distill --out {out} --resume" in capsys.readouterr().out
    assert distill.main(["--out", str(out), "--resume"]) == 0
    ours, theirs = (load_file(folder / hub.WEIGHTS) for folder in (out, student_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    command = json.loads((out / "config.json").read_text())["history"]["commands"][-1]
    assert command.startswith("python -m train.distill --out") and command.endswith("--resume")


def test_a_student_may_start_from_another(run, student_run, tmp_path, capsys):
    out = tmp_path / "more"
    options = [*SHORT, "--steps", "1", "--lr", "1e-12"]
    assert distill.main([str(run), "--init", str(student_run), "--out", str(out), *options]) == 0
    ours, theirs, teachers = (load_file(folder / hub.WEIGHTS) for folder in (out, student_run, run))
    moved, learned = (
        max((other[name] - theirs[name]).abs().amax().item() for name in theirs)
        for other in (ours, teachers)
    )
    assert moved < learned / 100, "as near as the rounding of one step leaves it"
    *_, first, then = json.loads((out / "config.json").read_text())["history"]["commands"]
    assert "--steps 4" in first and f"--init {student_run}" in then
    other, no = tmp_path / "other", tmp_path / "no"
    assert train([*TINY, "--out", str(other), "--steps", "1", "--T", "90"]) == 0
    assert distill.main([str(run), "--init", str(other), "--out", str(no), *options]) == 2
    assert "its schedule is" in error_of(capsys)
    assert not no.exists(), "it is said before the teacher walks"


def test_walks_that_are_damaged_or_not_those_of_the_run_are_refused(student_run, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(student_run, out)
    again = ["--out", str(out), "--resume", "--steps", "6"]
    whole = (out / distill.FILE).read_bytes()
    for bad, words in (
        (whole[:-9], "is damaged: delete it"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "are not those that"),
    ):
        (out / distill.FILE).write_bytes(bad)
        assert distill.main(again) == 2
        assert words in error_of(capsys)
    (out / distill.FILE).unlink()
    assert distill.main(again) == 0, "the teacher walks the same again"


def test_a_sweep_of_a_student_has_its_own_walks(student_run, referee, tmp_path, capsys):
    out = tmp_path / "sweep.jsonl"
    options = split("--sweep --samples 30 --out", out, "--judge", referee, "--data", DIGITS)
    assert evaluate([str(student_run), *options, "--plot", str(tmp_path / "a.png")]) == 0
    assert [(cell["sampler"], cell["cost"]) for cell in sweep.read(out)] == [
        ("ddim", 1),
        ("ddim", 2),
        ("ddim", 4),
    ]
    assert list(
        sweep.curves(
            {
                sweep.Cell(*(cell[n] for n in sweep.Cell._fields)): cell["ratio"]
                for cell in sweep.read(out)
            }
        )
    ) == ["distilled"]
    assert evaluate([str(student_run), *options, "--samplers", "unipc2"]) == 2
    assert "own walks" in error_of(capsys)


def test_a_student_goes_to_the_hub_and_comes_back(hub_server, student_run):
    repo = f"{OWNER}/fast"
    assert push.main([str(student_run), repo]) == 0
    assert not any("unet" in name for name in hub_server.files(repo)), (
        "diffusers cannot sample with it"
    )
    assert "DDPMPipeline" not in hub_server.files(repo)["README.md"].decode()
    student = Pipeline.from_pretrained(repo)
    assert torch.equal(student.sample([5]).x, Pipeline.from_pretrained(student_run).sample([5]).x)


def error_of(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def test_what_cannot_be_is_said_in_one_line(run, student_run, tmp_path, capsys):
    eps = tmp_path / "eps"
    assert train([*TINY, "--out", str(eps), "--steps", "1", "--prediction", "eps"]) == 0
    assert distill.main([str(eps), "--out", str(tmp_path / "a"), *SHORT]) == 2
    assert "predicts v or x0" in error_of(capsys)
    assert distill.main([str(student_run), "--out", str(tmp_path / "b"), *SHORT]) == 2
    assert "cannot be distilled" in error_of(capsys)
    assert distill.main(["--out", str(tmp_path / "c"), *SHORT]) == 2
    assert "name the model to distill" in error_of(capsys)
    assert export.main([str(student_run), str(tmp_path / "d")]) == 2
    assert "diffusers has no sampler for it" in error_of(capsys)
    assert not any((tmp_path / name).exists() for name in "abcd")


@pytest.mark.parametrize(
    "distilled",
    [
        [],
        {},
        {"teacher": "x", "walks": {"1": [9]}},
        {"teacher": "0" * 64, "walks": {}},
        {"teacher": "0" * 64, "walks": {"2": [9]}},
        {"teacher": "0" * 64, "walks": {"1": [0.5]}},
        {"teacher": "0" * 64, "walks": {"1": [float("nan")]}},
        {"teacher": "0" * 64, "walks": {"2": [5, 9]}},
        {"teacher": "0" * 64, "walks": {"1": [1001]}},
        {"teacher": "0" * 64, "walks": {"0": []}},
    ],
)
def test_nonsense_about_walks_in_a_config_is_refused_in_one_line(student_run, tmp_path, distilled):
    folder = tmp_path / "model"
    shutil.copytree(student_run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"distilled": distilled}))
    with pytest.raises(ValueError, match="distilled must hold teacher") as error:
        hub.load(folder)
    assert "\n" not in str(error.value)


def test_the_sampler_of_students_is_one_of_the_table():
    from ddpm.pipeline import DISTILLED

    assert DISTILLED in SAMPLERS
