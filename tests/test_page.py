"""The page of one file, in a real browser: it draws what Python draws, offline, and bears with
whatever it is given."""

import base64
import hashlib
import io
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Error

from ddpm import Pipeline, hub
from ddpm.browser import KERNELS, PAGE_BYTES, SCRIPTS, START_STEPS, page
from ddpm.diffusion import denoiser
from ddpm.pixels import LAST_MS, from_pixels, to_pixels
from ddpm.samplers import SAMPLERS
from ddpm.schedule import Schedule
from ddpm.settings import Settings, Start
from tests.helpers import IN_BROWSER, SCREENSHOTS, rounded, tiny_unet

pytestmark = IN_BROWSER
QUARTER = 0.25 / 127.5  # of a gray level
SEEDS = list(range(8))


@pytest.fixture(scope="module")
def builtin():
    return Pipeline.from_pretrained("mnist")


@pytest.fixture(scope="module")
def tiny():
    return Pipeline(tiny_unet(schedule=Schedule()))


@pytest.fixture(scope="module")
def pages(tmp_path_factory, builtin, tiny):
    """Addresses of pages on disk, by name."""
    folder = tmp_path_factory.mktemp("pages")
    colors = Pipeline(
        tiny_unet(channels=3, classes=0, size=12, schedule=Schedule(T=7), prediction="eps"),
        {"dataset": "flags"},
    )
    for name, pipeline in {
        "builtin": builtin,
        "tiny": tiny,
        "colors": colors,
        "fast": Pipeline.from_pretrained("mnist-fast"),
    }.items():
        (folder / f"{name}.html").write_bytes(page(pipeline))
    return folder


@pytest.fixture
def visit(browser, pages):
    """Opens a page from disk as another visitor each time. Nobody may find reason to complain, or a
    request to make."""
    contexts, complaints, asked = [], [], []

    def arrive(name="tiny", query="", *, opened=True, complains=False, script="", **how):
        context = browser.new_context(
            **{"offline": True, "viewport": {"width": 390, "height": 844}} | how
        )
        contexts.append(context)
        context.add_init_script(script)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        if not complains:
            tab.on(
                "console",
                lambda said: (
                    complaints.append(said.text) if said.type in ("error", "warning") else None
                ),
            )
            tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(f"file://{pages}/{name}.html{query}")
        if opened:
            tab.wait_for_function(
                "/ms here|cannot/.test(document.querySelector('#says').textContent)"
            )
        return tab

    arrive.asked = asked
    yield arrive
    for context in contexts:
        context.close()
    assert not complaints
    assert all(url.startswith(("file:", "data:", "blob:", "http://127.0.0.1")) for url in asked)


@pytest.fixture(scope="module", params=KERNELS, ids=["fused", "plain"])
def bench(browser, request):
    """The worker's functions on an empty page, to be called one by one, with either kind of
    kernels."""
    tab = browser.new_page()
    tab.add_script_tag(content="\n".join(SCRIPTS[:-1]))
    tab.evaluate(
        "code => { globalThis.kernels = new WebAssembly.Module("
        "Uint8Array.from(atob(code), c => c.charCodeAt(0))); }",
        base64.b64encode(request.param).decode(),
    )
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def unharmed(browser, pages):
    """One page for many tests: whatever it is asked, it has to go on afterwards."""
    tab = browser.new_page()
    tab.goto(f"file://{pages}/tiny.html?steps=1")
    tab.wait_for_function("/ms here/.test(document.querySelector('#says').textContent)")
    yield tab
    tab.close()


def says(tab):
    return tab.inner_text("#says")


def drawn(tab, pipeline, sampler, steps, seeds=SEEDS):
    """The images, before they are rounded to pixels, as the page draws them: N×HWC."""
    images = [
        {"seed": seed, "label": pipeline.label_of(seed) if pipeline.model.classes else None}
        for seed in seeds
    ]
    request = {"kind": "draw", "images": images, "steps": steps, "sampler": sampler}
    return np.array(
        tab.evaluate(
            "m => ddpm.engine.ask(m).then(({ x }) => x.map(image => [...image]))", request
        ),
        np.float32,
    )


