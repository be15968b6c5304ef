"""What a Space gets, and whether the app starts there: with the package `spaces`, without it, and as on ZeroGPU."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub.utils import filter_repo_objects

from tests.test_serving import free_port

ROOT = Path(__file__).parents[1]
DEPLOY = (ROOT / ".github/workflows/deploy.yml").read_text()


def start(code, *, folder=None, **env):
    """Runs code in a new process; folder holds packages that are found first."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env={
        **os.environ, "PYTHONPATH": str(folder or ""), "GRADIO_SERVER_PORT": str(free_port()), **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """if True:
    import sys
    import app
    first = next(name for name in sys.modules if name in ("spaces", "torch", "gradio"))  # in the order of their import
    print(first, getattr(app._draw, "on_gpu", False))
    print(len(list(app.generate(count=1, steps=1, seed=0))))
"""


def test_spaces_is_imported_before_torch_and_decorates_one_function(tmp_path):
    """A stand-in for the package, for machines that lack it: what it must see is that it came first."""
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\ndef GPU(task):\n    task.on_gpu = True\n    return task\n")
    assert start(LOOK, folder=tmp_path).split() == ["spaces", "True", "3"]


def test_without_spaces_the_app_is_the_same(tmp_path):
    (tmp_path / "spaces.py").write_text("raise ImportError\n")
    assert start(LOOK, folder=tmp_path).split()[1:] == ["False", "3"]


def test_with_the_real_package_the_app_starts():
    pytest.importorskip("spaces")
    assert start(LOOK).split() == ["spaces", "False", "3"]


def test_nothing_is_compiled():
    for path in (ROOT / "app.py", *(ROOT / "ddpm").glob("*.py")):
        assert "torch.compile" not in path.read_text()


def test_what_is_uploaded_is_what_the_app_needs():
    command = re.search(r"hf upload.*?(?=\n\n)", DEPLOY, re.DOTALL)[0]
    words = shlex.split(command.replace("\n", " "))
    patterns = {name: [words[k + 1] for k, word in enumerate(words) if word == f"--{name}"] for name in ("include", "exclude")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    sent = set(filter_repo_objects(tracked, allow_patterns=patterns["include"], ignore_patterns=patterns["exclude"]))
    assert sent == {name for name in tracked if name.startswith("ddpm/")} | {"app.py", "README.md", "requirements.txt", "LICENSE"}
    assert words[words.index("--type") + 1] == "space"


def test_the_workflow_needs_no_stored_secret_and_puts_nothing_typed_into_a_command():
    jobs = yaml.safe_load(DEPLOY)["jobs"]
    assert "secrets." not in DEPLOY and "HF_TOKEN" not in DEPLOY
    for job in jobs.values():
        assert job["permissions"]["id-token"] == "write" and "HF_OIDC_RESOURCE" in job["env"]
        assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]
    assert yaml.safe_load(DEPLOY)["permissions"] == {"contents": "read"}
