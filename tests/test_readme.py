"""What README.md and the pages beside it promise, done as they say."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from ddpm import Pipeline

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    "README.md",
    *(
        str(path.relative_to(ROOT))
        for folder in ("ddpm", "train", ".github")
        for path in sorted((ROOT / folder).rglob("*.md"))
        if "pretrained" not in path.parts
    ),
]
CORE = ("schedule.py", "diffusion.py", "unet.py", "samplers.py", "pipeline.py")


def blocks(kind):
    """The blocks of code of this kind in README.md."""
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def test_the_three_lines_of_python_draw_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = blocks("python")
    assert len(code.strip().splitlines()) == 3
    exec(code, {})
    with Image.open("digits.gif") as gif:
        assert gif.n_frames == 22


def test_the_loop_is_the_ddim_sampler():
    _, code = blocks("python")
    assert len(code.split("\n\n")[-1].strip().splitlines()) <= 8
    names = {}
    exec(code, names)
    expected = Pipeline.from_pretrained("mnist").sample(
        seeds=[0], labels=[7], sampler="ddim", steps=20, grid="uniform"
    )
    torch.testing.assert_close(names["x"], expected.x, rtol=0, atol=1 / 255)  # half a gray level
    assert names["s"] == 0 and torch.equal(names["x"], names["x0"])


def test_the_front_page_is_short_and_counts_the_lines_of_the_core_rightly():
    body = README[README.index("# From noise") :]
    assert len(body.split()) <= 1300
    [said] = re.findall(r"five files, about ([\d,]+) lines", body)
    lines = sum(len((ROOT / "ddpm" / name).read_text().splitlines()) for name in CORE)
    assert abs(int(said.replace(",", "")) - lines) <= 0.1 * lines
    listed = re.findall(r"^\d\. \[\w+\.py\]\(ddpm/(\w+\.py)\)", body, re.MULTILINE)
    assert tuple(listed) == CORE


def test_the_front_matter_is_one_that_a_space_accepts():
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio" and (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert isinstance(front["python_version"], str)


def headings(text):
    """The anchors of a page, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r'(?:\]\(|src=")((?!http)[^)"]+)', (ROOT / page).read_text()):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text()), link


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_a_module_or_a_file(page):
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    if page.endswith("CHANGELOG.md"):
        # what commands were called before
        text = re.sub(r"^  \| `.*?\| ", "", text, flags=re.MULTILINE)
    for module in set(re.findall(r"(?:python|torchrun[^`\n]*?) -m ((?:ddpm|train)[\w.]*)", text)):
        spec = importlib.util.find_spec(module.rstrip("."))
        assert spec and (
            not spec.submodule_search_locations or importlib.util.find_spec(module + ".__main__")
        ), module
    for path in re.findall(r"`((?:tests|ddpm|train|\.ci)/[\w./-]+)`", text):
        assert (ROOT / path.split("NAME")[0]).exists(), path


@pytest.mark.parametrize("page", [page for page in PAGES if not page.endswith("CHANGELOG.md")])
def test_every_command_is_understood(page):
    """Its options are ones that the module has, with values that they take."""
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for module, options in re.findall(
        r"(?:python|torchrun[^`\n]*?) -m ((?:ddpm|train)[\w.]*)( [^`\n]*)?", text
    ):
        module = module.rstrip(".")
        main = importlib.import_module(
            module + ".__main__"
            if importlib.util.find_spec(module).submodule_search_locations
            else module
        )
        argv = shlex.split(
            re.sub(r"…|CHANGE|&& .*|--help", "", options).replace(
                "--dataset NAME", "--dataset mnist"
            )
        )
        if argv and hasattr(main, "parser"):  # without options only the command is named
            main.parser().parse_args(argv)  # it raises SystemExit


@pytest.mark.parametrize("package", ["ddpm", "train"])
def test_every_module_is_in_the_map_of_its_package(package):
    inside = {
        path.name
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    listed = re.findall(
        r"^\| \[.*?\]\(([\w.]+)\) \|", (ROOT / package / "README.md").read_text(), re.MULTILINE
    )
    assert inside - {"__init__.py"} <= set(listed)