def ours(pipeline, sampler, steps, seeds=SEEDS):
    """The same in Python."""
    x = pipeline.sample(seeds=seeds, sampler=sampler, steps=steps).x
    return x.permute(0, 2, 3, 1).flatten(1).numpy()


# --- The parts ------------------------------------------------------------------------------------


# 36 and 75 are no multiples of 16
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (1, 6), (3, 5)])
def test_noise_is_that_of_torch(bench, channels, size):
    for seed in (0, 1, 2**32 - 1):
        found = bench.evaluate(
            "([seed, c, s]) => { const next = randn(seed, c, s);"
            " return [[...next()], [...next()]]; }",
            [seed, channels, size],
        )
        generator = torch.Generator().manual_seed(seed)
        for call in found:
            noise = (
                torch.randn(channels, size, size, generator=generator).permute(1, 2, 0).flatten()
            )
            np.testing.assert_allclose(call, noise.numpy(), atol=2e-6)


NETWORKS = {
    "as built in": {"size": 28, "width": 16, "mults": (1, 2, 4), "attention": (False, False, True)},
    "colours, no classes": {"channels": 3, "classes": 0, "prediction": "eps"},
    "deep": {
        "size": 16,
        "mults": (2, 1, 3, 2),
        "attention": (True, False, True, False),
        "blocks": 2,
    },
    "one level": {"size": 5, "mults": (1,), "attention": (True,), "width": 24, "prediction": "x0"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_says_what_torch_says(bench, name):
    model = tiny_unet(**NETWORKS[name])
    config = json.loads(hub.files(model)["config.json"])
    names = dict(
        bench.evaluate("config => [...shapes(readConfig(JSON.stringify(config)))]", config)
    )
    assert names == {key: list(value.shape) for key, value in model.state_dict().items()}
    assert list(names) == list(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, model.channels, model.size, model.size, generator=generator)
    y = torch.arange(5) % model.classes if model.classes else None
    floats = torch.cat([value.flatten() for value in model.state_dict().values()]).numpy().tobytes()
    found = bench.evaluate(
        """([config, floats, x, labels]) => {
        const all = new Float32Array(Uint8Array.from(atob(floats), c => c.charCodeAt(0)).buffer);
        const named = new Map();
        let at = 0;
        for (const [name, shape] of shapes(config))
          named.set(name, all.subarray(at, at += product(shape)));
        const images = x.map((image) => Float32Array.from(image));
        const weights = labels.map((label) => ({ [label]: 1 }));
        const drawn = new UNet(kernels, config, named).forward(images, 43.5, weights);
        return drawn.map((image) => [...image]); }""",
        [
            config,
            base64.b64encode(floats).decode(),
            x.permute(0, 2, 3, 1).flatten(1).tolist(),
            list(range(5)),
        ],
    )
    with torch.no_grad():
        expected = model(x, torch.full((5,), 43.5), y).permute(0, 2, 3, 1).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


# --- The same picture for the same seed -----------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_what_python_draws(unharmed, tiny, name):
    python = rounded(tiny)
    for steps in (1, 4, 10, 20):
        assert (
            np.abs(drawn(unharmed, tiny, name, steps) - ours(python, name, steps)).max() < QUARTER
        )


def test_the_built_in_weights_draw_what_python_draws(visit, builtin):
    tab = visit("builtin")
    python = rounded(Pipeline.from_pretrained("mnist"))
    for name, steps, seeds in [
        ("unipc2", 10, SEEDS),
        ("plms", 4, SEEDS),
        ("ddpm", 10, SEEDS[:4]),
        ("heun", 4, SEEDS[:4]),
    ]:
        in_page = drawn(tab, builtin, name, steps, seeds)
        assert np.abs(in_page - ours(python, name, steps, seeds)).max() < QUARTER
        # What rounding the weights to float16 does: seen in two pixels of a hundred, and on average
        # in none.
        off = np.abs(in_page - ours(builtin, name, steps, seeds))
        assert (off > QUARTER).mean() < 0.03 and off.mean() < QUARTER / 4


def test_a_script_gets_the_pixels_by_the_seed_s_own_label_or_another(visit):
    tab, python = visit("builtin"), rounded(Pipeline.from_pretrained("mnist"))
    for wish, settings in [
        ({"seed": 4123456789, "steps": 4}, {}),
        ({"seed": 3, "label": 7, "steps": 4, "sampler": "ddim"}, {"labels": 7, "sampler": "ddim"}),
        ({"seed": 3, "label": 10, "steps": 3}, {"labels": 10}),
    ]:
        found = tab.evaluate(
            "wish => ddpm.sample(wish).then(({ pixels, width, height, channels }) => "
            "[pixels instanceof Uint8Array, [...pixels], width, height, channels])",
            wish,
        )
        expected = to_pixels(
            python.sample(seeds=[wish["seed"]], steps=wish["steps"], **settings).x
        ).flatten()
        assert found[0] and found[2:] == [28, 28, 1]
        assert np.abs(np.array(found[1]) - expected.numpy().astype(int)).max() <= 1


def test_labels_follow_the_rule_of_the_pipeline(visit, builtin):
    tab = visit("builtin", "?seed=4294967280&images=16&steps=1")
    shown = tab.evaluate(
        "[document.querySelector('ddpm-player').walks[0].seeds,"
        " document.querySelector('ddpm-player').walks[0].labels]"
    )
    assert shown == [
        list(range(4294967280, 2**32)),
        builtin.names(Settings(range(4294967280, 2**32))),
    ]


def test_a_distilled_model_draws_what_python_draws_in_each_of_its_walks(visit):
    tab, python = visit("fast"), rounded(Pipeline.from_pretrained("mnist-fast"))
    for steps in (4, 2, 1):
        assert (
            np.abs(drawn(tab, python, "ddim", steps) - ours(python, "ddim", steps)).max() < QUARTER
        )
    found = tab.evaluate(
        "ddpm.sample({ seed: 5, label: 7, steps: 2 }).then(({ pixels }) => [...pixels])"
    )
    assert (
        np.abs(
            np.array(found) - to_pixels(python.sample([5], labels=7, steps=2).x).flatten().numpy()
        ).max()
        <= 1
    )
    x0 = python.sample([8]).x
    for t in python.walks[4]:
        there = asked(
            tab,
            images=[{"seed": 3, "label": 10}],
            **{"from": t},
            picture=to_pixels(x0).flatten().tolist(),
        )
        *_, end = python.stream(
            Settings(
                [3], labels=10, sampler="ddim", steps=4, start=Start(from_pixels(to_pixels(x0)), t)
            )
        )
        assert np.abs(there - flat(end.x)).max() < QUARTER, t


def asked(tab, **request):
    """What the worker draws, before it is rounded to pixels: N×HWC."""
    return np.array(
        tab.evaluate(
            "m => ddpm.engine.ask(m).then(({ x }) => x.map(image => [...image]))",
            {"kind": "draw", **request},
        ),
        np.float32,
    )


def flat(x):
    return x.permute(0, 2, 3, 1).flatten(1).numpy()


@pytest.mark.parametrize(("sampler", "guidance"), [("unipc2", 1.5), ("ddpm", 0.5), ("heun", 7)])
def test_guidance_is_that_of_python(unharmed, tiny, sampler, guidance):
    images = [{"seed": seed, "label": seed % 10} for seed in SEEDS]
    found = asked(unharmed, images=images, steps=10, sampler=sampler, guidance=guidance)
    expected = (
        rounded(tiny)
        .sample(
            seeds=SEEDS,
            labels=[seed % 10 for seed in SEEDS],
            steps=10,
            sampler=sampler,
            guidance=guidance,
        )
        .x
    )
    assert np.abs(found - flat(expected)).max() < QUARTER


def test_a_walk_from_a_picture_is_that_of_python(unharmed, tiny):
    picture = torch.randint(
        256, (64,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    x0 = from_pixels(picture).view(1, 1, 8, 8)
    starts = unharmed.evaluate(
        "JSON.parse(document.getElementById('facts').textContent).starts.times"
    )
    assert starts == [25.0 * k for k in range(1, 41)]
    for t in starts[::6] + starts[-1:]:
        found = asked(
            unharmed, images=[{"seed": 3, "label": 10}], **{"from": t}, picture=picture.tolist()
        )
        *_, end = rounded(tiny).stream(
            Settings([3], labels=10, steps=START_STEPS, start=Start(x0, t))
        )
        assert np.abs(found - flat(end.x)).max() < QUARTER, t


@pytest.mark.parametrize("sampler", ["unipc2", "ddpm"])
def test_known_pixels_are_held_at_every_evaluation(unharmed, tiny, sampler):
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(256, (64,), generator=generator, dtype=torch.uint8)
    mask = torch.rand(64, generator=generator) < 0.5
    found = asked(
        unharmed,
        images=[{"seed": seed, "label": 10} for seed in SEEDS],
        steps=10,
        sampler=sampler,
        picture=picture.tolist(),
        mask=mask.int().tolist(),
    )
    python, held, x0 = rounded(tiny), mask.view(1, 1, 8, 8), from_pixels(picture).view(1, 1, 8, 8)
    settings, inner = (
        Settings(SEEDS, labels=10, steps=10, sampler=sampler),
        denoiser(python.model, torch.full((8,), 10)),
    )
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    noise = lambda _: torch.stack([torch.randn(1, 8, 8, generator=each) for each in generators])  # noqa: E731
    steps = settings.walk(
        lambda x, t: torch.where(held, x0, inner(x, t)),
        python.model.schedule,
        noise(None),
        settings.times(python.model.schedule),
        noise,
    )
    *_, end = steps
    assert np.abs(found - flat(end.x)).max() < QUARTER
    assert (found[:, mask.numpy()] == flat(x0)[:, mask.numpy()]).all()


# --- The page -------------------------------------------------------------------------------------


def test_a_page_is_small_and_whole(visit, pages):
    size = (pages / "builtin.html").stat().st_size
    assert size <= PAGE_BYTES
    visit("builtin", "?steps=2")
    assert [url for url in visit.asked if not url.startswith(("data:", "blob:"))] == [
        f"file://{pages}/builtin.html?steps=2"
    ]


def test_whatever_is_set_is_drawn_at_once_and_the_newest_wish_wins(visit):
    tab = visit("tiny", "?images=16&steps=50")
    film = "document.querySelector('ddpm-player').walks[0]"
    for seed in (5, 6, 7):
        tab.fill("#seed", str(seed))
    tab.wait_for_function(f"{film}.seeds[0] === 7 && {film}.frames.length === 51")
    tab.locator("#labels label", has_text="8").click()
    tab.wait_for_function(
        f"{film}.labels.every(label => label === '8') && {film}.frames.length === 51"
    )
    tab.locator("#steps").fill("3")
    tab.select_option("#sampler", "heun")
    tab.wait_for_function(f"{film}.frames.length === 5 && {film}.frames.at(-1).nfe === 7")
    tab.keyboard.press("Escape")
    tab.locator("h1").click()
    tab.keyboard.press("3")
    tab.wait_for_function(f"{film}.labels.every(label => label === '3')")
    tab.keyboard.press("r")
    tab.wait_for_function(f"{film}.seeds[0] !== 7")


def saved(tab, selector):
    with tab.expect_download() as download:
        tab.click(selector)
    return Image.open(
        io.BytesIO(open(download.value.path(), "rb").read())
    ), download.value.suggested_filename


def test_pictures_are_saved_as_they_are_shown(visit, builtin):
    tab = visit("builtin", "?images=4&steps=4&seed=20")
    sheet = np.array(builtin.sample(seeds=range(20, 24), steps=4).sheet(scale=1)).astype(int)
    gif, name = saved(tab, "#save")
    assert name == "digits-20.gif" and gif.n_frames == 6 and gif.info["loop"] == 0
    gif.seek(5)
    scale = gif.width // sheet.shape[1]
    assert (
        np.abs(np.array(gif.convert("L"))[::scale, ::scale] - sheet).max() <= 1
        and gif.info["duration"] == LAST_MS
    )
    png, _ = saved(tab, "ddpm-player .save")
    assert np.abs(np.array(png.convert("L"))[::4, ::4] - sheet).max() <= 1


def test_one_image_becomes_another(visit, builtin):
    tab = visit("tiny")
    tab.click("#morph summary")
    tab.wait_for_function("document.querySelector('ddpm-morph').seen > 0")
    pixels = (
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, 8, 8).data]"
        ".filter((_, i) => i % 4 === 0)"
    )
    left, between, right = (
        tab.locator("#morph .middle canvas").nth(k).evaluate(pixels) for k in range(3)
    )
    assert left == tab.evaluate(
        "ddpm.sample({ seed: 7, label: 3, steps: 10 }).then(({ pixels }) => [...pixels])"
    )
    assert right == tab.evaluate(
        "ddpm.sample({ seed: 12, label: 8, steps: 10 }).then(({ pixels }) => [...pixels])"
    )
    assert between not in (left, right)
    for at, end in ((0, left), (24, right)):
        tab.locator("#morph .share").fill(str(at))
        assert tab.locator("#morph .between").evaluate(pixels) == end
    gif, name = saved(tab, "#morph .gif")
    assert name == "morph-7-12.gif" and gif.n_frames == 48


@pytest.mark.parametrize("name", ["tiny", "colors"])
def test_every_tool_draws_with_every_model(visit, name):
    tab = visit(name)
    for tool in ("draw", "morph", "mend", *(["hand"] if name == "tiny" else [])):
        tab.click(f"#{tool} summary")
        tab.wait_for_function(f"document.querySelector('ddpm-{tool}').seen > 0")
        assert tab.locator(f"ddpm-{tool} .says").inner_text() == ""
    if name == "colors":
        tab.click("#hand summary")
        tab.wait_for_function(
            "/knows no classes/.test(document.querySelector('ddpm-hand')"
            ".shadowRoot.querySelector('.says').textContent)"
        )


def test_colours_and_no_classes(visit):
    tab = visit("colors")  # a short schedule too: fewer steps than usual
    assert tab.inner_text("#told") == "7"
    tab = visit("colors", "?images=4&steps=3")
    assert not tab.locator("#labels").is_visible()
    assert tab.evaluate(
        "ddpm.sample({ steps: 2 }).then(({ pixels, channels }) => [pixels.length, channels])"
    ) == [432, 3]
    gif, _ = saved(tab, "#save")
    assert gif.n_frames == 5
    gif.seek(1)  # noise
    assert (
        len(
            set(
                gif.convert("RGB").get_flattened_data()
                if hasattr(gif, "get_flattened_data")
                else gif.convert("RGB").getdata()
            )
        )
        > 50
    )


def test_the_page_of_a_distilled_model_offers_what_fits(visit):
    tab = visit("fast", "?seed=3&images=4&steps=2")
    film = "document.querySelector('ddpm-player').walks[0]"
    assert not tab.is_visible("#sampler") and [
        tab.get_attribute("#steps", "max"),
        tab.inner_text("#told"),
    ] == ["2", "2"]
    assert tab.evaluate(f"[{film}.seeds, {film}.frames.at(-1).nfe]") == [[3, 4, 5, 6], 2]
    tab.locator("#steps").fill("0")
    tab.wait_for_function(f"{film}.frames.at(-1).nfe === 1 && {film}.frames.length === 2")
    assert (
        tab.evaluate(
            "ddpm.sample().then(() => ddpm.sample({ guidance: 1 })).catch((error) => error.message)"
        )
        == "this model is distilled: it takes no guidance"
    )
    for wish, words in (
        ({"steps": 3}, "steps are one of 1, 2, 4, not 3"),
        ({"sampler": "unipc2"}, "a sampler is one of ddim, not unipc2"),
    ):
        assert (
            tab.evaluate("wish => ddpm.sample(wish).catch((error) => error.message)", wish) == words
        )
    for tool in ("draw", "hand", "morph"):
        tab.click(f"#{tool} summary")
        tab.wait_for_function(f"document.querySelector('ddpm-{tool}').seen > 0")
    assert (
        tab.inner_text("#draw output")
        == f"up to t = {Pipeline.from_pretrained('mnist-fast').walks[4][1]:.0f} of 1000"
        and tab.get_attribute("#draw .t", "max") == "3"
    )
    tab.click("#mend summary")
    tab.wait_for_function(
        "/many small steps/.test(document.querySelector('ddpm-mend')"
        ".shadowRoot.querySelector('.says').textContent)"
    )
    assert not tab.is_visible("#mend .panes") and not tab.is_visible("#mend fieldset")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_can_be_read_by_all(visit, scheme, width):
    tab = visit(
        "builtin",
        "?images=16&steps=4",
        viewport={"width": width, "height": 860},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    for tool in ("draw", "hand", "morph", "mend"):
        tab.click(f"#{tool} summary")
        tab.wait_for_function(f"document.querySelector('ddpm-{tool}').seen > 0")
    tab.click("#weights summary")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"file-{scheme}-{width}.png", full_page=True)
    report = Axe().run(tab)
    assert report.violations_count == 0, report.generate_report()


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"seed": -1}, "a seed is a whole number in 0..4294967295, not -1"),
        ({"seed": "7"}, "a seed is a whole number"),
        ({"seed": 0.5}, "not 0.5"),
        ({"seed": 2**32}, "not 4294967296"),
        ({"label": 11}, "a label is a whole number in 0..9, or 10 for none, not 11"),
        ({"label": "3"}, "a label is"),
        ({"steps": 0}, "steps are one of 1, 2, 3"),
        ({"steps": 1e9}, "steps are one of"),
        ({"sampler": "constructor"}, "a sampler is one of dpm\\+\\+2m"),
    ],
)
def test_a_script_is_told_in_words_what_cannot_be(visit, wish, words):
    tab = visit("tiny", "?steps=1")
    with pytest.raises(Error, match=words):
        tab.evaluate("wish => ddpm.sample(wish)", wish)
    assert len(tab.evaluate("ddpm.sample({ steps: 1 }).then(({ pixels }) => [...pixels])")) == 64


