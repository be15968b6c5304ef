"""python -m ddpm: draw pictures from the command line."""

import argparse
import secrets
import sys
import time
from typing import Any

from tqdm import tqdm

from .engine.cpus import use_all
from .images import Images, check_out
from .pipeline import MAX_GUIDANCE, MAX_IMAGES, MAX_SEED, Pipeline
from .samplers import BEST_SAMPLER, SAMPLERS
from .schedule import GRIDS


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m ddpm",
        description="Draw pictures with a diffusion model, and watch them appear from noise.",
        epilog="Example: python -m ddpm --seed 0 --steps 20 --sampler ddim --count 16 --out digits.gif",
    )

    def add(name: str, help: str, **settings: Any) -> None:
        shown = settings.get("default")
        p.add_argument(
            name, help=help if shown is None else f"{help} (default: {shown})", **settings
        )

    add(
        "--out",
        "what to write: a .gif of the way from noise, a .html that plays it, a .png of the result, or a "
        "folder for single PNGs",
        default="samples.gif",
        metavar="PATH",
    )
    add("--count", f"how many pictures, up to {MAX_IMAGES}", type=int, default=16)
    add(
        "--seed",
        f"0..{MAX_SEED}; picture k gets seed + k, and a seed always gives the same picture (drawn by lot if "
        "left out, and told)",
        type=int,
    )
    add(
        "--label",
        "what to draw, by name or number; none: the network is told nothing (each seed's own if "
        "left out)",
    )
    add(
        "--guidance",
        f"how strongly to insist on the label, 0..{MAX_GUIDANCE:g}; above 0 doubles the work",
        type=float,
        default=0.0,
    )
    add(
        "--steps",
        "from noise to picture; more is slower and finer; each is one network evaluation (heun: two; plms: "
        "one more in all)",
        type=int,
        default=20,
    )
    add("--sampler", f"the rule for each step: {', '.join(SAMPLERS)}", default=BEST_SAMPLER)
    add(
        "--grid",
        f"where along the way the steps fall: {', '.join(GRIDS)}, perhaps with parameters, as in "
        "'power(0.6)' (what was measured to be best for the sampler, if left out)",
    )
    add("--eta", "fresh noise in ddim, 0 (none, the default there) to 1 (as in ddpm)", type=float)
    add(
        "--model",
        "built-in weights by name, a folder that `python -m train` wrote, or a Hub repo NAMESPACE/NAME",
        default="mnist",
        metavar="WEIGHTS",
    )
    add("--revision", "branch, tag or commit of the Hub repo")
    add("--device", "cpu or cuda", default="cpu")
    add("--verbose", "say also what computes the network, and why", action="store_true")
    return p


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
    """Draws what args ask for. Raises ValueError or OSError with a line for the user."""
    check_out(args.out)
    if not 1 <= args.count <= MAX_IMAGES:
        raise ValueError(f"--count must be in 1..{MAX_IMAGES}, got {args.count}")
    seed = secrets.randbelow(MAX_SEED + 2 - args.count) if args.seed is None else args.seed
    if not 0 <= seed <= MAX_SEED + 1 - args.count:
        raise ValueError(
            f"--seed must be in 0..{MAX_SEED + 1 - args.count} for {args.count} pictures, got {seed}"
        )
    seeds = range(seed, seed + args.count)
    use_all()
    pipeline = Pipeline.from_pretrained(
        args.model, revision=args.revision, device=_device(args.device)
    )

    label = _label(args.label, pipeline)
    if args.verbose:
        print(f"engine: {pipeline.engine.text}")
    stream = pipeline.stream(
        seeds=seeds,
        labels=label,
        sampler=args.sampler,
        steps=args.steps,
        grid=args.grid,
        guidance=args.guidance,
        eta=args.eta,
    )
    start = time.perf_counter()
    images = Images.collect(
        tqdm(stream, total=args.steps + 1, unit="step", leave=False),
        seeds,
        pipeline.asked(seeds, label),
        args.steps,
    )
    seconds = time.perf_counter() - start
    images.save(args.out)
    print(
        f"{args.out}: {args.count} pictures, seeds {seed}..{seeds[-1]}, {args.sampler}, {args.steps} steps, "
        f"{images.frames[-1].nfe} network evaluations each, {seconds:.1f} s"
    )


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
    import torch  # only to ask; everything else in this file is words

    if name != "cpu" and not (name == "cuda" and torch.cuda.is_available()):
        raise ValueError(
            f"--device must be cpu{' or cuda' if torch.cuda.is_available() else ''} here, got {name!r}"
        )
    return name


if __name__ == "__main__":
    sys.exit(main())
