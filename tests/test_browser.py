"""The page in a real browser: what a visitor sees and does, by mouse, by keys, by phone, in the
dark and offline."""

import base64
import itertools
import json
import re
import threading
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import ddpm.pipeline
from ddpm import Pipeline
from ddpm.browser import START_STEPS
from ddpm.browser import page as one_file
from ddpm.demo import nearest as training
from ddpm.demo import requests
from ddpm.hub import BUILT_IN
from ddpm.pixels import durations, from_picture, to_pixels
from ddpm.settings import Settings, Start
from tests.helpers import IN_BROWSER, SCREENSHOTS, distance, rounded

pytestmark = IN_BROWSER
TABS = ("Generate", "Draw", "Hand", "Morph", "Mend", "Compare", "Steps", "Weights")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
QUICK = "?images=4&seed=11&steps=6"
SERVED = "?images=4&seed=11&steps=60"  # more steps than the browser has walks for: the server draws
NO_WORKERS = "delete globalThis.Worker"
NO_ENGINE = f"{NO_WORKERS}; WebAssembly.validate = () => false"


@pytest.fixture(scope="module")
def url(page):
    return page.local_url


class Visitor:
    """A fresh profile of the browser, on the page; its complaints and requests are kept."""

    def __init__(self, browser, url, script="", **how):
        self.url, self.complaints, self.asked = url, [], []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | how)
        self.context.set_default_timeout(60_000)  # two test processes may keep both cores busy
        self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, query=""):
        self.page.goto(self.url + query)
        self.wait(lambda film: film["frames"])
        return self.page

    def film(self, name="film"):
        """What the player of that name shows now."""
        return self.page.evaluate(
            """(name) => { const player = document.querySelector(`#${name} ddpm-player`);
            if (!player?.walks) return null;
            const { at, last, playing, done, id, view, alone, walks } = player;
            return { at, last, playing, done, id, view, alone,
                     frames: walks.map((walk) => walk.frames.length).join(),
                     seeds: walks[0]?.seeds, labels: walks[0]?.labels,
                     titles: walks.map((walk) => walk.title), time: player.time,
                     says: player.shadowRoot.querySelector(".says").textContent }; }""",
            name,
        )

    def wait(self, holds, name="film"):
        """Until the player of that name is as it should be."""
        for _ in range(1200):  # a minute: Compare measures for long on a busy machine
            film = self.film(name)
            if film and holds(film):
                return film
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the player never was as it should be: {film}")

    def tool(self, name):
        """Goes to a tool's tab, and waits until it has drawn."""
        self.tab(name.capitalize())
        self.page.wait_for_function(f"document.querySelector('ddpm-{name}')?.seen > 0")
        self.seen = f"document.querySelector('ddpm-{name}').seen"
        return self.page.locator(f"ddpm-{name}")

    def again(self, act):
        """Does something with the tool, and waits until it has drawn again."""
        before = self.page.evaluate(self.seen)
        act()
        self.page.wait_for_function(f"{self.seen} > {before}")

    def says(self):
        return self.page.inner_text("#says")

    def generate(self, **how):
        """Presses the button, and waits for the new film to be whole."""
        before = self.film()["id"]
        self.page.click("#generate", **how)
        return self.wait(lambda film: film["id"] != before and film["done"])

    def tab(self, name):
        self.page.get_by_role("tab", name=name, exact=True).click()

    def picture(self, name="film"):
        """The pixels on the canvas."""
        data = self.page.evaluate(
            "(name) => document.querySelector(`#${name} ddpm-player`).shadowRoot"
            ".querySelector('.sheet canvas').toDataURL().split(',')[1]",
            name,
        )
        return Image.open(BytesIO(base64.b64decode(data)))

    def saved(self, click):
        """The file that a click downloads; click: what clicks, or an entry of the menu."""
        with self.page.expect_download() as download:
            self.menu(click) if isinstance(click, str) else click()
        return Path(download.value.path()), download.value.suggested_filename

    def menu(self, entry):
        menu = self.page.locator("ddpm-save:visible")
        menu.get_by_role("button", name="Save …").click()
        menu.get_by_role("button", name=entry).click()


@pytest.fixture(scope="module")
def halves():
    """The model as the browser has it."""
    return rounded(Pipeline.from_pretrained("mnist"))


@pytest.fixture
def visit(browser, url):
    """Opens the page as another visitor each time; in the end nobody may have had reason to
    complain."""
    visitors = []

    def arrive(query="", *, opened=True, **how):
        visitor = Visitor(browser, url, **how)
        visitors.append(visitor)
        if opened:
            visitor.open(query)
        return visitor

    yield arrive
    for visitor in visitors:
        visitor.context.close()
        assert not visitor.complaints
        hosts = {
            urlsplit(asked).netloc
            for asked in visitor.asked
            if not asked.startswith(("data:", "blob:", "file:"))
        }
        assert hosts <= {urlsplit(visitor.url).netloc}


def seed_of(page):
    return page.get_by_label("Seed").first.input_value()


def test_the_page_opens_with_an_example_that_plays(visit):
    visitor = visit()
    film = visitor.wait(lambda film: film["playing"] and film["at"] > 0)
    assert film["done"] and film["seeds"] == list(range(16)) and seed_of(visitor.page) == "0"
    assert visitor.wait(lambda later: later["at"] != film["at"])


def test_generate_draws_what_was_asked_for_and_tells_where_it_is(visit, halves):
    visitor = visit(QUICK)
    film = visitor.wait(
        lambda film: (
            film["seeds"] == [11, 12, 13, 14] and film["done"] and film["at"] == film["last"]
        )
    )
    assert film["last"] == 6 and film["says"] == "t = 0 · no noise · 6 network evaluations"
    ours = halves.sample(seeds=range(11, 15), steps=6).sheet(scale=1)
    visitor.wait(lambda _: distance(visitor.picture(), ours) <= 1)
    assert re.fullmatch(
        r"Drawn in your browser: 4 images, 6 evaluations each, \d+ ms\.", visitor.says()
    )
    asked = len(visitor.asked)
    assert visitor.generate()["seeds"] == [11, 12, 13, 14]
    assert not [each for each in visitor.asked[asked:] if each.startswith("http")], (
        "the server was not needed"
    )


