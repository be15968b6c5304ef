"""Writing files so that nothing is ever half written."""

import os
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new, never a part
    of it.

    Raises OSError that names the file; a full disk, say, costs nothing that was there before.
    """
    path = Path(path)
    beside = path.with_name(
        f".{path.name}.tmp"
    )  # always the same: what a killed process left is used again
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
