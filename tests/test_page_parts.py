"""What a page is made of: walks as tables, kernels, and the command that writes it."""

import json
import os
import re
from importlib.util import find_spec

import pytest
import torch

from ddpm import Pipeline
from ddpm.browser import KERNELS, STEPS, page, static_space
from ddpm.browser.__main__ import main
from ddpm.browser.build import VARIANTS, build
from ddpm.browser.walks import walk
from ddpm.samplers import SAMPLERS
from ddpm.schedule import Schedule
from ddpm.settings import Settings
from tests.helpers import tiny_unet


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_table_is_the_whole_sampler(name):
    schedule, generator = Schedule(), torch.Generator().manual_seed(0)
    for steps in (1, 2, 3, 4, 10, 20):
        settings = Settings((0,), sampler=name, steps=steps)
        noises = [
            torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2 * steps + 2)
        ]
        later = iter(noises[1:])
        denoise = lambda x, t: torch.tanh(x + t / 500)  # noqa: E731  anything that is not linear
        *_, last = settings.walk(
            denoise,
            schedule,
            noises[0],
            settings.times(schedule),
            lambda _, later=later: next(later),
        )
        table, x, seen = walk(schedule, settings), noises[0], []
        for t, _alpha, _sigma, _shown, a, *by in table.tolist():
            sources = [*seen, *[torch.zeros(6)] * (len(table) - 1 - len(seen)), *noises[1:]]
            x = a * x + sum(b * source for b, source in zip(by, sources, strict=False))
            seen.append(denoise(x, t))
        assert torch.allclose(x, last.x, atol=2e-5), steps
        assert table[:, 3].sum() == steps + 1 and table[-1, 0] == 0


@pytest.mark.skipif(
    find_spec("ziglang") is None and not os.environ.get("CI"),
    reason="no compiler here (tests/requirements.txt has it)",
)
def test_the_kernels_are_what_their_source_compiles_to():
    assert {build(name) for name in VARIANTS} == set(KERNELS)


def test_a_static_space_is_the_page_and_a_card(tmp_path, monkeypatch, capsys):
    tiny = Pipeline(tiny_unet(schedule=Schedule(T=3)))
    monkeypatch.setattr("ddpm.browser.__main__.Pipeline.from_pretrained", lambda *_, **__: tiny)
    assert (
        main(["--space", str(tmp_path / "space")]) == 0 and main([str(tmp_path / "page.html")]) == 0
    )
    assert sorted(path.name for path in (tmp_path / "space").iterdir()) == [
        "README.md",
        "index.html",
    ]
    assert (tmp_path / "space/index.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    front = (tmp_path / "space/README.md").read_text().split("---")[1]
    assert (
        re.search("^sdk: static$", front, re.M)
        and len(re.search("short_description: (.*)", front)[1]) <= 60
    )
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["a.html", "--space", "b"],
        ["a.txt"],
        ["no/folder/a.html"],
        ["a.html", "--model", "nothing"],
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    out = capsys.readouterr()
    assert (
        out.err.startswith("ddpm.browser: ")
        and out.err.count("\n") == 1
        and not list(tmp_path.iterdir())
    )


def test_a_pipeline_saves_its_page(tmp_path):
    tiny = Pipeline(tiny_unet(schedule=Schedule(T=3)))
    tiny.save_page(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == page(tiny)
    for name, words in {"page.txt": "name a .html", "no/page.html": "there is no folder"}.items():
        with pytest.raises((ValueError, OSError), match=words):
            tiny.save_page(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_model_too_large_for_a_page_is_refused(tmp_path):
    large = Pipeline(tiny_unet(width=64, mults=(1, 2), schedule=Schedule(T=5)))
    with pytest.raises(
        ValueError,
        match=r"a page with this model's [\d,]+ parameters would have .* MB, more than 3 MB",
    ):
        large.save_page(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_page_of_a_short_schedule_has_only_the_steps_that_there_are(tmp_path):
    facts = json.loads(
        page(Pipeline(tiny_unet(schedule=Schedule(T=5))))
        .decode()
        .split('id="facts">')[1]
        .split("</script>")[0]
    )
    assert (
        facts["distilled"] in facts["walks"]
        and facts["steps"] == [n for n in STEPS if n <= 5]
        and facts["usual_steps"] == 5
    )
    assert set(static_space(Pipeline(tiny_unet(schedule=Schedule(T=2))))) == {
        "index.html",
        "README.md",
    }
