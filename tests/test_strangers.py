"""Models from strangers: whatever lies in their folder, it is loaded and draws, or gets one line
and exit code 2."""

import hashlib
import json
import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app
from ddpm import Pipeline, Schedule, hub
from ddpm.__main__ import main
from ddpm.demo import about
from ddpm.demo.requests import Request
from ddpm.demo.serving import Serving, pipeline
from tests.helpers import split, tiny_unet

CLASSES = 3


@pytest.fixture(scope="module")
def whole():
    """The two files of a small model, as `python -m train` writes them."""
    history = {"commands": ["python -m train --out runs/mine"], "images": 10, "minutes": 0.5}
    return hub.files(
        tiny_unet(classes=CLASSES),
        dataset="mine",
        class_names=["ant", "bee", "cat"],
        class_counts=[3, 1, 2],
        history=history,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, whole):
    folder = tmp_path_factory.mktemp("stranger")
    (folder / hub.WEIGHTS).write_bytes(whole[hub.WEIGHTS])
    return folder


def put(folder, whole, **changes):
    """The folder with these changes in its config.json."""
    (folder / hub.CONFIG).write_text(json.dumps(json.loads(whole[hub.CONFIG]) | changes))
    (folder / hub.WEIGHTS).write_bytes(whole[hub.WEIGHTS])
    return folder


