"""The model in the visitor's own browser: one page with the weights, the engine and the player in
it, which draws without a server and without a network."""

import base64
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ..files import check_writable
from ..hub import ARCHITECTURE
from ..pipeline import DISTILLED, GOLDEN, Pipeline
from ..pixels import (
    BETWEEN,
    FIRST_MS,
    FRAME_MS,
    GAP,
    GIF_WIDTH,
    LAST_MS,
    LIMIT,
    WAY_MS,
    from_pixels,
)
from ..player import PAD, SCRIPT
from ..samplers import SAMPLERS
from ..schedule import Schedule
from ..settings import GUIDANCE, MAX_SEED, Settings, Start
from .walks import walk

PAGE_BYTES = 3_000_000  # that can be mailed, and opened on a phone
STEPS = (*range(1, 21), 25, 30, 40, 50)  # the walks that are in a page
TIMES = {  # and the width of a GIF
    "gif_width": GIF_WIDTH,
    "first_ms": FIRST_MS,
    "frame_ms": FRAME_MS,
    "way_ms": WAY_MS,
    "last_ms": LAST_MS,
}
FIXED = {  # what is the same in every page
    "limit": LIMIT,
    "levels": from_pixels(torch.arange(256)).tolist(),
    "between": BETWEEN.tolist(),
    "golden": GOLDEN,
    "max_seed": MAX_SEED,
    "gap": GAP,
    **TIMES,
}
STARTS, START_STEPS = 40, 10  # moments that a walk back can begin at; steps of its whole way
FILES = Path(__file__).parent


def _read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


# What runs in the worker: the parts, which know no messages, and last what listens to the page.
SCRIPTS = [*map(_read, ("random.js", "walk.js", "unet.js", "model.js", "worker.js"))]
# What runs in a page, whichever it is: files, saving, both ends of the worker, tools.
PARTS = (
    *("gif.js", "engine.js", "studio.js"),
    *("tool.js", "draw.js", "hand.js", "morph.js", "mend.js"),
)
# The same kernels twice, the faster ones first: a browser takes the first that it understands.
KERNELS = [(FILES / name).read_bytes() for name in ("fused.wasm", "kernels.wasm")]
_SPACE = """---
title: {title}
emoji: 🌫️
colorFrom: gray
colorTo: blue
sdk: static
app_file: index.html
short_description: A diffusion model that draws in your own browser
license: mit
tags:
  - diffusion
  - ddpm
---

# {title}

A denoising diffusion model, in one page: weights, engine and player. It draws in the visitor's own
browser; there is no server behind it. `index.html` can be saved, mailed and opened offline.
"""


def page(pipeline: Pipeline) -> bytes:
    """An HTML page that draws with the pipeline's model, whole in itself: nothing is fetched.

    Raises ValueError if the model is too large for a page of PAGE_BYTES.
    """
    given = opening(pipeline)
    parts = {
        "title": _title(pipeline),
        "style": _read("page.css"),
        "player": SCRIPT + PAD,
        "worker": "\n".join(SCRIPTS),
        "page": "\n".join(map(_read, (*PARTS, "page.js"))),
        **given,
        "facts": json.dumps(given["facts"]).replace("<", r"\u003c"),
    }
    text = _read("page.html")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    made = text.encode()
    if len(made) > PAGE_BYTES:
        count = sum(p.numel() for p in pipeline.model.state_dict().values())
        raise ValueError(
            f"a page with this model's {count:,} parameters would have {len(made) / 1e6:.1f} MB, "
            f"more than {PAGE_BYTES / 1e6:.0f} MB: serve it with app.py, or train a smaller one"
        )
    return made


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises ValueError or OSError if a page could not be written to path: before it is made."""
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"cannot write {path}: name a .html")
    check_writable(path)


def static_space(pipeline: Pipeline) -> dict[str, bytes]:
    """The files of a static Space by name: the page, and the README that says it is one.

    Raises ValueError as `page` does."""
    card = _SPACE.format(title=_title(pipeline))
    return {"index.html": page(pipeline), "README.md": card.encode()}


def opening(pipeline: Pipeline) -> dict[str, Any]:
    """What the engine (engine.js) needs to draw with the pipeline's model, as JSON can hold it.

    facts: the configuration, and where the walks lie. data: the log-SNR at 1..T and all walks
    (float32), followed by the weights (safetensors, float16), compressed, in base64. kernels:
    WebAssembly in base64, the fastest first.

    A distilled model's page has the walks of all samplers too: it may be given other weights."""
    model = pipeline.model
    # In float16 a pixel changes by a seventieth of a gray level on average: ddpm/browser/README.md.
    weights = save({name: p.half().cpu().contiguous() for name, p in model.state_dict().items()})
    told = ("class_names", "class_counts", "distilled")
    names = [name for name in told if name in pipeline.config]
    config = {name: getattr(model, name) for name in ARCHITECTURE}
    config |= {name: pipeline.config[name] for name in names}
    config |= {
        "schedule": {"name": model.schedule.name, "T": model.schedule.T},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    tables, starts = _walks(model.schedule), _starts(model.schedule)
    every = [*(table for walks in tables.values() for table in walks), *starts.values()]
    numbers = np.concatenate([_log_snr(model.schedule), *(table.ravel() for table in every)])
    facts = {
        "config": config,
        "weights_bytes": len(weights),
        "steps": _steps(model.schedule),
        "walks": {name: [*map(_size, walks)] for name, walks in tables.items()},
        "starts": {"times": [*starts], "sizes": [*map(_size, starts.values())]},
        "usual_steps": min(Settings.steps, model.schedule.T),
        "sampler": Settings.sampler,
        "distilled": DISTILLED,
        "guidance": GUIDANCE.high,
        **FIXED,
    }
    data = gzip.compress(numbers.astype("<f4").tobytes() + weights, mtime=0)
    return {
        "facts": facts,
        "data": base64.b64encode(data).decode(),
        "kernels": " ".join(base64.b64encode(code).decode() for code in KERNELS),
    }


def _log_snr(schedule: Schedule) -> np.ndarray:
    alpha, sigma = schedule(torch.arange(1, schedule.T + 1))
    return (alpha / sigma).square().log().numpy()


def _steps(schedule: Schedule) -> list[int]:
    return [steps for steps in STEPS if steps <= schedule.T]


def _walks(schedule: Schedule) -> dict[str, list[np.ndarray]]:
    """The table of every sampler for every number of steps in a page."""
    return {
        name: [walk(schedule, Settings((0,), sampler=name, steps=n)) for n in _steps(schedule)]
        for name in SAMPLERS
    }


def _starts(schedule: Schedule) -> dict[float, np.ndarray]:
    """The table of a walk from a picture with noise up to a time, by that time."""
    T, nothing = schedule.T, torch.zeros(0)
    times = sorted({max(1.0, round(T * k / STARTS, 1)) for k in range(1, STARTS + 1)})
    steps = min(START_STEPS, T)
    return {t: walk(schedule, Settings((0,), steps=steps, start=Start(nothing, t))) for t in times}


def _size(table: np.ndarray) -> list[int]:
    """Evaluations of a walk, and the width of its table's rows."""
    return [len(table) - 1, table.shape[1]]


def _title(pipeline: Pipeline) -> str:
    what = "digits" if pipeline.config.get("dataset") == "mnist" else "images"
    return f"From noise to {what}"
