"""python -m train, from the first step to the artefact: what stops it, what starts it again, what
comes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save

from ddpm import Pipeline, UNet, hub
from ddpm.diffusion import PREDICTIONS, coefficients
from tests.helpers import DIGITS, TINY, full_disk, split, tiny_unet
from train import loop
from train.__main__ import main
from train.checkpoint import CHECKPOINT, Header, read_header
from train.data import DATASETS
from train.publish import artefact


def weights(run):
    return load_file(run / hub.WEIGHTS)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def error_of(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_ends_with_a_folder_like_a_hub_repo(run):
    names = {path.name for path in run.iterdir()}
    files = "config.json model.safetensors README.md samples.png samples.gif metrics.jsonl"
    assert names == {*files.split(), "samples", CHECKPOINT}
    config = json.loads((run / "config.json").read_text())
    assert config["dataset"] == "mnist" and config["class_names"] == list("0123456789")
    assert sum(config["class_counts"]) == 400 and min(config["class_counts"]) > 20
    with Image.open(run / "samples.gif") as gif:
        assert gif.n_frames == 22
    card = (run / "README.md").read_text()
    assert "--steps 12" in card and "400 training images" in card and "12 steps, 96 images" in card
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert Pipeline.from_pretrained(run).sample(seeds=[0], steps=2).x.shape == (1, 1, 28, 28)


def test_the_artefact_is_the_average_not_the_last_weights(run):
    state = load_file(run / CHECKPOINT)
    published = weights(run)
    assert all(torch.equal(value, state[f"ema.{name}"]) for name, value in published.items())
    assert not all(torch.equal(value, state[f"model.{name}"]) for name, value in published.items())


@pytest.mark.slow
def test_the_loss_falls(tmp_path):
    assert (
        main(
            [*TINY, "--out", str(tmp_path / "run"), "--images", "1600", "--checkpoint-every", "50"]
        )
        == 0
    )
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines[-1]["images"] == 1600
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


class Stop(BaseException):
    """Stands for a crash: nothing in the program expects it."""


def crash_after(monkeypatch, step):
    """The program dies in the middle of the step after this one."""
    whole = loop.Trainer._compute

    def dying(self):
        if self.step > step:
            raise Stop
        whole(self)

    monkeypatch.setattr(loop.Trainer, "_compute", dying)


@pytest.mark.parametrize("step", [0, 5, 8])
def test_a_resumed_run_ends_with_bit_identical_weights(run, tmp_path, monkeypatch, step):
    out = tmp_path / "again"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(patch, step)
        main([*TINY, "--out", str(out), "--steps", "12"])
    assert read_header(out).step == step // 5 * 5
    assert main(["--out", str(out), "--resume"]) == 0
    assert same(weights(out), weights(run))
    lines = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == [5, 10, 12]


@contextmanager
def started(out, *options):
    """A training process of its own; gone when the test is over, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "train", *TINY, "--out", str(out), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_step(out, step, process):
    for _ in range(1200):
        if (header := read_header(out)) and header.step >= step:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    with started(out, "--steps", "100000") as process:
        wait_for_step(out, 5, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    step = read_header(out).step
    assert f"Stopped at step {step}" in said and "--resume" in said
    assert main(["--out", str(out), "--resume", "--steps", str(step + 2)]) == 0
    assert read_header(out).step == step + 2


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """The same movement of the weights, up to what Adam makes of float error. Half the batch moves
    them elsewhere."""
    settings = [*TINY, "--steps", "6", "--warmup", "0", "--ema", "0"]
    assert main([*settings, "--out", str(tmp_path / "one")]) == 0
    assert main([*settings, "--out", str(tmp_path / "half"), "--batch-size", "4"]) == 0
    done = subprocess.run(
        [
            sys.executable,
            *split("-m torch.distributed.run --standalone --nproc-per-node 2 -m train"),
            *settings,
            "--out",
            str(tmp_path / "two"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    one, two, half = (
        torch.cat([w.flatten() for w in weights(tmp_path / name).values()])
        for name in ("one", "two", "half")
    )
    torch.manual_seed(0)
    born = UNet(width=8, mults=(1, 1, 1), attention=(False, False, True))
    moved = (one - torch.cat([p.flatten() for _, p in sorted(born.state_dict().items())])).norm()
    assert (two - one).norm() < 0.03 * moved < 0.3 * moved < (half - one).norm()
    assert (
        "torchrun --nproc-per-node=2 --nnodes=1 -m train"
        in (tmp_path / "two" / "README.md").read_text()
    )


@pytest.mark.parametrize("checkpoint_every", ["5", "1000"])
def test_a_gradient_that_is_no_number_is_never_saved(
    tmp_path, monkeypatch, capsys, checkpoint_every
):
    """The loss of a step is that of the weights before it: the weights themselves must be looked
    at."""
    clip = torch.nn.utils.clip_grad_norm_

    def spoiled(parameters, norm):
        spoiled.calls += 1
        parameters = list(parameters)
        if spoiled.calls == 10:
            parameters[0].grad.fill_(float("inf"))
        return clip(parameters, norm)

    spoiled.calls = 0
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoiled)
    out = tmp_path / "run"
    assert (
        main([*TINY, "--out", str(out), "--steps", "10", "--checkpoint-every", checkpoint_every])
        == 1
    )
    assert "NaN or infinite" in error_of(capsys)
    assert read_header(out).step == (5 if checkpoint_every == "5" else 0)
    assert not (out / hub.WEIGHTS).exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch, capsys
):
    out, whole = tmp_path / "run", loop.loss

    def spoiled(*args, **settings):
        spoiled.calls += 1
        return whole(*args, **settings) * (float("nan") if spoiled.calls > 7 else 1)

    spoiled.calls = 0
    monkeypatch.setattr(loop, "loss", spoiled)
    assert main([*TINY, "--out", str(out), "--steps", "12"]) == 1
    assert "the loss is nan" in error_of(capsys)
    assert read_header(out).step == 5
    assert all(
        value.isfinite().all()
        for value in load_file(out / CHECKPOINT).values()
        if value.is_floating_point()
    )
    assert not (out / hub.WEIGHTS).exists()


def test_a_full_disk_costs_one_line_and_no_checkpoint(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out), "--steps", "3"]) == 0
    before = (out / CHECKPOINT).read_bytes()
    with full_disk(len(before) // 2):
        assert main(["--out", str(out), "--resume", "--steps", "6"]) == 2
    said = capsys.readouterr().err
    assert (
        f"cannot write {out / CHECKPOINT}" in said.strip().splitlines()[-1]
        and "Traceback" not in said
    )
    assert (out / CHECKPOINT).read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path, capsys):
    assert main([*TINY, "--out", str(run), "--steps", "12"]) == 2
    assert "already holds a run, at step 12" in error_of(capsys)
    assert main(["--out", str(run), "--resume", "--lr", "0.5"]) == 2
    assert "was started with --lr 0.002, not 0.5" in error_of(capsys)
    (tmp_path / "letter.txt").write_text("dear diary")
    assert main([*TINY, "--out", str(tmp_path), "--steps", "1"]) == 2
    assert "not an empty folder" in error_of(capsys)
    assert main(["--out", str(tmp_path / "new"), "--resume"]) == 2
    assert "nothing to resume" in error_of(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_copy_of_a_run_goes_on_where_it_lies_now(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    with open(copy / "metrics.jsonl", "ab") as file:
        file.write(b'\0\0\0{"step": 13, "lo')  # what a power cut may leave
    assert main(["--out", str(copy), "--resume", "--steps", "14"]) == 0
    assert (read_header(copy).step, read_header(run).step) == (14, 12)
    assert [
        json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()
    ] == [5, 10, 12, 14]
    card = (copy / "README.md").read_text()
    assert "--steps 12" in card and "--resume --steps 14" in card
    other = tmp_path / "other" / "MNIST"
    shutil.copytree(DIGITS / "MNIST", other)
    raw = bytearray((other / "raw" / "train-images-idx3-ubyte").read_bytes())
    raw[-1] ^= 1
    (other / "raw" / "train-images-idx3-ubyte").write_bytes(raw)
    capsys.readouterr()
    assert (
        main(["--out", str(copy), "--resume", "--steps", "15", "--data", str(tmp_path / "other")])
        == 2
    )
    assert "are not those" in error_of(capsys)


def test_few_times_are_enough(tmp_path):
    assert main([*TINY, "--out", str(tmp_path / "run"), "--steps", "1", "--T", "3"]) == 0


@pytest.mark.slow
def test_a_checkpoint_may_be_replaced_while_it_is_read(run, tmp_path):
    """Whoever reads sees the old one or the new one, also where they differ in size."""
    tensors, long = load_file(run / CHECKPOINT), {"x": "x" * 999}
    versions = [
        save(tensors, metadata={"header": json.dumps(Header(said, 0, 0)._asdict())})
        for said in ({}, long)
    ]
    (tmp_path / CHECKPOINT).write_bytes(versions[0])
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """if True:
        import os, sys
        versions = [open(name, "rb").read() for name in sys.argv[2:]]
        while True:
            for version in versions:
                open(sys.argv[1] + ".new", "wb").write(version)
                os.replace(sys.argv[1] + ".new", sys.argv[1])
        """,
            tmp_path / CHECKPOINT,
            *[name for k, v in enumerate(versions) if (name := tmp_path / str(k)).write_bytes(v)],
        ]
    )
    try:
        seen = [read_header(tmp_path).settings for _ in range(5000)]
    finally:
        writer.kill()
        writer.wait()
    assert {} in seen and long in seen


