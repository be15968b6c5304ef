"""Checkpoints: all that a resumed run needs to end with the same weights as one that never stopped.

They are for this program alone; what others get is made by `publish/artefact.py`.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ddpm.files import TEMPORARY, write_atomic

from .loop import Trainer

if sys.platform != "win32":  # there other processes are not kept out
    import fcntl

CHECKPOINT = "checkpoint.safetensors"


class Header(NamedTuple):
    """What a checkpoint says of its run.

    settings: the command-line options of the run. seconds: wall time spent so far. step: updates
    done.
    """

    settings: dict[str, Any]
    seconds: float
    step: int


def save_checkpoint(run: Path, trainer: Trainer, settings: dict[str, Any], seconds: float) -> None:
    """Writes run/checkpoint.safetensors, whole or not at all.

    Raises OSError, or FloatingPointError if a weight is NaN or infinite. Then the old checkpoint is
    still there.
    """
    tensors = {name: value.cpu().contiguous() for name, value in trainer.tensors().items()}
    bad = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
    if bad:
        raise FloatingPointError(f"{bad} contains NaN or infinite values (step {trainer.step})")
    tensors["generator"] = trainer.generator.get_state()
    header = json.dumps(Header(settings, seconds, trainer.step)._asdict())
    metadata = {"header": header, "sha256": _digest(header, tensors)}
    write_atomic(run / CHECKPOINT, save(tensors, metadata=metadata))


def _digest(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype}".encode() + value.numpy().tobytes())
    return digest.hexdigest()


def read_header(run: Path) -> Header | None:
    """The header of the checkpoint in run; None if there is no checkpoint.

    Raises ValueError if it cannot be read.
    """
    path = run / CHECKPOINT
    if not path.exists():
        return None
    try:
        # not "pt", which opens the file twice: it may be replaced in between
        with safe_open(path, "np") as file:
            return Header(**json.loads(file.metadata()["header"]))
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or not a checkpoint of this program ({error})"
        ) from error


@contextmanager
def alone(run: Path, header: Header | None) -> Iterator[None]:
    """Makes the run's folder, and locks it until this process ends, even if it crashes.

    Raises ValueError if another process has it, or wrote into it after header was read. What a
    killed process left half written is cleared away.
    """
    run.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    folder = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process trains in {run}: wait for it, or choose another --out"
            ) from error
        except OSError:  # a file system that cannot lock folders
            pass
        if read_header(run) != header:
            raise ValueError(f"another process has just trained in {run}: go on with --resume")
        for left in run.glob(TEMPORARY):
            left.unlink()
        yield
    finally:
        os.close(folder)


def load_checkpoint(run: Path, trainer: Trainer) -> Header:
    """Puts trainer where it was when the checkpoint was written, and returns its header.

    Raises ValueError if there is no checkpoint, or if it is damaged or of another network.
    """
    path, header = run / CHECKPOINT, read_header(run)
    if header is None:
        raise ValueError(f"there is no {path}")
    live = trainer.tensors()
    with safe_open(path, "pt") as file:
        names = set(file.keys()) - {"generator"}
        found = {name: file.get_slice(name).get_shape() for name in names}
        if found != {name: list(value.shape) for name, value in live.items()}:
            raise ValueError(f"{path} belongs to another network")
        tensors = {name: file.get_tensor(name) for name in (*live, "generator")}
        told = file.metadata()
        # those of earlier versions have none
        if told.get("sha256", "") not in ("", _digest(told["header"], tensors)):
            raise ValueError(f"{path} is damaged (its sha256 differs)")
        try:
            trainer.generator.set_state(tensors["generator"])
        except RuntimeError as error:
            raise ValueError(
                f"{path} was made on another kind of device: resume it there (--device)"
            ) from error
        for name, value in live.items():
            value.copy_(tensors[name])
    trainer.step = header.step
    return header
