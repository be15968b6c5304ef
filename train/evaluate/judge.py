"""python -m train.evaluate.judge: train the classifier that evaluates models, and keep what it says
of the real images."""

import argparse
import math
import shlex
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ddpm import hub
from ddpm.files import check_writable, write_atomic
from ddpm.pixels import from_pixels

from ..data import DATASETS, Data
from . import classifier, reference
from .classifier import BUILT_IN, Judge
from .metrics import frechet

BATCH, LR, WEIGHT_DECAY = 128, 3e-3, 0.02


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate.judge",
        description="Train a small classifier on a data set, for python -m train.evaluate. It must have classes.",
    )
    p.add_argument(
        "--dataset",
        help="what to learn to tell apart (default: mnist)",
        choices=DATASETS,
        default="mnist",
    )
    p.add_argument(
        "--data",
        help="where the data set lies, or is downloaded to (default: data)",
        type=Path,
        default=Path("data"),
        metavar="DIR",
    )
    p.add_argument(
        "--size",
        help="side of the images, for `folder` (32 if left out)",
        type=int,
        metavar="PIXELS",
    )
    p.add_argument(
        "--out",
        help="folder to write (train/evaluate/judges/DATASET if left out)",
        type=Path,
        metavar="DIR",
    )
    p.add_argument(
        "--epochs", help="how often each training image is seen (default: 16)", type=int, default=16
    )
    p.add_argument("--seed", help="of all that is random (default: 0)", type=int, default=0)
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
    """Trains, and writes a folder that `classifier.load` reads. Raises ValueError or OSError with a
    line for the user."""
    out = args.out or BUILT_IN / args.dataset
    if (out / hub.CONFIG).exists():
        raise ValueError(
            f"{out} already holds a judge, and figures of another one do not compare: name a new --out"
        )
    if not 1 <= args.epochs <= 1000:
        raise ValueError(f"--epochs must be in 1..1000, got {args.epochs}")
    train, test = reference.real_images(args.dataset, args.data, args.size)
    if len(train.classes) < 2:
        raise ValueError(
            f"a judge learns to tell classes apart, and {args.data} has {len(train.classes)}"
        )
    if len(train.images) < 20 or len(test.images) < 6:  # nearest neighbours of fewer mean nothing
        raise ValueError(
            f"{len(train.images)} training and {len(test.images)} test images are too few for a judge"
        )
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / hub.CONFIG)
    torch.manual_seed(args.seed)
    judge = fit(
        Judge(train.images.shape[1], train.images.shape[2], len(train.classes)), train, args.epochs
    )
    guesses = judge.look(test.images).probabilities.argmax(1)
    accuracy = (guesses == test.labels).double().mean().item()
    measured = reference.measure(judge, train, test)
    kept = reference.to_bytes(measured)
    contents = {
        reference.REFERENCE: kept,
        **classifier.files(
            judge,
            kept,
            class_names=list(train.classes),
            dataset=args.dataset,
            fingerprint=train.fingerprint(),
            accuracy=accuracy,
            command=command,
            torch=torch.__version__,
        ),
    }
    for name in sorted(contents, reverse=True):  # config.json last: it vouches for the others
        write_atomic(out / name, contents[name])
    print(
        f"{out}: {accuracy:.2%} of {len(test.images):,} test images read correctly; their Fréchet distance to the "
        f"training images is {frechet(measured.test, measured.train):.3f}"
    )


def fit(judge: Judge, data: Data, epochs: int) -> Judge:
    """Trains judge on data: AdamW, one cycle of the learning rate. Returns it in eval mode, on the
    CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    judge.train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(data.images) / BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    with tqdm(total=steps, desc="training the judge", unit="step") as bar:
        for _ in range(epochs):
            for batch in torch.randperm(len(data.images)).split(BATCH):
                images, labels = data.images[batch].to(device), data.labels[batch].to(device)
                loss = F.cross_entropy(judge(_moved(from_pixels(images))), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
                bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}")
    return judge.eval().requires_grad_(False).cpu()


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
