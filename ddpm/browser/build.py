"""python -m ddpm.browser.build: the .wasm files from kernels.c, for those who change it.

The page takes the bytes that are there. Needs a C compiler: `pip install -r
tests/requirements.txt` brings one (ziglang), in the version that made the bytes."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ..files import write_atomic

SOURCE = Path(__file__).parent / "kernels.c"
_FLAGS = ["-target", "wasm32-freestanding", "-O3", "-fno-math-errno"]
_FLAGS += ["-nostdlib", "-Wl,--no-entry", "-Wl,--import-memory", "-Wl,--strip-all"]
_FLAGS += ["-Wl,-z,stack-size=8192"]  # the first 64 kB are the kernels' own: unet.js
VARIANTS = {"kernels.wasm": "simd128", "fused.wasm": "simd128+relaxed_simd"}


def build(name: str) -> bytes:
    """The compiled kernels, a key of VARIANTS: the same bytes on any machine.

    Raises OSError with the compiler's words if it is missing or refuses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / name
        flags = [*_FLAGS, f"-mcpu=generic+{VARIANTS[name]}", "-o", str(out)]
        command = [sys.executable, "-m", "ziglang", "cc", *flags, str(SOURCE)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise OSError(f"{SOURCE.name} was not compiled: {made.stderr.strip()}")
        return out.read_bytes()


if __name__ == "__main__":
    try:
        for name in VARIANTS:
            write_atomic(SOURCE.with_name(name), build(name))
    except OSError as error:
        sys.exit(f"ddpm.browser.build: {error}")
