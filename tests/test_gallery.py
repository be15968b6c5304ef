"""python -m train.evaluate.gallery."""

import pytest
from PIL import Image

from ddpm import SAMPLERS, Pipeline
from ddpm.pixels import sheet
from tests.helpers import tiny_unet
from train.evaluate import gallery as module
from train.evaluate.gallery import gallery, main

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", (1, 2, 5))


def test_a_cell_is_what_the_sampler_draws_and_costs_no_more_than_its_column():
    pipeline = Pipeline(tiny_unet())
    board = gallery(pipeline, [3, 4], scale=1)
    name = next(iter(SAMPLERS))
    for column, budget in enumerate(module.COLUMNS):
        expected = sheet(pipeline.sample(seeds=[4], sampler=name, steps=budget).x).convert("RGB")
        left, top = 104 + (2 * 8 + 6) * column + 8, 28
        assert board.crop((left, top, left + 8, top + 8)).tobytes() == expected.tobytes()
    heun = 28 + 14 * list(SAMPLERS).index("heun")
    two = board.crop((104 + 22, heun, 104 + 30, heun + 8))
    one = sheet(pipeline.sample(seeds=[3], sampler="heun", steps=1).x).convert("RGB")
    assert two.tobytes() == one.tobytes(), "two steps of heun would cost three evaluations"


def test_bad_input_costs_one_line_and_exit_code_2(tmp_path, capsys):
    for options in (["--out", str(tmp_path / "a.gif")], ["--seeds", "-1"], ["--model", "nowhere"]):
        assert main(options) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_command_writes_the_picture(run, tmp_path):
    assert main(["--model", str(run), "--seeds", "1", "--out", str(tmp_path / "a.png")]) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width < 800
