"""Who may import whom, read from the source: the design's arrows go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each module of ddpm and what it may know of its neighbours; the outside world is not the matter here.
ALLOWED = {
    "schedule": set(),
    "files": set(),
    "unet": {"schedule"},
    "onnx": {"unet"},
    "engine": {"onnx", "unet"},
    "cpus": set(),
    "diffusion": {"schedule", "unet"},
    "samplers": {"schedule", "diffusion"},
    "images": set(),
    "hub": {"schedule", "unet"},
    "player": {"images"},
    "pipeline": {"files", "hub", "diffusion", "engine", "images", "player", "samplers", "unet"},
    "demo": {"images", "pipeline", "player", "samplers", "schedule"},
    "serving": {"hub", "pipeline"},
    "__main__": {"cpus", "pipeline", "samplers", "schedule"},
    "benchmark": {"cpus", "diffusion", "engine", "files", "pipeline", "samplers", "unet"},
    "__init__": {"diffusion", "pipeline", "samplers", "schedule", "unet"},
}


def imports(path: Path) -> set[str]:
    """Every module that the file imports, relative ones with their leading dot."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            found |= {prefix} if node.module else {prefix + name.name for name in node.names}
    return found


def source(module: str) -> Path:
    """A module is a file, or a folder with an __init__.py."""
    file = ROOT / "ddpm" / f"{module}.py"
    return file if file.is_file() else ROOT / "ddpm" / module / "__init__.py"


def test_every_module_is_in_the_table():
    folders = {path.parent.name for path in (ROOT / "ddpm").glob("*/__init__.py")}
    assert {path.stem for path in (ROOT / "ddpm").glob("*.py")} | folders == set(ALLOWED)
    assert not [path for path in (ROOT / "ddpm").glob("*/*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("module", ALLOWED)
def test_modules_know_only_those_below_them(module):
    file = source(module)
    known = imports(file)
    dots = ".." if file.name == "__init__.py" and module != "__init__" else "."  # what is beside it, as it writes it
    assert {name.removeprefix(dots) for name in known if name.startswith(".")} <= ALLOWED[module]
    optional = {"engine": {"onnxruntime"}, "benchmark": {"diffusers"}}.get(module, set())
    banned = {"train", "app", "gradio", "pickle", "diffusers", "onnxruntime"} - optional
    assert not {name for name in known if name.split(".")[0] in banned}


@pytest.mark.parametrize(("module", "package"), [("engine", "onnxruntime"), ("benchmark", "diffusers")])
def test_what_may_be_missing_is_imported_only_where_it_is_used(module, package):
    top = ast.parse((ROOT / "ddpm" / f"{module}.py").read_text()).body
    assert package not in {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    assert package not in {node.module for node in top if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", sorted((ROOT / "train").glob("*.py")), ids=lambda path: path.name)
def test_training_knows_no_page_and_no_pickle(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("app", "gradio", "pickle", "diffusers")}


@pytest.mark.parametrize("script", sorted((ROOT / "ddpm/player").glob("*.js")), ids=lambda path: path.name)
def test_the_player_knows_no_gradio_and_no_network(script):
    words = script.read_text()
    for banned in ("gradio", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "http:", "https:", "eval("):
        assert banned not in words


def test_the_app_knows_ddpm_and_gradio_but_not_torch():
    assert not {name for name in imports(ROOT / "app.py") if name.split(".")[0] in ("torch", "train", "diffusers")}


def test_the_top_level_stays_as_it_is():
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        "app.py", "ddpm", "train", "tests", "requirements.txt", "README.md", "LICENSE"}