def parts(weights):
    """The header and the data of a safetensors file."""
    (length,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def put_weights(folder, whole, header, data, *, length=None, **changes):
    """The folder with this for its weights; the sha256 fits."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    weights = struct.pack("<Q", len(text) if length is None else length) + text + data
    put(folder, whole, **{"sha256": hashlib.sha256(weights).hexdigest()} | changes)
    (folder / hub.WEIGHTS).write_bytes(weights)


def is_one_line(words):
    assert words.encode() and words.isprintable() and len(words) < 1000, words[:2000]


def told_or_drawn(folder, capfd, out):
    """What the command line makes of the folder: whether it draws; if it does not, it says why in
    one line."""
    out.unlink(missing_ok=True)
    code = main(
        ["--model", str(folder), "--count", "1", "--seed", "0", "--steps", "1", "--out", str(out)]
    )
    said = capfd.readouterr()
    if code == 0:
        assert out.stat().st_size and "1 images" in said.out
        return True
    assert code == 2 and not out.exists() and not said.out
    assert said.err.startswith("ddpm: ") and said.err.endswith("\n")
    is_one_line(said.err[:-1])
    return False


def served(folder):
    """What the app makes of the folder: its words if it can draw with it, else None; it says why in
    one line."""
    serving = Serving(str(folder))
    serving.load(60)
    pipeline.cache_clear()
    if serving.arrived:
        return pipeline(serving.weights).class_names
    is_one_line(serving.problem)
    return None


# --- Text -----------------------------------------------------------------------------------------

BAD_NAMES = {
    "a lone surrogate": "\ud800",
    "half an emoji": "x\udc00",
    "a line end": "a\nb",
    "a NUL": "a\0",
    "an escape": "\x1b[31mred",
    "a tab": "a\tb",
    "writing turned round": "\u202etxt.exe",
    "a mark of direction": "a\u200f",
    "nothing to see": "\u200b",
    "a separator of lines": "a\u2028b",
    "a no-break space": "a\u00a0b",
    "no name": "",
    "a space": " ",
    "a space at the end": "ant ",
    "too long": "x" * 101,
    "no text": 3,
    "a list": ["ant"],
    "the page's word for each": "any",
    "its word for no class": "none",
    "the same, written larger": "None",
    "the same twice": "bee",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_class_name_that_cannot_be_shown_or_told_apart_is_refused(
    folder, whole, name, capfd, tmp_path
):
    put(folder, whole, class_names=[name, "bee", "cat"])
    assert not told_or_drawn(folder, capfd, tmp_path / "a.png")
    assert served(folder) is None
    with pytest.raises(ValueError, match=r"config\.json: class_names"):
        hub.load(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("best", "0", "größer", "שלום", "手", "👍"),
        *("<b onclick='x'>", "`a`", "--help", "any other", "x" * 100),
    ],
)
def test_a_class_may_have_any_other_name(folder, whole, name, capfd, tmp_path):
    put(folder, whole, class_names=[name, "bee", "cat"])
    assert told_or_drawn(folder, capfd, tmp_path / "a.png")
    assert served(folder) == (name, "bee", "cat")
    options = split("--count 1 --steps 1 --out", tmp_path / "a.png")
    assert main(["--model", str(folder), f"--label={name}", *options]) == 0
    assert Request(label=name).settings(served(folder)).labels == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "\ud800"},
        {"dataset": "a\nb"},
        {"dataset": ["mnist"]},
        {"dataset": "x" * 101},
        {"dataset": {}},
        {"class_names": "ant"},
        {"class_names": {}},
        {"class_names": ["ant"]},
        {"prediction": "x" * 900_000},
        {"mults": [[1] * 100_000]},
        {"attention": [True] * 300_000},
        {"schedule": {"\ud800\n": 1}},
        {"schedule": {"x" * 900_000: 1}},
        {"schedule": {"name": "\u202e" * 1000}},
        {"channels": True},
        {"channels": 1.0},
        *(
            {"history": {"commands": lines, "images": 1, "minutes": 1}}
            for lines in (
                ["python -m train \ud800"],
                ["python -m train \u202e"],
                ["python " + "x" * 2000],
                ["python -m train"] * 101,
            )
        ),
    ],
    ids=lambda changes: ascii(changes)[:40],
)
def test_whatever_else_is_said_is_printable_and_short_or_refused(
    folder, whole, changes, capfd, tmp_path
):
    put(folder, whole, **changes)
    assert not told_or_drawn(folder, capfd, tmp_path / "a.png")
    assert served(folder) is None


@pytest.mark.parametrize(
    "name", ["x\n\x1b[31m", "\u202e", "x" * 500_000], ids=["control", "direction", "long"]
)
def test_names_of_tensors_are_printed_as_one_short_line(folder, whole, name, capfd, tmp_path):
    header, data = parts(whole[hub.WEIGHTS])
    header[name] = header.pop("conv_in.bias")
    put_weights(folder, whole, header, data)
    assert not told_or_drawn(folder, capfd, tmp_path / "a.png")
    header[name]["dtype"] = "\u202eF32\n"
    put_weights(folder, whole, header, data)
    assert not told_or_drawn(folder, capfd, tmp_path / "a.png")


REPORT = {
    "weights_sha256": "",
    "samples": 10_000,
    "worst": {"judge": "texture", "ratio": 1.25},
    "figures": {"accuracy": {"mean": 0.995}},
}


@pytest.mark.parametrize(
    "report",
    [
        "[" * 100_000,
        "1" * 5000,
        "[]",
        "{}",
        "\xff",
        *(
            json.dumps(REPORT | changes)
            for changes in (
                {"samples": float("inf")},
                {"samples": "<b>"},
                {"samples": None},
                {"figures": []},
                {"worst": [1, 2]},
                {"worst": {"ratio": "<b>"}},
                {"worst": {}},
                {"figures": REPORT["figures"] | {"accuracy": 3}},
                {"figures": REPORT["figures"] | {"accuracy": {"mean": {}}}},
                {"figures": REPORT["figures"] | {"accuracy": {"mean": "9"}}},
                {"weights_sha256": "other"},
            )
        ),
    ],
    ids=lambda report: ascii(report)[-50:],
)
def test_a_report_that_is_none_says_nothing_on_the_page(folder, whole, report):
    found = Pipeline.from_pretrained(put(folder, whole))
    (folder / "evaluation.json").write_bytes(
        report.replace(
            '"weights_sha256": ""', json.dumps({"weights_sha256": found.config["sha256"]})[1:-1]
        ).encode("latin-1")
    )
    assert about.quality(found, folder) == ""
    good = REPORT | {"weights_sha256": found.config["sha256"]}
    (folder / "evaluation.json").write_text(json.dumps(good))
    assert all(
        words in about.quality(found, folder) for words in ("10,000 images", "1.2 times", "99.5%")
    )


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        # 45 billion parameters
        {"width": 256, "mults": [16] * 5, "attention": [False] * 5, "blocks": 8, "size": 16},
        # attends in the middle: a number for each of 65,536² pairs of pixels
        {"size": 256, "mults": [1], "attention": [False]},
        {"size": 128, "attention": [True, False]},
        {"size": 256, "width": 256, "mults": [2, 1, 1], "attention": [False] * 3},
    ],
    ids=["parameters", "middle", "attention", "width"],
)
def test_a_network_that_needs_more_memory_than_a_computer_has_is_refused(
    folder, whole, changes, capfd, tmp_path
):
    put(folder, whole, **changes)
    assert not told_or_drawn(folder, capfd, tmp_path / "a.png")
    with pytest.raises(ValueError, match="the network is too large"):
        hub.load(folder)


def test_a_file_larger_than_its_network_is_not_even_opened(folder, whole):
    put(folder, whole)
    with open(folder / hub.WEIGHTS, "r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(
        ValueError, match=r"model\.safetensors has 1,099,511,627,776 bytes, it may have"
    ):
        hub.load(folder)
    put(folder, whole)
    with open(folder / hub.CONFIG, "r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"config\.json has 1,099,511,627,776 bytes"):
        hub.load(folder)


# --- Anything at all ------------------------------------------------------------------------------

WORDS = ["any", "none", "v", "cosine", "linear", "eps", "\ud800", "\u202e", "\n", "../..", "1e999"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([*WORDS, 0, 1, 2, 3, 8, 16, 10**30]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "T", "commands", "images", "minutes"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
# What might well be: it is of the right kind.
LIKELY = {
    "channels": st.sampled_from([1, 3]),
    "size": st.integers(1, 64),
    "classes": st.integers(0, 5),
    "width": st.sampled_from([8, 16, 24, 256]),
    "mults": st.lists(st.integers(0, 4), max_size=4),
    "blocks": st.integers(0, 3),
    "attention": st.lists(st.booleans(), max_size=4),
    "prediction": st.sampled_from(["v", "eps", "x0"]),
    "schedule": st.fixed_dictionaries(
        {"name": st.sampled_from(["cosine", "linear"]), "T": st.integers(0, 20)}
    ),
    "class_names": st.lists(st.text(max_size=5), min_size=2, max_size=4),
    "class_counts": st.lists(st.integers(-1, 10**13), min_size=2, max_size=4),
    "dataset": st.text(max_size=5),
    "history": st.fixed_dictionaries(
        {
            "commands": st.lists(st.text(max_size=5).map("python {}".format), max_size=3),
            "images": st.integers(),
            "minutes": st.floats(),
        }
    ),
    "sha256": st.text("0123456789abcdef", min_size=64, max_size=64),
    "unknown": JSON,
    "distilled": st.fixed_dictionaries(
        {
            "teacher": st.just("0" * 64),
            "walks": st.dictionaries(
                st.sampled_from(["1", "2"]), st.lists(st.floats(0, 20), max_size=2), max_size=2
            ),
        }
    ),
}
# more by hand: FUZZ=5000 python -m pytest tests/test_strangers.py
TRIES = int(os.environ.get("FUZZ", "30"))
FUZZ = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def fates(one, tries=TRIES):
    """Runs one(data) on so many examples; returns how many were drawn, and how many refused."""
    fates = []

    @settings(max_examples=tries, **FUZZ)
    @given(st.data())
    def run(data):
        fates.append(one(data))

    run()
    print(f"{sum(fates)} drawn, {len(fates) - sum(fates)} refused")
    return sum(fates), len(fates) - sum(fates)


def test_whatever_stands_in_a_config_it_draws_or_is_refused_in_one_line(
    folder, whole, capfd, tmp_path
):
    def one(data):
        changes = {
            name: data.draw(LIKELY[name] | JSON)
            for name in sorted(
                data.draw(st.sets(st.sampled_from(sorted(LIKELY)), min_size=1, max_size=3))
            )
        }
        return told_or_drawn(put(folder, whole, **changes), capfd, tmp_path / "a.png")

    drawn, refused = fates(one)
    assert drawn and refused


def test_whatever_bytes_a_config_is_made_of_they_are_refused_in_one_line_or_harmless(
    folder, whole, capfd, tmp_path
):
    config = whole[hub.CONFIG]

    def one(data):
        put(folder, whole)
        at, length = data.draw(st.integers(0, len(config))), data.draw(st.integers(0, 20))
        (folder / hub.CONFIG).write_bytes(
            config[:at]
            + data.draw(
                st.binary(max_size=20)
                | st.text(max_size=9).map(lambda t: t.encode(errors="replace"))
            )
            + config[at + length :]
        )
        return told_or_drawn(folder, capfd, tmp_path / "a.png")

    assert fates(one)[1]


@pytest.mark.slow
def test_a_network_of_any_shape_draws(folder, capfd, tmp_path):
    """Every config that UNet accepts, with weights that fit, however large they are."""

    def one(data):
        levels = data.draw(st.integers(1, 3))
        shape = {
            "channels": data.draw(st.sampled_from([1, 3])),
            "size": 2 ** (levels - 1) * data.draw(st.integers(4 // levels + 1, 8)),
            "classes": data.draw(st.sampled_from([0, 1, 2, 5])),
            "width": data.draw(st.sampled_from([8, 16])),
            "mults": data.draw(st.lists(st.integers(1, 2), min_size=levels, max_size=levels)),
            "blocks": data.draw(st.integers(1, 2)),
            "attention": data.draw(st.lists(st.booleans(), min_size=levels, max_size=levels)),
            "prediction": data.draw(LIKELY["prediction"]),
            "schedule": Schedule(
                data.draw(st.sampled_from(["cosine", "linear"])),
                data.draw(st.sampled_from([1, 2, 50, 10_000])),
            ),
        }
        model = tiny_unet(**shape)
        for p in model.parameters():
            p.data *= data.draw(st.sampled_from([0, 1, 1e10, 1e37]))
        whole = hub.files(model)
        return told_or_drawn(put(folder, whole), capfd, tmp_path / "a.png")

    assert fates(one)[1] == 0


def test_whatever_stands_in_a_safetensors_header_it_draws_or_is_refused_in_one_line(
    folder, whole, capfd, tmp_path
):
    header, content = parts(whole[hub.WEIGHTS])
    fields = {
        "dtype": st.sampled_from(
            ["F32", "F16", "BF16", "F64", "I8", "I64", "BOOL", "F8_E4M3", "C64", "\ud800", "f32"]
        ),
        "shape": st.lists(st.integers(-1, 2**64), max_size=5),
        "data_offsets": st.lists(st.integers(-1, 2**64) | st.integers(0, len(content)), max_size=3),
    }

    def one(data):
        new = dict(header)
        for name in sorted(
            data.draw(st.sets(st.sampled_from(sorted(header)), min_size=1, max_size=2))
        ):
            field = data.draw(st.sampled_from(sorted(fields)))
            new[name] = data.draw(
                st.sampled_from(
                    [
                        {**header[name], field: data.draw(fields[field] | JSON)},
                        {**header[name], data.draw(st.text(max_size=3)): 1},
                    ]
                )
                | JSON
            )
        if data.draw(st.booleans()):
            new[data.draw(st.sampled_from(["__metadata__", "evil", "\ud800"]))] = data.draw(
                st.dictionaries(st.text(max_size=3), st.text(max_size=3)) | JSON
            )
        put_weights(folder, whole, new, content)
        return told_or_drawn(folder, capfd, tmp_path / "a.png")

    assert fates(one)[1]


def test_whatever_bytes_weights_are_made_of_they_are_refused_in_one_line_or_finite(
    folder, whole, capfd, tmp_path
):
    """Cut, changed, lengthened, with another length of the header; the sha256 fits, or not."""
    weights = whole[hub.WEIGHTS]

    def one(data):
        at, length = (
            data.draw(st.integers(0, 20) | st.integers(0, len(weights))),
            data.draw(st.integers(0, 20) | st.just(len(weights))),
        )
        new = weights[:at] + data.draw(st.binary(max_size=20)) + weights[at + length :]
        put(
            folder,
            whole,
            **({"sha256": hashlib.sha256(new).hexdigest()} if data.draw(st.booleans()) else {}),
        )
        (folder / hub.WEIGHTS).write_bytes(new)
        return told_or_drawn(folder, capfd, tmp_path / "a.png")

    assert fates(one)[1]


# --- The app --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_app_serves_it_or_says_why_not_and_its_page_stands_in_any_case(
    folder, whole, monkeypatch
):
    def one(data):
        changes = {
            name: data.draw(LIKELY[name] | JSON)
            for name in sorted(
                data.draw(st.sets(st.sampled_from(sorted(LIKELY)), min_size=1, max_size=2))
            )
        }
        put(folder, whole, **changes)
        monkeypatch.setattr(app, "serving", Serving(str(folder)))
        pipeline.cache_clear()
        page = app.build()
        words = json.dumps(
            [
                page.get_config_file(),
                [
                    update if isinstance(update, str) else str(update)
                    for update in app._weights_in_use()
                ],
            ],
            default=str,
            ensure_ascii=False,
        )
        assert words.encode()
        *_, film = app.generate(count=1, steps=1, seed=0, film=True)
        json.dumps(film, allow_nan=False, ensure_ascii=False).encode()
        return app.serving.arrived

    fates(one, max(1, TRIES // 10))