@pytest.mark.parametrize(
    "query",
    [
        "?seed=NaN",
        "?seed=1e99",
        "?digit=%3Cimg%20src=x%20onerror=alert(1)%3E",
        "?steps=51",
        "?sampler=best",
        "?images=5",
    ],
)
def test_an_address_that_cannot_be_followed_gets_one_line(visit, query):
    tab = visit("tiny", query)
    tab.wait_for_function(
        "/^This address cannot be followed: /.test(document.querySelector('#says').textContent)"
    )
    assert tab.input_value("#seed") == "0" and tab.evaluate(
        "document.querySelector('ddpm-player').done"
    )
    assert not tab.locator("#says img").count()


def test_a_seed_that_is_none_is_told_and_the_page_goes_on(visit):
    tab = visit("tiny", "?steps=1")
    tab.fill("#seed", "many")
    assert (
        says(tab).startswith("a seed is a whole number")
        and tab.get_attribute("#seed", "aria-invalid") == "true"
    )
    tab.fill("#seed", "12")
    tab.wait_for_function("document.querySelector('ddpm-player').walks[0].seeds[0] === 12")
    assert tab.get_attribute("#seed", "aria-invalid") is None


def test_a_model_without_labels_says_so(visit):
    tab = visit("colors", "?digit=3", opened=False)
    tab.wait_for_function("/cannot be followed/.test(document.querySelector('#says').textContent)")
    with pytest.raises(Error, match="this model knows no labels"):
        tab.evaluate("ddpm.sample({ label: 1 })")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:900] + "AAAA" + data[904:],
        lambda data: "A" + data[1:],
        lambda _: "",
    ],
)
def test_a_damaged_file_says_so(visit, pages, damage):
    html = (pages / "tiny.html").read_text()
    head, rest = html.split('id="data">')
    data, tail = rest.split("</script>", 1)
    (pages / "damaged.html").write_text(f'{head}id="data">{damage(data)}</script>{tail}')
    tab = visit("damaged", opened=False)
    tab.wait_for_function("/damaged/.test(document.querySelector('#says').textContent)")
    assert "\n" not in says(tab)


