"""What programs get: every endpoint and every tool, with its defaults and with each argument, by
every client."""

import asyncio
import base64
import importlib.util
import io
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from inspect import signature

import pytest
from gradio_client import Client
from PIL import Image

import app
from ddpm import GRIDS, SAMPLERS, Pipeline
from ddpm.pixels import GIF_WIDTH
from tests.helpers import decode, distance

NAMES = [task.__name__ for task in app.PUBLIC]
# For each endpoint: calls that together give every argument a value that is not its default.
CALLS = {
    "generate": [
        {},
        {
            "label": "7",
            "count": 2,
            "seed": 11,
            "steps": 3,
            "sampler": "ddim",
            "time_grid": "linspace",
            "eta": 0.5,
            "guidance": 1.5,
            "film": True,
        },
    ],
    "compare": [
        {},
        {
            "label": "3",
            "count": 1,
            "seed": 5,
            "guidance": 1,
            "sampler_1": "euler",
            "steps_1": 2,
            "sampler_2": "heun",
            "steps_2": 3,
            "film": True,
            "sampler_3": "plms",
            "steps_3": 1,
            "sampler_4": "ddpm",
            "steps_4": 4,
        },
        {"count": 1, "steps_1": 1, "steps_2": 1, "sampler_3": "none", "measure": True},
    ],
    "ladder": [
        {},
        {"label": "none", "count": 4, "seed": 2, "sampler": "dpm++2m", "film": True},
        {"measure": True},
    ],
    "forward": [{}, {"picture": "3", "seed": 9, "film": True}],
    "denoise": [
        {},
        {
            "picture": "8",
            "t": 300,
            "seed": 4,
            "label": "8",
            "sampler": "ddim",
            "steps": 10,
            "film": True,
        },
    ],
    "nearest": [{}, {"picture": "3"}],
}
FILMS = [name for name in NAMES if name != "nearest"]
EVERY = [(name, asked) for name in FILMS for asked in CALLS[name]]
IDS = [f"{name}-{len(asked)}" for name, asked in EVERY]


@pytest.fixture(scope="module")
def client(page):
    return Client(page.local_url, verbose=False)


@pytest.fixture(scope="module")
def schemas(client):
    return client.view_api(return_format="dict")["named_endpoints"]


def test_the_tasks_are_public_and_nothing_else(page, schemas):
    assert [f"/{name}" for name in NAMES] == list(page.get_api_info()["named_endpoints"])
    assert set(NAMES) == set(CALLS)


def test_the_calls_of_these_tests_give_every_argument_another_value_than_its_default():
    for task in app.PUBLIC:
        for name, parameter in signature(task).parameters.items():
            assert any(
                asked.get(name, parameter.default) != parameter.default
                for asked in CALLS[task.__name__]
            ), (task, name)


def test_every_argument_is_typed_bounded_described_and_has_a_default(page):
    whole = {"count", "seed", "steps", "steps_1", "steps_2", "steps_3", "steps_4"}
    for name, endpoint in page.get_api_info()["named_endpoints"].items():
        for parameter in endpoint["parameters"]:
            told, called = parameter["type"], parameter["parameter_name"]
            assert parameter["parameter_has_default"], (name, called)
            if called in whole:
                assert told.get("type") == "integer" or {"type": "integer"} in told["oneOf"], (
                    name,
                    told,
                )
                assert "maximum" in told or "enum" in told, (name, called)
            if called.startswith("sampler"):
                assert set(told["enum"]) - {"none"} == set(SAMPLERS)
                assert ("none" in told["enum"]) == (called in ("sampler_3", "sampler_4"))
            if called == "time_grid":
                assert told["enum"] == ["best", *GRIDS]
            if called in ("film", "measure"):
                assert told["type"] == "boolean"
        for line in (
            next(task for task in app.PUBLIC if f"/{task.__name__}" == name)
            .__doc__.split("Returns:")[0]
            .splitlines()[3:]
        ):
            # Gradio takes one line of each
            assert not line.strip() or (line.startswith("        ") and ":" in line)


