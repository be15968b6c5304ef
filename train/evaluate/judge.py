"""python -m train.evaluate.judge: train the networks of the judges that evaluate models, and keep
what they say of the real images."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ddpm import hub
from ddpm.files import check_writable, write_atomic

from ..command import add_option
from ..data import DATASETS, Data
from . import folder, panel, reference
from .classifier import ARCHITECTURE, Classifier, scaled
from .folder import BUILT_IN, Networks
from .texture import STEPS, fit_texture, texture_net
from .textures import TextureNet
from .yardstick import Yardstick

N = TypeVar("N", bound=nn.Module)
BATCH, LR, WEIGHT_DECAY = 128, 3e-3, 0.02


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate.judge",
        description="Train the networks of the judges on a data set (it must have classes), and "
        "keep what real test images score, for python -m train.evaluate. What a folder has "
        "already of these is kept.",
    )
    add = partial(add_option, p)
    add("--dataset", "what to learn to tell apart", choices=DATASETS, default="mnist")
    where = "where the data set lies, or is downloaded to"
    add("--data", where, type=Path, default=Path("data"), metavar="DIR")
    add("--size", "side of the images, for `folder` (32 if left out)", type=int, metavar="PIXELS")
    out = "folder to write (train/evaluate/judges/DATASET if left out)"
    add("--out", out, type=Path, metavar="DIR")
    epochs = "how often the classifier sees each training image"
    add("--epochs", epochs, type=int, default=16)
    add("--steps", "of training the network for texture", type=int, default=STEPS)
    add("--seed", "of all that is random", type=int, default=0)
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        run(args, shlex.join(["python", "-m", "train.evaluate.judge", *argv]))
    except (ValueError, OSError) as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("judge: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace, command: str) -> None:
    """Makes what is missing of a folder that `Yardstick.open` reads. Raises ValueError or OSError
    with a line for the user."""
    out = args.out or BUILT_IN / args.dataset
    known = folder.read_config(out / hub.CONFIG) if (out / hub.CONFIG).exists() else {}
    if "floors" in known:
        raise ValueError(
            f"{out} already holds judges, and figures of others do not compare: name a new --out"
        )
    for name in ("epochs", "steps"):
        if not 1 <= getattr(args, name) <= 10**5:
            raise ValueError(f"--{name} must be in 1..100,000, got {getattr(args, name)}")
    train, test = _real(args)
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / hub.CONFIG)
    torch.manual_seed(args.seed)
    classifier = _kept(folder.classifier_of, hub.WEIGHTS, out, known)
    facts = known
    if classifier is None:
        channels, size = train.images.shape[1:3]
        classifier = fit(Classifier(channels, size, len(train.classes)), train, args.epochs)
        facts = _facts(args, classifier, train, test, command)
    texture = _kept(
        lambda config: texture_net(config["channels"]).fold(), folder.TEXTURE, out, known
    )
    networks = Networks(classifier, texture or _texture(args, train))
    kept = reference.measure(networks, train, test)
    contents = {
        hub.WEIGHTS: folder.weights(classifier),
        folder.TEXTURE: folder.weights(networks.texture),
        folder.REFERENCE: reference.to_bytes(kept),
    }
    _write(out, contents, facts)  # what is trained is kept, should the rest be interrupted
    facts["floors"] = _floors(Yardstick(networks, facts, kept, train, test))
    _write(out, contents, facts)
    print(
        f"{out}: {facts['accuracy']:.2%} of {len(test.images):,} test images read correctly; "
        f"floors of {' and '.join(facts['floors']) or 'no'} images kept"
    )


def _kept(
    network_of: Callable[[dict[str, Any]], N], name: str, out: Path, known: dict[str, Any]
) -> N | None:
    """The network that the folder has already, if config.json knows of it."""
    if folder.SHA256[name] not in known:
        return None
    network = network_of(known)
    folder.load_weights(network, out / name, known)
    network.eval().to(memory_format=torch.channels_last)
    return network


def _write(out: Path, contents: dict[str, bytes], facts: dict[str, Any]) -> None:
    """config.json last: it has the sha256 of the others."""
    for name, content in (contents | {hub.CONFIG: folder.to_config(facts, contents)}).items():
        write_atomic(out / name, content)


def _real(args: argparse.Namespace) -> tuple[Data, Data]:
    """The images to learn from and to measure. Raises ValueError where there are too few."""
    train, test = reference.real_images(args.dataset, args.data, args.size)
    if len(train.classes) < 2:
        raise ValueError(
            f"a judge learns to tell classes apart, and {args.data} has {len(train.classes)}"
        )
    if len(train.images) < 20 or len(test.images) < 6:  # nearest neighbours of fewer mean nothing
        raise ValueError(
            f"{len(train.images)} training and {len(test.images)} test images are too few"
        )
    return train, test


def _facts(
    args: argparse.Namespace, classifier: Classifier, train: Data, test: Data, command: str
) -> dict[str, Any]:
    """What config.json says of a new folder of judges."""
    guesses = classifier.look(test.images).probabilities.argmax(1)
    return {name: getattr(classifier, name) for name in ARCHITECTURE} | {
        "class_names": list(train.classes),
        "dataset": args.dataset,
        "fingerprint": train.fingerprint(),
        "accuracy": (guesses == test.labels).double().mean().item(),
        "command": command,
        "torch": torch.__version__,
    }


def _texture(args: argparse.Namespace, train: Data) -> TextureNet:
    generator = torch.Generator().manual_seed(args.seed)
    with tqdm(total=args.steps, desc="training the judge of texture", unit="step") as bar:

        def progress(loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update()

        return fit_texture(train.images, args.steps, generator, progress)


def _floors(yardstick: Yardstick) -> dict[str, Any]:
    """What real test images score, for the counts of images that are measured most."""
    counts = [count for count in panel.COUNTS if count <= len(yardstick.test.images)]
    return {str(count): panel.measured(yardstick, count)._asdict() for count in counts}


def fit(classifier: Classifier, data: Data, epochs: int) -> Classifier:
    """Trains classifier on data: AdamW, one cycle of the learning rate. Returns it in eval mode, on
    the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.train().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(data.images) / BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    with tqdm(total=steps, desc="training the classifier", unit="step") as bar:
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(data.images)), BATCH):
                images, labels = data.images[batch].to(device), data.labels[batch].to(device)
                loss = F.cross_entropy(classifier(_moved(scaled(images))), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
                bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}")
    return classifier.eval().requires_grad_(False).cpu()


def _moved(x: Tensor) -> Tensor:
    """Images N×C×H×W, each turned by up to 12 degrees, scaled by up to a tenth and shifted by up to
    a twelfth."""
    turn, scale, right, down = (2 * torch.rand(4, len(x), device=x.device) - 1).unbind()
    turn, scale = turn * math.radians(12), 1 + 0.1 * scale
    cos, sin = turn.cos() * scale, turn.sin() * scale
    # Rows of the inverse map: where each pixel of the new image comes from, in units of half a
    # side.
    rows = [torch.stack([cos, -sin, right / 6], 1), torch.stack([sin, cos, down / 6], 1)]
    where = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, where, padding_mode="border", align_corners=False)


if __name__ == "__main__":
    sys.exit(main())
