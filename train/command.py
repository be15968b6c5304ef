"""What the commands of this folder share: options that name their default, errors in one line."""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

P = ParamSpec("P")


def add_option(group: argparse._ActionsContainer, name: str, help: str, **settings: Any) -> None:
    """Adds an option whose help ends with its default, if it has one."""
    shown = settings.get("default")
    group.add_argument(
        name, help=help if shown is None else f"{help} (default: {shown})", **settings
    )


def command(
    name: str, interrupted: str = "interrupted"
) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorates the `main` of a command: errors become one line, and an exit code.

    ValueError and OSError, which the user can do something about, become `name: what is wrong` and
    exit code 2; Ctrl-C becomes exit code 130. Any other error is a bug, and is shown with its
    traceback.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def one_line(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except (ValueError, OSError) as error:
                line = str(error).partition("\n")[0] or type(error).__name__
                print(f"{name}: {line}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{name}: {interrupted}", file=sys.stderr)
                return 130

        return one_line

    return decorate
