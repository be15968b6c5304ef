"""Files and interruptions: places that cannot be written, disks that are full, what is cut short,
and two who do the same at once."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

from ddpm import __main__ as draw
from ddpm import hub
from ddpm.browser import __main__ as browser
from ddpm.files import check_writable, write_atomic
from tests.helpers import DIGITS, REPORT, TINY, full_disk, split
from tests.hub_server import OWNER
from train import __main__ as train
from train import loop
from train.benchmark import browser as browser_benchmark
from train.benchmark import sampling, training
from train.checkpoint import CHECKPOINT, alone, read_header
from train.data import DATASETS
from train.evaluate import __main__ as evaluate
from train.evaluate import gallery, judge, trial
from train.publish import card, export, push

REPO = f"{OWNER}/digits"


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(main, argv, capsys, words=""):
    """The command says in one line why it cannot, and ends with exit code 2."""
    capsys.readouterr()
    assert main(argv) == 2
    said = [
        line
        for line in capsys.readouterr().err.replace("\r", "\n").replace("\x1b[A", "").splitlines()
        if line.strip() and "%|" not in line and "sending:" not in line
    ]
    assert len(said) == 1 and words in said[0] and "Traceback" not in said[0], said


# --- Places ---------------------------------------------------------------------------------------

FILES = {  # commands that write a file: what comes before its name
    "draw": (draw.main, lambda run: split("--model", run, "--count 1 --steps 1 --out"), ".png"),
    "evaluate": (evaluate.main, lambda run: [str(run), "--out"], ".json"),
    "sweep": (evaluate.main, lambda run: [str(run), "--sweep", "--out"], ".jsonl"),
    "plot": (
        evaluate.main,
        lambda run: split(run, "--sweep --out", run.parent / "x.jsonl", "--plot"),
        ".png",
    ),
    "gallery": (gallery.main, lambda run: split("--model", run, "--seeds 0 --out"), ".png"),
    "sampling": (sampling.main, lambda run: split("--model", run, "--rounds 1 --out"), ".json"),
    "training": (
        training.main,
        lambda run: split("--rounds 1 --steps 1 --width 8 --batch-size 4 --attention 7 --out"),
        ".json",
    ),
    "trial": (trial.main, lambda run: split("--samples 30 --damages blur --out"), ".json"),
    "damages": (trial.main, lambda run: split("--samples 30 --damages blur --picture"), ".png"),
    "page": (browser.main, lambda run: ["--model", str(run)], ".html"),
}
FOLDERS = {
    "draw": (draw.main, lambda run: split("--model", run, "--count 1 --steps 1 --out")),
    "train": (train.main, lambda run: [*TINY, "--steps", "1", "--out"]),
    "judge": (judge.main, lambda run: split("--data", DIGITS, "--epochs 1 --steps 1 --out")),
    "export": (export.main, lambda run: [str(run)]),
    "images": (
        browser_benchmark.main,
        lambda run: split("--model", run, "--count 1 --steps 1 --out"),
    ),
    "space": (browser.main, lambda run: ["--model", str(run), "--space"]),
}
LINUX = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="no /proc here, in which not even root may write"
)


@pytest.fixture
def home(run, tmp_path):
    """A folder with a run, a file and a folder in it."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "file").write_text("dear diary")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "place", ["nowhere/x", "file/x", "x" * 300, pytest.param("/proc/x", marks=LINUX)]
)
@pytest.mark.parametrize("command", FILES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    home, command, place, capsys, monkeypatch
):
    monkeypatch.setattr("ddpm.pipeline.Pipeline.stream", None)  # who would draw, fails
    main, before, ending = FILES[command]
    there = contents(home)
    refused(main, [*before(home / "run"), str(home / (place + ending))], capsys, "cannot write")
    assert contents(home) == there


# there, a folder is one for single PNGs
@pytest.mark.parametrize("command", [name for name in FILES if name != "draw"])
def test_a_folder_is_no_file(home, command, capsys):
    main, before, ending = FILES[command]
    there = contents(home)
    (home / f"folder{ending}").mkdir()
    refused(main, [*before(home / "run"), str(home / f"folder{ending}")], capsys, "it is a folder")
    assert contents(home) == there


@pytest.mark.parametrize("place", ["file", "file/x", pytest.param("/proc/x", marks=LINUX)])
@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_that_cannot_be_made_is_refused(home, command, place, capsys):
    main, before = FOLDERS[command]
    there = contents(home)
    refused(main, [*before(home / "run"), str(home / place)], capsys)
    assert contents(home) == there


