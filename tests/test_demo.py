"""What the page can do, without the page: what may be asked for, and what the films hold."""

import base64
import io
import json
import re
import struct
import warnings
import zlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm import GRIDS, SAMPLERS, Pipeline, Schedule, Settings, Start
from ddpm.demo import about, answers, requests, tasks
from ddpm.demo.requests import Request
from ddpm.demo.tasks import Compare, Denoise, Forward, Generate, Ladder, References
from ddpm.frames import GIF_FRAMES
from ddpm.hub import BUILT_IN
from ddpm.pixels import from_picture, moving, png, sheet
from ddpm.settings import MAX_SEED
from tests.helpers import decode, distance, tiny_unet

NAMES = tuple("0123456789")
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def tiny():
    return Pipeline(tiny_unet())


@pytest.fixture(scope="module")
def mnist():
    return Pipeline.from_pretrained("mnist")


@pytest.fixture
def calls(monkeypatch):
    """How many images the networks of a test were asked about, one entry a call."""
    counted = []

    def count(pipeline):
        forward = pipeline.model.forward
        monkeypatch.setattr(
            pipeline.model, "forward", lambda x, *more: counted.append(len(x)) or forward(x, *more)
        )
        return counted

    return count


# --- What may be asked for ------------------------------------------------------------------------

WRONG = (
    *(NAN, INF, -INF, [], [1], {}, {"a": 1}, "", "many", "\x00"),
    *(-1, 10**30, True, b"1", 1.5j, (1,), "1" * 10**5),
)
WORDS = {
    "count": r"^count must be a whole number in 1\.\.64$",
    "steps": r"^steps must be a whole number in 1\.\.1000$",
    "seed": r"^seed \(for 16 images\) must be a whole number in 0\.\.4294967280$",
    "label": r"^label must be one of any, none, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9$",
    "sampler": f"^sampler must be one of {', '.join(SAMPLERS)}$".replace("+", r"\+"),
    "time_grid": f"^time_grid must be one of best, {', '.join(GRIDS)}$",
    "eta": r"^eta must be a number in 0\.\.1$",
    "guidance": r"^guidance must be a number in 0\.\.20$",
}


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("name", WORDS)
def test_whatever_is_wrong_is_refused_in_one_line_that_names_what_is_valid(name, value):
    with pytest.raises(ValueError, match=WORDS[name]):
        Request(**{name: value}).settings(NAMES)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"count": None}, WORDS["count"]),
        ({"count": 16.0}, WORDS["count"]),
        ({"count": 0}, WORDS["count"]),
        ({"count": 65}, WORDS["count"]),
        ({"steps": 0}, WORDS["steps"]),
        ({"steps": 1001}, WORDS["steps"]),
        ({"seed": 2**32}, "seed .* must be"),
        ({"seed": 2**32 - 15}, r"for 16 images.* in 0\.\.4294967280"),
        ({"label": "10"}, "label must be"),
        ({"label": 3}, "label must be"),
        ({"label": None}, "label must be"),
        ({"sampler": None}, "sampler must be"),
        ({"sampler": "DDIM"}, "sampler must be"),
        ({"time_grid": "power(0.3)"}, "time_grid must be"),
        ({"eta": None}, "eta must be"),
        ({"eta": 1.01, "sampler": "ddim"}, "eta must be"),
        ({"eta": 0.5}, "unipc2 has no eta; only ddim has"),
        ({"guidance": 20.5}, "guidance must be"),
        ({"guidance": 1, "label": "none"}, "guidance needs a label"),
        (
            {"count": 64, "steps": 313},
            "at most 20,000 .* not 20,032: ask for fewer images or steps",
        ),
        ({"count": 64, "steps": 157, "guidance": 1}, "at most 20,000"),
        ({"count": 64, "steps": 160, "sampler": "heun"}, "at most 20,000"),
    ],
)
def test_the_edges_of_what_is_valid(asked, words):
    with pytest.raises(ValueError, match=words) as refused:
        Request(**asked).settings(NAMES)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250


