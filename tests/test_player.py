"""Films: plain data that holds the right pictures, the GIF made of it, the page that plays it."""

import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from ddpm import Pipeline
from ddpm.frames import GIF_FRAMES, Frame
from ddpm.pixels import GAP, durations, moving, sheet
from ddpm.pixels import gif as gif_file
from ddpm.player import VIEWS, Walk, document, embedded, film, pictures
from tests.helpers import decode, distance, tiny_unet


def frames(n=5, moments=4, channels=1, size=6):
    torch.manual_seed(0)
    return [
        Frame(
            100.0 - 100 * k / (moments - 1),
            torch.randn(n, channels, size, size),
            torch.randn(n, channels, size, size),
            k,
            0.5 * k if k < moments - 1 else math.inf,
        )
        for k in range(moments)
    ]


def walk_of(moments, **words):
    walk = Walk(range(len(moments[0].x)), [None] * len(moments[0].x), len(moments), **words)
    for moment in moments:
        walk.add(moment)
    return walk


@pytest.mark.parametrize("channels", [1, 3])
def test_a_film_is_json_and_its_frames_are_the_pictures(channels):
    moments = frames(channels=channels)
    shown = film([walk_of(moments)], "one", loop=True)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["id"] == "one" and shown["loop"] is True
    [walk] = shown["walks"]
    assert (walk["count"], walk["columns"], walk["side"], walk["gap"], walk["total"]) == (
        5,
        3,
        6,
        GAP,
        4,
    )
    assert (
        walk["seeds"] == [0, 1, 2, 3, 4]
        and walk["labels"] == [None] * 5
        and walk["distance"] is None
    )
    assert [frame["t"] for frame in walk["frames"]] == [moment.t for moment in moments]
    assert [frame["nfe"] for frame in walk["frames"]] == [0, 1, 2, 3]
    assert [frame["snr"] for frame in walk["frames"]] == [0, 0.5, 1, None]  # JSON knows no infinity
    for frame, moment in zip(walk["frames"], moments, strict=True):
        assert distance(decode(frame["x0"]), sheet(moment.x0)) == 0
    for frame, moment in zip(walk["frames"][:-1], moments, strict=False):
        assert distance(decode(frame["x"]), moving(sheet(moment.x))) == 0  # few colors: it moves
    assert distance(decode(walk["frames"][-1]["x"]), sheet(moments[-1].x)) == 0  # it stays


def test_what_was_handed_out_stays_what_it_was():
    moments = frames()
    walk = Walk(range(5), [None] * 5, 4)
    walk.add(moments[0])
    early = film([walk], "one")
    walk.add(moments[1])
    walk.data["note"] = "later"
    assert len(early["walks"][0]["frames"]) == 1 and early["walks"][0]["note"] == ""
    assert len(film([walk], "one")["walks"][0]["frames"]) == 2


def test_however_many_steps_a_film_has_few_frames_and_is_small():
    images = Pipeline.from_pretrained("mnist").sample(seeds=range(4), steps=60)
    [walk] = images._film()["walks"]
    assert len(walk["frames"]) == walk["total"] == GIF_FRAMES
    assert (walk["frames"][0]["t"], walk["frames"][-1]["t"]) == (1000, 0)
    assert distance(decode(walk["frames"][-1]["x"]), images.sheet(scale=1)) == 0
    assert walk["labels"] == list(images.labels) and walk["seeds"] == list(images.seeds)
    assert len(json.dumps(images._film())) < 400_000


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gif_has_every_frame_loops_and_holds_the_last(view, channels):
    moments = frames(channels=channels)
    [walk] = film([walk_of(moments)], "one")["walks"]
    wanted = {"x": lambda m: [m.x], "x0": lambda m: [m.x0], "both": lambda m: [m.x, m.x0]}[view](
        moments[-1]
    )
    with Image.open(io.BytesIO(gif_file(pictures([walk], view)))) as gif:
        assert gif.n_frames == len(moments) + 1 and gif.info["loop"] == 0
        shown = []
        for k in range(gif.n_frames):
            gif.seek(k)
            shown.append(gif.info["duration"])
        last = gif.convert("RGB")
    assert shown == durations(len(moments))
    sheets = [sheet(x) for x in wanted]
    width, height = sheets[0].size
    between = 3 * GAP
    scale = last.height // height
    assert (
        last.size == (scale * (len(sheets) * (width + between) - between), scale * height)
        and scale >= 2
    )
    for k, picture in enumerate(sheets):
        left = scale * k * (width + between)
        cell = last.crop((left, 0, left + scale * width, scale * height))
        assert distance(cell, picture.resize(cell.size, Image.Resampling.NEAREST)) <= (
            0 if channels == 1 else 80
        )


@pytest.mark.parametrize("view", ["X", "", None, 0, ["x"], "both "])
def test_another_view_is_refused(view):
    with pytest.raises(ValueError, match="view must be one of x, x0, both"):
        pictures([walk_of(frames()).data], view)


HOSTILE = "</script><script>alert(1)</script><!--<script>\u2028\u2029\"'&amp;]]>{title}{0}%s\\"


class Tags(HTMLParser):
    """Every start tag with its attributes, and what each script holds, as a browser splits them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def test_a_document_needs_nothing_but_itself():
    page = document(film([walk_of(frames())], "one"))
    assert page.startswith("<!doctype html>")
    assert set(re.findall(r"\b(?:https?|wss?|ftp|file)://[^\s\"'`<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "https://arxiv.org/abs/2006.11239",  # a link for people, which nothing fetches
    }
    tags = Tags(page).tags
    assert not [
        tag
        for tag, _ in tags
        if tag in ("link", "img", "iframe", "object", "embed", "base", "form")
    ]
    for tag, attrs in tags:
        assert not {"src", "srcset", "action"} & set(attrs) and ("href" not in attrs or tag == "a")
    ways = "fetch( XMLHttpRequest WebSocket sendBeacon @import url( import("
    for fetches in ways.split():
        assert fetches not in page


def test_hostile_words_stay_words():
    """Class names come from a Hub repo: whatever they are, the page has the same tags, and the film
    is what it was."""
    plain = film([walk_of(frames())], "one")
    walk = walk_of(frames(), title=HOSTILE)
    walk.data["note"] = HOSTILE
    walk.data["labels"] = [HOSTILE] * 5
    hostile = film([walk], HOSTILE)
    ours, theirs = Tags(document(plain)), Tags(document(hostile, title=HOSTILE))
    assert [tag for tag, _ in theirs.tags] == [tag for tag, _ in ours.tags]
    assert len(theirs.scripts) == 3 and json.loads(theirs.scripts[1]) == hostile
    assert theirs.scripts[0] == ours.scripts[0] and theirs.scripts[2] == ours.scripts[2]
    # after which a browser would take </script> for part of the script
    assert "<!--" not in theirs.scripts[1]
    frame = Tags(embedded(hostile))
    assert [tag for tag, _ in frame.tags] == ["iframe"] and not frame.scripts


def test_a_notebook_gets_one_iframe_that_holds_the_page():
    shown = Pipeline(tiny_unet()).sample(seeds=range(2), steps=2)
    tags = Tags(shown._repr_html_()).tags
    assert [tag for tag, _ in tags] == ["iframe"]
    attrs = tags[0][1]
    assert attrs["title"] and "<h1>" not in attrs["srcdoc"] and "<h1>" in document(shown._film())
    assert (
        attrs["srcdoc"].split("<ddpm-player>")[1]
        == document(shown._film()).split("<ddpm-player>")[1]
    )