def test_a_name_may_end_in_capitals_or_not_at_all(run, tmp_path):
    for name in ("A.PNG", "B.GIF", "C.HTML", "d", "e.gif"):
        if name == "e.gif":
            (tmp_path / name).mkdir()  # a folder, whatever it is called
        options = split("--model", run, "--count 2 --seed 3 --steps 1 --out", tmp_path / name)
        assert draw.main(options) == 0
    for name, kind in (
        ("A.PNG", "PNG"),
        ("B.GIF", "GIF"),
        ("d/0000000003.png", "PNG"),
        ("e.gif/0000000004.png", "PNG"),
    ):
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    assert (tmp_path / "C.HTML").read_text().startswith("<!doctype html>")


def test_a_card_that_cannot_be_replaced_stays(home, capsys):
    run = home / "run"
    there = contents(run)
    refused(card.main, [str(run)], capsys, "evaluation.json")  # there is none
    for report in (
        "[" * 100_000,
        "[]",
        "{}",
        '{"figures": {"frechet": {"mean": 1e999}}}',
        "\udcff",
    ):
        (run / "evaluation.json").write_bytes(report.encode(errors="surrogateescape"))
        refused(card.main, [str(run)], capsys)
    (run / "evaluation.json").unlink()
    assert contents(run) == there


def judged_by(referee):
    return ["--judge", str(referee), "--data", str(DIGITS), "--device", "cpu", "--samples", "6"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [name for name in FILES | FOLDERS if name != "plot"])
def test_a_full_disk_costs_one_line_and_nothing_is_half_written(
    home, referee, command, capsys, monkeypatch
):
    # What would be written need not be good: a judge that was not trained, one column of pictures,
    # no time measured.
    monkeypatch.setattr(judge, "fit", lambda judge, data, epochs: judge.eval())
    monkeypatch.setattr(gallery, "COLUMNS", (1,))
    monkeypatch.setattr(sampling, "measure", lambda model, args: {})
    more = {
        "evaluate": [*judged_by(referee), "--seeds", "1"],
        "trial": judged_by(referee)[:4],
        "damages": judged_by(referee)[:4],
    }
    more["sweep"] = [*judged_by(referee), "--samplers", "ddim", "--evaluations", "1"]
    main, before, *ending = (FOLDERS | FILES)[command]
    there = contents(home)
    argv = [
        *before(home / "run"),
        str(home / f"new{ending[0] if ending else ''}"),
        *more.get(command, []),
    ]
    with full_disk():
        refused(main, argv, capsys, "cannot write")
    assert contents(home) == there


def test_a_card_on_a_full_disk_stays_and_a_push_needs_room_only_for_the_card_that_is_there(
    home, hub_server, capsys
):
    run = home / "run"
    (run / "evaluation.json").write_text(
        json.dumps(REPORT | {"weights_sha256": hub.load(run).config["sha256"]})
    )
    there = contents(run)
    with full_disk():
        refused(card.main, [str(run)], capsys, "cannot write")
        assert push.main([str(run), REPO]) == 0
    hub_server.commit(REPO, {"README.md": b"---\nlicense: mit\n---\n" + b"All mine. " * 50})
    with full_disk():
        refused(push.main, [str(run), REPO], capsys, "File too large")
    assert contents(run) == there and hub_server.commits(REPO) == 2
    assert push.main([str(run), REPO]) == 0 and b"All mine." in hub_server.files(REPO)["README.md"]
    assert card.main([str(run)]) == 0 and "## Measured" in (run / "README.md").read_text()


# --- Two at once ----------------------------------------------------------------------------------


def test_of_two_who_write_the_same_file_at_once_one_wins(tmp_path):
    """Whoever reads sees the whole of one, at any moment; and nothing is left beside it."""
    path, whole = tmp_path / "file", [bytes([k]) * 300_000 for k in (1, 2, 3)]
    write_atomic(path, whole[0])
    with ThreadPoolExecutor(3) as writers:
        writing = [
            writers.submit(lambda data: [write_atomic(path, data) for _ in range(20)], data)
            for data in whole
        ]
        while not all(job.done() for job in writing):
            assert path.read_bytes() in whole
        [job.result() for job in writing]
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_to_ask_whether_a_file_can_be_written_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("dear diary")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    assert contents(tmp_path) == {Path("file"): b"dear diary"}