def test_a_damaged_checkpoint_is_said_to_be_one(run, tmp_path, capsys):
    out = shutil.copytree(run, tmp_path / "copy")
    (out / CHECKPOINT).write_bytes((run / CHECKPOINT).read_bytes()[:5000])
    assert main(["--out", str(out), "--resume"]) == 2
    assert "damaged" in error_of(capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--width", "12"], "multiple of 8"),
        (["--attention", "13"], "[28, 14, 7]"),
        (["--mults", "1", "2", "2", "2"], "multiple of 8"),
        (["--attention", "7", "--mults", "0", "1", "1"], "mults"),
        (["--T", "0"], "1..10000"),
        (["--size", "8"], "--size is for"),
        (["--data", "nowhere"], "MNIST is not"),
        (["--dataset", "folder", "--data", "nowhere"], "is not a folder"),
        (["--ema", "2"], "ema"),
        (["--drop-label", "-1"], "drop-label"),
        (["--guidance", "nan"], "guidance"),
        (["--guidance", "0.3", "--drop-label", "0"], "guidance"),
        (["--guidance", "0.3", "--drop-label", "1"], "guidance"),
        (["--unlabelled-guidance", "-1"], "unlabelled-guidance"),
        (["--unlabelled-guidance", "0.3"], "a --weaker model"),
        (["--unlabelled-guidance", "1", "--weaker", "mnist", "--drop-label", "0"], "above 0"),
        (["--weaker", "mnist"], "give --guidance"),
        (["--guidance", "0.3", "--weaker", "mnist", "--T", "90"], "its schedule is"),
        (["--guidance", "0.3", "--weaker", "mnist-fast"], "it is distilled"),
        (["--warmup", "-1"], "warmup"),
        (["--weight-decay", "-1"], "weight-decay"),
        (["--seed", "-1"], "seed"),
        (["--batch-size", "100000"], "batch-size"),
    ],
)
def test_bad_options_cost_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, "--out", "run", "--steps", "1", *options]) == 2
    assert words in error_of(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--dataset", "minst"],
        ["--steps", "0"],
        ["--minutes", "nan"],
        ["--lr", "inf"],
        ["--batch-size", "-3"],
        ["--steps", "1" + 400 * "0"],
        ["--steps", "1", "--minutes", "1"],
        ["--schedule", "x"],
    ],
)
def test_options_that_argparse_knows_are_refused_by_it(options):
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2


