"""python -m ddpm.browser: one page that draws with a model in the visitor's own browser."""

import argparse
import sys
from pathlib import Path

from ..files import write_atomic
from ..pipeline import Pipeline
from . import check_out, page, static_space


def parser() -> argparse.ArgumentParser:
    """The options, each in a sentence."""
    p = argparse.ArgumentParser(
        "python -m ddpm.browser",
        description="Write a page of one file that draws with a model in any browser, offline.",
        epilog="Example: python -m ddpm.browser digits.html",
    )
    p.add_argument("out", nargs="?", type=Path, metavar="PAGE.html", help="the page to write")
    p.add_argument(
        "--space",
        type=Path,
        metavar="DIR",
        help="write a static Space instead: the page as index.html, and a README for the Hub",
    )
    p.add_argument(
        "--model",
        default="mnist",
        metavar="WEIGHTS",
        help="built-in weights by name, a folder that `python -m train` wrote, or a Hub repo "
        "NAMESPACE/NAME (default: mnist)",
    )
    p.add_argument("--revision", help="branch, tag or commit of the Hub repo")
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"ddpm.browser: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Writes what args ask for. Raises ValueError or OSError with a line for the user."""
    if (args.out is None) == (args.space is None):
        raise ValueError("name a page to write, as in digits.html, or a folder with --space")
    if args.out:
        check_out(args.out)
    elif args.space.exists() and not args.space.is_dir():
        raise ValueError(f"cannot write: {args.space} is a file, not a folder")
    pipeline = Pipeline.from_pretrained(args.model, revision=args.revision)
    if args.out:
        files = {args.out: page(pipeline)}
    else:
        files = {args.space / name: data for name, data in static_space(pipeline).items()}
        args.space.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        write_atomic(path, data)
        print(f"{path}: {len(data) / 1e3:,.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
