"""The page in a real browser: what a visitor sees and does, by mouse, by keys, by phone, in the dark and offline."""

import base64
import re
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from ddpm import Pipeline
from ddpm.demo import requests
from ddpm.pixels import durations
from tests.helpers import IN_BROWSER, SCREENSHOTS, distance

pytestmark = IN_BROWSER
TABS = ("Generate", "Compare", "Steps", "Noise", "Weights")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
QUICK = "?images=4&seed=11&steps=6"


@pytest.fixture(scope="module")
def url(page):
    return page.local_url


class Visitor:
    """A fresh profile of the browser, on the page; what the page complains of and asks for is kept."""

    def __init__(self, browser, url, **how):
        self.url, self.complaints, self.asked = url, [], []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | how)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, query=""):
        self.page.goto(self.url + query)
        self.wait(lambda film: film["frames"])
        return self.page

    def film(self, name="film"):
        """What the player of that name shows now."""
        return self.page.evaluate("""(name) => { const player = document.querySelector(`#${name} ddpm-player`);
            if (!player?.walks) return null;
            const { at, last, playing, done, id, view, alone, walks } = player;
            return { at, last, playing, done, id, view, alone, frames: walks.map((walk) => walk.frames.length).join(),
                     seeds: walks[0]?.seeds, titles: walks.map((walk) => walk.title), time: player.time,
                     says: player.shadowRoot.querySelector(".says").textContent }; }""", name)

    def wait(self, holds, name="film"):
        """Until the player of that name is as it should be."""
        for _ in range(400):
            film = self.film(name)
            if film and holds(film):
                return film
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the player never was as it should be: {film}")

    def generate(self, **how):
        """Presses the button, and waits for the new film to be whole."""
        before = self.film()["id"]
        self.page.click("#generate", **how)
        return self.wait(lambda film: film["id"] != before and film["done"])

    def tab(self, name):
        self.page.get_by_role("tab", name=name, exact=True).click()

    def picture(self, name="film"):
        """The pixels on the canvas."""
        data = self.page.evaluate("(name) => document.querySelector(`#${name} ddpm-player`).shadowRoot"
                                  ".querySelector('.sheet canvas').toDataURL().split(',')[1]", name)
        return Image.open(BytesIO(base64.b64decode(data)))

    def saved(self, click):
        """The file that a click downloads."""
        with self.page.expect_download() as download:
            click()
        return Path(download.value.path()), download.value.suggested_filename


@pytest.fixture
def visit(browser, url):
    """Opens the page as another visitor each time; in the end nobody may have had reason to complain."""
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
        hosts = {urlsplit(asked).netloc for asked in visitor.asked if not asked.startswith(("data:", "blob:", "file:"))}
        assert hosts <= {urlsplit(url).netloc}


def seed_of(page):
    return page.get_by_label("Seed").first.input_value()


def test_the_page_opens_with_an_example_that_plays(visit):
    visitor = visit()
    film = visitor.wait(lambda film: film["playing"] and film["at"] > 0)
    assert film["done"] and film["seeds"] == list(range(16)) and seed_of(visitor.page) == "0"
    assert visitor.wait(lambda later: later["at"] != film["at"])


def test_generate_draws_what_was_asked_for_and_tells_where_it_is(visit):
    visitor = visit(QUICK)
    film = visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and film["at"] == film["last"])
    assert film["last"] == 6 and film["says"] == "t = 0 · no noise · 6 network evaluations"
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(11, 15), steps=6).sheet(scale=1)
    visitor.wait(lambda _: distance(visitor.picture(), ours) <= 1)
    visitor.page.get_by_label("Seed").first.fill("77")
    assert visitor.generate()["seeds"] == [77, 78, 79, 80]
    visitor.page.get_by_role("button", name="Roll a new seed").click()
    visitor.wait(lambda _: seed_of(visitor.page) != "77")
    assert visitor.generate()["seeds"][0] == int(seed_of(visitor.page))


