"""What programs get of a film: facts, pictures and an animation, instead of every frame."""

from typing import Any

from PIL import Image
from torch import Tensor

from ..pixels import GAP, gif, png
from ..pixels import sheet as as_sheet
from ..player import beside, picture, pictures
from .tasks import Film

SCALE = 4  # of the picture of all images; single images are as the network made them
CARD_WIDTH = 1200  # what sites that show the card of a link make the most of
MOMENTS = 9  # of a film of the forward process


def told(film: Film) -> dict[str, Any]:
    """The seeds, the labels (null: none), and what each walk cost and, if measured, reached."""
    first, *_ = film["walks"]
    walks = []
    for walk in film["walks"]:
        facts = {"title": walk["title"] or None, "distance": walk["distance"]}
        known = {name: fact for name, fact in facts.items() if fact is not None}
        walks.append({"evaluations": walk["frames"][-1]["nfe"], **known})
    return {"seeds": first["seeds"], "labels": first["labels"], "walks": walks}


def moments(film: Film) -> list[dict[str, Any]]:
    """The time and the signal-to-noise ratio (null: infinite) of what `forward` shows."""
    return [{"t": frame["t"], "snr": frame["snr"]} for frame in _few(film)]


def sheet(film: Film) -> bytes:
    """The results, walks side by side, as a PNG."""
    return png(_enlarged(pictures(film["walks"])[-1]))


def forward(film: Film) -> bytes:
    """`moments` from left to right as a PNG: above the noisy picture, below what is predicted."""
    [walk] = film["walks"]
    few = [{**walk, "frames": [frame]} for frame in _few(film)]
    rows = [pictures(few, view)[0] for view in ("x", "x0")]
    both = Image.new(rows[0].mode, (rows[0].width, 2 * rows[0].height + 3 * GAP))
    for k, row in enumerate(rows):
        both.paste(row, (0, k * (row.height + 3 * GAP)))
    return png(_enlarged(both))


def card(film: Film) -> bytes:
    """Noise on the left and the result on the right as a PNG: 16 images make it 1210×590."""
    first, *_, last = pictures(film["walks"])
    both = beside([first, last])
    scale = max(1, round(CARD_WIDTH / both.width))
    return png(both.resize((both.width * scale, both.height * scale), Image.Resampling.NEAREST))


def row(images: Tensor) -> bytes:
    """Images N×C×H×W side by side as a PNG."""
    return png(_enlarged(beside([as_sheet(image[None]) for image in images])))


def animation(film: Film, view: str = "x") -> bytes:
    """The film as a GIF, walks side by side."""
    return gif(pictures(film["walks"], view))


def singles(film: Film) -> list[bytes]:
    """Each image of the first walk as a PNG of its own."""
    walk, *_ = film["walks"]
    whole, side = picture(walk["frames"][-1]["x"], walk["mode"]), walk["side"]
    found = []
    for k in range(walk["count"]):
        left, top = (place * (side + GAP) for place in (k % walk["columns"], k // walk["columns"]))
        found.append(png(whole.crop((left, top, left + side, top + side))))
    return found


def _few(film: Film) -> list[dict[str, Any]]:
    frames = film["walks"][0]["frames"]
    return [frames[round(k * (len(frames) - 1) / (MOMENTS - 1))] for k in range(MOMENTS)]


def _enlarged(picture: Image.Image) -> Image.Image:
    size = picture.width * SCALE, picture.height * SCALE
    return picture.resize(size, Image.Resampling.NEAREST)
