"""python -m ddpm: sample images from the command line."""

import argparse
import secrets
import sys
import time
from typing import Any

from tqdm import tqdm

from .engine.cpus import use_all
from .images import Images, check_out
from .pipeline import Pipeline
from .samplers import SAMPLERS
from .schedule import GRIDS
from .settings import GUIDANCE, MAX_IMAGES, MAX_SEED, Settings


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m ddpm",
        description="Sample images from a diffusion model, and watch them appear from noise.",
        epilog="Example: python -m ddpm --seed 0 --steps 20 --sampler ddim --out digits.gif",
    )
    _add_what(p)
    _add_how(p)
    return p


def _add(p: argparse.ArgumentParser, name: str, help: str, **settings: Any) -> None:
    shown = settings.get("default")
    p.add_argument(name, help=help if shown is None else f"{help} (default: {shown})", **settings)


def _add_what(p: argparse.ArgumentParser) -> None:
    """Options that say what to sample, with which model, and where to put it."""
    endings = "a .gif of the way from noise, a .html that plays it, a .png, or a folder of PNGs"
    _add(p, "--out", f"what to write: {endings}", default="samples.gif", metavar="PATH")
    _add(p, "--count", f"how many images, up to {MAX_IMAGES}", type=int, default=16)
    seed = f"0..{MAX_SEED}; image k gets seed + k, and a seed always gives the same image"
    _add(p, "--seed", f"{seed} (random if left out, and printed)", type=int)
    label = "what to show, by name or number; none: the network gets no label"
    _add(p, "--label", f"{label} (each seed chooses its own if left out)")
    weights = "built-in weights by name, a folder of `python -m train`, or a Hub repo"
    _add(p, "--model", f"{weights} NAMESPACE/NAME", default="mnist", metavar="WEIGHTS")
    _add(p, "--revision", "branch, tag or commit of the Hub repo")
    _add(p, "--device", "cpu or cuda", default="cpu")
    p.add_argument(
        "--verbose", help="also print what computes the network, and why", action="store_true"
    )


def _add_how(p: argparse.ArgumentParser) -> None:
    """Options that say how to walk from noise to the images."""
    guidance = f"weight of classifier-free guidance, {GUIDANCE}; above 0 doubles the work"
    _add(p, "--guidance", guidance, type=float, default=Settings.guidance)
    cost = "each is one network evaluation; heun: two, plms: one more in total"
    steps = f"from noise to image; more is slower and finer ({cost})"
    usual = f"{Settings.steps}, or what the model was distilled for, if left out"
    _add(p, "--steps", f"{steps} ({usual})", type=int)
    rules = ", ".join(SAMPLERS)
    _add(p, "--sampler", f"the rule for each step: {rules} ({Settings.sampler} likewise)")
    grids = f"where along the way the steps fall: {', '.join(GRIDS)}, perhaps with parameters"
    best = "the sampler's own, if left out"
    _add(p, "--grid", f"{grids}, as in 'power(0.6)' ({best})")
    _add(p, "--eta", "fresh noise in ddim, 0 (none, its default) to 1 (as in ddpm)", type=float)


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"ddpm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ddpm: interrupted", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Samples what args ask for. Raises ValueError or OSError with a line for the user."""
    check_out(args.out)
    seeds = _seeds(args.count, args.seed)
    use_all()
    device = _device(args.device)
    pipeline = Pipeline.from_pretrained(args.model, revision=args.revision, device=device)
    names = "sampler", "steps", "grid", "guidance", "eta"
    asked = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = Settings(seeds, _label(args.label, pipeline), **pipeline.usual | asked)
    if args.verbose:
        print(f"engine: {pipeline.engine.text}")
    start = time.perf_counter()
    total = len(pipeline.times(settings))
    bar = tqdm(pipeline.stream(settings), total=total, unit="step", leave=False)
    images = Images.collect(bar, seeds, pipeline.names(settings), total)
    seconds = time.perf_counter() - start
    images.save(args.out)
    walk = f"{settings.sampler}, {settings.steps} steps"
    how = f"{walk}, {images.frames[-1].nfe} network evaluations each"
    which = f"{args.count} images, seeds {seeds[0]}..{seeds[-1]}"
    print(f"{args.out}: {which}, {how}, {seconds:.1f} s")


def _seeds(count: int, first: int | None) -> range:
    """Successive seeds, random ones if the first is not given."""
    if not 1 <= count <= MAX_IMAGES:
        raise ValueError(f"--count must be in 1..{MAX_IMAGES}, got {count}")
    most = MAX_SEED + 1 - count
    if first is None:
        first = secrets.randbelow(most + 1)
    if not 0 <= first <= most:
        raise ValueError(f"--seed must be in 0..{most} for {count} images, got {first}")
    return range(first, first + count)


def _label(text: str | None, pipeline: Pipeline) -> int | None:
    """A label by its name or its number; of "none", the number that stands for it."""
    names = pipeline.class_names
    if text is None or text in names:
        return None if text is None else names.index(text)
    if not names:
        raise ValueError(f"--label {text}: this model knows no labels; leave the option out")
    if text == "none":
        return len(names)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ValueError(f"unknown label {text!r}; choose from {', '.join(names)}, or none")


def _device(name: str) -> str:
    import torch  # only for this question; the rest of the file handles text

    valid = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if name not in valid:
        raise ValueError(f"--device must be {' or '.join(valid)} here, got {name!r}")
    return name


if __name__ == "__main__":
    sys.exit(main())
