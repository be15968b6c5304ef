"""The player: walks from noise to images as plain data, and the page that plays them.

A film is a JSON-serializable dict, {"id", "walks": [walk, …]}, with two optional keys: "loop" (play
for ever) and "rest" (the frame at which it first stands still). A walk's "note" and "distance" are
filled in later by the code that made it. One script, player.js, shows it in three places: in the
app, in a notebook (`embedded`) and in a standalone file (`document`). It knows no Gradio, no
network and no sampler. (pad.js, on which a visitor draws a digit, is for the app alone.)
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..frames import Frame
from ..pixels import GAP, moving, png, sheet

SCRIPT = (Path(__file__).parent / "player.js").read_text(encoding="utf-8")
PAD = (Path(__file__).parent / "pad.js").read_text(encoding="utf-8")
VIEWS = ("x", "x0", "both")  # the noisy images, the predicted clean ones, or both side by side
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; padding: 16px; background: Canvas; }}
h1 {{ font: 650 1.4rem/1.2 system-ui, sans-serif; margin: 0 0 4px; text-align: center; }}
p {{ font: 15px/1.45 system-ui, sans-serif; margin: 0 0 14px; text-align: center; }}
</style></head><body data-system-theme>{head}
<ddpm-player></ddpm-player>
<script>{script}</script>
<script type="application/json" id="film">{film}</script>
<script>
const film = JSON.parse(document.getElementById("film").textContent);
document.querySelector("ddpm-player").show(film);
</script>
</body></html>
"""


_HEAD = """<h1>{title}</h1>
<p>A <a href="https://arxiv.org/abs/2006.11239">diffusion model</a> turned noise into these images,
step by step. Drag along the strip to see how; a seed gives the same image again.</p>"""


class Walk:
    """One walk, frame by frame; `data` is what the player shows of it so far.

    Args:
        seeds: of each image. labels: what each was asked to show, in words, or None.
        total: how many frames there will be. title: text under the pictures (never user input).
    """

    def __init__(
        self, seeds: Sequence[int], labels: Sequence[str | None], total: int, *, title: str = ""
    ) -> None:
        self.data: dict[str, Any] = {
            "title": title,
            "note": "",
            "count": len(seeds),
            "columns": math.ceil(math.sqrt(len(seeds))),
            "side": 0,
            "gap": GAP,
            "mode": "L",
            "seeds": list(seeds),
            "labels": list(labels),
            "total": total,
            "distance": None,
            "frames": [],
        }

    def add(self, frame: Frame) -> None:
        """Takes the next frame, images N×C×H×W, as PNGs."""
        data = self.data
        data["side"] = frame.x.shape[-1]
        last = len(data["frames"]) == data["total"] - 1
        x = sheet(frame.x)
        data["mode"] = x.mode
        data["frames"] = [
            *data["frames"],
            {  # a new list: what was handed out before stays what it was
                "t": frame.t,
                "snr": None if math.isinf(frame.snr) else frame.snr,
                "nfe": frame.nfe,
                "x": _uri(x if last else moving(x)),
                "x0": _uri(sheet(frame.x0)),
            },
        ]


def film(walks: Iterable[Walk], id: str, **how: int) -> dict[str, Any]:
    """Walks side by side, as a film.

    id tells films apart: a film with the same id and more frames continues where it was.
    """
    return {"id": id, "walks": [dict(walk.data) for walk in walks], **how}


def document(film: dict[str, Any], title: str = "From noise to images") -> str:
    """A page that plays the film, in one file, without a network."""
    return _page(film, title, _HEAD.format(title=html.escape(title)))


def _page(film: dict[str, Any], title: str, head: str) -> str:
    words = json.dumps(film).replace("<", r"\u003c")
    return _PAGE.format(title=html.escape(title), head=head, script=SCRIPT, film=words)


def embedded(film: dict[str, Any]) -> str:
    """The player alone inside another page, as a notebook shows it."""
    page = _page(film, "From noise to images", "")
    return (
        f'<iframe srcdoc="{html.escape(page)}" title="From noise to images" '
        'loading="lazy" style="width: 100%; max-width: 560px; height: 720px; border: 0"></iframe>'
    )


def pictures(walks: Sequence[dict[str, Any]], view: str = "x") -> list[Image.Image]:
    """The pictures of a film, from its first moment to its last: walks side by side and in step.

    view: the noisy images ("x"), the predictions ("x0"), or "both" side by side. Raises ValueError
    for any other view.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}")
    views = ("x", "x0") if view == "both" else (view,)
    moments = max(len(walk["frames"]) for walk in walks)
    shown = []
    for k in range(moments):
        share = k / max(1, moments - 1)
        frames = [
            (walk, walk["frames"][round(share * (len(walk["frames"]) - 1))]) for walk in walks
        ]
        row = [picture(frame[view], walk["mode"]) for walk, frame in frames for view in views]
        shown.append(beside(row))
    return shown


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size, left to right."""
    (width, height), between = pictures[0].size, 3 * GAP
    row = Image.new(pictures[0].mode, (len(pictures) * (width + between) - between, height))
    for k, picture in enumerate(pictures):
        row.paste(picture, (k * (width + between), 0))
    return row


def _uri(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def picture(uri: str, mode: str) -> Image.Image:
    """The picture in a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert(mode)
