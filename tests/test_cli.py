"""python -m ddpm, as it is typed."""

import subprocess
import sys

import pytest
from PIL import Image

from ddpm import SAMPLERS
from ddpm.__main__ import main
from tests.helpers import split


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_are_drawn_and_the_seeds_are_told(run, tmp_path, capsys, sampler):
    out = tmp_path / "a.gif"
    options = split("--seed 5 --count 4 --steps 3 --sampler", sampler, "--out", out)
    assert main(["--model", str(run), *options]) == 0
    assert "seeds 5..8" in capsys.readouterr().out
    with Image.open(out) as gif:
        assert gif.n_frames == 5


def test_a_random_seed_is_printed_and_can_be_used_again(run, tmp_path, capsys):
    settings = split("--model", run, "--count 1 --steps 2 --label 3 --guidance 1")
    assert main([*settings, "--out", str(tmp_path / "a.png")]) == 0
    seed = capsys.readouterr().out.split("seeds ")[1].split("..")[0]
    assert main([*settings, "--out", str(tmp_path / "b.png"), "--seed", seed]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sampler", "dim"], "choose from dpm++2m, "),
        (["--grid", "x"], "choose from power"),
        (["--steps", "0"], "1..1000"),
        (["--steps", "1001"], "1..1000"),
        (["--count", "0"], "1..1024"),
        (["--seed", "-1"], "--seed must be in 0.."),
        (["--label", "ten"], "choose from 0, 1, 2"),
        (["--guidance", "1", "--label", "none"], "guidance needs a label"),
        (["--eta", "1"], "no eta"),
        (["--model", "nowhere"], "built-in weights"),
        (["--out", "a.bmp"], "cannot write a.bmp"),
        (["--revision", "v1"], "not a Hub repo"),
        (["--device", "tpu"], "--device must be cpu"),
    ],
)
def test_bad_options_cost_one_line_and_exit_code_2(
    run, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    assert main(["--model", str(run), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ddpm: ") and words in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_of_the_readme_runs_in_a_new_process(tmp_path):
    """The real thing once: a new interpreter, the built-in weights, the default output."""
    out = tmp_path / "digits.gif"
    done = subprocess.run(
        [sys.executable, *split("-m ddpm --seed 0 --steps 5 --sampler ddim --count 16 --out", out)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 500_000
    assert subprocess.run(
        [sys.executable, "-m", "ddpm", "--help"], capture_output=True, check=True
    ).stdout
