"""Writing files so that nothing is ever half written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".*.tmp"  # what a process that was killed while it wrote leaves beside the target


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    If two processes write the same file at once, one of them wins. Raises OSError that names the
    file; on a full disk, say, the old content stays.
    """
    path = Path(path)
    with _beside(path) as beside:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises OSError if `write_atomic` could not write there: before the work, rather than after.

    Existing files are not touched.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, never raises
        raise OSError(f"cannot write {path}: it is a folder")
    with _beside(path) as beside:
        beside.touch(exist_ok=False)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A new name in path's folder; whatever has this name in the end is deleted."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield beside
    except OSError as error:
        there = os.path.isdir(path.parent)
        why = (error.strerror or error) if there else f"there is no folder {path.parent}"
        raise OSError(f"cannot write {path}: {why}") from error
    finally:
        with suppress(OSError):  # after a success the name is gone
            beside.unlink()