def test_whatever_is_set_is_drawn_at_once(visit, halves):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    seed = page.get_by_label("Seed").first
    seed.fill("77")
    visitor.wait(
        lambda film: (
            film["seeds"] == [77, 78, 79, 80] and film["done"] and film["at"] == film["last"] == 6
        )
    )
    page.locator("#form .chips label").nth(8).click()
    visitor.wait(lambda film: film["labels"] == ["7"] * 4 and film["done"])
    page.get_by_label("Steps", exact=True).first.fill("3")
    visitor.wait(lambda film: film["last"] == 3 and film["done"])
    page.locator("#form input[type=number]").last.fill("2")  # guidance
    visitor.wait(lambda film: film["done"] and "6 network evaluations" in film["says"])
    ours = halves.sample(seeds=range(77, 81), labels=7, steps=3, guidance=2.0).sheet(scale=1)
    visitor.wait(lambda _: distance(visitor.picture(), ours) <= 1)
    before = visitor.film()["id"]
    seed.press("Enter")
    visitor.wait(lambda film: film["id"] != before and film["seeds"][0] == 77 and film["done"])
    page.get_by_role("button", name="Roll").click()
    visitor.wait(
        lambda film: (
            film["seeds"][0] not in (11, 77)
            and film["done"]
            and str(film["seeds"][0]) == seed_of(page)
        )
    )
    link = page.url
    page.reload()
    visitor.wait(
        lambda film: (
            str(film["seeds"][0]) == seed_of(page) and film["labels"] == ["7"] * 4 and film["done"]
        )
    )
    assert page.url == link


def test_the_newest_wish_wins(visit):
    visitor = visit("?images=16&seed=1&steps=50")
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] and film["seeds"][0] == 1)  # the link is restored
    for seed in ("5", "6", "7"):
        page.get_by_label("Seed").first.fill(seed)
    page.get_by_label("Steps", exact=True).first.fill("2")
    film = visitor.wait(lambda film: film["seeds"][0] == 7 and film["last"] == 2 and film["done"])
    page.wait_for_timeout(1000)
    assert visitor.film()["id"] == film["id"], "nothing was queued up"


@pytest.mark.parametrize(
    ("typed", "kept"), [("", "20"), ("5000", "20"), ("0", "20"), ("2.5", "20")]
)
def test_a_number_of_steps_that_is_none_is_told_and_changes_nothing(visit, typed, kept):
    visitor = visit()
    steps = visitor.page.get_by_label("Steps", exact=True).first
    before = visitor.film()["id"]
    steps.fill(typed)
    said = "document.querySelector('ddpm-steps [role=alert]').textContent"
    visitor.page.wait_for_function(f"{said} === 'a whole number in 1..1000'")
    steps.blur()
    assert steps.input_value() == kept and visitor.film()["id"] == before


def test_the_form_the_picture_and_the_strip_are_in_sight_on_a_laptop(visit):
    visitor = visit(viewport={"width": 1366, "height": 768})
    page = visitor.page
    for each in (
        "#film .sheet",
        "#film .film",
        "#form .chips",
        "#generate",
        "#stop-generate",
        "#save button",
    ):
        box = page.locator(each).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 768, each
    for label in ("Seed", "Steps", "Sampler", "Guidance"):
        box = page.get_by_label(label).first.bounding_box()
        assert box["y"] + box["height"] <= 768, label


def test_without_workers_the_page_itself_draws(visit):
    visitor = visit(QUICK, script=NO_WORKERS)
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert visitor.says().startswith("Drawn in your browser")
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(11, 15), steps=6).sheet(scale=1)
    visitor.wait(lambda film: film["at"] == film["last"] and distance(visitor.picture(), ours) <= 1)
    for name in ("Hand", "Morph", "Mend"):
        visitor.tab(name)
        visitor.page.wait_for_function(f"document.querySelector('ddpm-{name.lower()}').seen > 0")


def test_without_an_engine_the_server_draws_and_the_page_says_so(visit):
    visitor = visit(QUICK, script=NO_ENGINE)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert visitor.says().startswith("The server draws: this browser has no WebAssembly SIMD")
    page.get_by_label("Seed").first.fill("")
    # one key interrupts what the other asked for
    page.get_by_label("Seed").first.press_sequentially("77", delay=300)
    visitor.wait(lambda film: film["seeds"] == [77, 78, 79, 80] and film["done"])
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(77, 81), steps=6).sheet(scale=1)
    visitor.wait(lambda film: film["at"] == film["last"] and distance(visitor.picture(), ours) <= 1)
    visitor.tab("Draw")
    page.wait_for_function(
        "document.querySelector('ddpm-draw').shadowRoot.querySelector('.back').width === 28"
    )
    assert "The server draws" in page.locator("ddpm-draw .says").inner_text()
    visitor.tab("Hand")
    assert "in the browser only" in page.locator("ddpm-hand .says").inner_text()


def test_what_the_browser_has_no_walk_for_is_drawn_by_the_server(visit):
    visitor = visit(SERVED)
    visitor.wait(
        lambda film: (
            film["seeds"] == [11, 12, 13, 14]
            and film["done"]
            and "60 network evaluations" in film["says"]
        )
    )
    assert visitor.says() == "The server draws this one."


@pytest.fixture
def serving(monkeypatch):
    """Changes what the app serves, and forgets it afterwards."""
    import app
    from ddpm.demo.serving import Weights

    yield lambda source, **more: [
        monkeypatch.setattr(app.serving, "weights", Weights(str(source))),
        app._opening.cache_clear(),
        *(monkeypatch.setattr(app, name, value) for name, value in more.items()),
    ]
    app._opening.cache_clear()


