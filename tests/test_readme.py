"""What README.md promises, done as it says."""

import re
from pathlib import Path

import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_three_lines_of_python_draw_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.strip().splitlines()) == 3
    exec(code, {})
    with Image.open("digits.gif") as gif:
        assert gif.n_frames == 21


def test_the_front_matter_is_one_that_a_space_accepts():
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio" and (ROOT / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert isinstance(front["python_version"], str)


def test_every_file_in_the_map_and_every_link_is_there():
    for link in re.findall(r'(?:\]\(|src=")((?!http)[^)"#]+)', README):
        assert (ROOT / link).exists(), link
    block = README.split("## Map of the code")[1].split("```")[1]
    folder = ROOT
    for line in block.strip("\n").splitlines():
        name = line.split()[0]
        folder = ROOT if not line.startswith("  ") else folder
        assert (folder / name).exists(), name
        folder = ROOT / name if not line.startswith("  ") else folder
    modules = {path.name for package in ("ddpm", "train") for path in (ROOT / package).glob("*.py")}
    assert all(name in block for name in modules - {"__init__.py"})
