"""python -m ddpm.browser.build: kernels.wasm from kernels.c, for those who change kernels.c.

The page takes the bytes that are there. Needs a C compiler: `pip install -r
tests/requirements.txt` brings one (ziglang), in the version that made the bytes."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ..files import write_atomic

SOURCE = Path(__file__).parent / "kernels.c"
_FLAGS = ["-target", "wasm32-freestanding", "-mcpu=generic+simd128", "-O3", "-fno-math-errno"]
_FLAGS += ["-nostdlib", "-Wl,--no-entry", "-Wl,--import-memory", "-Wl,--strip-all"]
_FLAGS += ["-Wl,-z,stack-size=8192"]  # the first 64 kB are the kernels' own: unet.js


def build() -> bytes:
    """The compiled kernels, the same bytes on any machine.

    Raises OSError with the compiler's words if it is missing or refuses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", str(out), str(SOURCE)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise OSError(f"{SOURCE.name} was not compiled: {made.stderr.strip()}")
        return out.read_bytes()


if __name__ == "__main__":
    try:
        write_atomic(SOURCE.with_suffix(".wasm"), build())
    except OSError as error:
        sys.exit(f"ddpm.browser.build: {error}")