@pytest.fixture(params=["when it starts", "later"])
def student(request, serving, url):
    """The address of an app that serves distilled weights from its start, or since they came from
    the Hub.

    A test names it before `visit`: then the visitors leave first. Who is still there when the
    server stops is told so, and that counts as a complaint."""
    import app

    serving("mnist-fast")
    if request.param == "later":
        yield url
        return
    page = app.build()
    page.launch(
        **app.launch_settings(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1"
    )
    yield page.local_url
    page.close()


def choices(page):
    """What a distilled model has no choice of, as far as it can be seen."""
    form = page.locator("#form")
    there = [
        form.get_by_label("Sampler").first,
        form.get_by_label("Guidance").first,
        form.get_by_role("button", name="More"),
    ]
    return [each for each in there if each.is_visible()]


def test_a_distilled_model_offers_what_fits(student, visit):
    visitor = visit(opened=False)
    visitor.url = student
    page = visitor.open("?steps=2&images=4&seed=11")
    visitor.wait(
        lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and film["last"] == 2
    )
    python = rounded(Pipeline.from_pretrained("mnist-fast"))
    ours = python.sample(seeds=range(11, 15), steps=2).sheet(scale=1)
    visitor.wait(lambda film: film["at"] == film["last"] and distance(visitor.picture(), ours) <= 1)
    visitor.wait(lambda _: not choices(page))
    page.locator("#form ddpm-steps input[type=range]").fill("2")
    visitor.wait(lambda film: film["last"] == 4 and film["done"])
    page.get_by_label("Steps", exact=True).first.fill("3")
    said = "document.querySelector('ddpm-steps [role=alert]').textContent"
    page.wait_for_function(f"{said} === 'one of 1, 2, 4'")
    page.get_by_label("Steps", exact=True).first.fill("1")
    visitor.wait(lambda film: film["last"] == 1 and film["done"])
    for name in ("draw", "hand", "morph"):
        visitor.tool(name)
    visitor.tab("Mend")
    page.wait_for_function(
        "/many small steps/.test(document.querySelector('ddpm-mend')"
        ".shadowRoot.querySelector('.says').textContent)"
    )
    for name, button in (("Compare", "#compare"), ("Steps", "#climb")):
        visitor.tab(name)
        page.get_by_text("These weights are distilled: they draw in their own few steps").locator(
            "visible=true"
        ).wait_for()
        assert not page.is_visible(button)
    visitor.tab("Weights")
    assert (
        "It is distilled: it draws in 4, 2, 1 steps."
        in page.locator(".prose.weights-line").inner_text()
    )


def test_a_link_that_a_distilled_model_cannot_follow_loses_only_that(student, visit):
    visitor = visit(opened=False)
    visitor.url = student
    page = visitor.open("?steps=20&sampler=unipc2&guidance=2&images=4&seed=7")
    told = page.get_by_test_id("toast-body").inner_text()  # first, as it goes away
    visitor.wait(lambda film: film["seeds"] == [7, 8, 9, 10] and film["done"] and film["last"] == 4)
    assert (
        "steps: this model is distilled: it samples with ddim in 4, 2, 1 steps" in told
        and "seed" not in told
    )
    page.goto(student)  # nothing is asked for
    visitor.wait(
        lambda _: (
            page.get_by_label("Steps", exact=True).first.input_value() == "4" and not choices(page)
        )
    )


def test_a_link_to_a_tab_that_a_distilled_model_cannot_fill_says_why(student, visit):
    visitor = visit(opened=False)
    visitor.url = student
    visitor.open("?tab=mend&seed=5&digit=7")
    visitor.page.wait_for_function(
        "/made for a few large ones/.test(document.querySelector('ddpm-mend')"
        "?.shadowRoot.querySelector('.says').textContent)"
    )


def test_without_an_engine_the_server_draws_with_a_distilled_model(student, visit):
    visitor = visit(script=NO_ENGINE, opened=False)
    visitor.url = student
    page = visitor.open("?steps=2&images=4&seed=11")
    visitor.wait(
        lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and film["last"] == 2
    )
    visitor.tab("Draw")
    page.wait_for_function(
        "document.querySelector('ddpm-draw').shadowRoot.querySelector('.back').width === 28"
    )


def test_programs_get_what_a_distilled_model_can_do(student, request):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client, usual = Client(student, verbose=False), {"steps": 4, "sampler": "ddim"}
    told, *_ = client.predict(
        seed=3, count=4, api_name="/generate", **usual if "later" in request.node.name else {}
    )
    assert told["walks"] == [{"evaluations": 4}] and told["seeds"] == [3, 4, 5, 6]
    told, *_ = client.predict(
        t=Pipeline.from_pretrained("mnist-fast").walks[4][2], api_name="/denoise", **usual
    )
    assert told["walks"][0]["evaluations"] == 2
    for name, asked in (
        ("generate", {"steps": 20, "sampler": "ddim"}),
        ("compare", {}),
        ("ladder", {}),
        ("forward", {}),
        ("denoise", {}),
        ("denoise", {"t": 500, **usual}),
    ):
        with pytest.raises(AppError, match="this model is distilled") as refused:
            client.predict(**asked, api_name=f"/{name}")
        assert "\n" not in str(refused.value)


def test_a_model_too_large_for_a_browser_is_drawn_by_the_server(visit, serving):
    serving("mnist", MOST_BYTES=1_000_000)
    visitor = visit(QUICK)
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert visitor.says() == "The server draws: the model is too large for a browser: 2 of 1 MB."


def test_other_weights_reach_the_browser(visit, serving, run):
    serving(run)
    visitor = visit(QUICK)
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    ours = (
        rounded(Pipeline.from_pretrained(str(run)))
        .sample(seeds=range(11, 15), steps=6)
        .sheet(scale=1)
    )
    visitor.wait(lambda film: film["at"] == film["last"] and distance(visitor.picture(), ours) <= 1)
    assert visitor.says().startswith("Drawn in your browser: ")
    visitor.page.locator("#film .cells button").first.click()
    visitor.wait(lambda film: film["alone"] == 0)
    assert not visitor.page.locator("ddpm-near").is_visible(), (
        "nobody made an index of its training images"
    )


def test_the_engine_is_fetched_once(page):
    """A second visit is only told that what it has is still right."""
    import urllib.error
    import urllib.request

    address = page.local_url + "engine.json"
    with urllib.request.urlopen(address) as answer:
        given, tag = json.load(answer), answer.headers["ETag"]
    assert (
        set(given) == {"facts", "data", "kernels", "worker", "index"}
        and answer.headers["Cache-Control"] == "no-cache"
    )
    with pytest.raises(urllib.error.HTTPError, match="304"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"If-None-Match": tag}))
    with urllib.request.urlopen(page.local_url + "page.html") as answer:
        assert answer.read() == one_file(Pipeline.from_pretrained("mnist"))


def test_stop_keeps_what_there_is_and_frees_the_server(visit):
    visitor = visit()
    visitor.page.goto(visitor.url + "?images=64&steps=300&seed=5")
    visitor.wait(lambda film: film["seeds"] and film["seeds"][0] == 5 and not film["done"])
    visitor.page.click("#stop-generate")
    film = visitor.wait(lambda film: film["done"])
    assert (
        film["seeds"][0] == 5
        and int(film["frames"]) < 40
        and film["last"] == int(film["frames"]) - 1
    )
    other = visit(QUICK)
    assert other.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert visitor.film()["frames"] == film["frames"]


