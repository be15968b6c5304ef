"""Weights on disk and on the Hub: find them, verify them, load them; and lay them out the same way.

A model is a folder (or a Hub repo) with `config.json` and `model.safetensors`. Nothing in it is trusted:
every number is bounded before a network is built, names and shapes must agree exactly before memory is taken,
the sha256 in the config must match, and no other file is ever opened, least of all a pickle.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .schedule import Schedule
from .unet import UNet

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BUILT_IN = Path(__file__).parent / "pretrained"
_DTYPES = ("F32", "F16", "BF16")
ARCHITECTURE = ("channels", "size", "classes", "width", "mults", "blocks", "attention", "prediction")


def load(source: str | os.PathLike[str], revision: str | None = None) -> tuple[UNet, dict[str, Any]]:
    """The network stored at source, in eval mode, on the CPU, float32; and all that its config.json says.

    Args:
        source: the name of built-in weights ("mnist"), else a folder, else a Hub repo "NAMESPACE/NAME".
        revision: branch, tag or commit, for a Hub repo only.

    Raises ValueError or OSError with one line that says what is wrong with which file, and what to do.
    """
    config_path, weights_path = _locate(str(source), revision)
    config = _read_config(config_path)
    model = _build(config, config_path)
    _check_class_names(config, config_path)
    load_weights(model, weights_path, config["sha256"])
    return model.eval().requires_grad_(False), config


def files(model: UNet, **facts: Any) -> dict[str, bytes]:
    """The files that `load` reads, by name. facts (data set, class names, …) go into config.json beside the rest."""
    weights = save({name: p.detach().float().cpu().contiguous() for name, p in model.state_dict().items()})
    config = {name: getattr(model, name) for name in ARCHITECTURE}
    config |= {"schedule": asdict(model.schedule), **facts, "sha256": hashlib.sha256(weights).hexdigest()}
    return {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), WEIGHTS: weights}


def _locate(source: str, revision: str | None) -> tuple[Path, Path]:
    """Paths of config and weights, downloaded (or found in the cache) where they are on the Hub."""
    built_in = sorted(path.name for path in BUILT_IN.iterdir() if path.is_dir()) if BUILT_IN.is_dir() else []
    choices = f"built-in weights ({', '.join(built_in)}), a folder, or a Hub repo NAMESPACE/NAME"
    folder = BUILT_IN / source if source in built_in else Path(source)
    if source and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision {revision!r} was given, but {source} is not a Hub repo")
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}: no model is in it, or a run that is not finished")
        return folder / CONFIG, folder / WEIGHTS
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f"no model at {source!r}; valid are {choices}")
    try:
        config = hf_hub_download(source, CONFIG, revision=revision)
        # Both files from one commit, even if the branch moves on in between.
        commit = revision if revision and re.fullmatch("[0-9a-f]{40}", revision) else Path(config).parent.name
        return Path(config), Path(hf_hub_download(source, WEIGHTS, revision=commit))
    except LocalEntryNotFoundError as error:
        raise OSError(f"{source} is not in the cache and the Hub cannot be reached: check the connection") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{source} on the Hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"no folder {source}, and no Hub repo that is open to you (a private one needs `hf auth login`)") from error
    except EntryNotFoundError as error:
        raise ValueError(f"{source} on the Hub lacks {CONFIG} or {WEIGHTS}: no model of this kind") from error
    except HFValidationError as error:
        raise ValueError(f"{source!r} is not a valid Hub repo name; valid are {choices}") from error
    except (HfHubHTTPError, HTTPError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OSError(f"the Hub did not give {source}: {reason}") from error


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > 1_000_000:
        raise ValueError(f"{path}: larger than 1 MB, not a model's configuration")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must hold an object, not {type(config).__name__}")
    missing = [name for name in (*ARCHITECTURE, "schedule", "sha256") if name not in config]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    return config


def _build(config: dict[str, Any], path: Path) -> UNet:
    """The network that config describes, without memory for its weights. UNet and Schedule bound each value."""
    try:
        schedule = Schedule(**config["schedule"])
        with torch.device("meta"):
            return UNet(**{name: config[name] for name in ARCHITECTURE}, schedule=schedule)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _check_class_names(config: dict[str, Any], path: Path) -> None:
    names = config.get("class_names")
    if names is not None and not (
        isinstance(names, list) and len(names) == config["classes"] == len(set(map(str, names)))
        and all(isinstance(name, str) and 0 < len(name) <= 100 for name in names)
    ):
        raise ValueError(f"{path}: class_names must be {config['classes']} different texts, or be left out")


def load_weights(model: UNet, path: Path, sha256: str) -> None:
    """Strictly: the same names and shapes, or nothing. Memory is taken only once the file proved to hold them."""
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            for what, names in (("lacks", expected.keys() - found), ("has the unknown", found.keys() - expected)):
                if names:
                    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                    raise ValueError(f"{path}: {what} tensor {min(names)}{more}")
            for name, shape in expected.items():
                if found[name] != shape:
                    raise ValueError(f"{path}: {name} is {list(found[name])}, config.json wants {list(shape)}")
                if (dtype := slices[name].get_dtype()) not in _DTYPES:
                    raise ValueError(f"{path}: {name} is stored as {dtype}; valid are {', '.join(_DTYPES)}")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != sha256:
                raise ValueError(f"{path}: damaged or not the file that config.json describes (its sha256 differs)")
            weights = {name: file.get_tensor(name).float() for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers")
    model.load_state_dict(weights, strict=True, assign=True)
