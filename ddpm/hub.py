"""Weights on disk and on the Hub: find, verify and load them, and lay them out to be published.

A model is a folder (or a Hub repo) with `config.json` and `model.safetensors`. Nothing in it is
trusted: every number is bounded before a network is built, every text is short and printable, names
and shapes must agree exactly before memory is taken, the sha256 in the config must match, and no
other file is ever opened, least of all a pickle.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library; which one that is, only huggingface_hub knows
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
ANY, NONE = "any", "none"  # what page and command line take in place of the name of a class
_DTYPES = ("F32", "F16", "BF16")
_CONFIG_BYTES = _HEADER_BYTES = 1_000_000  # the most for config.json, and for a file's tensor names


class Loaded(NamedTuple):
    """A network that was loaded, its config.json, and its commit.

    model: float32, on the CPU, in eval mode. config: all that config.json holds. commit: of the Hub
    repo; None for a folder.
    """

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
    do.
    """
    place = _place(str(source), revision)
    config_path = place.find(CONFIG, _CONFIG_BYTES)
    config = _read_config(config_path)
    model = _build(config, config_path)
    _check_texts(config, config_path)
    _check_counts(config, config_path)
    _check_history(config, config_path)
    _check_distilled(config, model.schedule.T, config_path)
    needed = sum(4 * p.numel() for p in model.state_dict().values())
    weights_path = place.find(WEIGHTS, needed + _HEADER_BYTES)
    try:
        load_weights(model, weights_path, config["sha256"])
    except ValueError as error:
        raise ValueError(f"{error}{place.advice}") from error
    return Loaded(model.eval().requires_grad_(False), config, place.commit)


def files(model: UNet, **facts: Any) -> dict[str, bytes]:
    """The files that `load` reads, as bytes by name.

    facts (data set, class names, history, …) go into config.json too.
    """
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


class _Folder:
    """A model in a folder on this machine."""

    commit, advice = None, ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str, most: int) -> Path:
        """The path of the file. Raises an error if it is missing or has more than `most` bytes."""
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path} has no {name}: no model is in it, or a run that is not finished"
            )
        if (size := path.stat().st_size) > most:
            raise ValueError(f"{path} has {size:,} bytes, it may have {most:,}")
        return path


class _Repo:
    """A model on the Hub; `commit` is known once the first file has been downloaded."""

    # A file that was damaged on its way stays in the cache.
    advice = "; to download it again, delete it"

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self.revision = name, revision
        self.commit: str | None = None

    def find(self, name: str, most: int) -> Path:
        """The path of the file in the cache, downloaded if need be.

        Raises an error if it has more than `most` bytes. All files are of one commit, even if the
        branch moves on in between.
        """
        path = _download(self.name, name, self.commit or self.revision, most)
        self.commit = path.parent.name  # the cache keeps each commit in a folder of its name
        return path.resolve()  # not the link to it: to delete the link alone would not help


def _place(source: str, revision: str | None) -> _Folder | _Repo:
    """Where source is. Raises ValueError if it is no built-in name, folder or valid repo name."""
    built_in = (
        sorted(path.name for path in BUILT_IN.iterdir() if path.is_dir())
        if BUILT_IN.is_dir()
        else []
    )
    folder = BUILT_IN / source if source in built_in else Path(source)
    if source and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision {revision!r} was given, but {source} is not a Hub repo")
        return _Folder(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f"no model at {source!r}; valid are built-in weights ({', '.join(built_in)}), "
            "a folder, or a Hub repo NAMESPACE/NAME"
        )
    return _Repo(source, revision)