@given(
    st.dictionaries(
        st.sampled_from(list(WORDS)),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.integers()),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_settings_can_be_drawn_with_or_are_refused(asked):
    try:
        found = Request(**asked).settings(NAMES)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        Pipeline(tiny_unet(schedule=Schedule(T=1000))).stream(found)  # it checks too


def test_a_refusal_calls_a_field_what_the_asker_calls_it():
    said = {"label": "digit", "count": "images", "time_grid": "grid"}
    for field, words in (
        ("label", "digit must be one of any"),
        ("count", "images must be a whole"),
        ("time_grid", "grid must be one of best"),
        ("steps", "steps must be"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            Request(**{field: "x"}).settings(NAMES, said)
    with pytest.raises(ValueError, match="guidance needs a digit"):
        Request(label="none", guidance=1).settings(NAMES, said)


@pytest.mark.parametrize("few", [False, True])
def test_the_schema_has_the_bounds_that_are_checked(few):
    for field, told in requests.schema(few).items():
        if field in Request.__dataclass_fields__ and not few:
            for good in told.get("enum") or [told["minimum"], told["maximum"]]:
                Request(**{"sampler": "ddim", "count": 1, field: good}).settings(NAMES)
            for bad in ["x"] if "enum" in told else [told["minimum"] - 1, told["maximum"] + 1]:
                with pytest.raises(ValueError, match=f"{field}.* must be"):
                    Request(**{"sampler": "ddim", "count": 1, field: bad}).settings(NAMES)
    assert requests.schema(few)["count"].get("enum") == (list(requests.FEW) if few else None)


def test_settings_are_those_of_the_pipeline():
    found = Request(
        label="7",
        count=4,
        seed=MAX_SEED - 3,
        steps=5,
        sampler="ddim",
        time_grid="linspace",
        eta=1,
        guidance=2.5,
    ).settings(NAMES)
    assert found == Settings(
        range(MAX_SEED - 3, MAX_SEED + 1),
        labels=7,
        sampler="ddim",
        steps=5,
        grid="linspace",
        eta=1,
        guidance=2.5,
    )
    usual = Request(seed=0).settings(NAMES)
    assert usual == Settings(range(16)) and usual.labels is usual.eta is usual.grid is None
    assert Request(label="none").settings(NAMES).labels == 10
    assert (
        Request(label="any").settings(()).labels is None
        and Request(label="none").settings(()).labels is None
    )


def test_a_random_seed_leaves_room_for_all_images():
    drawn = {requests.random_seed() for _ in range(100)}
    assert len(drawn) > 90 and all(0 <= seed <= MAX_SEED + 1 - 64 for seed in drawn)


RIVALS = {"label": "any", "count": 1, "seed": 0, "guidance": 0.0}


@pytest.mark.parametrize(
    ("rivals", "asked", "words"),
    [
        ([("ddim", 5)], {}, "compare 2 to 4 samplers, got 1"),
        ([], {}, "got 0"),
        ([("none", 5), (None, 5)], {}, "got 0"),
        ([("ddim", 5)] * 5, {}, "got 5"),
        ([("ddim", 5), ("dim", 5)], {}, "sampler must be one of"),
        ([("ddim", 5), (["ddim"], 5)], {}, "sampler must be one of"),
        ([("ddim", 5), ("ddim", None)], {}, "steps must be"),
        ([("ddim", 5)] * 2, {"count": 2}, "count must be one of 1, 4"),
        ([("ddim", 5)] * 2, {"count": [4]}, "count must be one of"),
        ([("ddim", 5)] * 2, {"seed": -1}, "seed must be"),
        ([("ddim", 5)] * 2, {"label": "x"}, "label must be"),
        ([("heun", 1000)] * 4, {"count": 4, "guidance": 1}, "at most 20,000"),
        # together
        (
            [("heun", 1000), ("heun", 900), ("ddim", 1000), ("ddim", 1000)],
            {"count": 4},
            "at most 20,000",
        ),
    ],
)
def test_rivals_are_checked(rivals, asked, words):
    with pytest.raises(ValueError, match=words):
        requests.rivals(NAMES, rivals, **RIVALS | asked)


def test_rivals_start_from_the_same_noise_even_if_the_seed_is_random():
    found = requests.rivals(
        NAMES, [("ddim", 2), ("none", 7), ("ddpm", 3), (None, 1)], **RIVALS | {"seed": None}
    )
    assert [(each.sampler, each.steps) for each in found] == [("ddim", 2), ("ddpm", 3)]
    assert found[0].seeds == found[1].seeds


@pytest.mark.parametrize(
    "asked", [{"count": 2}, {"count": "1"}, {"sampler": "x"}, {"seed": 1.5}, {"label": None}]
)
def test_the_ladder_is_checked(asked):
    with pytest.raises(ValueError, match=f"{next(iter(asked))} must be"):
        requests.ladder(NAMES, **{"label": "any", "count": 1, "seed": 0, "sampler": "ddim"} | asked)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, pixels=b"", more=b""):
    """A PNG with such a header, whatever it holds."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + more
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


SQUARE = Image.linear_gradient("L").resize((28, 28))


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (None, "a digit .0 to 9. or a PNG as base64"),
        ("", "a digit"),
        (5, "a digit"),
        (["5"], "a digit"),
        ({"path": "/etc/passwd"}, "a digit"),
        ("12", "PNG as base64"),
        ("x", "PNG as base64"),
        ("/etc/passwd", "PNG as base64"),
        ("http://127.0.0.1/a.png", "PNG as base64"),
        ("é" * 30, "PNG as base64"),
        ("data:image/png;base64,", "PNG as base64"),
        (uri(b"GIF89a"), "PNG as base64"),
        (uri(b"\x89PNG\r\n\x1a\n"), "PNG as base64"),
        ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "PNG as base64"),
        ("A" * 200_000, "at most 100,000 characters"),
        (uri(png_of(513, 1, b"\0" * 514)), "at most 512 pixels a side"),
        (uri(png_of(1, 513, b"\0\0" * 513)), "at most 512 pixels a side"),
        (uri(png_of(2**31 - 1, 2**31 - 1)), "PNG|512"),
        (uri(png_of(20_000, 20_000, b"\0" * 10**6)), "PNG|512"),
        (uri(png_of(0, 0)), "PNG as base64"),
        (uri(png_of(28, 28)), "PNG as base64"),
        # a bomb in a comment
        (
            uri(png_of(4, 4, b"\0" * 20, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 2**24)))),
            "PNG as base64",
        ),
    ],
)
def test_other_pictures_are_refused_before_they_take_memory(picture, words):
    with (
        warnings.catch_warnings(),
        pytest.raises(
            ValueError, match=f"^the picture (must be|is too large).*({words})"
        ) as refused,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        requests.picture(picture)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 100


def test_files_of_another_kind_are_refused_even_if_pillow_could_read_them():
    for kind in ("GIF", "JPEG", "BMP", "TIFF"):
        file = io.BytesIO()
        SQUARE.save(file, kind)
        with pytest.raises(ValueError, match="PNG as base64"):
            requests.picture(uri(file.getvalue()))


@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_broken_png_is_refused_or_read(where, byte, end):
    data = bytearray(png(SQUARE))
    data[where % len(data)] = byte
    try:
        tasks.as_images(
            Pipeline(tiny_unet(size=8)), requests.picture(uri(bytes(data[: len(data) - end % 40])))
        )
    except ValueError as error:
        assert str(error).startswith("the picture ")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "I;16"])
def test_a_png_is_taken_with_or_without_its_head(mode):
    picture = Image.new(mode, (28, 28)) if mode == "I;16" else SQUARE.convert(mode)
    data = png(picture)
    for sent in (uri(data), base64.b64encode(data).decode()):
        assert requests.picture(sent) == data
    assert tasks.as_images(Pipeline(tiny_unet(size=28)), data).shape == (1, 1, 28, 28)


def test_the_ten_digits_that_come_with_the_app_are_ten_digits():
    seen = {requests.picture(str(digit)) for digit in range(10)}
    assert len(seen) == 10
    for data in seen:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.size, picture.mode) == ((28, 28), "L")
            assert picture.getextrema()[0] < 10 and picture.getextrema()[1] > 240


# --- What is shown --------------------------------------------------------------------------------


def asked(**changes):
    return Request(**{"count": 4, "seed": 11, "steps": 3} | changes).settings(NAMES)


def last(films):
    *_, film = films
    assert json.loads(json.dumps(film, allow_nan=False)) == film
    return film


def test_generate_streams_one_growing_film_of_what_the_pipeline_draws(tiny, monkeypatch):
    monkeypatch.setattr(tasks, "SHOW_EVERY", -1)  # at every step
    films = list(Generate(asked()).films(tiny, References()))
    assert len({film["id"] for film in films}) == 1
    assert [len(film["walks"][0]["frames"]) for film in films] == [1, 2, 3, 4, 4]
    [walk] = last(films)["walks"]
    assert [frame["nfe"] for frame in walk["frames"]] == [1, 2, 3, 3]
    assert walk["seeds"] == [11, 12, 13, 14] and walk["labels"] == tiny.names(
        Settings(range(11, 15))
    )
    frames = list(tiny.stream(Settings(seeds=range(11, 15), steps=3)))
    assert [frame["t"] for frame in walk["frames"]] == [frame.t for frame in frames]
    assert [frame["snr"] for frame in walk["frames"][:-1]] == pytest.approx(
        [frame.snr for frame in frames[:-1]]
    )
    assert distance(decode(walk["frames"][-1]["x"]), sheet(frames[-1].x)) == 0
    for shown, frame in zip(walk["frames"], frames, strict=True):
        assert distance(decode(shown["x0"]), sheet(frame.x0)) <= 1
    assert last(Generate(asked()).films(tiny, References()))["id"] != films[0]["id"]


def test_a_long_walk_is_a_short_film(tiny):
    [walk] = last(Generate(asked(steps=100)).films(tiny, References()))["walks"]
    assert len(walk["frames"]) == walk["total"] == GIF_FRAMES
    assert (
        walk["frames"][-1]["nfe"] == 100
        and walk["frames"][-1]["t"] == 0
        and walk["frames"][0]["t"] == 100
    )


def test_compare_goes_on_in_step(tiny, monkeypatch):
    monkeypatch.setattr(tasks, "SHOW_EVERY", -1)
    rivals = requests.rivals(
        NAMES,
        [("ddim", 4), ("dpm++2m", 8), ("heun", 4)],
        label="any",
        count=4,
        seed=3,
        guidance=0.0,
    )
    for film in Compare(rivals).films(tiny, References()):
        shares = [len(walk["frames"]) / walk["total"] for walk in film["walks"]]
        assert max(shares) - min(shares) <= 1 / 5 + 1e-9
    assert [walk["title"] for walk in film["walks"]] == [
        "ddim · 4 steps",
        "dpm++2m · 8 steps",
        "heun · 4 steps",
    ]
    assert [walk["frames"][-1]["nfe"] for walk in film["walks"]] == [
        4,
        8,
        tiny_nfe(tiny, "heun", 4),
    ]
    first = [decode(walk["frames"][0]["x"]) for walk in film["walks"][:2]]
    assert distance(*first) == 0  # the same noise
    # as many steps as this network has times
    reference = list(
        tiny.stream(Settings(seeds=range(3, 7), steps=100, sampler=tasks.REFERENCE[0]))
    )[-1].x
    for walk, rival in zip(film["walks"], rivals, strict=True):
        ours = list(tiny.stream(rival))[-1].x
        expected = ((ours - reference) / 2).square().mean().sqrt().item()
        assert walk["distance"] == pytest.approx(expected, rel=1e-4)
        assert f"distance {expected:.3f}" in walk["note"] and " s\n" in walk["note"]


def tiny_nfe(pipeline, sampler, steps):
    return list(pipeline.stream(Settings(seeds=[0], sampler=sampler, steps=steps)))[-1].nfe


def test_the_reference_is_walked_once_for_the_same_noise(tiny, calls):
    counted, references = calls(tiny), References()
    rivals = requests.rivals(
        NAMES, [("ddim", 2), ("ddim", 3)], label="any", count=1, seed=123, guidance=0.0
    )
    first = [walk["distance"] for walk in last(Compare(rivals).films(tiny, references))["walks"]]
    cost = len(counted)
    assert [
        walk["distance"] for walk in last(Compare(rivals).films(tiny, references))["walks"]
    ] == first
    assert cost == 105 and len(counted) == cost + 5


def test_what_is_not_measured_costs_no_reference(tiny, calls):
    counted = calls(tiny)
    rivals = requests.rivals(
        NAMES, [("ddim", 2), ("ddim", 3)], label="any", count=1, seed=321, guidance=0.0
    )
    task = Compare(rivals, measured=False)
    assert [walk["distance"] for walk in last(task.films(tiny, References()))["walks"]] == [
        None,
        None,
    ]
    assert len(counted) == task.work == 5
    assert (
        Ladder(rivals[0], measured=False).work == sum(requests.LADDER)
        and Ladder(rivals[0]).work == sum(requests.LADDER) + 1000
    )


def test_what_the_page_opens_with_is_compared_with_a_reference_that_comes_with_the_weights(
    mnist, monkeypatch
):
    """`python -m ddpm.demo mnist` writes it: necessary after the weights have changed."""
    monkeypatch.setattr(type(mnist), "stream", lambda *_: pytest.fail("it was computed"))
    for count in (1, 4):
        found = list(References().find(mnist, tasks.reference(Settings(range(count)))))
        assert len(found) == 1 and found[0].shape == (count, 1, 28, 28)


def test_only_that_reference_comes_with_the_weights(mnist, tiny):
    for other in (
        Settings(range(1, 3)),
        Settings(range(5)),
        Settings([0], labels=3),
        Settings([0], guidance=1.0),
        Settings([0, 2]),
    ):
        assert tasks.shipped(mnist, tasks.reference(other)) is None
    assert tasks.shipped(mnist, replace(tasks.reference(Settings([0])), steps=100)) is None
    assert tasks.shipped(tiny, tasks.reference(Settings([0]))) is None


@pytest.mark.slow
def test_that_reference_is_what_the_walk_gives(mnist):
    walk = tasks.reference(Settings([0]))
    *_, frame = mnist.stream(walk)
    torch.testing.assert_close(tasks.shipped(mnist, walk), frame.x, rtol=0, atol=1e-2)


def test_references_are_few(tiny):
    references = References()
    for seed in range(20):
        rivals = requests.rivals(
            NAMES, [("ddim", 1), ("ddim", 1)], label="any", count=1, seed=seed, guidance=0.0
        )
        last(Compare(rivals).films(Pipeline(tiny_unet(schedule=Schedule(T=5))), references))
    assert len(references) == 16


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["dpm++2m", "ddim"])
def test_each_step_brings_a_deterministic_sampler_nearer_to_the_reference(mnist, sampler):
    film = last(
        Ladder(requests.ladder(NAMES, label="any", count=1, seed=0, sampler=sampler)).films(
            mnist, References()
        )
    )
    assert [walk["title"] for walk in film["walks"]] == [
        "1 step",
        *(f"{n} steps" for n in (2, 5, 10, 20, 50, 100)),
    ]
    assert [walk["frames"][-1]["nfe"] for walk in film["walks"]] == list(requests.LADDER)
    distances = [walk["distance"] for walk in film["walks"]]
    assert distances == sorted(distances, reverse=True)
    assert 0 < distances[-1] < distances[0] / 5 and distances[0] < 1


def test_the_ladder_has_no_more_steps_than_the_network_has_times():
    short = Pipeline(tiny_unet(schedule=Schedule(T=5)))
    film = last(
        Ladder(requests.ladder(NAMES, label="any", count=1, seed=0, sampler="ddim")).films(
            short, References()
        )
    )
    assert [walk["title"] for walk in film["walks"]] == ["1 step", "2 steps", "5 steps"]
    assert all(walk["distance"] is not None for walk in film["walks"])


def test_forward_goes_from_noise_to_the_picture_itself(tiny, calls):
    counted = calls(tiny)
    data = requests.picture("3")
    film = last(Forward(data, 7).films(tiny, References()))
    [walk] = film["walks"]
    assert (
        0 < film["rest"] < tasks.FORWARD_MOMENTS
        and len(walk["frames"]) == walk["total"] == tasks.FORWARD_MOMENTS + 1
    )
    times = [frame["t"] for frame in walk["frames"]]
    assert times == sorted(times, reverse=True) and (times[0], times[-1]) == (100, 0)
    assert walk["frames"][-1]["snr"] is None
    assert [frame["nfe"] for frame in walk["frames"]] == [*range(1, 41), 40] and len(counted) == 40
    x0 = tasks.as_images(tiny, data)
    assert (
        distance(decode(walk["frames"][-1]["x"]), sheet(x0))
        == distance(decode(walk["frames"][-1]["x0"]), sheet(x0))
        == 0
    )
    eps = next(iter(tiny.stream(Settings(seeds=[7])))).x
    for frame, exact in zip(walk["frames"], tiny.forward(x0, seeds=[7], times=times), strict=True):
        alpha, sigma = tiny.model.schedule(frame["t"])
        torch.testing.assert_close(exact.x, (alpha * x0 + sigma * eps).float())
        assert (exact.t, exact.nfe) == (frame["t"], frame["nfe"])
        assert (
            distance(
                decode(frame["x"]), sheet(exact.x) if frame["t"] == 0 else moving(sheet(exact.x))
            )
            == 0
        )
        assert distance(decode(frame["x0"]), sheet(exact.x0)) <= 1


def test_denoise_from_hardly_any_noise_is_nearly_the_picture(mnist):
    data = requests.picture("8")
    with Image.open(io.BytesIO(data)) as picture:
        for t, near in ((1, 0.02), (50, 0.15)):
            [walk] = last(
                Denoise(data, t, asked(count=1, label="none", steps=50)).films(mnist, References())
            )["walks"]
            end = decode(walk["frames"][-1]["x"])
            difference = (
                from_picture(end, 1, 28) - from_picture(picture, 1, 28)
            ).square().mean().sqrt().item() / 2
            assert difference < near
            assert (
                walk["title"] == f"from t = {t}"
                and walk["frames"][0]["t"] == t
                and walk["frames"][-1]["t"] == 0
            )


def test_denoise_from_the_top_is_a_picture_of_its_own(mnist):
    """At t = 1000 hardly anything is left: what comes is what the seed draws without a picture."""
    [walk] = last(
        Denoise(requests.picture("1"), 1000, asked(count=1, seed=5, label="none")).films(
            mnist, References()
        )
    )["walks"]
    alone = list(mnist.stream(Settings(seeds=[5], labels=10, steps=3)))[-1].x
    assert (
        from_picture(decode(walk["frames"][-1]["x"]), 1, 28) - from_picture(sheet(alone), 1, 28)
    ).abs().mean() < 0.02


def test_programs_get_facts_pictures_and_an_animation_of_a_film(tiny):
    film = last(Generate(asked()).films(tiny, References()))
    assert answers.told(film) == {
        "seeds": [11, 12, 13, 14],
        "labels": tiny.names(Settings(range(11, 15))),
        "walks": [{"evaluations": 3}],
    }
    x = tiny.sample(seeds=range(11, 15), steps=3).x
    with Image.open(io.BytesIO(answers.sheet(film))) as picture:
        assert distance(picture, sheet(x, scale=answers.SCALE)) == 0
    for image, content in zip(x, answers.singles(film), strict=True):
        with Image.open(io.BytesIO(content)) as picture:
            assert distance(picture, sheet(image[None])) == 0
    rivals = requests.rivals(
        NAMES, [("ddim", 2), ("heun", 3)], label="any", count=4, seed=3, guidance=0.0
    )
    film = last(Compare(rivals, measured=False).films(tiny, References()))
    assert [(walk["title"], walk["evaluations"]) for walk in answers.told(film)["walks"]] == [
        ("ddim · 2 steps", 2),
        ("heun · 3 steps", 5),
    ]
    with Image.open(io.BytesIO(answers.animation(film))) as picture:
        # as long as the longest, side by side
        assert picture.n_frames == 1 + 4 and picture.width / picture.height > 2


ABANDONED = {
    "generate": lambda p: Generate(asked(steps=100)).films(p, References()),
    "compare": lambda p: Compare(
        requests.rivals(
            NAMES, [("ddim", 50), ("heun", 50)], label="any", count=1, seed=0, guidance=0.0
        )
    ).films(p, References()),
    "ladder": lambda p: Ladder(
        requests.ladder(NAMES, label="any", count=1, seed=0, sampler="ddim")
    ).films(p, References()),
    "denoise": lambda p: Denoise(requests.picture("4"), 100, asked(count=1, steps=100)).films(
        p, References()
    ),
}


@pytest.mark.parametrize("task", ABANDONED)
def test_who_stops_listening_stops_the_work(tiny, calls, monkeypatch, task):
    monkeypatch.setattr(tasks, "SHOW_EVERY", -1)
    counted = calls(tiny)
    films = ABANDONED[task](tiny)
    for _ in range(3):
        next(films)
    before = len(counted)
    assert 0 < before < 20
    films.close()
    assert len(counted) == before
    next(ABANDONED[task](tiny))  # and the next one starts


def test_the_line_about_a_model_says_what_it_is(tiny):
    assert about.about(tiny).startswith(
        "A U-Net of 0.0"
    ) and "gray images of 8×8 pixels" in about.about(tiny)


def test_the_figures_told_are_those_of_the_weights_that_draw(tiny, tmp_path):
    built_in, folder = Pipeline.from_pretrained("mnist"), BUILT_IN / "mnist"
    assert re.fullmatch(
        r"Measured on [\d,]+ images by a panel of judges: the worst .* \d+\.\d times .* "
        r"\(1: no judge can tell\); \d+\.\d% show the digit asked for\.",
        about.quality(built_in, folder),
    )
    # of other weights; not there
    assert about.quality(tiny, folder) == "" == about.quality(built_in, tmp_path)
    (tmp_path / "evaluation.json").write_text("[]")
    assert about.quality(built_in, tmp_path) == ""


# --- The parts of the pipeline that these need ----------------------------------------------------


def test_a_walk_from_a_picture_starts_at_its_closed_form_and_takes_what_is_left_of_the_way(tiny):
    x0 = torch.rand(2, 1, 8, 8) * 2 - 1
    frames = list(
        tiny.stream(Settings(seeds=[1, 2], steps=10, grid="linspace", start=Start(x0, 42)))
    )
    alpha, sigma = tiny.model.schedule(42.0)
    eps = next(iter(tiny.stream(Settings(seeds=[1, 2])))).x
    torch.testing.assert_close(frames[0].x, (alpha * x0 + sigma * eps).float())
    whole = Settings([1], steps=10, grid="linspace").times(tiny.model.schedule)
    assert [frame.t for frame in frames] == [42, *(t for t in whole if t < 42)]
    assert torch.equal(frames[-1].x, frames[-1].x0) and frames[-1].nfe == len(frames) - 1
    alone = list(
        tiny.stream(Settings(seeds=[2], steps=10, grid="linspace", start=Start(x0[1:], 42)))
    )[-1].x
    torch.testing.assert_close(frames[-1].x[1:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_can_start_on_the_way(tiny, sampler):
    for t in (1, 1.5, 99.9, 100):
        *_, end = tiny.stream(
            Settings(seeds=[0], steps=10, sampler=sampler, start=Start(torch.zeros(1, 1, 8, 8), t))
        )
        assert end.t == 0 and end.x.isfinite().all()


@pytest.mark.parametrize("t", [0, 0.5, -1, 100.5, 1e9, NAN, INF, None, "50", [50], True])
def test_a_start_that_cannot_be_is_refused_at_once(tiny, t):
    with pytest.raises(ValueError, match=r"starts at a time in 1\.\.100"):
        tiny.stream(Settings(seeds=[0], start=Start(torch.zeros(1, 1, 8, 8), t)))


@pytest.mark.parametrize("sampler", ["plms", "heun"])
def test_where_the_grid_begins_below_the_top_a_walk_begins_there_too(tiny, sampler):
    usual = Settings([0], sampler=sampler, steps=10)
    first, *_ = times = usual.times(tiny.model.schedule)
    assert (
        first < 100
        and replace(usual, start=Start(torch.zeros(1), 100)).times(tiny.model.schedule) == times
    )
    frame = next(
        iter(
            tiny.stream(
                Settings(
                    seeds=[0], steps=10, sampler=sampler, start=Start(torch.zeros(1, 1, 8, 8), 100)
                )
            )
        )
    )
    assert frame.t == first


@pytest.mark.parametrize("t", [0, 0.5, 101, NAN, INF, None, "5", [5], True, 10**400])
def test_a_time_is_checked(tiny, t):
    with pytest.raises(ValueError, match=r"^t must be a number in 1\.\.100$"):
        requests.time(t, 100)
    assert requests.time(100, 100) == 100 and requests.time(1.5, 100) == 1.5


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 1, 8, 8), (1, 3, 8, 8), (1, 1, 9, 8), ()])
def test_pictures_of_another_shape_are_refused_at_once(tiny, shape):
    with pytest.raises(ValueError, match=r"x0 must be \[1, 1, 8, 8\]"):
        tiny.stream(Settings(seeds=[0], start=Start(torch.zeros(shape), 50)))
    with pytest.raises(ValueError, match=r"x0 must be \[1, 1, 8, 8\]"):
        tiny.forward(torch.zeros(shape), seeds=[0], times=[50])


def test_the_signal_to_noise_ratio_is_that_of_the_schedule_and_infinite_at_the_end(tiny):
    for frame in tiny.stream(Settings(seeds=[0], steps=5)):
        alpha, sigma = tiny.model.schedule(frame.t)
        assert frame.snr == (pytest.approx(float(alpha**2 / sigma**2)) if frame.t else INF)


def test_what_was_asked_is_told_in_words(mnist):
    assert mnist.names(Settings([0, 1], 7)) == ["7", "7"] and mnist.names(
        Settings([0, 1], [10, 3])
    ) == [None, "3"]
    assert mnist.names(Settings([0, 1])) == [str(mnist.label_of(0)), str(mnist.label_of(1))]
    assert Pipeline(tiny_unet(classes=0)).names(Settings([0, 1])) == [None, None]
    named = Pipeline(tiny_unet(), {"class_names": list("abcdefghij")})
    assert named.names(Settings([5], 2)) == ["c"] and named.sample(
        seeds=[5], labels=2, steps=1
    ).labels == ("c",)