def test_stop_keeps_what_there_is_and_frees_the_server(visit):
    visitor = visit()
    visitor.page.goto(visitor.url + "?images=64&steps=300&seed=5")
    visitor.wait(lambda film: film["seeds"] and film["seeds"][0] == 5 and not film["done"])
    visitor.page.click("#stop-generate")
    film = visitor.wait(lambda film: film["done"])
    assert film["seeds"][0] == 5 and int(film["frames"]) < 40 and film["last"] == int(film["frames"]) - 1
    other = visit(QUICK)
    assert other.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    assert visitor.film()["frames"] == film["frames"]


def test_a_full_queue_is_said_so_kindly_and_nothing_is_lost(visit, page, monkeypatch):
    visitor, queue = visit(QUICK), page._queue
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
    assert visitor.wait(lambda film: film["at"] == 0)["says"].startswith("t = 1000 · signal to noise −86.1 dB · 1 network evaluation")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    film = visitor.wait(lambda film: film["at"] == 3)
    assert not film["playing"] and "4 network evaluations" in film["says"]
    slider.focus()
    for key, at in (("ArrowRight", 4), ("ArrowUp", 5), ("ArrowLeft", 4), ("ArrowDown", 3), ("End", 6), ("ArrowRight", 6), ("Home", 0), ("ArrowLeft", 0)):
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
    visitor.wait(lambda film: film["view"] == "both" and visitor.picture().width == 2 * noisy.width + 6)
    assert visitor.film()["at"] == 0  # nothing is drawn again to look at it otherwise