def check(name, asked, told, sheet, gif, images, film):
    """What every answer holds. sheet, gif, images: as Pillow opens them."""
    assert sheet.format == "PNG" and gif.format == "GIF" and gif.width >= GIF_WIDTH
    assert (film is not None) == asked.get("film", False)
    if name == "forward":
        assert told["seed"] == asked.get("seed", 0) and [
            moment["t"] for moment in told["moments"]
        ] == [125 * k for k in range(8, -1, -1)]
        assert sheet.size == (4 * (9 * 28 + 8 * 6), 4 * (2 * 28 + 6))
        return
    walks = told["walks"]
    assert [walk["evaluations"] for walk in walks] == {
        ("generate", 0): [20],
        ("generate", 9): [6],
        ("denoise", 0): [29],
        ("compare", 0): [10, 10, 10],
        ("compare", 13): [4, 10, 2, 8],
        ("compare", 5): [1, 1],
        ("denoise", 7): [3],
    }.get((name, len(asked)), [1, 2, 5, 10, 20, 50, 100])
    assert all(("distance" in walk) == asked.get("measure", False) for walk in walks)
    count = asked.get(
        "count",
        signature(getattr(app, name)).parameters["count"].default if name != "denoise" else 1,
    )
    assert len(told["seeds"]) == len(told["labels"]) == count
    if "seed" in asked:
        assert told["seeds"] == list(range(asked["seed"], asked["seed"] + count))
    if "label" in asked:
        assert set(told["labels"]) == {None if asked["label"] == "none" else asked["label"]}
    if name == "generate":
        assert len(images) == count and all(image.size == (28, 28) for image in images)
        assert (
            distance(
                images[0].convert("L"),
                sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST).crop(
                    (0, 0, 28, 28)
                ),
            )
            == 0
        )
    if film:
        assert len(film["walks"]) == len(walks)
        assert (
            distance(
                decode(film["walks"][0]["frames"][-1]["x"]).crop((0, 0, 28, 28)),
                sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.NEAREST).crop(
                    (0, 0, 28, 28)
                ),
            )
            == 0
        )


@pytest.mark.parametrize(("name", "asked"), EVERY, ids=IDS)
def test_the_client_of_gradio_gets_facts_pictures_and_an_animation(client, name, asked):
    told, sheet, gif, *images, film = client.predict(**asked, api_name=f"/{name}")
    check(
        name,
        asked,
        told,
        Image.open(sheet),
        Image.open(gif),
        list(map(Image.open, images[0] if images else [])),
        film,
    )