def test_a_worker_that_dies_is_started_again(visit):
    tab = visit("tiny", complains=True)
    before = tab.evaluate("ddpm.sample({ seed: 9, steps: 4 }).then(({ pixels }) => [...pixels])")
    tab.workers[0].evaluate("setTimeout(() => { throw Error('dead'); })")
    again = "ddpm.sample({ seed: 9, steps: 4 }).then(({ pixels }) => [...pixels])"
    assert tab.evaluate(again) == before
    tab.evaluate("ddpm.engine.patience = 400")  # this one says nothing any more
    tab.workers[-1].evaluate("self.close()")
    assert tab.evaluate(again) == before


def test_a_browser_that_lets_no_worker_run_draws_in_the_page(visit):
    image = "ddpm.sample({ seed: 9, steps: 4 }).then(({ pixels }) => [...pixels])"
    ours = visit("tiny").evaluate(image)
    refusals = (
        "Worker = class { constructor() { throw Error('refused'); } }",
        """Worker = class {
            constructor() {
                setTimeout(() => this.onerror(new Event("error", { cancelable: true })));
            }
            postMessage() {}
            terminate() {}
        }""",
    )
    for script in refusals:
        assert visit("tiny", script=script).evaluate(image) == ours


def test_a_browser_that_cannot_compute_is_told_so(visit):
    script = "delete globalThis.Worker; WebAssembly.validate = () => false"
    tab = visit("tiny", opened=False, script=script)
    tab.wait_for_function("/no WebAssembly SIMD/.test(document.querySelector('#says').textContent)")


