"""python -m train.benchmark.browser: speed and accuracy of the one-file page in a browser.

It runs the page in a headless Chromium, on one thread, beside onnxruntime-web, and compares its
images with those of Python. `pip install playwright` drives the Chromium that is there.
`npm install onnxruntime-web` gives the folder that --ort names; without it that row is left out.
Milliseconds depend on the machine and on its other work; ratios, measured in turns in one page,
hardly do.
"""

import argparse
import base64
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from ddpm import Pipeline, hub
from ddpm.browser import KERNELS, PAGE_BYTES, SCRIPTS
from ddpm.engine import onnx
from ddpm.files import write_atomic
from ddpm.pixels import png, sheet
from ddpm.samplers import SAMPLERS
from ddpm.settings import Settings

from ..command import add_option, command
from .sampling import table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STEPS = 4  # evaluations of the timed images
DRAWS = 200  # after which memory must be what it was
BATCH = 16
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FIRST = """new MutationObserver(() => {
  const says = document.querySelector('#says');
  if (/ms here/.test(says?.textContent)) window.first ??= performance.now();
}).observe(document, { subtree: true, childList: true, characterData: true });"""
_TIMED = """async ([wish, rounds]) => {
  const took = [];
  for (let k = 0; k <= rounds; k++) {
    const start = performance.now();
    await ddpm.engine.ask(wish);
    took.push(performance.now() - start);
  }
  return took.slice(1);
}"""
_OURS = """([config, weights, code]) => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const all = new Float32Array(bytes(weights).buffer), named = new Map();
  let at = 0;
  for (const [name, shape] of shapes(config))
    named.set(name, all.subarray(at, at += product(shape)));
  const net = new UNet(new WebAssembly.Module(bytes(code)), config, named);
  window.ours = (x, t, y) => net.forward(x, t, y.map((label) => ({ [label]: 1 })));
}"""
_THEIRS = """async ([graph, size]) => {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = 'http://localhost/ort/';
  const bytes = Uint8Array.from(atob(graph), (c) => c.charCodeAt(0));
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
  window.theirs = async (x, t, y) => {
    const all = new Float32Array(x.length * x[0].length);
    x.forEach((image, k) => all.set(image, k * image.length));
    const given = { x: new ort.Tensor('float32', all, [x.length, 1, size, size]),
                    t: new ort.Tensor('float32', Float32Array.from(x, () => t), [x.length]),
                    y: new ort.Tensor('int64', BigInt64Array.from(y, BigInt), [x.length]) };
    return (await session.run(given))[session.outputNames[0]].data;
  };
}"""
_IN_TURNS = """async ([count, pixels, rounds]) => {
  const x = Array.from({ length: count }, () =>
    Float32Array.from({ length: pixels }, () => 2 * Math.random() - 1));
  const y = x.map((_, k) => k % 10), took = { ours: [], theirs: [] };
  let off = 0;
  for (let k = 0; k < rounds + 10; k++)
    for (const name of ['ours', 'theirs'].filter((name) => window[name])) {
      const start = performance.now(), out = await window[name](x, 500, y);
      if (k >= 10) took[name].push(performance.now() - start);
      if (name === 'ours') window.last = out;
      else out.forEach((value, i) => {
        off = Math.max(off, Math.abs(value - last[Math.floor(i / pixels)][i % pixels]));
      });
    }
  return [took.ours, took.theirs, off];
}"""

