"""Checkpoints: all that a resumed run needs to end with the same weights as one that never stopped.

They are for this program alone; what others get is made by `publish/artefact.py`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ddpm.files import write_atomic

from .loop import Trainer

CHECKPOINT = "checkpoint.safetensors"


class Header(NamedTuple):
    """settings: the command-line options of the run. seconds: wall time spent so far. step: updates
    done."""

    settings: dict[str, Any]
    seconds: float
    step: int


def save_checkpoint(run: Path, trainer: Trainer, settings: dict[str, Any], seconds: float) -> None:
    """Writes run/checkpoint.safetensors, whole or not at all.

    Raises OSError, or FloatingPointError if a weight is NaN or infinite. Then the old checkpoint is
    still there."""
    tensors = {name: value.cpu().contiguous() for name, value in trainer.tensors().items()}
    bad = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
    if bad:
        raise FloatingPointError(f"{bad} contains NaN or infinite values (step {trainer.step})")
    tensors["generator"] = trainer.generator.get_state()
    header = Header(settings, seconds, trainer.step)
    write_atomic(run / CHECKPOINT, save(tensors, metadata={"header": json.dumps(header._asdict())}))


def read_header(run: Path) -> Header | None:
    """The header of the checkpoint in run; None if there is no checkpoint. Raises ValueError if it
    cannot be read."""
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


def load_checkpoint(run: Path, trainer: Trainer) -> Header:
    """Puts trainer where it was when the checkpoint was written, and returns its header. Raises
    ValueError if there is no checkpoint, or if it belongs to another network."""
    path, header = run / CHECKPOINT, read_header(run)
    if header is None:
        raise ValueError(f"there is no {path}")
    live = trainer.tensors()
    with safe_open(path, "pt") as file:
        names = set(file.keys()) - {"generator"}
        found = {name: file.get_slice(name).get_shape() for name in names}
        if found != {name: list(value.shape) for name, value in live.items()}:
            raise ValueError(f"{path} belongs to another network")
        try:
            trainer.generator.set_state(file.get_tensor("generator"))
        except RuntimeError as error:
            raise ValueError(
                f"{path} was made on another kind of device: resume it there (--device)"
            ) from error
        for name, value in live.items():
            value.copy_(file.get_tensor(name))
    trainer.step = header.step
    return header