def _download(repo: str, name: str, revision: str | None, most: int) -> Path:
    """The path of the file in the cache, downloaded if need be; it may have `most` bytes."""
    try:
        cached = (
            try_to_load_from_cache(repo, name, revision=revision) if _is_commit(revision) else None
        )
        if not isinstance(cached, str):
            size = hf_hub_download(repo, name, revision=revision, dry_run=True).file_size
            if size is None or size > most:
                raise ValueError(
                    f"{repo}: {name} has {size or 'unknown'} bytes, it may have {most:,}; "
                    "not downloaded"
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
            f"no folder {repo}, and no Hub repo that is open to you "
            "(a private one needs `hf auth login`)"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(
            f"{repo} on the Hub lacks {CONFIG} or {WEIGHTS}: no model of this kind"
        ) from error
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is not a valid Hub repo name") from error
    # RuntimeError: from hf_xet, which is not Python.
    except (HfHubHTTPError, HTTPError, RuntimeError) as error:
        raise OSError(
            f"the Hub did not give {repo}: {one_line(error) or type(error).__name__}"
        ) from error


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def _read_config(path: Path) -> dict[str, Any]:
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
    """The network that config describes, without memory for its weights.

    UNet and Schedule check the bounds of each value.
    """
    try:
        schedule = Schedule(**config["schedule"])
        with torch.device("meta"):
            return UNet(**{name: config[name] for name in ARCHITECTURE}, schedule=schedule)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def one_line(words: object) -> str:
    """What a library says of an untrusted file, in one line of at most 300 printable characters."""
    line = " ".join(str(words).split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= 300 else f"{line[:299]}…"


def is_text(text: object, most: int) -> bool:
    """Whether text can be shown anywhere: 1 to `most` printable characters, no space at either end.

    Not printable are line ends, lone surrogates and bidirectional control characters.
    """
    return (
        isinstance(text, str)
        and 0 < len(text) <= most
        and text.isprintable()
        and text == text.strip()
    )


def check_class_names(names: Sequence[object]) -> None:
    """Raises ValueError unless these class names can be shown and told apart.

    Page, card and command line show them. They must differ from each other and from the words that
    stand for no class.
    """
    for name in names:
        if not is_text(name, 100):
            raise ValueError(
                f"a class cannot be called {one_line(ascii(name))}: names are 1 to 100 printable "
                "characters, without spaces at the ends"
            )
        if str(name).casefold() in (ANY, NONE):
            raise ValueError(
                f"a class cannot be called {name}: this word means that no class is asked for"
            )
    if len(set(names)) < len(names):
        raise ValueError("two classes have the same name")


def _check_texts(config: dict[str, Any], path: Path) -> None:
    names, dataset = config.get("class_names"), config.get("dataset")
    if names is not None:
        if not isinstance(names, list) or len(names) != config["classes"]:
            raise ValueError(
                f"{path}: class_names must be {config['classes']} texts, or be left out"
            )
        try:
            check_class_names(names)
        except ValueError as error:
            raise ValueError(f"{path}: class_names: {error}") from error
    if dataset is not None and not is_text(dataset, 100):
        raise ValueError(f"{path}: dataset must be 1 to 100 printable characters, or be left out")


def _check_counts(config: dict[str, Any], path: Path) -> None:
    counts = config.get("class_counts")
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
    """Checks the record of how the weights were made: commands, images and minutes.

    Models that are trained further from these weights copy it into their cards.
    """
    history = config.get("history")
    if history is not None and not (
        isinstance(history, dict)
        and isinstance(history.get("commands"), list)
        and len(history["commands"]) <= 100
        and all(
            is_text(line, 2000) and line.startswith(("python ", "torchrun "))
            for line in history["commands"]
        )
        and type(history.get("images")) is int
        and 0 <= history["images"] <= 10**15
        and type(history.get("minutes")) in (int, float)
        and 0 <= history["minutes"] <= 10**9  # NaN compares false
    ):
        raise ValueError(
            f"{path}: history must hold commands (up to 100 lines that start python or torchrun, "
            "of up to 2000 characters), images and minutes, or be left out"
        )


def _check_distilled(config: dict[str, Any], T: int, path: Path) -> None:
    """Checks what a distilled model says of itself: its teacher, and the times of its walks.

    walks: by number of steps, the times at which the network may be asked, falling from at most T.
    """
    distilled = config.get("distilled")
    if distilled is not None and not (
        isinstance(distilled, dict)
        and isinstance(teacher := distilled.get("teacher"), str)
        and re.fullmatch("[0-9a-f]{64}", teacher)
        and isinstance(walks := distilled.get("walks"), dict)
        and 1 <= len(walks) <= 10
        and all(_is_walk(steps, times, T) for steps, times in walks.items())
    ):
        raise ValueError(
            f"{path}: distilled must hold teacher (a sha256) and walks (for each number of steps, "
            f"1 to 100, as many times, falling from at most {T} to 1), or be left out"
        )


def _is_walk(steps: str, times: object, T: int) -> bool:
    return (
        isinstance(times, list)
        and 1 <= len(times) <= 100
        and steps == str(len(times))
        and all(type(t) in (int, float) and 1 <= t <= T for t in times)  # NaN compares false
        and all(later < earlier for earlier, later in pairwise(times))
    )


def load_weights(model: UNet, path: Path, sha256: str) -> None:
    """Loads the weights in a safetensors file into model, if all names and shapes are the same.

    Memory is taken only after the file's header was checked. Raises ValueError that names the file
    and what is wrong with it.
    """
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
                    raise ValueError(f"{path}: {what} tensor {one_line(min(names))}{more}")
            for name, shape in expected.items():
                if found[name] != shape:
                    raise ValueError(
                        f"{path}: {name} is {one_line(list(found[name]))}, "
                        f"config.json wants {list(shape)}"
                    )
                if (dtype := slices[name].get_dtype()) not in _DTYPES:
                    raise ValueError(
                        f"{path}: {name} is stored as {dtype}; valid are {', '.join(_DTYPES)}"
                    )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != sha256:
                raise ValueError(
                    f"{path}: damaged or not the file that config.json describes "
                    "(its sha256 differs)"
                )
            weights = {name: file.get_tensor(name).float() for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({one_line(error)})") from error
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{path}: {name} holds values that are not finite numbers")
    model.load_state_dict(weights, strict=True, assign=True)