def test_a_page_in_the_background_draws_as_well(visit):
    tab = visit("tiny", "?steps=1")
    other = tab.context.new_page()
    other.bring_to_front()
    assert len(tab.evaluate("ddpm.sample({ steps: 4 }).then(({ pixels }) => [...pixels])")) == 64


# --- Weights of the Hub ---------------------------------------------------------------------------


@pytest.fixture
def shelf():
    """A Hub on loopback: files by their path; and whatever else it is asked for is not there."""
    files = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            found = files.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield files, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def put(files, model, change=None, weights=None, **facts):
    """A model on the shelf as some/model, with numbers of its configuration or weights changed."""
    made = hub.files(model, **facts)
    config = json.loads(made["config.json"]) | (change or {})
    if weights is not None:
        made["model.safetensors"] = weights(made["model.safetensors"])
        if change is None:
            config["sha256"] = hashlib.sha256(made["model.safetensors"]).hexdigest()
    files["/some/model/resolve/main/config.json"] = json.dumps(config).encode()
    files["/some/model/resolve/main/model.safetensors"] = made["model.safetensors"]


LOAD = "([name, at]) => ddpm.load(name, at).then(() => 'loaded', (error) => error.message)"


def test_weights_of_the_hub_are_drawn_with(visit, shelf):
    files, address = shelf
    model = tiny_unet(5, channels=3, classes=3, schedule=Schedule())
    put(files, model, class_names=["red", "green", "blue"])
    tab = visit("tiny", offline=False)
    assert tab.evaluate(LOAD, ["some/model", address]) == "loaded"
    assert tab.locator("#labels label").all_inner_texts() == ["any", "red", "green", "blue"]
    pipeline = Pipeline(model, {"class_names": ["red", "green", "blue"]})
    assert np.abs(drawn(tab, pipeline, "unipc2", 10) - ours(pipeline, "unipc2", 10)).max() < QUARTER
    # and the next one has them again
    tab.workers[0].evaluate("setTimeout(() => { throw Error('dead'); })")
    assert np.abs(drawn(tab, pipeline, "unipc2", 10) - ours(pipeline, "unipc2", 10)).max() < QUARTER