def test_a_run_may_start_from_the_weights_of_another(run, tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main([*TINY, "--init", str(run), "--out", str(out), "--steps", "1", "--lr", "1e-12"]) == 0
    )
    for name, weight in weights(out).items():
        torch.testing.assert_close(weight, weights(run)[name])
    assert main([*TINY, "--out", str(out), "--resume", "--steps", "2"]) == 0
    history = json.loads((out / "config.json").read_text())["history"]
    before, first, then = history["commands"]
    assert "--steps 12" in before and f"--init {run}" in first and "--resume" in then, (
        "the first leg's too, in order"
    )
    assert history["images"] == (12 + 2) * 8
    card = (out / "README.md").read_text()
    assert (
        "\n".join(history["commands"]) in card
        and "2 steps, 16 images" in card
        and "started from 112 images" in card
    )
    assert (
        main([*TINY, "--init", str(run), "--out", str(tmp_path / "no"), "--steps", "1", "--T", "9"])
        == 2
    )
    assert "its schedule is" in error_of(capsys) and not (tmp_path / "no").exists()


def test_a_run_may_be_guided_away_from_a_weaker_model_and_resumed(run, tmp_path, capsys):
    weaker, out = tmp_path / "weaker", tmp_path / "run"
    assert main([*TINY, "--width", "8", "--out", str(weaker), "--steps", "2"]) == 0
    guided = ["--guidance", "0.5", "--weaker", str(weaker), "--out", str(out), "--drop-label", "0"]
    assert main([*TINY, *guided, "--steps", "2"]) == 0
    assert main(["--out", str(out), "--resume", "--steps", "3"]) == 0
    made = json.loads((out / "config.json").read_text())["history"]["commands"]
    assert f"--out {weaker}" in made[0] and "--weaker" in made[1] and "--resume" in made[2]
    again = ["--guidance", "0.5", "--weaker", str(weaker), "--init", str(out)]
    assert main([*TINY, *again, "--out", str(tmp_path / "again"), "--steps", "1"]) == 0
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["history"]["commands"][:-1] == made, "the weaker model's are told once"
    shutil.rmtree(weaker)
    assert main([*TINY, "--width", "8", "--out", str(weaker), "--steps", "1"]) == 0
    assert main(["--out", str(out), "--resume", "--steps", "4"]) == 2
    assert f"the weights of {weaker}, are not those that" in error_of(capsys)