_APP_FIRST = """() => {
  const player = document.querySelector('#film ddpm-player');
  if (!document.querySelector('#poster')?.complete && !player?.walks?.length) return 0;
  return performance.now() - performance.getEntriesByType('navigation')[0].responseEnd;
}"""
_REDRAWN = """async ([count, seed]) => {
  const { steps, sampler } = page.studio.offers.usual, start = performance.now();
  await page.draw(['any', count, seed, steps, sampler, 'best', 0, 0]);
  return performance.now() - start;
}"""
_STROKES = 100  # movements of the pen


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless Chromium. Raises OSError if there is none, or nothing that drives it."""
    try:
        from playwright.sync_api import sync_playwright  # only measurements and tests need it
    except ModuleNotFoundError as error:
        raise OSError(f"{error}: pip install playwright") from error
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise OSError(f"no browser here, neither of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--js-flags=--expose-gc"]
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


def first_image(browser: "Browser", url: str, rounds: int) -> list[float]:
    """Milliseconds from opening the page to its first image, by a new visitor each time."""
    found = []
    for _ in range(rounds):
        context = browser.new_context(offline=True)
        tab = context.new_page()
        tab.add_init_script(_FIRST)
        tab.goto(url)
        tab.wait_for_function("window.first")
        found.append(tab.evaluate("window.first"))
        context.close()
    return found


def wish(pipeline: Pipeline, seeds: list[int], **how: Any) -> dict[str, Any]:
    """What the page's engine is asked for these images. how: sampler, steps, if not as usual."""
    labels = [pipeline.label_of(seed) if pipeline.model.classes else None for seed in seeds]
    images = [{"seed": seed, "label": label} for seed, label in zip(seeds, labels, strict=True)]
    return {"kind": "draw", "images": images, **pipeline.usual, **how}


def drawn(tab: "Page", request: dict[str, Any]) -> np.ndarray:
    """The images of a wish as the page draws them, before they are rounded to pixels: N×HWC."""
    script = "wish => ddpm.engine.ask(wish).then(({ x }) => x.map((image) => [...image]))"
    return np.array(tab.evaluate(script, request), np.float32)


def memory(browser: "Browser", tab: "Page") -> float:
    """Megabytes that the process of the page keeps, its workers included, without garbage.

    Memory shared with other processes is not counted. NaN where it is not known (not on Linux).
    """
    tab.evaluate("gc()")
    for worker in tab.workers:
        worker.evaluate("gc()")
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [_anonymous(each["id"]) for each in found if each["type"] == "renderer"]
    return max(sizes, default=float("nan"))


def _anonymous(process: int) -> float:
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if "RssAnon" in line), float("nan"))


def beside_onnxruntime(
    browser: "Browser", pipeline: Pipeline, ort: Path | None, count: int, rounds: int
) -> tuple[list[float], list[float], float]:
    """Milliseconds of one evaluation for `count` images, round by round.

    Returns ours, those of onnxruntime-web in the same page (empty without it), and the largest
    difference between the results.
    """
    tab = browser.new_page()
    tab.route("http://localhost/**", lambda route: _served(route, ort))
    tab.goto("http://localhost/")
    tab.add_script_tag(content="\n".join(SCRIPTS[:-1]))  # all but the worker's own
    model = pipeline.model
    values = torch.cat([value.flatten() for value in model.state_dict().values()]).numpy()
    config = {name: getattr(model, name) for name in hub.ARCHITECTURE}
    tab.evaluate(_OURS, [config, _base64(values.tobytes()), _base64(KERNELS[0])])
    if ort:
        tab.add_script_tag(url="http://localhost/ort/ort.wasm.min.js")
        tab.evaluate(_THEIRS, [_base64(onnx.graph(model)), model.size])
    took: list[Any] = tab.evaluate(_IN_TURNS, [count, model.channels * model.size**2, rounds])
    tab.close()
    return took[0], took[1], took[2]


def _served(route: Any, ort: Path | None) -> None:
    """An empty page, and the files of onnxruntime-web beside it."""
    _, _, name = route.request.url.partition("/ort/")
    if name and ort and (ort / name).is_file():
        route.fulfill(path=ort / name)
    else:
        route.fulfill(body="<!doctype html><title>bench</title>", content_type="text/html")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def agreement(tab: "Page", pipeline: Pipeline, rounded: Pipeline) -> Iterator[list[str]]:
    """For each sampler, how far the page's images are from those of Python.

    Over 1, 4, 10 and 20 steps (of a distilled model its own) × 8 seeds: the largest difference to
    Python with the page's weights, in gray levels; pixels off by more than a quarter; and the same
    for the weights before they were rounded to float16.
    """
    seeds = list(range(8))
    samplers = [pipeline.usual["sampler"]] if pipeline.walks else SAMPLERS
    for name in tqdm(samplers, unit="sampler", leave=False):
        off: dict[str, list[np.ndarray]] = {"page": [], "float32": []}
        for steps in pipeline.walks or (1, 4, 10, 20):
            there = drawn(tab, wish(pipeline, seeds, sampler=name, steps=steps))
            for which, python in (("page", rounded), ("float32", pipeline)):
                x = python.sample(seeds, sampler=name, steps=steps).x.permute(0, 2, 3, 1)
                off[which].append(127.5 * np.abs(there - x.flatten(1).numpy()))
        cells = [name]
        for each in off.values():
            levels = np.concatenate(each)
            cells += [f"{levels.max():.3f}", f"{(levels > 0.25).sum()} of {levels.size:,}"]
        yield [*cells, f"{levels.mean():.3f}"]


