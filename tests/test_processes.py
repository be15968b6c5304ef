"""Several processes (torchrun): the first loads the data and the others wait; its errors reach them
all. And errors in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import DIGITS, split
from train.command import command
from train.processes import first_then_others, is_first

SCRIPT = """
import contextlib, dataclasses, io, json, os, sys, time
from pathlib import Path

import torch.distributed as dist
from train.__main__ import main as train
from train.data import DATASETS
from train.evaluate.__main__ import main as evaluate
from train.evaluate.reference import real_images
from train.processes import is_first, join_processes

place, digits, rank = Path(sys.argv[1]), Path(sys.argv[2]), os.environ["RANK"]
mnist = DATASETS["mnist"]


def load(root, size):
    there = root / "there"
    with open(root / "log", "a") as file:
        file.write(f"{rank} {'finds it' if there.exists() else 'downloads'}\\n")
    time.sleep(1)  # long enough for the others to come
    if root.name == "unreachable":
        raise OSError("no network")
    there.touch()
    return mnist.training(digits, size)


DATASETS["mnist"] = dataclasses.replace(mnist, training=load, test=lambda root: mnist.test(digits))
# One group for all that follows.
destroy, dist.destroy_process_group = dist.destroy_process_group, lambda: None
join_processes("cpu")
images = [len(data.images) for data in real_images("mnist", place / "slow")]
found = {"first": is_first(), "images": images}
bad = ["--data", str(place / "unreachable"), "--device", "cpu"]
for name, main, options in (
    ("train", train, [*bad, "--out", str(place / "run")]),
    ("evaluate", evaluate, ["mnist", *bad]),
):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(options)
    found[name] = code, said.getvalue()
(place / f"rank{rank}.json").write_text(json.dumps(found))
destroy()
"""


@pytest.mark.slow
def test_the_first_process_loads_the_data_and_its_error_reaches_all(tmp_path):
    for name in ("slow", "unreachable"):
        (tmp_path / name).mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            *split("-m torch.distributed.run --standalone --nproc-per-node 2"),
            *split(tmp_path / "script.py", tmp_path, DIGITS),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["first"] is (rank == 0) and found["images"] == [400, 100]
        for name in ("train", "evaluate"):
            assert found[name] == [2, f"{name}: no network\n"], (
                "the same line, and the same exit code"
            )
    assert (tmp_path / "slow" / "log").read_text().splitlines() == ["0 downloads", "1 finds it"]
    assert (tmp_path / "unreachable" / "log").read_text().splitlines() == ["0 downloads"] * 2
    assert not (tmp_path / "run").exists()


def test_a_process_alone_is_the_first_and_waits_for_nobody():
    assert is_first()
    with first_then_others():
        ran = True
    assert ran
    with pytest.raises(OSError, match="gone"), first_then_others():
        raise OSError("gone")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("wrong\nin detail"), 2, "x: wrong"),
        (OSError(28, "No space left"), 2, "x: [Errno 28] No space left"),
        (OSError(), 2, "x: OSError"),
        (KeyboardInterrupt(), 130, "x: stopped"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, error, code, line):
    @command("x", interrupted="stopped")
    def main(argv=None):
        raise error

    assert main([]) == code
    assert capsys.readouterr().err == line + "\n"


def test_a_bug_is_not_hidden():
    @command("x")
    def main(argv=None):
        return argv[0] / 0

    with pytest.raises(ZeroDivisionError):
        main([1])