WALKS = {"4": [1000, 687.5, 437.5, 187.5], "1": [998.25]}


def test_distilled_weights_of_the_hub_have_their_own_walks(visit, shelf, pages):
    files, address = shelf
    model = tiny_unet(7, schedule=Schedule())
    distilled = {"teacher": "0" * 64, "walks": WALKS}
    put(files, model, distilled=distilled)
    page = (pages / "tiny.html").read_text().replace("https://huggingface.co", address)
    (pages / "near.html").write_text(page)
    tab = visit("near", "?steps=1&seed=9&model=some/model", opened=False, offline=False)
    tab.wait_for_function(
        "ddpm.engine.model && /ms here/.test(document.querySelector('#says').textContent)"
    )
    assert [
        tab.inner_text("#told"),
        tab.input_value("#seed"),
        tab.get_attribute("#steps", "max"),
        tab.is_visible("#sampler"),
    ] == ["1", "9", "1", False]
    pipeline = Pipeline(model, {"distilled": distilled})
    for steps in (4, 1):
        assert (
            np.abs(drawn(tab, pipeline, "ddim", steps) - ours(pipeline, "ddim", steps)).max()
            < QUARTER
        )
    put(files, model)  # and from there back to one that is not distilled
    assert tab.evaluate(LOAD, ["some/model", address]) == "loaded"
    assert tab.is_visible("#sampler") and tab.inner_text("#told") == "20"