def rounded_like_the_page(source: str) -> Pipeline:
    """The pipeline with the weights that a page holds."""
    pipeline = Pipeline.from_pretrained(source)
    for p in pipeline.model.parameters():
        p.data = p.data.half().float()
    return pipeline


def save_images(tab: "Page", pipeline: Pipeline, args: argparse.Namespace) -> None:
    """Samples args.count images in the page, seeds 0, 1, …, and writes them as PNGs."""
    size, channels = pipeline.model.size, pipeline.model.channels
    for first in tqdm(range(0, args.count, BATCH), unit="batch", leave=False):
        seeds = list(range(first, min(first + BATCH, args.count)))
        x = torch.from_numpy(drawn(tab, wish(pipeline, seeds, **_how(args))))
        x = x.view(-1, size, size, channels).permute(0, 3, 1, 2)
        for seed, image in zip(seeds, x, strict=True):
            write_atomic(args.out / f"{seed:010d}.png", png(sheet(image[None])))


def _how(args: argparse.Namespace) -> dict[str, Any]:
    asked = {"sampler": args.sampler, "steps": args.steps}
    return {name: value for name, value in asked.items() if value is not None}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser("python -m train.benchmark.browser", description=__doc__)
    add = partial(add_option, p)
    add("--model", "as for python -m ddpm", default="mnist", metavar="WEIGHTS")
    add("--ort", "node_modules/onnxruntime-web/dist, to compare with", type=Path, metavar="DIR")
    add("--app", "measure the app's page at this address instead", metavar="URL")
    add("--rounds", "measurements, of which the median counts", type=int, default=20)
    p.add_argument("--agreement", action="store_true", help="compare images with Python's instead")
    add("--out", "sample images in the browser into this folder instead", type=Path, metavar="DIR")
    add("--count", "how many, with --out", type=int, default=2000)
    add("--sampler", "for --out, if not the usual one", choices=SAMPLERS, metavar="SAMPLER")
    add("--steps", "for --out, if not the usual ones", type=int)
    return p


@command("benchmark")
def main(argv: list[str] | None = None) -> int:
    """Prints the tables. Exit code: 0 done, 2 bad input or no browser, 130 interrupted."""
    args = parser().parse_args(argv)
    if args.rounds < 1 or args.count < 1:
        raise ValueError("--rounds and --count must be 1 or more")
    if args.ort and not (args.ort / "ort.wasm.min.js").is_file():
        raise ValueError(f"{args.ort} has no ort.wasm.min.js: npm install onnxruntime-web")
    if args.app:
        with chromium() as browser:
            head = "in one thread|median|min|max|bound"
            print(table(head, app_bounds(browser, args.app, args.rounds)))
        return 0
    torch.set_num_threads(1)
    pipeline = Pipeline.from_pretrained(args.model)
    pipeline.times(Settings([0], **pipeline.usual | _how(args)))  # raises if they cannot be
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        pipeline.save_page(path)
        with chromium() as browser:
            _show(browser, pipeline, path, args)
    return 0


def app_bounds(browser: "Browser", url: str, rounds: int) -> list[list[str]]:
    """What the app's page promises, measured at url with the weights and steps that it starts with.

    Raises OSError if there is no such page.
    """
    from playwright.sync_api import Error

    try:
        first = [_opened(browser, url)[1] for _ in range(5)]
        tab, _ = _opened(browser, url)
    except Error as error:
        raise OSError(f"no app answers at {url}: start it by python app.py") from error
    tab.wait_for_function("window.page?.studio && page.begun")
    rows = [_row("page to first picture, ms", first, ".0f", "1000")]
    seeds = iter(range(1000, 10_000))
    for count, bound in ((1, "100"), (BATCH, "1000")):
        took = [tab.evaluate(_REDRAWN, [count, next(seeds)]) for _ in range(rounds + 1)][1:]
        rows.append(_row(f"redraw of {count}, ms", took, ".0f", bound))
    tab.locator("[role=tab]", has_text="Draw").click()
    seen = "document.querySelector('ddpm-draw').seen ?? 0"
    tab.wait_for_function(f"{seen} > 0")
    rates = [_updates(tab, seen) for _ in range(rounds)]
    return [*rows, _row("Draw: updates a second while the pen moves", rates, ".0f", "10")]


