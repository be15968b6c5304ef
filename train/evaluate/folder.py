"""A folder of judges on disk: `python -m train.evaluate.judge` writes it, everything else reads.

`config.json`, the weights of two networks, `reference.safetensors` (what is kept of the training
images), and in config.json the floors. Like the models' files these are not trusted: numbers are
bounded, names and shapes must agree, and each sha256 must match."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ddpm import hub

from .classifier import ARCHITECTURE, Classifier
from .texture import texture_net
from .textures import TextureNet

BUILT_IN = Path(__file__).parent / "judges"
TEXTURE, REFERENCE = "texture.safetensors", "reference.safetensors"
SHA256 = {hub.WEIGHTS: "sha256", TEXTURE: "texture_sha256", REFERENCE: "reference_sha256"}


class Networks(NamedTuple):
    """The networks of the judges: one for what an image shows, one for its texture."""

    classifier: Classifier
    texture: TextureNet

    def to(self, device: torch.device) -> "Networks":
        """The same, on the device."""
        return Networks(self.classifier.to(device), self.texture.to(device))


def classifier_of(config: dict[str, Any]) -> Classifier:
    """The classifier that config.json describes, untrained. Raises ValueError if it cannot be."""
    return Classifier(**{name: config[name] for name in ARCHITECTURE})


def weights(network: nn.Module) -> bytes:
    """The content of a file of weights."""
    state: dict[str, Tensor] = network.state_dict()
    return save({name: p.detach().cpu().contiguous() for name, p in state.items()})


def to_config(facts: dict[str, Any], contents: dict[str, bytes]) -> bytes:
    """The content of config.json. contents: the files beside it, whose sha256 it keeps."""
    sums = {SHA256[name]: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return (json.dumps(facts | sums, indent=2) + "\n").encode()


def load(folder: Path) -> tuple[Networks, dict[str, Any]]:
    """The networks in folder, in eval mode, on the CPU; and what its config.json says.

    Raises ValueError or OSError with one line that says what is wrong with which file.
    """
    path = folder / hub.CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"no judges in {folder}: make them with python -m train.evaluate.judge, "
            "or name their folder with --judge"
        )
    config = read_config(path)
    try:
        with torch.device("meta"):
            networks = Networks(classifier_of(config), texture_net(config["channels"]).fold())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for network, name in zip(networks, (hub.WEIGHTS, TEXTURE), strict=True):
        load_weights(network, folder / name, config)
        network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return networks, config


def load_weights(network: nn.Module, path: Path, config: dict[str, Any]) -> None:
    """Loads the file strictly, if it has the sha256 that config.json names."""
    if not path.is_file() or config.get(SHA256[path.name]) is None:
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: make it with python -m train.evaluate.judge "
            f"--dataset {config.get('dataset')} --out {path.parent}"
        )
    # One strict way for all weights. What it asks of a network every one has.
    hub.load_weights(network, path, config[SHA256[path.name]])  # type: ignore[arg-type]


def read_reference(folder: Path, config: dict[str, Any]) -> bytes:
    """The content of reference.safetensors. Raises ValueError or OSError with a line."""
    path = folder / REFERENCE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {REFERENCE}: the judges are not whole")
    if path.stat().st_size > 2**20:
        raise ValueError(f"{path}: larger than 1 MB, not the reference of judges")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config.get("reference_sha256"):
        raise ValueError(
            f"{path}: damaged or not the file that config.json describes (its sha256 differs)"
        )
    return content


def read_config(path: Path) -> dict[str, Any]:
    """What a config.json says. Raises ValueError or OSError with a line."""
    if path.stat().st_size > 1_000_000:
        raise ValueError(f"{path}: larger than 1 MB, not a configuration of judges")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    wanted = (*ARCHITECTURE, "dataset", "fingerprint", "sha256")
    missing = [n for n in wanted if n not in config] if isinstance(config, dict) else wanted
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    found: dict[str, Any] = config
    return found