ABSURD = [
    ({"width": 10**9}, "width must be a multiple of 8 in 8..256"),
    ({"size": 1e300}, "size must be"),
    ({"mults": [16] * 9}, "mults must be"),
    ({"channels": "1"}, "channels must be"),
    ({"blocks": 10**6}, "blocks must be"),
    ({"classes": -1}, "classes must be"),
    ({"attention": [1, 1]}, "attention must be"),
    ({"prediction": "__proto__"}, "prediction must be"),
    ({"schedule": None}, "schedule must"),
    ({"width": 256, "mults": [16, 16]}, "parameters; a page takes up to 20,000,000"),
    ({"size": 256, "width": 128}, "too large for a page"),
    ({"schedule": {"name": "linear", "T": 1000}}, "noise schedule linear"),
    ({"sha256": "00"}, "sha256 must be"),
    ({"sha256": "0" * 64}, "their sha256 differs"),
    ({"class_names": [1] * 10}, "class_names must be"),
    ({"class_counts": [0] * 10}, "class_counts must"),
    *(
        (
            {"distilled": nonsense},
            "config.json: distilled must have walks: for each number of steps",
        )
        for nonsense in (
            1,
            {},
            {"walks": None},
            {"walks": []},
            {"walks": {}},
            {"walks": {"2": [9]}},
            {"walks": {"1": [0.5]}},
            {"walks": {"2": [5, 9]}},
            {"walks": {"2": [9, 9]}},
            {"walks": {"1": [1001]}},
            {"walks": {"0": []}},
            {"walks": {"1": ["9"]}},
            {"walks": {"01": [9]}},
            {"walks": {"1": [None]}},
        )
    ),
]