def test_the_built_in_card_lists_what_made_the_weights():
    folder = hub.BUILT_IN / "mnist"
    history, card = hub.load("mnist").config["history"], (folder / "README.md").read_text()
    assert (
        "```\n" + "\n".join(history["commands"]) + "\n```" in card
        and f"{history['images']:,} images" in card
    )


def test_a_command_is_one_line_whatever_people_type():
    assert artefact.command("train", ["--out", "a\nb\x1b"]) == "python -m train --out 'a?b?'"


def test_own_rgb_images_can_be_trained_on(tmp_path, capsys):
    for k, name in enumerate(["red", "blue"]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for j in range(3):
            Image.new("RGB", (40, 30), (200 - 100 * k, j * 20, 100 * k)).save(
                tmp_path / "data" / name / f"{j}.png"
            )
    out = tmp_path / "run"
    own = split("--dataset folder --data", tmp_path / "data", "--size 16 --attention 4")
    assert main([*TINY, *own, "--out", str(out), "--steps", "2"]) == 0
    pipeline = Pipeline.from_pretrained(out)
    assert pipeline.class_names == ("blue", "red")
    assert pipeline.sample(seeds=[0], labels=1, steps=2).x.shape == (1, 3, 16, 16)


def test_images_without_classes_can_be_guided_away_from_a_weaker_model(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for j in range(8):
        Image.new("L", (16, 16), 30 * j).save(tmp_path / "data" / f"{j}.png")
    own = split("--dataset folder --data", tmp_path / "data", "--size 16 --attention 4 --steps 2")
    weaker, plain, guided = (str(tmp_path / name) for name in ("weaker", "plain", "guided"))
    assert main([*TINY, *own, "--out", weaker]) == 0
    start, way = ["--seed", "1"], ["--unlabelled-guidance", "2", "--weaker", weaker]
    assert main([*TINY, *own, *start, "--out", plain]) == 0
    assert main([*TINY, *own, *start, *way, "--guidance", "2", "--out", guided]) == 2
    assert "Without classes there is --unlabelled-guidance" in error_of(capsys)
    assert main([*TINY, *own, *start, *way, "--out", guided]) == 0
    assert Pipeline.from_pretrained(guided).model.classes == 0
    ours, theirs = weights(tmp_path / "guided"), weights(tmp_path / "plain")
    assert not all(torch.equal(ours[name], theirs[name]) for name in theirs), "it does something"


def digits(recipe, device="cpu"):
    return loop.from_data(
        DATASETS["mnist"].training(DIGITS, None).to(torch.device(device)),
        recipe,
        tiny_unet().schedule.T,
    )


def test_labels_are_dropped_for_each_sample_by_itself():
    torch.manual_seed(0)
    recipe = loop.Recipe(400, drop_label=0.25)
    trainer = loop.Trainer(tiny_unet(size=28, mults=(1, 1)), digits(recipe), recipe)
    dropped = (trainer.batch[1] == 10).float().mean().item()
    assert 0.15 < dropped < 0.35


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_learned_guidance_moves_x0_in_the_same_x_t_towards_the_label(prediction):
    torch.manual_seed(0)
    model, recipe, w = (
        tiny_unet(size=28, mults=(1, 1), prediction=prediction),
        loop.Recipe(64, drop_label=0.3),
        0.4,
    )
    torch.nn.init.normal_(model.conv_out.weight)  # at first it is zero, whatever the label
    plain = digits(recipe)
    x0, y, t, eps = plain(torch.Generator().manual_seed(1), slice(None))
    moved_x0, moved_y, moved_t, moved_eps = loop.guided(plain, model, w)(
        torch.Generator().manual_seed(1), slice(None)
    )
    assert torch.equal(moved_y, y) and torch.equal(moved_t, t)
    alpha, sigma = coefficients(model.schedule, t)
    x_t = alpha * x0 + sigma * eps
    torch.testing.assert_close(alpha * moved_x0 + sigma * moved_eps, x_t, rtol=1e-4, atol=1e-4)
    none = y == 10
    assert (
        0 < none.sum() < 64
        and torch.equal(moved_x0[none], x0[none])
        and torch.equal(moved_eps[none], eps[none])
    )

    def predicted(labels):
        return PREDICTIONS[prediction].x0(model(x_t, t, labels), x_t, alpha, sigma)

    with torch.no_grad():
        towards = predicted(y) - predicted(torch.full_like(y, 10))
    assert towards[~none].abs().amax() > 1e-3
    torch.testing.assert_close(moved_x0 - x0, w / (1 + w) * towards, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("guidance", "unlabelled"), [(0.4, 0.9), (0.4, 0.0), (0.0, 0.9)])
def test_learned_guidance_may_lead_away_from_a_weaker_model(guidance, unlabelled):
    torch.manual_seed(0)
    recipe = loop.Recipe(64, drop_label=0.3)
    model, weaker = (
        tiny_unet(size=28, mults=(1, 1), prediction=prediction) for prediction in ("v", "x0")
    )
    for network in (model, weaker):
        torch.nn.init.normal_(network.conv_out.weight)
    plain = digits(recipe)
    x0, y, t, eps = plain(torch.Generator().manual_seed(1), slice(None))
    moved_x0, _, _, moved_eps = loop.guided(plain, model, guidance, unlabelled, weaker)(
        torch.Generator().manual_seed(1), slice(None)
    )
    alpha, sigma = coefficients(model.schedule, t)
    x_t = alpha * x0 + sigma * eps
    torch.testing.assert_close(alpha * moved_x0 + sigma * moved_eps, x_t, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        ours = alpha * x_t - sigma * model(x_t, t, y)
        away = ours - weaker(x_t, t, torch.full_like(y, 10))
    for rows, w in ((y != 10, guidance), (y == 10, unlabelled)):
        assert rows.any() and away[rows].abs().amax() > 1e-3
        torch.testing.assert_close(
            (moved_x0 - x0)[rows], w / (1 + w) * away[rows], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("count", "T"), [(512, 1000), (7, 1000), (64, 3), (1, 10), (1000, 1000), (10_000, 7)]
)
def test_each_equal_part_of_the_times_gives_one(count, T):
    """t is the whole number above a point of part k, which is (kT/N, (k + 1)T/N]."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        times = loop.sample_times(count, T, generator).tolist()
        assert len(times) == count
        for k, t in enumerate(times):
            assert t == int(t) and 1 <= t <= T
            assert k * T < t * count and (t - 1) * count < (k + 1) * T


@pytest.mark.parametrize("power", [0.5, 1.5, 2])
def test_a_share_u_of_the_times_lies_below_t_u_to_the_power(power):
    generator, T = torch.Generator().manual_seed(0), 1000
    times = loop.sample_times(64_000, T, generator, power)
    assert times.amin() >= 1 and times.amax() <= T
    for t in (1, 20, 200, 800, 1000):
        assert (times <= t).double().mean() == pytest.approx((t / T) ** (1 / power), abs=1e-4)
    assert loop.sample_times(4, T, generator, 1e12).tolist() == [1, 1, 1, 1]


def test_a_run_trains_at_the_times_that_its_time_power_gives(tmp_path, monkeypatch):
    seen = []
    real = loop.sample_times
    monkeypatch.setattr(loop, "sample_times", lambda *how: seen.append(real(*how)) or seen[-1])
    main([*TINY, "--out", str(tmp_path / "run"), "--steps", "1", "--time-power", "1e12"])
    assert seen and all((times[:-1] == 1).all() for times in seen)


@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_every_time_is_as_likely_as_any_other(count):
    generator, T, rounds = torch.Generator().manual_seed(0), 10, 28_000 // count
    times = torch.cat([loop.sample_times(count, T, generator) for _ in range(rounds)]).long()
    counts = times.bincount(minlength=T + 1)
    # five standard deviations if independent
    assert counts[0] == 0 and (counts[1:] / len(times) * T - 1).abs().max() < 0.1


def test_the_processes_together_see_the_whole_batch():
    data, recipe = DATASETS["mnist"].training(DIGITS, None), loop.Recipe(12)
    whole, *parts = (
        loop.sample_batch(data, recipe, 1000, torch.Generator().manual_seed(3), part)
        for part in (slice(None), slice(0, None, 3), slice(1, None, 3), slice(2, None, 3))
    )
    for all_of_it, *shares in zip(whole, *parts, strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share, all_of_it[rank::3])
    assert (whole[2].sort().values == whole[2]).all() and len(set(whole[2].tolist())) == 12


def test_the_average_warms_up_and_then_follows_slowly():
    recipe = loop.Recipe(2, ema=0.5)
    trainer = loop.Trainer(tiny_unet(size=28, mults=(1, 1)), digits(recipe), recipe)
    name, _ = next(iter(trainer.model.named_parameters()))
    average = trainer.tensors()[f"ema.{name}"].double().clone()
    for step in range(1, 15):
        trainer.update(1e-2)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * trainer.tensors()[f"model.{name}"].double()
        torch.testing.assert_close(
            trainer.tensors()[f"ema.{name}"].double(), average, rtol=1e-5, atol=1e-6
        )


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; never run yet: none was to be had so far"
)
def test_a_captured_step_on_a_gpu_is_the_step():
    recipe = loop.Recipe(64)
    compiled, plain = (
        loop.Trainer(
            tiny_unet(size=28, mults=(1, 1)).cuda(), digits(recipe, "cuda"), recipe, compile=compile
        )
        for compile in (True, False)
    )
    for (name, a), b in zip(compiled.tensors().items(), plain.tensors().values(), strict=True):
        assert torch.equal(a.cpu(), b.cpu()), f"capturing changed {name}"
    for _ in range(20):
        compiled.update(1e-3)
        plain.update(1e-3)
    for (name, a), b in zip(compiled.tensors().items(), plain.tensors().values(), strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-2, atol=5e-3, msg=name)
