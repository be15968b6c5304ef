"""python -m ddpm.browser.build: kernels.wasm from kernels.c. For those who change kernels.c; the page
takes the bytes that are there. Needs a C compiler for WebAssembly, `pip install ziglang==0.17.1`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ..files import write_atomic

SOURCE = Path(__file__).parent / "kernels.c"
_FLAGS = (
    "-target wasm32-freestanding -mcpu=generic+simd128 -O3 -fno-math-errno -nostdlib -Wl,--no-entry "
    "-Wl,--import-memory -Wl,-z,stack-size=8192 -Wl,--strip-all"
).split()


def build() -> bytes:
    """The compiled kernels: the same bytes on any machine. Raises OSError with the compiler's words if
    it is missing or refuses."""
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