def test_files_hold_what_is_on_the_page(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"])
    visitor.wait(lambda _: page.locator("#save").is_enabled())
    path, name = visitor.saved(page.locator("#film .save").click)
    ours = Pipeline.from_pretrained("mnist").sample(seeds=range(11, 15), steps=6).sheet()
    with Image.open(path) as picture:
        assert name == "digits-11.png" and picture.format == "PNG" and distance(picture, ours) <= 1
    for k, wide in ((0, 1), (1, 1), (2, 2)):
        page.locator("#film .views label").nth(k).click()
        path, name = visitor.saved(page.locator("#save").click)
        with Image.open(path) as gif:
            assert name == "digits-11.gif" and gif.format == "GIF" and gif.n_frames == 8 and gif.info["loop"] == 0
            assert round(gif.width / gif.height) == wide
            shown = []
            for frame in range(8):
                gif.seek(frame)
                shown.append(gif.info["duration"])
            assert shown == durations(7)


def test_one_image_is_singled_out_by_a_click_and_its_seed_becomes_the_seed(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and film["at"] == film["last"])
    page.locator("#film .cells button").nth(2).click()
    film = visitor.wait(lambda film: film["alone"] == 2 and seed_of(page) == "13")
    assert film["says"].startswith("seed 13")
    alone = Pipeline.from_pretrained("mnist").sample(seeds=[13], steps=6).sheet(scale=16)
    path, name = visitor.saved(page.locator("#film .save").click)
    with Image.open(path) as picture:
        assert name == "digit-13.png" and distance(picture, alone) <= 1
    page.locator("#film .cells button").click()
    visitor.wait(lambda film: film["alone"] is None and seed_of(page) == "11")  # all again: their seed too


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
    visitor = visit("?digit=7&images=4&seed=42&steps=5&sampler=ddim&grid=linspace&eta=0.5&guidance=2")
    page = visitor.page
    film = visitor.wait(lambda film: film["seeds"] == [42, 43, 44, 45] and film["done"] and film["at"] == film["last"])
    assert film["last"] == 5 and "10 network evaluations" in film["says"]
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Seed").first.fill("43")
    page.click("#copy")
    visitor.wait(lambda _: page.locator("#copy").inner_text() == "Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert parse_qs(urlsplit(link).query) == {"digit": ["7"], "images": ["4"], "seed": ["43"], "steps": ["5"], "sampler": ["ddim"],
                                              "grid": ["linspace"], "eta": ["0.5"], "guidance": ["2"]}
    again = visit("?" + urlsplit(link).query)
    assert again.wait(lambda film: film["seeds"] == [43, 44, 45, 46] and film["done"])


@pytest.mark.parametrize("query", ["?seed=%3Cimg%20src=x%20onerror=alert(1)%3E", "?sampler=%3Cb%3Ehostile%3C/b%3E", "?images=64&steps=1000"])
def test_a_link_that_cannot_be_followed_gets_one_line_and_the_usual_settings(visit, query):
    visitor = visit(query)
    page = visitor.page
    warning = page.get_by_test_id("toast-body")
    warning.wait_for()
    assert warning.count() == 1 and "This link cannot be followed" in warning.inner_text()
    assert "onerror" not in page.content() and "hostile" not in page.content()
    assert seed_of(page) == "0" and visitor.film()["seeds"] == list(range(16))


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
    film = visitor.wait(lambda film: film["done"] and "distance" in visitor.page.locator("#compare-film .stage").inner_text(), "compare-film")
    assert film["titles"] == ["ddpm · 10 steps", "ddim · 10 steps", "unipc2 · 10 steps"]
    words = visitor.page.locator("#compare-film .stage").inner_text()
    visitor.wait(lambda _: len(re.findall(r"distance 0\.\d+", visitor.page.locator("#compare-film .stage").inner_text())) == 3, "compare-film")
    path, _ = visitor.saved(visitor.page.locator("#compare-film .save").click)
    with Image.open(path) as picture:  # all three, side by side
        side = 4 * (2 * 28 + 2)
        assert picture.size == (3 * side + 2 * 24, side)
        ends = [picture.crop((k * (side + 24), 0, k * (side + 24) + side, side)) for k in range(3)]
    ddim = Pipeline.from_pretrained("mnist").sample(seeds=range(4), steps=10, sampler="ddim").sheet()
    assert distance(ends[1], ddim) <= 1 < distance(ends[0], ddim)
    assert words.count("evaluation") == 3 and re.search(r"\d\.\d\d s", words)


def test_steps_draws_a_strip_and_a_chart(visit):
    visitor = visit()
    visitor.tab("Steps")
    film = visitor.wait(lambda film: film["done"] and visitor.page.locator("#steps-film svg.chart").count(), "steps-film")
    assert film["titles"] == ["1 step", *(f"{n} steps" for n in (2, 5, 10, 20, 50, 100))]
    assert visitor.page.locator("#steps-film svg.chart circle").count() == 7
    assert "Distance to the reference" in visitor.page.locator("#steps-film svg.chart").get_attribute("aria-label")


def test_noise_drowns_a_digit_and_finds_the_way_back(visit):
    visitor = visit()
    page = visitor.page
    visitor.tab("Noise")
    first = visitor.wait(lambda film: film["done"], "noise-film")
    assert first["time"] == 600 and not first["playing"]  # half drowned, and still
    slider = page.locator("#noise-film input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    page.get_by_role("button", name="A real 3").click()
    three = visitor.wait(lambda film: film["id"] != first["id"] and film["done"], "noise-film")
    with Image.open(BytesIO(requests.picture("3"))) as digit:
        visitor.wait(lambda _: distance(visitor.picture("noise-film"), digit) <= 1, "noise-film")
    paper = page.locator("#pad .paper canvas")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 130, steps=8)
    page.mouse.up()
    visitor.wait(lambda film: film["id"] != three["id"] and film["done"], "noise-film")
    visitor.wait(lambda _: 0.01 < sum(visitor.picture("noise-film").convert("L").histogram()[128:]) / 784 < 0.2, "noise-film")
    assert visitor.film("noise-film")["time"] == 0, "the playhead stays where it was put"
    slider.focus()
    for _ in range(16):
        page.keyboard.press("ArrowLeft")
    t = visitor.film("noise-film")["time"]
    assert t == 400
    page.get_by_role("button", name="Denoise from here").click()
    back = visitor.wait(lambda film: film["done"], "back-film")
    assert back["titles"] == ["from t = 400"]
    assert page.evaluate("document.querySelector('#back-film ddpm-player').walks[0].frames[0].t") == 400


FOCUS = """() => { let node = document.activeElement;
    while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
    if (!node || node === document.body) return null;
    const words = node.getAttribute("aria-label") || node.labels?.[0]?.innerText || node.innerText || node.name || node.className;
    const style = getComputedStyle(node), box = node.getBoundingClientRect();
    return [words.trim().split("\\n")[0], box.width > 0 && style.visibility !== "hidden"]; }"""


def test_keys_alone_reach_everything_in_a_sane_order(visit):
    visitor = visit(QUICK)
    page = visitor.page
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and not film["playing"])
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus is None:
            break  # round once
        assert focus[1], f"{focus[0]} has the focus and cannot be seen"
        reached.append(focus[0])
    wanted = ["Generate", "Single out seed 11", "Moment: from noise to clean", "▶ Play", "One step back", "One step on", "noisy xₜ", "Speed"]
    order = [next((k for k, words in enumerate(reached) if words.startswith(want)), None) for want in wanted[1:]]
    assert None not in order and order == sorted(order), reached
    for want in ("Generate", "Stop", "Save GIF", "Copy link", "Digit", "Images", "Seed", "🎲 Roll a new seed", "Sampler"):
        assert any(words.startswith(want) for words in reached), (want, reached)
    places = {want: next(k for k, words in enumerate(reached) if words.startswith(want)) for want in ("Digit", "Images", "Seed")}
    assert places["Digit"] < places["Images"] < places["Seed"]


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
        visitor.wait(lambda film: film["done"] and "distance" in visitor.page.locator(f"#{name.lower()}-film .stage").inner_text(), f"{name.lower()}-film")
    elif name == "Noise":
        visitor.wait(lambda film: film["done"], "noise-film")
    elif name == "Weights":
        visitor.page.get_by_text("To train your own").wait_for()


