"""python -m train.walks and the sampler "learned": what is learned is walked, and it helps."""

import json

import pytest
import torch

from ddpm import SAMPLERS, Pipeline, Settings, Start
from ddpm.diffusion import denoiser
from ddpm.schedule import LEARNED, LEARNED_FILE, LearnedWalk
from tests.helpers import tiny_unet
from train import walks


def walked(model, x, y, steps, sampler="learned", grid="learned"):
    *_, (_, end, _) = SAMPLERS[sampler].walk(
        denoiser(model, y), model.schedule, x, model.schedule.times(steps, grid), None
    )
    return end


@pytest.fixture
def small(monkeypatch):
    """A model, and few, short walks to learn from."""
    for name, value in {
        "STEPS": (2, 3),
        "COUNT": 24,
        "HELD_OUT": 8,
        "LONG": 8,
        "UPDATES": 12,
        "BATCH": 8,
    }.items():
        monkeypatch.setattr(walks, name, value)
    return Pipeline(tiny_unet(), {"sha256": "0" * 64}, finished=True)


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_a_walk_that_is_learned_ends_where_the_sampler_ends(monkeypatch, steps, prediction):
    model = tiny_unet(prediction=prediction)
    walk = walks.Walk(model, steps, torch.device("cpu"))
    with torch.no_grad():
        walk.reach.add_(torch.linspace(-0.3, 0.4, steps - 1))
    monkeypatch.setitem(LEARNED, steps, LearnedWalk(**walk.found()))
    x, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 3, 10])
    torch.testing.assert_close(
        walk.end(x, y).detach(), walked(model, x, y, steps), rtol=0, atol=2e-3
    )


def test_what_is_learned_leads_nearer_to_where_a_long_walk_ends(small):
    model = small.model.requires_grad_(False)
    ways = walks.long_ways(small)
    assert ways.labels.eq(10).any() and ways.labels.ne(10).any()  # with labels and without
    before = walks.Walk(model, 3, torch.device("cpu")).error(ways)
    with walks.tqdm(total=36, disable=True) as bar:
        assert walks.learn(model, 3, ways, bar).error(ways) < 0.9 * before


def test_the_command_writes_a_table_and_says_what_it_gained(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(walks.Pipeline, "from_pretrained", lambda *_, **__: small)
    out = tmp_path / "learned.json"
    assert walks.main(["mine", "--out", str(out)]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line] == [
        ["2", "evaluations:"],
        ["3", "evaluations:"],
    ]
    told = json.loads(out.read_text())
    assert [len(LearnedWalk(**walk).times) for walk in told["walks"]] == [2, 3]
    assert told["command"].startswith("python -m train.walks mine") and told["weights"] == "0" * 64


@pytest.mark.parametrize(
    ("model", "words"),
    [("mnist-fast", "must not be distilled"), ("nothing-like-it", "nothing-like-it")],
)
def test_what_cannot_learn_is_refused_in_one_line(model, words, tmp_path, capsys):
    assert walks.main([model, "--out", str(tmp_path / "learned.json")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_table_that_is_shipped_has_few_numbers_and_names_its_weights():
    told = json.loads(LEARNED_FILE.read_text())
    assert sorted(LEARNED) == list(walks.STEPS) and len(told["weights"]) == 64
    for steps, walk in LEARNED.items():
        assert walk.times[0] == 1 and len(walk.reach) == steps - 1 and 2 * (steps - 1) < 20
        assert all(
            0 < later < earlier for earlier, later in zip(walk.times, walk.times[1:], strict=False)
        )


@pytest.mark.parametrize("steps", [3, 5, 10])
def test_with_the_built_in_weights_it_ends_nearer_to_a_long_walk_than_the_default_sampler(steps):
    pipeline, seeds = Pipeline.from_pretrained("mnist"), range(16)
    end = pipeline.sample(seeds, steps=40).x
    ours, usual = (
        pipeline.sample(seeds, sampler=name, steps=steps).x
        for name in ("learned", Settings.sampler)
    )
    assert (ours - end).square().mean() < 0.6 * (usual - end).square().mean()


@pytest.mark.parametrize(
    ("steps", "grid"), [(5, "uniform"), (1, "learned"), (30, "learned"), (5, "power(0.7)")]
)
def test_on_other_times_it_is_dpm_plus_plus(steps, grid):
    model, x = tiny_unet(), torch.randn(2, 1, 8, 8)
    assert torch.equal(
        walked(model, x, None, steps, grid=grid), walked(model, x, None, steps, "dpm++2m", grid)
    )


def test_a_walk_that_starts_part_way_is_walked_too():
    pipeline = Pipeline(tiny_unet(), {}, finished=True)
    start = Start(torch.zeros(1, 1, 8, 8), 50.0)
    frames = list(pipeline.stream(Settings([0], sampler="learned", steps=5, start=start)))
    assert frames[0].t == 50 and frames[-1].t == 0 and torch.isfinite(frames[-1].x).all()