def test_stop_stops_the_browser_too(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    page.get_by_label("Images").first.click()
    page.get_by_role("option", name="64", exact=True).click()
    page.get_by_label("Steps", exact=True).first.fill("50")
    page.click("#generate")
    visitor.wait(
        lambda film: (
            film["seeds"] == list(range(11, 75)) and film["last"] == 50 and not film["done"]
        )
    )
    page.click("#stop-generate")
    film = visitor.wait(lambda film: film["done"])
    assert film["last"] < 50
    assert (
        page.evaluate("page.studio.sample({ steps: 1 }).then(({ pixels }) => pixels.length)") == 784
    ), "it is free again"
    assert visitor.film()["frames"] == film["frames"]


def test_a_full_queue_is_said_so_kindly_and_nothing_is_lost(visit, page, monkeypatch):
    visitor, queue = visit(SERVED), page._queue
    page = visitor.page
    film = visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    with monkeypatch.context() as full:
        full.setattr(queue, "max_size", 0)
        page.click("#generate")
        toast = page.get_by_test_id("toast-body")
        toast.wait_for()
        assert "This application is currently busy. Please try again." in toast.inner_text()
    assert all("503" in said for said in visitor.complaints)  # the browser itself tells of it
    visitor.complaints.clear()
    assert visitor.film()["id"] == film["id"]
    page.get_by_test_id("toast-close").click()
    assert visitor.generate()["seeds"] == [11, 12, 13, 14]


def test_the_walk_can_be_held_anywhere_by_mouse_and_by_keys(visit):
    visitor = visit(QUICK)
    page = visitor.page
    film = visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    slider = page.locator("#film input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    page.mouse.down()
    assert visitor.wait(lambda film: film["at"] == 0)["says"].startswith(
        "t = 1000 · signal to noise −86.1 dB · 1 network evaluation"
    )
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    film = visitor.wait(lambda film: film["at"] == 3)
    assert not film["playing"] and "4 network evaluations" in film["says"]
    slider.focus()
    for key, at in (
        ("ArrowRight", 4),
        ("ArrowUp", 5),
        ("ArrowLeft", 4),
        ("ArrowDown", 3),
        ("End", 6),
        ("ArrowRight", 6),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        page.keyboard.press(key)
        assert visitor.film()["at"] == at, key
    assert slider.get_attribute("aria-valuetext").endswith("moment 0 of 6")
    page.keyboard.press(" ")
    assert visitor.wait(lambda film: film["playing"] and film["at"] > 0)
    page.keyboard.press(" ")
    assert not visitor.film()["playing"]
    page.get_by_role("button", name="One step back").first.click()
    page.get_by_label("Speed").first.select_option("4")
    page.locator("#film .play").click()
    assert visitor.wait(lambda film: film["at"] == film["last"] and not film["playing"])


def test_the_guess_of_the_network_and_both_side_by_side(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    page.locator("#film input[type=range]").focus()
    page.keyboard.press("Home")
    noisy = visitor.picture()
    page.locator("#film .views label").nth(1).click()
    visitor.wait(lambda film: film["view"] == "x0" and distance(visitor.picture(), noisy) > 100)
    page.locator("#film .views label").nth(2).click()
    visitor.wait(
        lambda film: film["view"] == "both" and visitor.picture().width == 2 * noisy.width + 6
    )
    assert visitor.film()["at"] == 0  # nothing is drawn again to look at it otherwise


def test_files_hold_what_is_on_the_page(visit, halves):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    path, name = visitor.saved("Save a PNG")
    ours = halves.sample(seeds=range(11, 15), steps=6).sheet()
    with Image.open(path) as picture:
        assert name == "digits-11.png" and picture.format == "PNG" and distance(picture, ours) <= 1
    for k, wide in ((0, 1), (1, 1), (2, 2)):
        page.locator("#film .views label").nth(k).click()
        path, name = visitor.saved("Save a GIF")
        with Image.open(path) as gif:
            assert (
                name == "digits-11.gif"
                and gif.format == "GIF"
                and gif.n_frames == 8
                and gif.info["loop"] == 0
            )
            assert round(gif.width / gif.height) == wide
            shown = []
            for frame in range(8):
                gif.seek(frame)
                shown.append(gif.info["duration"])
            assert shown == durations(7)


def test_one_image_is_singled_out_by_a_click_and_its_seed_becomes_the_seed(visit, halves):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(
        lambda film: (
            film["seeds"] == [11, 12, 13, 14] and film["done"] and film["at"] == film["last"]
        )
    )
    page.locator("#film .cells button").nth(2).click()
    film = visitor.wait(lambda film: film["alone"] == 2 and seed_of(page) == "13")
    assert film["says"].startswith("seed 13")
    alone = halves.sample(seeds=[13], steps=6).sheet(scale=16)
    path, name = visitor.saved("Save a PNG")
    with Image.open(path) as picture:
        assert name == "digit-13.png" and distance(picture, alone) <= 1
    # a link has this image; it is what is drawn when something changes
    page.wait_for_function("/images=1&seed=13&/.test(location.search)")
    page.locator("#film .cells button").click()
    # all again: their seed too
    visitor.wait(lambda film: film["alone"] is None and seed_of(page) == "11")
    page.wait_for_function("/images=4&seed=11&/.test(location.search)")
    assert visitor.film()["id"] == film["id"], "nothing was drawn again"
    page.locator("#film .cells button").nth(1).click()
    page.wait_for_function("/images=1&seed=12&/.test(location.search)")
    page.locator("#form ddpm-steps input[type=number]").fill("4")
    visitor.wait(lambda film: film["seeds"] == [12] and film["last"] == 4)


def test_the_page_shows_a_picture_before_its_script_runs(url, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    poster = page.locator("#poster")
    assert poster.is_visible()
    data = poster.get_attribute("src").partition(",")[2]
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(16)).sheet()
    assert distance(Image.open(BytesIO(base64.b64decode(data))), ours) <= 1
    context.close()


def test_what_is_typed_as_steps_counts_once_it_is_whole(visit):
    visitor = visit(QUICK)
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert not visitor.page.locator("#poster").is_visible()
    steps = visitor.page.locator("#form ddpm-steps input[type=number]")
    steps.fill("")
    steps.press_sequentially("5000", delay=40)
    alert = visitor.page.locator("#form ddpm-steps [role=alert]")
    visitor.page.wait_for_function(
        "document.querySelector('#form ddpm-steps [role=alert]').textContent"
    )
    assert alert.inner_text() == "a whole number in 1..1000"
    place = visitor.page.locator("#generate").bounding_box()
    visitor.page.click("#generate")  # the line goes, and the button stays where it is
    visitor.wait(lambda film: film["id"] != "here 1" and film["last"] == 6 and film["done"])
    assert visitor.page.locator("#generate").bounding_box() == place
    assert steps.input_value() == "6" and alert.inner_text() == ""


def test_an_image_that_is_singled_out_shows_its_nearest_training_images(visit, halves):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(
        lambda film: (
            film["seeds"] == [11, 12, 13, 14] and film["done"] and film["at"] == film["last"]
        )
    )
    near = page.locator("ddpm-near")
    assert not near.is_visible()
    page.locator("#film .cells button").nth(2).click()
    near.locator("img").wait_for()
    told, _ = training.told(
        training.load(BUILT_IN / "mnist" / training.FILE), halves.sample(seeds=[13], steps=6).x
    )
    assert near.locator("p").inner_text() == told["words"]
    assert near.locator("span").all_inner_texts() == [
        f"{distance:.1f}" for distance in told["distances"]
    ]
    assert near.locator("img").evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    ) == [4 * 96, 4 * 28]
    assert not violations(page)
    page.locator("#film .cells button").click()
    near.wait_for(state="hidden")
    page.get_by_label("Images").first.click()
    page.get_by_role("option", name="1", exact=True).click()
    # one image: there is nothing to single out
    near.get_by_role("button", name="Did it copy?").click()
    near.locator("img").wait_for()


def test_one_image_is_singled_out_by_keys(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    page.locator("#film .cells button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    visitor.wait(lambda film: film["alone"] == 3 and seed_of(page) == "14")
    page.keyboard.press("Escape")
    assert visitor.film()["alone"] is None


def test_a_link_restores_the_settings_and_runs_them_and_can_be_copied(visit):
    visitor = visit(
        "?digit=7&images=4&seed=42&steps=5&sampler=ddim&grid=linspace&eta=0.5&guidance=2"
    )
    page = visitor.page
    film = visitor.wait(
        lambda film: (
            film["seeds"] == [42, 43, 44, 45] and film["done"] and film["at"] == film["last"]
        )
    )
    assert film["last"] == 5 and "10 network evaluations" in film["says"]
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Seed").first.fill("43")
    visitor.wait(lambda film: film["seeds"][0] == 43)
    visitor.menu("Copy the link")
    visitor.wait(lambda _: visitor.says() == "The link is copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert parse_qs(urlsplit(link).query) == {
        "digit": ["7"],
        "images": ["4"],
        "seed": ["43"],
        "steps": ["5"],
        "sampler": ["ddim"],
        "grid": ["linspace"],
        "eta": ["0.5"],
        "guidance": ["2"],
    }
    again = visit("?" + urlsplit(link).query)
    assert again.wait(lambda film: film["seeds"] == [43, 44, 45, 46] and film["done"])


@pytest.mark.parametrize(
    "query",
    [
        "?seed=%3Cimg%20src=x%20onerror=alert(1)%3E",
        "?sampler=%3Cb%3Ehostile%3C/b%3E",
        "?images=64&steps=1000",
    ],
)
def test_a_link_that_cannot_be_followed_gets_one_line_and_the_usual_settings(visit, query):
    visitor = visit(query)
    page = visitor.page
    warning = page.get_by_test_id("toast-body")
    warning.wait_for()
    assert (
        warning.count() == 1
        and "The link has settings that are not valid, and is followed without them"
        in warning.inner_text()
    )
    assert "onerror" not in page.inner_html("body") and "hostile" not in page.inner_html("body")
    assert seed_of(page) == "0" and visitor.film()["seeds"][0] == 0


def test_a_reload_finds_the_settings_of_the_last_visit(visit):
    visitor = visit()
    page = visitor.page
    page.get_by_label("Seed").first.fill("123")
    page.get_by_label("Images").first.click()
    page.get_by_role("option", name="4", exact=True).click()
    assert visitor.generate()["seeds"] == [123, 124, 125, 126]
    page.goto(visitor.url)  # without the address that has them
    visitor.wait(lambda _: seed_of(page) == "123")
    assert page.get_by_label("Images").first.input_value() == "4"


def test_compare_walks_side_by_side_and_measures(visit):
    visitor = visit()
    visitor.tab("Compare")
    film = visitor.wait(
        lambda film: (
            film["done"] and "distance" in visitor.page.locator("#compare-film .stage").inner_text()
        ),
        "compare-film",
    )
    assert film["titles"] == ["ddpm · 10 steps", "ddim · 10 steps", "unipc2 · 10 steps"]
    words = visitor.page.locator("#compare-film .stage").inner_text()
    visitor.wait(
        lambda _: (
            len(
                re.findall(
                    r"distance 0\.\d+", visitor.page.locator("#compare-film .stage").inner_text()
                )
            )
            == 3
        ),
        "compare-film",
    )
    path, _ = visitor.saved("Save a PNG")
    with Image.open(path) as picture:  # all three, side by side
        side = 4 * (2 * 28 + 2)
        assert picture.size == (3 * side + 2 * 24, side)
        ends = [picture.crop((k * (side + 24), 0, k * (side + 24) + side, side)) for k in range(3)]
    ddim = (
        Pipeline.from_pretrained("mnist").sample(seeds=range(4), steps=10, sampler="ddim").sheet()
    )
    assert distance(ends[1], ddim) <= 1 < distance(ends[0], ddim)
    assert words.count("evaluation") == 3 and re.search(r"\d\.\d\d s", words)


def test_stop_leaves_no_measuring_behind(visit, monkeypatch, request):
    visitor = visit()
    opened(visitor, "Compare")
    # It goes on until it is stopped, however busy the machine is.
    stopped, calls, denoiser = threading.Event(), itertools.count(), ddpm.pipeline.denoiser
    request.addfinalizer(stopped.set)

    def held(*model, **how):
        denoise = denoiser(*model, **how)

        def wait(x, t):
            if next(calls) > 300:
                stopped.wait(120)
            return denoise(x, t)

        return wait

    monkeypatch.setattr(ddpm.pipeline, "denoiser", held)
    stage = visitor.page.locator("#compare-film .stage")
    visitor.page.get_by_label("Seed").nth(1).fill("987654")  # of noise that nobody has measured yet
    visitor.page.click("#compare")
    visitor.wait(lambda _: "measuring" in stage.inner_text(), "compare-film")
    visitor.page.click("#stop-compare")
    visitor.wait(
        lambda _: "not measured" in stage.inner_text() and "measuring" not in stage.inner_text(),
        "compare-film",
    )


def test_the_end_of_a_stopped_walk_is_not_called_clean(visit):
    visitor = visit("?images=64&steps=300&seed=5")
    visitor.wait(lambda film: film["seeds"] and film["seeds"][0] == 5 and not film["done"])
    visitor.page.click("#stop-generate")
    visitor.wait(lambda film: film["done"])
    t = visitor.page.evaluate(
        "document.querySelector('#film ddpm-player').walks[0].frames.at(-1).t"
    )
    assert visitor.page.locator("#film .end").inner_text() == f"stopped at t = {round(t)}"
    assert visitor.page.locator("#film .status").inner_text() == "Stopped."


def test_steps_draws_a_strip_and_a_chart(visit):
    visitor = visit()
    visitor.tab("Steps")
    film = visitor.wait(
        lambda film: film["done"] and visitor.page.locator("#steps-film svg.chart").count(),
        "steps-film",
    )
    assert film["titles"] == ["1 step", *(f"{n} steps" for n in (2, 5, 10, 20, 50, 100))]
    assert visitor.page.locator("#steps-film svg.chart circle").count() == 7
    assert "Distance to the reference" in visitor.page.locator(
        "#steps-film svg.chart"
    ).get_attribute("aria-label")


PIXELS = (
    "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    ".filter((_, i) => i % 4 === 0)"
)


def stroke(page, paper, *points):
    """A stroke of the mouse on a pad, through points in 0..1."""
    box = paper.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=8)


def test_three_panes_follow_the_pen(visit, halves):
    visitor = visit()
    page, tool = visitor.page, visitor.tool("draw")
    page.evaluate("document.querySelector('ddpm-draw').noise = 7")
    visitor.again(lambda: tool.get_by_role("button", name="A real 3").click())
    with Image.open(BytesIO(requests.picture("3"))) as digit:
        x0 = from_picture(digit, 1, 28)
    *_, end = steps = list(
        halves.stream(Settings([7], labels=10, steps=START_STEPS, start=Start(x0, 600.0)))
    )
    for name, expected in (("noisy", steps[0].x), ("back", end.x)):
        found = np.array(tool.locator(f".{name}").evaluate(PIXELS))
        assert np.abs(found - to_pixels(expected).flatten().numpy()).max() <= 1, name
    before = tool.locator(".back").evaluate(PIXELS)
    visitor.again(lambda: stroke(page, tool.locator(".paper"), (0.2, 0.2), (0.8, 0.8)))
    assert tool.locator(".back").evaluate(PIXELS) != before, "while the pen is down"
    page.mouse.up()
    # hardly any noise: what comes back is the drawing
    visitor.again(lambda: tool.locator(".t").fill("0"))
    drawn, back = (np.array(tool.locator(each).evaluate(PIXELS)) for each in (".paper", ".back"))
    assert np.abs(drawn - back).mean() < 12
    path, name = visitor.saved("Save a PNG")
    with Image.open(path) as panes:
        assert name == "drawing.png" and panes.size == (8 * (3 * 28 + 2 * 4), 8 * 28)
    path, name = visitor.saved("Save a GIF")
    with Image.open(path) as gif:
        assert name == "drawing.gif" and gif.width >= 472 and gif.n_frames > 2


def test_one_hand_writes_a_number(visit, halves):
    visitor = visit()
    tool = visitor.tool("hand")
    ten = (
        to_pixels(halves.sample(seeds=[13] * 10, labels=range(10), steps=10, guidance=1.5).x)
        .flatten(1)
        .numpy()
    )
    for k in range(10):
        assert (
            np.abs(np.array(tool.locator(".ten canvas").nth(k).evaluate(PIXELS)) - ten[k]).max()
            <= 1
        )
    tool.locator(".number").fill("70")
    line = tool.locator(".line canvas")
    assert line.evaluate("canvas => [canvas.width, canvas.height, canvas.ariaLabel]") == [
        49,
        28,
        "70, written",
    ]
    tool.locator(".number").fill("1234567890123456")
    assert line.evaluate("canvas => canvas.width") == 12 * 21 + 7, "no more than 12"
    path, name = visitor.saved("Save a PNG")
    with Image.open(path) as picture:
        assert name == "number-13.png" and picture.size == (8 * (12 * 21 + 7), 8 * 28)
    path, name = visitor.saved("Save a GIF")
    with Image.open(path) as gif:
        assert name == "number-13.gif" and gif.n_frames == 12
    tool.locator(".seed").fill("many")
    assert tool.locator(".says").inner_text().startswith("a seed is a whole number")
    visitor.again(lambda: tool.locator(".seed").fill("12"))
    assert tool.locator(".says").inner_text() == ""


def test_one_digit_becomes_another(visit):
    visitor = visit()
    tool = visitor.tool("morph")
    left, between, right = (tool.locator(".middle canvas").nth(k) for k in range(3))
    tool.get_by_role("button", name=re.compile("a 1$")).click()
    visitor.again(lambda: tool.get_by_role("button", name=re.compile("a 6$")).click())
    for at, end in (("0", left), ("24", right)):
        tool.locator(".share").fill(at)
        assert between.evaluate(PIXELS) == end.evaluate(PIXELS)
    tool.locator(".share").fill("12")
    assert between.evaluate(PIXELS) not in (left.evaluate(PIXELS), right.evaluate(PIXELS))
    path, name = visitor.saved("Save a PNG")
    with Image.open(path) as picture:
        assert name == "morph-5-10.png" and picture.size == (8 * 28, 8 * 28)
    path, name = visitor.saved("Save a GIF")
    with Image.open(path) as gif:
        assert name == "morph-5-10.gif" and gif.n_frames == 48
    tool.get_by_role("button", name="Loop").click()
    visitor.page.wait_for_function(
        "document.querySelector('ddpm-morph').shadowRoot.querySelector('.share').value !== '12'"
    )


def test_what_is_left_of_an_image_stays_and_the_rest_is_finished_four_ways(visit):
    visitor = visit()
    page, tool = visitor.page, visitor.tool("mend")
    visitor.again(lambda: tool.get_by_role("button", name="Start again").click())
    visitor.again(lambda: stroke(page, tool.locator(".paper"), (0.1, 0.8), (0.9, 0.8)))
    page.mouse.up()
    page.wait_for_timeout(500)
    visitor.again(lambda: tool.get_by_role("button", name="Four other ways").click())
    mask, original = page.evaluate(
        "(() => { const tool = document.querySelector('ddpm-mend');"
        " return [[...tool.pad.mask()], [...tool.original.pixels]]; })()"
    )
    mask = np.array(mask, bool)
    assert 50 < (~mask).sum() < 300
    four = [np.array(tool.locator(".four canvas").nth(k).evaluate(PIXELS)) for k in range(4)]
    for each in four:
        assert (each[mask] == np.array(original)[mask]).all()
    assert len({each.tobytes() for each in four}) == 4
    path, name = visitor.saved("Save a PNG")
    with Image.open(path) as picture:
        assert name == "mended-3.png" and picture.size == (8 * 58, 8 * 58)
    path, name = visitor.saved("Save a GIF")
    with Image.open(path) as gif:
        assert name == "mended-3.gif" and gif.width >= 472 and gif.n_frames > 20


FOCUS = """() => { let node = document.activeElement;
    while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
    if (!node || node === document.body) return null;
    const words = node.getAttribute("aria-label") || node.labels?.[0]?.innerText
        || node.innerText || node.name || node.className;
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    return [words.trim().split("\\n")[0], box.width > 0 && style.visibility !== "hidden"]; }"""


def test_keys_alone_reach_everything_in_a_sane_order(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(
        lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and not film["playing"]
    )
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus is None and reached[-1:] == ["Sampler"]:
            # Chromium stops at Gradio's list of samplers, as it can be scrolled, and Gradio closes
            # it
            continue
        if focus is None:
            break  # round once
        assert focus[1], f"{focus[0]} has the focus and cannot be seen"
        reached.append(focus[0])
    wanted = [
        "Generate",
        "Single out seed 11",
        "Moment: from noise to clean",
        "▶ Play",
        "One step back",
        "One step on",
        "noisy image (xₜ)",
        "Speed",
    ]
    order = [
        next((k for k, words in enumerate(reached) if words.startswith(want)), None)
        for want in wanted[1:]
    ]
    assert None not in order and order == sorted(order), reached
    for want in (
        *("Generate", "Stop", "Save …", "any", "Images", "Seed", "Roll"),
        *("Steps, by stops", "Steps", "Sampler", "number input for Guidance"),
    ):
        assert any(words.startswith(want) for words in reached), (want, reached)
    places = {
        want: next(k for k, words in enumerate(reached) if words.startswith(want))
        for want in ("any", "Images", "Seed")
    }
    assert places["any"] < places["Seed"] < places["Images"]


def test_the_tabs_and_the_button_work_by_keys(visit):
    visitor = visit(QUICK)
    page = visitor.page
    film = visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    visitor.wait(lambda now: now["id"] != film["id"] and now["done"])
    page.locator("#film .views input").first.focus()
    page.keyboard.press("ArrowRight")
    assert visitor.film()["view"] == "x0"
    page.get_by_role("tab", name="Weights").focus()
    page.keyboard.press("Enter")
    page.get_by_text("To train your own").wait_for()


def opened(visitor, name):
    """Goes to a tab and waits for what it shows first."""
    visitor.tab(name)
    if name in ("Compare", "Steps"):
        visitor.wait(
            lambda film: (
                film["done"]
                and "distance" in visitor.page.locator(f"#{name.lower()}-film .stage").inner_text()
            ),
            f"{name.lower()}-film",
        )
    elif name in ("Draw", "Hand", "Morph", "Mend"):
        visitor.page.wait_for_function(f"document.querySelector('ddpm-{name.lower()}')?.seen > 0")
    elif name == "Weights":
        visitor.page.get_by_text("To train your own").wait_for()


# Serious violations that are Gradio's own and cannot be mended from outside: rule -> part of the
# selector, and why.
GRADIOS: dict[str, tuple[str, ...]] = {}


def violations(page):
    """What axe-core finds serious or critical, as (rule, selector, words)."""
    found = Axe().run(page).response["violations"]
    return [
        (rule["id"], str(node["target"]), node["failureSummary"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(part in str(node["target"]) for part in GRADIOS.get(rule["id"], ()))
    ]


@pytest.mark.parametrize(
    ("look", "how"),
    [
        ("desktop-light", {"color_scheme": "light"}),
        ("phone-dark", {"color_scheme": "dark"} | PHONE),
    ],
)
def test_every_tab_is_whole_by_light_and_dark_and_open_to_all(visit, look, how):
    """No sideways scrolling, colors of the theme, nothing serious for axe-core; and a picture of
    each."""
    visitor = visit(**how, reduced_motion="reduce")
    page = visitor.page
    found = []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in TABS:
        opened(visitor, name)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{name} scrolls sideways"
        dark = page.evaluate(
            "[document.body.classList.contains('dark'),"
            " document.querySelector('#film ddpm-player').hasAttribute('dark')]"
        )
        assert dark == [how["color_scheme"] == "dark"] * 2
        page.screenshot(path=SCREENSHOTS / f"{name.lower()}-{look}.png", full_page=True)
        found += [(name, *each) for each in violations(page)]
    assert not found


@pytest.mark.parametrize("how", [{"color_scheme": "dark"}, {"color_scheme": "light"} | PHONE])
def test_the_other_looks_are_open_to_all_too(visit, how):
    visitor = visit(QUICK, **how)
    visitor.wait(
        lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and not film["playing"]
    )
    visitor.page.locator("#form").get_by_role("button", name="More").click()
    visitor.page.get_by_label("Time grid").first.wait_for()
    assert not violations(visitor.page)
    assert visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_plays_by_itself_for_those_who_want_no_motion(visit):
    visitor = visit(reduced_motion="reduce")
    film = visitor.film()
    assert not film["playing"] and film["at"] == film["last"]
    visitor.page.get_by_label("Seed").first.fill("5")
    visitor.page.click("#generate")
    film = visitor.wait(lambda film: film["seeds"][0] == 5 and film["done"])
    assert not film["playing"] and film["at"] == film["last"]
    visitor.page.locator("#film .play").click()  # but it can be played
    assert visitor.wait(lambda film: film["playing"])


PLAYER = (
    "() => { const p = document.querySelector('ddpm-player');"
    " return [p.walks.length, p.at, p.last, p.playing]; }"
)


@pytest.fixture(scope="module")
def images():
    return Pipeline.from_pretrained("mnist").sample(seeds=range(4), steps=8)


def test_a_file_that_was_mailed_plays_offline(visit, images, tmp_path):
    images.save(tmp_path / "walk.html")
    visitor = visit(opened=False, offline=True)
    page = visitor.page
    page.goto((tmp_path / "walk.html").as_uri())
    page.wait_for_function(f"({PLAYER})()[1] > 0")
    page.wait_for_function(f"(({PLAYER})()).join() === '1,8,8,false'")
    assert page.locator(".says").inner_text() == "t = 0 · no noise · 8 network evaluations"
    page.keyboard.press("Tab")
    assert not violations(page)


def test_a_notebook_plays_it_in_its_frame(visit, images):
    visitor = visit(opened=False)
    page = visitor.page
    page.set_content(
        f"<!doctype html><html lang=en><title>notebook</title><main>{images._repr_html_()}</main>"
    )
    frame = page.frames[1]
    frame.wait_for_function(f"({PLAYER})()[1] === 8")
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert frame.evaluate("document.documentElement.scrollHeight <= innerHeight"), (
        "the frame is too low"
    )


# --- Links ----------------------------------------------------------------------------------------


def linked(visitor, tab):
    """The address, once it has the settings of the tab that is seen."""
    visitor.page.wait_for_function(
        "tab => location.search.includes(`tab=${tab}&`) && page.tab === tab", arg=tab
    )
    visitor.page.wait_for_timeout(800)
    visitor.page.wait_for_function(
        "!document.querySelector(`ddpm-${page.tab}`)?.busy", timeout=90_000
    )
    return "?" + urlsplit(visitor.page.url).query


def followed(visit, query, tool):
    """Somebody else follows a link to a tool: what is seen there."""
    other = visit(query)
    for _ in range(2):  # what is restored last may just begin
        other.page.wait_for_function(
            "tool => tool?.seen > 0 && !tool.asked && !tool.busy",
            arg=other.page.locator(f"ddpm-{tool}").element_handle(),
            timeout=90_000,
        )
        other.page.wait_for_timeout(400)
    return other, other.page.locator(f"ddpm-{tool}")


def shown(tool, *selectors):
    return [
        each.evaluate(PIXELS) for selector in selectors for each in tool.locator(selector).all()
    ]


def test_a_link_restores_a_drawing(visit):
    visitor = visit()
    page, tool = visitor.page, visitor.tool("draw")
    tool.get_by_role("button", name="Clear").click()
    stroke(page, tool.locator(".paper"), (0.2, 0.3), (0.8, 0.4), (0.4, 0.9))
    page.mouse.up()
    tool.get_by_role("button", name="Other noise").click()
    visitor.again(lambda: tool.locator(".t").fill("15"))
    visitor.again(lambda: tool.locator(".chips label", has_text="7").click())
    query = linked(visitor, "draw")
    assert {"t": ["400"], "seed": ["1"], "digit": ["7"]}.items() <= parse_qs(
        query[1:]
    ).items() and len(query) < 1200
    _, theirs = followed(visit, query, "draw")
    assert shown(theirs, ".paper", ".noisy", ".back") == shown(tool, ".paper", ".noisy", ".back")


def test_a_link_restores_a_hand_a_way_and_what_was_rubbed_out(visit):
    visitor = visit()
    tool = visitor.tool("hand")
    visitor.again(lambda: tool.locator(".seed").fill("99"))
    tool.locator(".number").fill("31-12")
    query = linked(visitor, "hand")
    assert parse_qs(query[1:]) == {"tab": ["hand"], "seed": ["99"], "number": ["31-12"]}
    _, theirs = followed(visit, query, "hand")
    assert theirs.locator(".number").input_value() == "31-12" and shown(
        theirs, ".ten canvas", ".line canvas"
    ) == shown(tool, ".ten canvas", ".line canvas")
    tool = visitor.tool("morph")
    tool.get_by_role("button", name=re.compile("a 1$")).click()
    visitor.again(lambda: tool.get_by_role("button", name=re.compile("a 6$")).click())
    visitor.again(lambda: tool.locator(".share").fill("9"))
    query = linked(visitor, "morph")
    _, theirs = followed(visit, query, "morph")
    assert shown(theirs, ".middle canvas") == shown(tool, ".middle canvas")
    tool = visitor.tool("mend")
    visitor.again(lambda: tool.get_by_role("button", name="Start again").click())
    visitor.again(lambda: stroke(visitor.page, tool.locator(".paper"), (0.1, 0.8), (0.9, 0.8)))
    visitor.page.mouse.up()
    visitor.again(lambda: tool.get_by_role("button", name="Four other ways").click())
    query = linked(visitor, "mend")
    _, theirs = followed(visit, query, "mend")
    assert shown(theirs, ".four canvas") == shown(tool, ".four canvas")


@pytest.mark.parametrize(
    ("query", "film", "titles"),
    [
        (
            "?tab=compare&images=1&seed=5&sampler_1=heun&steps_1=2&sampler_3=none&steps_2=3",
            "compare-film",
            ["heun · 2 steps", "ddim · 3 steps"],
        ),
        (
            "?tab=steps&images=1&seed=8&digit=7&sampler=ddim",
            "steps-film",
            ["1 step", "2 steps", "5 steps", "10 steps", "20 steps", "50 steps", "100 steps"],
        ),
    ],
)
def test_a_link_restores_what_was_compared(visit, query, film, titles):
    visitor = visit(query)
    found = visitor.wait(lambda film: film["done"], film)
    assert found["titles"] == titles and found["seeds"] == [int(parse_qs(query)["seed"][0])]
    visitor.page.click("#compare" if film == "compare-film" else "#climb", timeout=90_000)
    again = parse_qs(linked(visitor, query[5:].split("&")[0])[1:])
    assert parse_qs(query[1:]).items() <= again.items()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?tab=hand&seed=many&number=12", "seed: not a whole number in 0..4294967295"),
        ("?tab=draw&picture=%3Cimg%3E&t=600", "picture: not a whole drawing"),
        ("?tab=draw&t=1e9&digit=ten&seed=3", "t: not one of the times"),
        ("?tab=mend&left=AAAA&seed=5", "left: not a whole drawing"),
        ("?tab=morph&first=77&second=2", "first: not a whole number in 0..9"),
    ],
)
def test_a_bad_value_of_a_link_falls_back_alone_and_is_named(visit, query, words):
    tool = query[5:].split("&")[0]
    _, theirs = followed(visit, query, tool)
    assert (
        f"The link has settings that are not valid, and is followed without them: {words}"
        in theirs.locator(".says").inner_text()
    )
    good = {"hand": (".number", "12"), "draw": (".t", "23")}
    if tool in good and "digit" not in query:
        assert theirs.locator(good[tool][0]).input_value() == good[tool][1]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?tab=compare&images=9&seed=5", "images must be one of 1, 4"),
        ("?tab=steps&sampler=none&seed=5", "sampler must be one of"),
    ],
)
def test_a_bad_value_of_a_comparison_is_named_too(visit, query, words):
    visitor = visit(query)
    assert words in visitor.page.get_by_test_id("toast-body").inner_text()
    visitor.wait(
        lambda film: film["seeds"] and film["seeds"][0] == 5, f"{query[5:].split('&')[0]}-film"
    )


def test_a_link_to_a_tab_that_is_not_there_says_so(visit):
    visitor = visit("?tab=%3Cb%3E")
    visitor.wait(lambda _: visitor.says() == "The link names a tab that is not there: <b>.")


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("?embed=1&images=4&seed=11&steps=6", "#film .play"),
        ("?embed=1&tab=draw", "ddpm-draw .paper"),
    ],
)
def test_in_a_page_of_someone_else_s_there_is_the_picture_and_no_more(visit, query, seen):
    visitor = visit(opened=False)
    page = visitor.page
    page.set_content(
        "<!doctype html><html lang=en><title>theirs</title><main>"
        f'<iframe src="{visitor.url}{query}" title=digits width=400 height=680></iframe></main>'
    )
    frame = page.frame_locator("iframe")
    frame.locator(seen).wait_for()
    for hidden in (".masthead", "#form", "footer"):
        assert not frame.locator(hidden).first.is_visible(), hidden
    assert not frame.get_by_role("tab").first.is_visible()
    link = frame.get_by_role("link", name="Draw your own")
    assert link.is_visible() and link.get_attribute("target") == "_blank"
    inside = page.frames[1]
    assert inside.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if "seed" in query:
        player = "document.querySelector('#film ddpm-player')"
        inside.wait_for_function(f"{player}.walks[0].seeds[0] === 11 && {player}.done")
        # what can be set is set by the player alone
        frame.locator("#film .cells button").first.click()
        inside.wait_for_function(f"{player}.alone === 0 && location.search.startsWith('?embed=1&')")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"embed-{'draw' if 'draw' in query else 'film'}.png")


def test_the_code_for_a_page_of_someone_else_s_is_copied(visit):
    visitor = visit(QUICK)
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    visitor.menu("Copy the code for a page of yours")
    visitor.wait(lambda _: visitor.says() == "The code is copied.")
    code = visitor.page.evaluate("navigator.clipboard.readText()")
    assert (
        code.startswith(f'<iframe src="{visitor.url}?')
        and "&amp;embed=1" in code
        and 'title="From noise to digits"' in code
    )
