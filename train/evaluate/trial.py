"""python -m train.evaluate.trial: do the judges notice what a person can see?

Real test images, damaged one way at a time (`damages.py`), before the panel. Its floors are those
of one half of the test images, and what is damaged is the other half: images that are not damaged
at all have to come out at 1, within their spread."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from ddpm.files import check_writable, write_atomic
from ddpm.pixels import png

from ..command import command
from ..data import DATASETS, Data
from . import panel, reference
from .beside import BRIGHTER, SCALE, strip
from .damages import DAMAGES
from .folder import BUILT_IN
from .report import aligned
from .yardstick import Sample, Yardstick

LIMIT = 1.2  # what is visible must come out above it
SAMPLES = 2_000
_SHOWN, _GAP, _TEXT = 6, 8, 14


class Tried(NamedTuple):
    """What the judges say of one damage (None: none) at one strength, each over its floor."""

    damage: str | None
    strength: float
    visible: bool
    ratios: dict[str, float]

    @property
    def worst(self) -> float:
        """By the panel."""
        return max(self.ratios.values())


def halves(yardstick: Yardstick) -> tuple[Yardstick, Data]:
    """A yardstick whose test images are every second one, and the others."""
    rows, kept = reference.tested(yardstick.test), yardstick.reference
    first, second = (
        Data(yardstick.test.images[part], yardstick.test.labels[part], yardstick.test.classes)
        for part in (rows[0::2], rows[1::2])
    )
    near = kept.test_nearest[0::2][reference.tested(first)]
    config = {name: told for name, told in yardstick.config.items() if name != "floors"}
    left = Yardstick(
        yardstick.networks, config, kept._replace(test_nearest=near), yardstick.train, first
    )
    return left, second


def trial(yardstick: Yardstick, samples: int, names: list[str]) -> Iterator[Tried]:
    """Images as they are, then each damage at its three strengths. samples: images of each set, at
    most as many as leave a fifth of their half to spare, for where classes are missing."""
    left, data = halves(yardstick)
    count = min(samples, len(data.images) * 4 // 5)
    floor = panel.measured(left, count)
    plain = panel.ratios(panel.figures(Sample(left, data.images[:count])), floor)
    yield Tried(None, 0.0, False, plain)
    for name in names:
        damage = DAMAGES[name]
        for strength in damage.strengths:
            images = damaged(name, data, count, strength, yardstick.train)
            found = panel.figures(Sample(left, images))
            visible = strength >= damage.visible
            yield Tried(name, strength, visible, panel.ratios(found, floor))


def damaged(name: str, data: Data, count: int, strength: float, train: Data) -> Tensor:
    """Count images, uint8 N×C×H×W: the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return DAMAGES[name].apply(data, count, strength, train, generator)


def table(found: list[Tried]) -> str:
    """As people read it; ! marks a visible damage that no judge notices."""
    rows = [("damage", "strength", *panel.JUDGES, "worst")]
    for each in found:
        missed = each.visible and each.worst <= LIMIT
        title = DAMAGES[each.damage].title if each.damage else "none"
        strength = f"{each.strength:g}" + ("" if each.visible else " (faint)")
        ratios = (f"{ratio:.2f}" for ratio in each.ratios.values())
        worst = f"{each.worst:.2f}{'!' if missed else ' '}"
        rows.append((title, strength if each.damage else "", *ratios, worst))
    return "\n".join(aligned(rows))


def picture(data: Data, train: Data) -> Image.Image:
    """The damages that change each image or are seen in single ones, at the weakest strength that a
    person can see: real images above, damaged below, on the right both eight times as bright."""
    names = [name for name, damage in DAMAGES.items() if damage.single]
    side = data.images.shape[-1] * SCALE
    wide, high = _SHOWN * side + _GAP, 2 * side + _GAP + _TEXT
    sheet = Image.new("RGB", (2 * wide, high * len(names)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 2)
    for row, name in enumerate(names):
        strength = DAMAGES[name].visible
        count = round(_SHOWN / strength) if name == "garbage" else _SHOWN
        images = damaged(name, data, count, strength, train)[:_SHOWN]
        pen.text((0, high * row), f"{DAMAGES[name].title}: {strength:g}", "black", font)
        for column, factor in enumerate((1, BRIGHTER)):
            for line, shown in enumerate((data.images[:_SHOWN], images)):
                place = wide * column, high * row + _TEXT + side * line
                sheet.paste(strip(shown, factor), place)
    return sheet


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate.trial",
        description="Try the judges on damaged test images. Exit code 1 if one passes that a "
        f"person can see: the worst judge must be above {LIMIT} × its floor.",
    )
    add = p.add_argument
    add("--dataset", help="whose judges (default: mnist)", choices=DATASETS, default="mnist")
    add("--judge", help="folder of judges (default: train/evaluate/judges/DATASET)", type=Path)
    add("--data", help="where the data set lies (default: data)", type=Path, default=Path("data"))
    add("--samples", help=f"images of each set (default: {SAMPLES:,})", type=int, default=SAMPLES)
    add("--damages", help="(default: all)", nargs="+", choices=DAMAGES, default=list(DAMAGES))
    add("--out", help="file for all figures (.json)", type=Path, metavar="FILE")
    add("--picture", help="picture of the damages to write", type=Path, metavar="FILE.png")
    return p


@command("trial")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 all seen, 1 not, 2 bad input or nowhere to write, 130 interrupted."""
    args = parser().parse_args(argv)
    if not 30 <= args.samples <= 10**6:
        raise ValueError(f"--samples must be in 30..{10**6:,}, got {args.samples}")
    for path in (args.out, args.picture):
        if path is not None:
            check_writable(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yardstick = Yardstick.open(args.judge or BUILT_IN / args.dataset, args.data, device)
    if args.picture:
        write_atomic(args.picture, png(picture(halves(yardstick)[1], yardstick.train)))
    found: list[Tried] = []
    total = 1 + sum(len(DAMAGES[name].strengths) for name in args.damages)
    for each in tqdm(
        trial(yardstick, args.samples, args.damages), unit="set", total=total, leave=False
    ):
        found.append(each)
        if args.out:  # kept as it goes: it takes long
            lines: list[dict[str, Any]] = [one._asdict() | {"worst": one.worst} for one in found]
            write_atomic(args.out, (json.dumps(lines, indent=2) + "\n").encode())
    print(table(found))
    return int(any(each.visible and each.worst <= LIMIT for each in found))


if __name__ == "__main__":
    sys.exit(main())