def test_the_pictures_are_those_of_the_library_in_any_order_of_calls(client):
    """There is no session: what is called in between, by whomever, changes nothing."""
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(11, 15), steps=3)
    for _ in range(2):
        told, sheet, gif, images, film = client.predict(
            count=4, steps=3, seed=11, api_name="/generate"
        )
        assert (told["seeds"], told["labels"], film) == ([11, 12, 13, 14], list(ours.labels), None)
        assert distance(Image.open(sheet), ours.sheet()) <= 1
        for k, path in enumerate(images):
            assert path.endswith(f"digits-{11 + k}.png")
        with Image.open(gif) as moving:
            assert moving.n_frames == 5
            # a still preview shows digits
            assert (
                distance(
                    moving.convert("L"),
                    ours.sheet(scale=moving.height // ours.sheet(scale=1).height),
                )
                <= 1
            )
        Client(client.src, verbose=False).predict(count=1, steps=1, api_name="/generate")


def test_a_random_seed_is_told(client):
    told, *_ = client.predict(count=1, steps=1, api_name="/generate")
    again, *_ = client.predict(count=1, steps=1, seed=told["seeds"][0], api_name="/generate")
    assert (
        told == again
        and client.predict(count=1, steps=1, api_name="/generate")[0]["seeds"] != told["seeds"]
    )


# --- curl -----------------------------------------------------------------------------------------


JSON = ("-H", "Content-Type: application/json", "-d")  # and then what is sent


def curl(*arguments):
    program = shutil.which("curl") or pytest.skip("no curl here")
    command = [program, "-sS", "--max-time", "120", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_curl_asks_and_fetches_as_the_page_about_the_api_says(page):
    asked = json.dumps({"data": ["7", 2, 5, 3, "unipc2", "best", 0, 0, False]})
    call = f"{page.local_url}gradio_api/call/generate"
    event = json.loads(curl("-X", "POST", call, *JSON, asked))["event_id"]
    said = curl("-N", f"{call}/{event}").decode()
    assert said.startswith("event: complete")
    told, sheet, gif, images, film = json.loads(said.split("data: ", 1)[1])
    assert told["seeds"] == [5, 6] and film is None and len(images) == 2
    for file, kind in ((sheet, "PNG"), (gif, "GIF"), *((image, "PNG") for image in images)):
        assert Image.open(io.BytesIO(curl(file["url"]))).format == kind


def test_curl_asks_in_one_request_too(page):
    asked = json.dumps({"data": ["7", 2, 5, 3, "unipc2", "best", 0, 0, False]})
    run = f"{page.local_url}gradio_api/run/generate"
    told, *_ = json.loads(curl("-X", "POST", run, *JSON, asked))["data"]
    assert told["seeds"] == [5, 6]


# --- MCP ------------------------------------------------------------------------------------------


@asynccontextmanager
async def session(page):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(f"{page.local_url}gradio_api/mcp/") as (read, write, _),
        ClientSession(read, write) as found,
    ):
        await found.initialize()
        yield found


@pytest.mark.parametrize("asked", CALLS["nearest"])
def test_the_nearest_training_images_are_found(client, asked):
    told, sheet = client.predict(**asked, api_name="/nearest")
    assert (
        told["training_images"] == 60_000
        and told["distances"] == sorted(told["distances"])
        and len(told["distances"]) == 3
    )
    assert (
        told["copy_below"] < told["usual"][0] < told["distances"][0]
        and f"is {told['distances'][0]:.1f} away" in told["words"]
    )
    assert Image.open(sheet).size == (4 * (3 * 28 + 2 * 6), 4 * 28)


needs_mcp = pytest.mark.skipif(
    not importlib.util.find_spec("mcp"), reason="the extra gradio[mcp] is not installed"
)


@needs_mcp
def test_every_tool_is_listed_with_typed_and_described_arguments(page):
    async def ask():
        async with session(page) as mcp:
            return (await mcp.list_tools()).tools

    tools = asyncio.run(ask())
    assert [tool.name for tool in tools] == NAMES
    for tool in tools:
        assert "Returns: " in tool.description and list(tool.inputSchema["properties"]) == list(
            signature(getattr(app, tool.name)).parameters
        )
        for told in tool.inputSchema["properties"].values():
            assert told["description"].endswith(".") and ("type" in told or "oneOf" in told)


@needs_mcp
@pytest.mark.parametrize(("name", "asked"), EVERY, ids=IDS)
def test_every_tool_answers_with_facts_and_pictures(page, name, asked):
    async def ask():
        async with session(page) as mcp:
            return await mcp.call_tool(name, asked)

    answer = asyncio.run(ask())
    assert not answer.isError, answer
    told, sheet, png_at, gif, gif_at, *images, film = answer.content
    check(
        name,
        asked,
        eval(told.text, {}),
        picture(sheet),
        picture(gif),
        [],
        None if film.text == "None" else eval(film.text, {}),
    ) if name != "generate" else None
    assert png_at.text.startswith("Image URL: ") and gif_at.text.endswith(".gif")
    assert (film.text == "None") == (not asked.get("film")) and len(images) == (name == "generate")
    texts = sum(len(part.text) for part in answer.content[:-1] if part.type == "text")
    assert texts < 10_000  # of words, a language model reads


@needs_mcp
def test_the_tool_for_the_nearest_training_images_answers(page):
    async def ask():
        async with session(page) as mcp:
            return await mcp.call_tool("nearest", {"picture": "3"})

    told, sheet, *_ = asyncio.run(ask()).content
    assert "The nearest of 60,000 training images" in told.text and picture(sheet).height == 4 * 28


def picture(content):
    assert content.type == "image"
    return Image.open(io.BytesIO(base64.b64decode(content.data)))


@needs_mcp
@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("generate", {"count": "many"}, "'many' is not of type 'integer'"),
        ("generate", {"count": 2.5}, "2.5 is not of type 'integer'"),
        ("generate", {"steps": 5000}, "maximum"),
        ("generate", {"sampler": "dim"}, "is not one of"),
        ("generate", {"label": "ten"}, "label must be one of any, none, 0"),
        ("generate", {"count": 64, "steps": 1000}, "at most 20,000"),
        ("forward", {"picture": "ten"}, "must be a PNG as base64"),
        ("denoise", {"t": 0}, "t must be a number in 1..1000"),
        ("compare", {"count": 9}, "is not one of"),
        ("ladder", {"seed": -1}, "minimum"),
    ],
)
def test_a_tool_refuses_in_one_line(page, name, asked, words, capfd):
    async def ask():
        async with session(page) as mcp:
            return await mcp.call_tool(name, asked)

    answer = asyncio.run(ask())
    assert answer.isError and words in answer.content[0].text and "\n" not in answer.content[0].text
    assert "Traceback" not in capfd.readouterr().err