# Serious violations that are Gradio's own and cannot be mended from outside: rule -> part of the selector, and why.
GRADIOS: dict[str, tuple[str, ...]] = {
    "color-contrast": ("ͼ",),  # the colors of words in gr.Code: CodeMirror's, whose class names change with each build
}


def violations(page):
    """What axe-core finds serious or critical, as (rule, selector, words)."""
    found = Axe().run(page).response["violations"]
    return [(rule["id"], str(node["target"]), node["failureSummary"]) for rule in found if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"] if not any(part in str(node["target"]) for part in GRADIOS.get(rule["id"], ()))]


@pytest.mark.parametrize(("look", "how"), [("desktop-light", {"color_scheme": "light"}), ("phone-dark", {"color_scheme": "dark"} | PHONE)])
def test_every_tab_is_whole_by_light_and_dark_and_open_to_all(visit, look, how):
    """No sideways scrolling, colors of the theme, nothing serious for axe-core; and a picture of each."""
    visitor = visit(**how, reduced_motion="reduce")
    page = visitor.page
    found = []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in TABS:
        opened(visitor, name)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{name} scrolls sideways"
        dark = page.evaluate("[document.body.classList.contains('dark'), document.querySelector('#film ddpm-player').hasAttribute('dark')]")
        assert dark == [how["color_scheme"] == "dark"] * 2
        page.screenshot(path=SCREENSHOTS / f"{name.lower()}-{look}.png", full_page=True)
        found += [(name, *each) for each in violations(page)]
    assert not found


@pytest.mark.parametrize("how", [{"color_scheme": "dark"}, {"color_scheme": "light"} | PHONE])
def test_the_other_looks_are_open_to_all_too(visit, how):
    visitor = visit(QUICK, **how)
    visitor.wait(lambda film: film["seeds"] == [11, 12, 13, 14] and film["done"] and not film["playing"])
    visitor.page.get_by_role("button", name="Sampler").first.click()
    visitor.page.get_by_label("Steps").first.wait_for()
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


PLAYER = "() => { const p = document.querySelector('ddpm-player'); return [p.walks.length, p.at, p.last, p.playing]; }"


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
    page.set_content(f"<!doctype html><html lang=en><title>notebook</title><main>{images._repr_html_()}</main>")
    frame = page.frames[1]
    frame.wait_for_function(f"({PLAYER})()[1] === 8")
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert frame.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the frame is too low"
