"""What a Space gets, and whether the app starts there: with the package `spaces`, without it, and
as on ZeroGPU."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ddpm import Pipeline
from tests.helpers import distance, free_port
from tests.hub_server import TOKEN, HubServer

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
DEPLOY = (ROOT / ".github/workflows/deploy.yml").read_text()


def start(code, *, folder=None, **env):
    """Runs code in a new process; folder holds packages that are found first."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(folder or ""),
            "GRADIO_SERVER_PORT": str(free_port()),
            **env,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """if True:
    import sys
    import app
    # In the order of their import.
    first = next(name for name in sys.modules if name in ("spaces", "torch", "gradio"))
    print(first, getattr(app._computed, "on_gpu", False))
    told, *_, film = app.generate(count=1, steps=1, seed=0, film=True)
    print(len(film["walks"][0]["frames"]))
"""


def test_spaces_is_imported_before_torch_and_decorates_one_function(tmp_path):
    """A stand-in for the package, for machines that lack it: what it must see is that it came
    first."""
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\n"
        "def GPU(task):\n    task.on_gpu = True\n    return task\n"
    )
    assert start(LOOK, folder=tmp_path).split() == ["spaces", "True", "2"]


def test_without_spaces_the_app_is_the_same(tmp_path):
    (tmp_path / "spaces.py").write_text("raise ImportError\n")
    assert start(LOOK, folder=tmp_path).split()[1:] == ["False", "2"]


class ZeroGPU(BaseHTTPRequestHandler):
    """What a ZeroGPU machine answers to the package `spaces`."""

    def do_POST(self):
        self.server.asked.append(self.path.split("?")[0])
        body = json.dumps(
            {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "t"}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ON_ZERO = """if True:
    import app
    import spaces
    # The one thing that only a GPU can do.
    spaces.zero.torch.init = spaces.zero.torch.move = lambda *_, **__: None
    page = app.build()
    page.launch(**app.launch_settings(), prevent_thread_lock=True, quiet=True)
    from gradio_client import Client
    film, seed = Client(page.local_url, verbose=False).predict(
        "any", 4, 5, 2, "unipc2", "best", 0, 0, api_name="/generate_film"
    )
    import os
    from tests.helpers import decode
    decode(film["walks"][0]["frames"][-1]["x"]).save(os.environ["DRAWN"])
"""


def test_as_on_zerogpu_the_app_reports_for_duty_and_draws_in_another_process(tmp_path):
    pytest.importorskip("spaces")
    server = ThreadingHTTPServer(("127.0.0.1", 0), ZeroGPU)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        start(
            ON_ZERO,
            SPACES_ZERO_GPU="true",
            SPACES_ZERO_DEVICE_API_URL=f"http://127.0.0.1:{server.server_port}",
            GRADIO_ANALYTICS_ENABLED="0",
            DRAWN=str(tmp_path / "x.png"),
        )
    finally:
        server.shutdown()
        server.server_close()
    assert server.asked == ["/startup-report", "/schedule", "/allow", "/release"]
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(5, 9), steps=2).sheet(scale=1)
    with Image.open(tmp_path / "x.png") as drawn:
        assert distance(drawn, ours) <= 1


def test_nothing_is_compiled():
    for path in (ROOT / "app.py", *(ROOT / "ddpm").rglob("*.py")):
        assert "torch.compile" not in path.read_text()


def test_the_upload_of_the_workflow_sends_what_the_app_needs_and_takes_back_what_is_gone(tmp_path):
    """The command as it stands in deploy.yml, run by a shell in a fresh checkout, with the real
    client."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for name in tracked:
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).symlink_to(ROOT / name)
    command = " ".join(re.search(r"hf upload.*?(?=\n\n)", DEPLOY, re.DOTALL)[0].split())
    with HubServer() as server:
        server.commit("ada/space", {"ddpm/old.py": b"gone", "mine.txt": b"stays"})
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path / "checkout",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HF_ENDPOINT": server.url,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
                "SPACE": "ada/space",
                "COMMIT": "abc",
            },
        )
        assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr
        assert server.files("ada/space").keys() == {
            name for name in tracked if name.startswith("ddpm/")
        } | {"app.py", "README.md", "requirements.txt", "LICENSE", ".gitattributes", "mine.txt"}
        assert any(line.startswith("POST /api/spaces/ada/space/commit/") for line in server.asked)


def test_the_workflow_needs_no_stored_secret_and_puts_nothing_typed_into_a_command():
    jobs = yaml.safe_load(DEPLOY)["jobs"]
    assert "secrets." not in DEPLOY and "HF_TOKEN" not in DEPLOY
    for job in jobs.values():
        assert job["permissions"]["id-token"] == "write" and "HF_OIDC_RESOURCE" in job["env"]
        assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]
    assert yaml.safe_load(DEPLOY)["permissions"] == {"contents": "read"}