def _opened(browser: "Browser", url: str) -> tuple["Page", float]:
    """The app as a new visitor sees it, and milliseconds from its HTML to its first picture."""
    tab = browser.new_context().new_page()
    tab.goto(url)
    return tab, tab.wait_for_function(_APP_FIRST, polling=10).json_value()


def _updates(tab: "Page", seen: str) -> float:
    """Drawings of the Draw tab that came back in a second of a moving pen."""
    box = tab.locator("ddpm-draw ddpm-pad canvas").first.bounding_box()
    if not box:
        raise OSError("the app shows nothing to draw on")
    before, start = tab.evaluate(seen), time.perf_counter()
    tab.mouse.move(box["x"] + 5, box["y"] + 5)
    tab.mouse.down()
    for k in range(_STROKES):
        along = (k + 1) / _STROKES
        tab.mouse.move(box["x"] + along * box["width"] * 0.9, box["y"] + box["height"] / 2)
        time.sleep(0.01)
    rate = (tab.evaluate(seen) - before) / (time.perf_counter() - start)
    tab.mouse.up()
    return float(rate)


def _row(name: str, values: list[float], form: str, bound: str = "") -> list[str]:
    figures = (statistics.median(values), min(values), max(values))
    return [name, *(format(value, form) for value in figures), bound]


def _show(browser: "Browser", pipeline: Pipeline, path: Path, args: argparse.Namespace) -> None:
    """Does what the options ask for with the page at path."""
    if not (args.agreement or args.out):
        print(table("in one thread|median|min|max|bound", bounds(browser, pipeline, path, args)))
        return
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.evaluate("ddpm.engine.ready")
    if args.out:
        save_images(tab, pipeline, args)
    else:
        rounded = rounded_like_the_page(args.model)
        head = "sampler|largest|> 1/4 level|float32: largest|> 1/4 level|mean"
        print(table(head, list(agreement(tab, pipeline, rounded))))


def bounds(
    browser: "Browser", pipeline: Pipeline, path: Path, args: argparse.Namespace
) -> list[list[str]]:
    """What the page promises, measured."""
    size = path.stat().st_size
    rows = [["page, MB", f"{size / 1e6:.2f}", "", "", f"{PAGE_BYTES / 1e6:.0f}"]]

    def row(*what: Any) -> None:
        rows.append(_row(*what))

    row("open to first image, ms", first_image(browser, path.as_uri(), 5), ".0f", "1000")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.evaluate("ddpm.engine.ready")
    for count, bound in ((1, "60"), (BATCH, "800")):
        request = wish(pipeline, list(range(count)), steps=STEPS)
        took = tab.evaluate(_TIMED, [request, args.rounds])
        row(f"{count} image{'s' * (count > 1)}, {STEPS} evaluations, ms", took, ".0f", bound)
    sizes = [memory(browser, tab)]
    for _ in range(2):
        tab.evaluate(_TIMED, [wish(pipeline, [0, 1, 2, 3], steps=1), DRAWS])
        sizes.append(memory(browser, tab))
    rows.append(
        [
            f"memory before, after {DRAWS} and {2 * DRAWS} draws, MB",
            *(f"{size:.0f}" for size in sizes),
            "150, flat",
        ]
    )
    for count in (1, 4, BATCH):
        ours, theirs, off = beside_onnxruntime(browser, pipeline, args.ort, count, args.rounds)
        name = f"one evaluation, {count} image{'s' * (count > 1)}"
        row(f"{name}, ms", ours, ".1f")
        if theirs:
            row(f"{name}, onnxruntime-web, ms", theirs, ".1f")
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            row(f"{name}, times as fast", ratios, ".1f", "2" if count == 1 else "")
            rows.append([f"{name}, largest difference", f"{off:.1e}", "", "", ""])
    return rows


if __name__ == "__main__":
    sys.exit(main())