def test_a_second_run_into_the_same_folder_is_refused_and_the_first_goes_on(
    run, tmp_path, capsys, monkeypatch
):
    out = shutil.copytree(run, tmp_path / "run")
    there = contents(out)
    with alone(out, read_header(out)):
        refused(
            train.main,
            ["--out", str(out), "--resume", "--steps", "13"],
            capsys,
            "another process trains in",
        )
    assert contents(out) == there
    assert train.main(["--out", str(out), "--resume", "--steps", "13"]) == 0

    new, mnist = tmp_path / "new", DATASETS["mnist"]

    def meanwhile(root, size):  # both found the folder empty; then the other was faster
        monkeypatch.setitem(DATASETS, "mnist", mnist)
        assert train.main([*TINY, "--out", str(new), "--steps", "2"]) == 0
        return mnist.training(root, size)

    monkeypatch.setitem(DATASETS, "mnist", replace(mnist, training=meanwhile))
    refused(
        train.main,
        [*TINY, "--out", str(new), "--steps", "9"],
        capsys,
        "another process has just trained in",
    )
    assert read_header(new).step == 2


def test_of_two_pushes_at_once_the_repo_holds_one_as_a_whole(hub_server, run, tmp_path):
    other = tmp_path / "other"
    assert train.main([*TINY, "--out", str(other), "--steps", "2"]) == 0
    both = [push.published(run), push.published(other)]
    meet, whole = threading.Barrier(2, timeout=60), hub_server.commit

    with ThreadPoolExecutor(2) as pushers:

        def one(files):
            meet.wait()
            return push.push(files, REPO, show=False)

        pushed = list(pushers.map(one, both))
    assert all(each.new for each in pushed) and hub_server.commits(REPO) == 2 and whole
    there = hub_server.files(REPO)
    won = json.loads(there[hub.CONFIG])["sha256"]
    (files,) = (files for files in both if json.loads(files[hub.CONFIG])["sha256"] == won)
    for name, content in files.items():
        assert there[name] == content or name == "README.md"


def test_a_push_that_broke_off_twice_is_whole_in_the_end(hub_server, run, capsys):
    for method, part in (("PUT", "/objects/"), ("POST", "/commit/")):
        hub_server.fail(method, part, times=99, drop=True)
        refused(push.main, [str(run), REPO], capsys, "broke off")
        hub_server.failures.clear()
        assert hub_server.commits(REPO) == 0
    assert push.main([str(run), REPO]) == 0
    assert hub_server.commits(REPO) == 1 and len(hub_server.uploaded) == len(
        set(hub_server.uploaded)
    )
    assert load(hub_server.files(REPO)[hub.WEIGHTS]).keys() == load_file(run / hub.WEIGHTS).keys()


# --- Cut short, spoiled, killed -------------------------------------------------------------------


def test_a_checkpoint_with_any_byte_changed_or_missing_is_not_gone_on_from(run, tmp_path, capsys):
    """The header of the file says what is where; behind it lie weights, moments and the random
    generator."""
    out = shutil.copytree(run, tmp_path / "run")
    whole = (run / CHECKPOINT).read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    chance = random.Random(0)
    header = [chance.randrange(8, 8 + length) for _ in range(12)]
    behind = [chance.randrange(8 + length, len(whole)) for _ in range(6)]
    places = [0, 3, 7, 8, 9, *header, 8 + length, *behind, len(whole) - 1]
    spoiled = [
        whole[:k] + bytes([whole[k] ^ 1 << chance.randrange(8)]) + whole[k + 1 :] for k in places
    ]
    spoiled += [
        whole[:k] for k in (0, 7, 8, 8 + length // 2, 8 + length, len(whole) // 2, len(whole) - 1)
    ]
    for data in spoiled:
        (out / CHECKPOINT).write_bytes(data)
        there = contents(out)
        refused(train.main, ["--out", str(out), "--resume", "--steps", "13"], capsys)
        assert contents(out) == there


def _train(argv, steps):
    """The command, which waits before each step until it is granted one more."""
    compute = loop.Trainer._compute
    loop.Trainer._compute = lambda self: (steps.acquire(), compute(self))[1]
    os.fsync = lambda _: None  # it is for power cuts: what a killed process wrote is not lost
    with open(os.devnull, "w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        train.main(argv)


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_the_weights_of_an_undisturbed_run(tmp_path):
    """At moments that chance picks, the writing of a checkpoint among them; nothing is left behind
    either."""
    straight, killed, chance = tmp_path / "straight", tmp_path / "killed", random.Random(0)
    assert train.main([*TINY, "--out", str(straight), "--steps", "24"]) == 0
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["tests.test_interruptions"])  # torch is imported once
    kills, argv = 0, [*TINY, "--out", str(killed), "--steps", "24", "--checkpoint-every", "1"]
    while kills < 10:
        before = header.step if (header := read_header(killed)) else -1
        # it is killed in the second, however long a busy machine takes to do so
        steps = start.Semaphore(2)
        process = start.Process(target=_train, args=(argv, steps), daemon=True)
        process.start()
        while process.is_alive() and not ((header := read_header(killed)) and header.step > before):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.01)
        assert process.is_alive(), "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills, argv = kills + 1, ["--out", str(killed), "--resume"]
    assert read_header(killed).step < 24
    (killed / ".checkpoint.safetensors.00000000.tmp").write_bytes(b"left behind")
    assert train.main(argv) == 0
    ours, theirs = load_file(killed / hub.WEIGHTS), load_file(straight / hub.WEIGHTS)
    # same machine, same sums
    assert ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
    assert contents(killed).keys() == contents(straight).keys()


