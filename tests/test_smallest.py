"""The smallest environment: no MCP package, no ONNX Runtime, no spaces; what requirements.txt asks
for is enough."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = """if True:
    import sys
    for name in ("mcp", "onnxruntime", "spaces"):
        sys.modules[name] = None  # as if it were not installed
    import app
    from ddpm.__main__ import main as draw
    from gradio_client import Client
    options = ["--count", "1", "--steps", "1", "--seed", "0", "--out", sys.argv[1], "--verbose"]
    assert draw(options) == 0
    page = app.build()
    page.launch(
        **app.launch_settings(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1"
    )
    film, seed, *_ = Client(page.local_url, verbose=False).predict(
        "any", 1, 3, 1, "unipc2", "best", 0, 0, api_name="/generate_film"
    )
    assert seed == 3 and len(film["walks"][0]["frames"]) == 2
    print("served")
    page.close()
"""


@pytest.mark.slow
def test_the_page_and_the_command_line_need_neither_mcp_nor_onnxruntime_nor_spaces(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "0"},
    )
    assert done.returncode == 0 and "served" in done.stdout, done.stderr[-3000:]
    assert "ONNX Runtime is not installed" in done.stdout
    assert "Traceback" not in done.stderr and "MCP" not in done.stdout + done.stderr
    assert (tmp_path / "a.png").stat().st_size
