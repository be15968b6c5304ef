"""python -m train.evaluate.gallery: what each sampler makes of the same noise with few and many
evaluations, as one picture."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ddpm import SAMPLERS, Pipeline
from ddpm.files import check_writable, write_atomic
from ddpm.pixels import png, sheet
from ddpm.samplers import affordable_steps

COLUMNS = (1, 2, 5, 10, 20, 50)
_LABEL, _GAP, _TEXT = 104, 6, 14  # pixels: of the names' column, between cells, of the letters


def gallery(pipeline: Pipeline, seeds: Sequence[int], *, scale: int = 2) -> Image.Image:
    """A row for each sampler, a column for each number of evaluations; a cell holds one image a
    seed, side by side.

    Every cell starts from the same noise, and takes as many steps as cost at most that many
    evaluations."""
    side = pipeline.model.size * scale
    wide, high = len(seeds) * side + _GAP, side + _GAP
    board = Image.new(
        "RGB", (_LABEL + wide * len(COLUMNS), high * len(SAMPLERS) + 2 * _TEXT), "white"
    )
    pen, font = ImageDraw.Draw(board), ImageFont.load_default(_TEXT)
    for column, budget in enumerate(COLUMNS):
        pen.text((_LABEL + wide * (column + 0.5), _TEXT), str(budget), "black", font, anchor="mm")
    for row, name in enumerate(tqdm(SAMPLERS, unit="sampler", leave=False)):
        top = 2 * _TEXT + high * row
        pen.text((0, top + side / 2), name, "black", font, anchor="lm")
        for column, budget in enumerate(COLUMNS):
            steps = affordable_steps(name, min(budget, pipeline.model.schedule.T))
            images = pipeline.sample(seeds=seeds, sampler=name, steps=steps)
            for k, x in enumerate(images.x):
                board.paste(sheet(x[None], scale=scale), (_LABEL + wide * column + k * side, top))
    return board


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write."""
    p = argparse.ArgumentParser(
        "python -m train.evaluate.gallery",
        description="Draw one picture: a row for each sampler, a "
        f"column for {', '.join(map(str, COLUMNS))} network evaluations, from the same noise.",
    )
    p.add_argument("--model", default="mnist", help="as for python -m ddpm (default: mnist)")
    p.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1], help="which images (default: 0 1)"
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("samplers.png"),
        help="a .png to write (default: samplers.png)",
    )
    args = p.parse_args(argv)
    try:
        check_writable(args.out)
        if args.out.suffix.lower() != ".png":
            raise ValueError(f"cannot write {args.out}: name a .png")
        write_atomic(args.out, png(gallery(Pipeline.from_pretrained(args.model), args.seeds)))
    except (ValueError, OSError) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 2
    print(
        f"{args.out}: {len(SAMPLERS)} samplers, up to {', '.join(map(str, COLUMNS))} evaluations, "
        f"seeds {args.seeds}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
