"""Weights on disk and on the Hub: find them, verify them, load them; and lay them out the same way.

A model is a folder (or a Hub repo) with `config.json` and `model.safetensors`. Nothing in it is
trusted: every number is bounded before a network is built, names and shapes must agree exactly
before memory is taken, the sha256 in the config must match, and no other file is ever opened, least
of all a pickle."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
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
_CONFIG_BYTES = _HEADER_BYTES = (
    1_000_000  # the most that config.json, and the names in a safetensors file, may take
)
ARCHITECTURE = (
    "channels",
    "size",
    "classes",
    "width",
    "mults",
    "blocks",
    "attention",
    "prediction",
)


class Loaded(NamedTuple):
    """A network in eval mode, on the CPU, float32; all that its config.json says; its commit, if it
    is on the Hub."""

    model: UNet
    config: dict[str, Any]
    commit: str | None


def load(source: str | os.PathLike[str], revision: str | None = None) -> Loaded:
    """The network stored at source.

    Args:
        source: the name of built-in weights ("mnist"), else a folder, else a Hub repo
            "NAMESPACE/NAME".
        revision: branch, tag or commit, for a Hub repo only. A whole commit that is in the cache
            costs no request.

    Raises ValueError or OSError with one line that says what is wrong with which file, and what to
    do."""
    find, on_hub = _finder(str(source), revision)
    config_path = find(CONFIG, _CONFIG_BYTES)
    config = _read_config(config_path)
    model = _build(config, config_path)
    _check_classes(config, config_path)
    _check_history(config, config_path)
    needed = sum(
        4 * p.numel() for p in model.state_dict().values()
    )  # nothing larger is even downloaded
    weights_path = find(WEIGHTS, needed + _HEADER_BYTES)
    try:
        load_weights(model, weights_path, config["sha256"])
    except (
        ValueError
    ) as error:  # it stays in the cache: a file that was damaged on its way must be fetched again
        raise ValueError(
            f"{error}; to download it again, delete it" if on_hub else str(error)
        ) from error
    # The cache keeps each commit in a folder of its name.
    return Loaded(
        model.eval().requires_grad_(False), config, config_path.parent.name if on_hub else None
    )


def files(model: UNet, **facts: Any) -> dict[str, bytes]:
    """The files that `load` reads, by name. facts (data set, class names, history, …) go into
    config.json too."""
    weights = save(
        {name: p.detach().float().cpu().contiguous() for name, p in model.state_dict().items()}
    )
    config = {name: getattr(model, name) for name in ARCHITECTURE}
    config |= {
        "schedule": asdict(model.schedule),
        **facts,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    return {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), WEIGHTS: weights}


def _finder(source: str, revision: str | None) -> tuple[Callable[[str, int], Path], bool]:
    """A function (name, most bytes) -> path of that file of source; and whether it downloads from
    the Hub."""
    built_in = (
        sorted(path.name for path in BUILT_IN.iterdir() if path.is_dir())
        if BUILT_IN.is_dir()
        else []
    )
    choices = f"built-in weights ({', '.join(built_in)}), a folder, or a Hub repo NAMESPACE/NAME"
    folder = BUILT_IN / source if source in built_in else Path(source)
    if source and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision {revision!r} was given, but {source} is not a Hub repo")

        def in_folder(name: str, most: int) -> Path:
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder} has no {name}: no model is in it, or a run that is not finished"
                )
            return folder / name

        return in_folder, False
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f"no model at {source!r}; valid are {choices}")
    commit = revision

    def on_hub(name: str, most: int) -> Path:
        nonlocal commit
        path = _download(source, name, commit, most)
        commit = (
            path.parent.name
        )  # both files from one commit, even if the branch moves on in between
        return path

    return on_hub, True


def _download(repo: str, name: str, revision: str | None, most: int) -> Path:
    """The file in the cache, put there first if need be, unless it has more bytes than `most`."""
    try:
        cached = (
            try_to_load_from_cache(repo, name, revision=revision) if _is_commit(revision) else None
        )
        if not isinstance(cached, str):
            size = hf_hub_download(repo, name, revision=revision, dry_run=True).file_size
            if size is None or size > most:
                raise ValueError(
                    f"{repo}: {name} has {size or 'unknown'} bytes, it may have {most:,}; not downloaded"
                )
            cached = hf_hub_download(repo, name, revision=revision)
        return Path(cached)
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{repo} is not in the cache and the Hub cannot be reached: check the connection"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repo} on the Hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"no folder {repo}, and no Hub repo that is open to you (a private one needs `hf auth login`)"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(
            f"{repo} on the Hub lacks {CONFIG} or {WEIGHTS}: no model of this kind"
        ) from error
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is not a valid Hub repo name") from error
    except (
        HfHubHTTPError,
        HTTPError,
        RuntimeError,
    ) as error:  # RuntimeError: from hf_xet, which is not Python
        raise OSError(
            f"the Hub did not give {repo}: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _CONFIG_BYTES:
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
    """The network that config describes, without memory for its weights. UNet and Schedule bound
    each value."""
    try:
        schedule = Schedule(**config["schedule"])
        with torch.device("meta"):
            return UNet(**{name: config[name] for name in ARCHITECTURE}, schedule=schedule)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _check_classes(config: dict[str, Any], path: Path) -> None:
    names, counts = config.get("class_names"), config.get("class_counts")
    if names is not None and not (
        isinstance(names, list)
        and len(names) == config["classes"] == len(set(map(str, names)))
        and all(isinstance(name, str) and 0 < len(name) <= 100 for name in names)
    ):
        raise ValueError(
            f"{path}: class_names must be {config['classes']} different texts, or be left out"
        )
    if counts is not None and not (
        isinstance(counts, list)
        and len(counts) == config["classes"]
        and all(type(count) is int and 0 <= count <= 10**12 for count in counts)
        and any(counts)
    ):
        raise ValueError(
            f"{path}: class_counts must be {config['classes']} numbers of images, or be left out"
        )


def _check_history(config: dict[str, Any], path: Path) -> None:
    """What made the weights: it goes on into the cards of all that start from them, as commands and
    sums."""
    history = config.get("history")
    if history is not None and not (
        isinstance(history, dict)
        and isinstance(history.get("commands"), list)
        and all(
            isinstance(line, str)
            and line.isprintable()
            and line.startswith(("python ", "torchrun "))
            for line in history["commands"]
        )
        and type(history.get("images")) is int
        and 0 <= history["images"] <= 10**15
        and type(history.get("minutes")) in (int, float)
        and 0 <= history["minutes"] <= 10**9  # NaN compares false
    ):
        raise ValueError(
            f"{path}: history must hold commands (lines that start python or torchrun), images and "
            "minutes, or be left out"
        )


def load_weights(model: UNet, path: Path, sha256: str) -> None:
    """Strictly: the same names and shapes, or nothing. Memory is taken only once the file proved to
    hold them."""
    expected = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            for what, names in (
                ("lacks", expected.keys() - found),
                ("has the unknown", found.keys() - expected),
            ):
                if names:
                    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                    raise ValueError(f"{path}: {what} tensor {min(names)}{more}")
            for name, shape in expected.items():
                if found[name] != shape:
                    raise ValueError(
                        f"{path}: {name} is {list(found[name])}, config.json wants {list(shape)}"
                    )
                if (dtype := slices[name].get_dtype()) not in _DTYPES:
                    raise ValueError(
                        f"{path}: {name} is stored as {dtype}; valid are {', '.join(_DTYPES)}"
                    )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != sha256:
                raise ValueError(
                    f"{path}: damaged or not the file that config.json describes (its sha256 differs)"
                )
            weights = {name: file.get_tensor(name).float() for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers")
    model.load_state_dict(weights, strict=True, assign=True)
