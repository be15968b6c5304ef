"""Who may import whom, read from the source: the design's arrows go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each module of ddpm and what it may know of its neighbours; the outside world is not the matter
# here.
NEIGHBOURS = {
    "schedule": "",
    "files": "",
    "pixels": "",
    "frames": "",
    "unet": "schedule",
    "engine": "unet",
    "diffusion": "pixels schedule unet",
    "samplers": "schedule diffusion",
    "settings": "samplers schedule",
    "player": "frames pixels",
    "images": "files frames pixels player",
    "hub": "schedule unet",
    "pipeline": "diffusion engine files frames hub images samplers settings unet",
    "demo": "files frames hub pipeline pixels player samplers schedule settings",
    "browser": "files hub pipeline pixels player samplers schedule settings",
    "__main__": "engine images pipeline samplers schedule settings",
    "__init__": "diffusion frames images pipeline samplers schedule settings unet",
}
ALLOWED = {module: set(known.split()) for module, known in NEIGHBOURS.items()}
# Imported only when a method is called: a short way to what is built on the module.
LATE = {"pipeline": {"browser"}}
LONGEST = 45  # lines of a function, but for the constructor of the network
OPTIONAL = {
    "ddpm/engine": "onnxruntime",
    "train/benchmark": "diffusers",
    "train/evaluate": "matplotlib",
}


def imports(path: Path, *, late: bool = True) -> set[str]:
    """Every module that the file imports, relative ones with their leading dot. late: in functions
    too."""
    found, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            found |= {prefix} if node.module else {prefix + name.name for name in node.names}
    return found


def rooms(package: str) -> dict[str, list[Path]]:
    """The modules of a package by name; a folder is one module of several files."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        found.setdefault(path.relative_to(ROOT / package).parts[0].removesuffix(".py"), []).append(
            path
        )
    return found


def inside(path: Path, package: str, *, late: bool = True) -> set[str]:
    """The package's modules that the file knows, its own folder apart. late: as in `imports`."""
    place = path.relative_to(ROOT / package).parts
    found = set()
    for name in imports(path, late=late):
        if name.startswith("."):
            up = len(name) - len(name.lstrip("."))
            parts = (*place[: len(place) - up], *name.lstrip(".").split("."))
        elif name.split(".")[0] == package and "." in name:
            parts = tuple(name.split(".")[1:])
        else:
            continue
        found.add(parts[0])
    return found - ({place[0]} if len(place) > 1 else set())


def test_every_module_is_in_the_table():
    assert set(rooms("ddpm")) == set(ALLOWED)


@pytest.mark.parametrize("module", ALLOWED)
def test_modules_know_only_those_below_them(module):
    for path in rooms("ddpm")[module]:
        assert inside(path, "ddpm", late=False) <= ALLOWED[module], path
        assert inside(path, "ddpm") <= ALLOWED[module] | LATE.get(module, set()), path
        banned = {"train", "app", "gradio", "pickle", "diffusers", "onnxruntime"}
        banned -= {OPTIONAL.get(f"ddpm/{module}")}
        assert not {name for name in imports(path) if name.split(".")[0] in banned}, path


@pytest.mark.parametrize("folder", OPTIONAL)
def test_what_may_be_missing_is_imported_only_where_it_is_used(folder):
    uses = 0
    for path in (ROOT / folder).glob("*.py"):
        top = ast.parse(path.read_text()).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
        assert OPTIONAL[folder] not in {name.split(".")[0] for name in names}, path
        uses += OPTIONAL[folder] in {name.split(".")[0] for name in imports(path)}
    assert uses  # else the table is out of date


@pytest.mark.parametrize("path", sorted((ROOT / "train").rglob("*.py")), ids=lambda path: path.name)
def test_training_knows_no_page_and_no_pickle(path):
    banned = {"app", "gradio", "pickle", "diffusers"} - (
        {"diffusers"} if path.parent.name == "benchmark" else set()
    )
    assert not {name for name in imports(path) if name.split(".")[0] in banned}


@pytest.mark.parametrize(
    "script", sorted((ROOT / "ddpm/player").glob("*.js")), ids=lambda path: path.name
)
def test_the_player_knows_no_gradio_and_no_network(script):
    words = script.read_text()
    unknown = "gradio fetch( XMLHttpRequest WebSocket import( http: https: eval("
    for banned in unknown.split():
        assert banned not in words


def test_the_app_knows_ddpm_and_gradio_but_not_torch():
    assert not {
        name
        for name in imports(ROOT / "app.py")
        if name.split(".")[0] in ("torch", "train", "diffusers")
    }


def test_no_function_is_long():
    files = [
        ROOT / "app.py",
        *(path for package in ("ddpm", "train") for path in (ROOT / package).rglob("*.py")),
    ]
    found = {
        f"{path.name} {node.name}": node.end_lineno - node.lineno + 1
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert [name for name, lines in found.items() if lines > LONGEST] == ["unet.py __init__"]


def test_the_top_level_stays_as_it_is():
    import subprocess

    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.splitlines()}
    known = "app.py ddpm train tests requirements.txt README.md LICENSE"
    assert {name for name in top if not name.startswith(".")} <= set(known.split())