def test_a_learning_rate_that_explodes_is_said_and_costs_no_checkpoint(tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        train.main([*TINY, "--out", str(out), "--steps", "60", "--lr", "1e12", "--warmup", "0"])
        == 1
    )
    assert (
        "no finite number" in (said := capsys.readouterr().err.splitlines()[-1])
        or "the loss is" in said
    )
    assert "lower --lr" in said
    assert all(
        value.isfinite().all()
        for value in load_file(out / CHECKPOINT).values()
        if value.is_floating_point()
    )
    assert not (out / hub.WEIGHTS).exists()


def idx(count, shape, data):
    """A file as MNIST has them."""
    return struct.pack(f">HBB{1 + len(shape)}I", 0, 8, 1 + len(shape), count, *shape) + data


SPOILED = {
    "an image less than labels": {"images": idx(399, (28, 28), bytes(399 * 784))},
    "labels cut": {"labels": idx(400, (), bytes(10))},
    "fewer labels": {"labels": idx(10, (), bytes(10))},
    "a label that is no class": {"labels": idx(400, (), bytes([10]) + bytes(399))},
    "none at all": {"images": idx(0, (28, 28), b""), "labels": idx(0, (), b"")},
    "a billion images": {"images": idx(10**9, (28, 28), bytes(784))},
    "of another shape": {"images": idx(400, (4,), bytes(1600))},
    "no numbers": {"labels": b"\0" * 100},
}


@pytest.mark.parametrize("files", SPOILED.values(), ids=SPOILED)
def test_a_data_set_that_was_cut_or_mixed_up_is_refused(tmp_path, files, capsys):
    shutil.copytree(DIGITS, tmp_path / "data")
    for kind, content in files.items():
        (file,) = (tmp_path / "data" / "MNIST" / "raw").glob(f"train-{kind}*")
        file.write_bytes(content)
    refused(
        train.main,
        [*TINY, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--steps", "2"],
        capsys,
        "MNIST is not",
    )
    assert not (tmp_path / "run").exists()


# --- Pictures of all kinds ------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side):
    """A PNG of side × side pixels, one bit each, in a few kilobytes."""
    packer = zlib.compressobj(9)
    rows = (
        b"".join(packer.compress(bytes(1 + side // 8) * 100) for _ in range(side // 100))
        + packer.flush()
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def test_a_bomb_of_pixels_is_refused_before_it_goes_off(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read as an image"):
        DATASETS["folder"].training(tmp_path, 8)
    # kB; the pixels are 112 MB, or 900 as bytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_kinds_of_pictures_that_people_have(tmp_path):
    """CMYK, an animation (its first picture counts), a link that leads in a circle, one to nowhere,
    a pipe."""
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    red.save(tmp_path / "b.gif", save_all=True, append_images=[blue])
    red.save(tmp_path / "c.png", save_all=True, append_images=[blue])
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "d.png").symlink_to("d.png")
    (tmp_path / "e.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "f.png")
    images = DATASETS["folder"].training(tmp_path, 8).images
    assert images.shape == (3, 3, 8, 8)
    assert (images.float() - torch.tensor([255.0, 0, 0])[:, None, None]).abs().max() < 10  # JPEG


@pytest.mark.parametrize(
    "name", ["none", "ANY", "a\nb", "\u202e", "\udcff", " a", "x" * 101], ids=ascii
)
def test_a_class_folder_whose_name_no_model_could_carry_is_refused_before_training(
    tmp_path, name, capsys
):
    for each in (name, "good"):
        (tmp_path / "data" / each).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data" / each / "a.png")
    own = split("--dataset folder --data", tmp_path / "data", "--size 8")
    options = [*TINY, *own, "--out", str(tmp_path / "run"), "--steps", "1"]
    refused(train.main, options, capsys, "a class cannot be called")
    assert not (tmp_path / "run").exists()