def refused(tab, name, address):
    """The one line that says no; then the page draws as before."""
    tab.evaluate("ddpm.engine.ready")
    line = tab.evaluate(LOAD, [name, address])
    assert line != "loaded" and "\n" not in line and says(tab) == line
    assert (
        len(tab.evaluate("ddpm.sample({ steps: 1, label: 9 }).then(({ pixels }) => [...pixels])"))
        == 64
    )
    return line


@pytest.mark.parametrize(("change", "words"), ABSURD)
def test_an_absurd_configuration_is_refused_in_words(unharmed, shelf, change, words):
    files, address = shelf
    put(files, tiny_unet(schedule=Schedule()), change)
    assert words in refused(unharmed, "some/model", address)


def renamed(data, old, new):
    assert old in data and len(old) == len(new)
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-100], "not whole"),
        (lambda data: data[:4], "not a whole safetensors file"),
        (lambda _: b"", "not a whole"),
        (lambda data: b"\xff" * 8 + data[8:], "not a whole"),
        (lambda data: data[:8] + b"[" + data[9:], "not a whole"),
        (
            partial(renamed, old=b'"norm_out.bias"', new=b'"norm_out.bibs"'),
            "unknown tensor norm_out.bibs",
        ),
        (
            partial(renamed, old=b'"norm_out.bias"', new=b'"__metadata__" '),
            "lack tensor norm_out.bias",
        ),
        (partial(renamed, old=b'"shape":[8]', new=b'"shape":[9]'), "config.json wants 8"),
        (
            partial(renamed, old=b'"dtype":"F32"', new=b'"dtype":"I32"'),
            "not stored as F32, F16, BF16",
        ),
        (lambda data: data[:-4] + b"\0\0\xc0\x7f", "not finite"),
        (lambda data: data + bytes(2_000_000), "more than the"),
    ],
)
def test_weights_that_are_not_right_are_refused_in_words(unharmed, shelf, damage, words):
    files, address = shelf
    put(files, tiny_unet(schedule=Schedule()), weights=damage)
    assert words in refused(unharmed, "some/model", address)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/nothing", "has no config.json of nobody/nothing"),
        ("mnist", "NAMESPACE/NAME"),
        ("../../etc/passwd", "NAMESPACE/NAME"),
    ],
)
def test_models_that_are_not_there(unharmed, shelf, name, words):
    assert words in refused(unharmed, name, shelf[1])
    assert "cannot be reached" in refused(unharmed, "some/model", "http://127.0.0.1:9")
