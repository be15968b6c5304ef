"""The judge: a small classifier whose features say how alike two sets of images are. On disk like a
model of `ddpm`.

A judge is a folder with `config.json`, `model.safetensors` and `reference.safetensors` (see
`reference.py`). Like the models' it is not trusted: numbers are bounded, names and shapes must
agree, and the sha256 must match."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ddpm import hub
from ddpm.pixels import from_pixels

FEATURES = 128
BUILT_IN = Path(__file__).parent / "judges"
ARCHITECTURE = ("channels", "size", "classes")
_BATCH = 500


class Seen(NamedTuple):
    """What the judge makes of N images: features float32 N×128, and probabilities of the classes,
    float32 N×classes."""

    features: Tensor
    probabilities: Tensor


class Judge(nn.Module):
    """Four convolutions, a layer of 128 features, and a linear layer that names the class.

    channels: 1 or 3. size: side of the images in pixels, 4..256. classes: 2..1000. Raises
    ValueError for others."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        for name, value, low, high in (
            ("channels", channels, 1, 3),
            ("size", size, 4, 256),
            ("classes", classes, 2, 1000),
        ):
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
        self.channels, self.size, self.classes = channels, size, classes
        self.conv1 = nn.Conv2d(channels, 32, 5, stride=2, padding=2)
        self.norm1 = nn.GroupNorm(8, 32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, 64)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.norm3 = nn.GroupNorm(8, 64)
        self.conv4 = nn.Conv2d(64, 128, 3, padding=1)
        self.norm4 = nn.GroupNorm(8, 128)
        self.hidden = nn.Linear(128 * 3 * 3, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer, N×128, for images x, N×C×H×W in [-1, 1]."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))
        x = F.relu(self.norm3(self.conv3(x)) + x)
        x = F.relu(self.norm4(self.conv4(x)))
        x = F.adaptive_avg_pool2d(x, 3).flatten(1)
        return F.relu(self.hidden(F.dropout(x, 0.3, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, N×classes."""
        return self.out(F.dropout(self.features(x), 0.3, self.training))

    @torch.inference_mode()
    def look(self, pixels: Tensor, progress: Callable[[int], object] = lambda count: None) -> Seen:
        """What it makes of images, uint8 N×C×H×W, on the CPU. progress is told of each batch that
        is done."""
        features, probabilities = [], []
        for batch in pixels.split(_BATCH):
            seen = self.features(from_pixels(batch.to(self.out.weight.device)))
            features.append(seen.cpu())
            probabilities.append(self.out(seen).softmax(1).cpu())
            progress(len(batch))
        return Seen(torch.cat(features), torch.cat(probabilities))


def files(judge: Judge, reference: bytes, **facts: Any) -> dict[str, bytes]:
    """The files of a judge by name. facts (data set, accuracy, command, …) go into config.json
    beside the rest."""
    weights = save({name: p.detach().cpu().contiguous() for name, p in judge.state_dict().items()})
    config = {name: getattr(judge, name) for name in ARCHITECTURE} | facts
    config |= {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "reference_sha256": hashlib.sha256(reference).hexdigest(),
    }
    return {hub.CONFIG: (json.dumps(config, indent=2) + "\n").encode(), hub.WEIGHTS: weights}


def load(folder: Path) -> tuple[Judge, dict[str, Any]]:
    """The judge in folder, in eval mode, on the CPU; and what its config.json says.

    Raises ValueError or OSError with one line that says what is wrong with which file.
    """
    path = folder / hub.CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"no judge in {folder}: make one with python -m train.evaluate.judge, or name it with --judge"
        )
    config = _read_config(path)
    try:
        with torch.device("meta"):
            judge = Judge(**{name: config[name] for name in ARCHITECTURE})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not (folder / hub.WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} has no {hub.WEIGHTS}: the judge is not whole")
    hub.load_weights(
        judge, folder / hub.WEIGHTS, config["sha256"]
    )  # one strict way into memory for all weights
    return judge.eval().requires_grad_(False).to(memory_format=torch.channels_last), config


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > 1_000_000:
        raise ValueError(f"{path}: larger than 1 MB, not a judge's configuration")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    wanted = (*ARCHITECTURE, "dataset", "fingerprint", "sha256", "reference_sha256")
    missing = (
        [name for name in wanted if name not in config] if isinstance(config, dict) else wanted
    )
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    return config
