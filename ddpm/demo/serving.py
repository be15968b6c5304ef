"""Which weights an app draws with: those it was told to use or, while they are not to be had, the
built-in ones.

Nothing here waits for a slow network longer than it is told to, and nothing falls back in silence.
"""

import threading
from functools import cache
from typing import NamedTuple

import torch

from ..hub import BUILT_IN
from ..pipeline import Pipeline

DEFAULT = "mnist"


class Weights(NamedTuple):
    """Built-in weights by name, a folder, or a Hub repo at a commit."""

    source: str
    commit: str | None = None


@cache
def pipeline(weights: Weights) -> Pipeline:
    """The network, loaded once a process. A process that has not loaded them yet finds them in the
    cache."""
    return Pipeline.from_pretrained(weights.source, revision=weights.commit)


def on_fastest_device(weights: Weights) -> Pipeline:
    """The same, on the GPU if this process has one."""
    found = pipeline(weights)
    found.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return found


class Serving:
    """Loads the weights that an app was told to use in a thread of its own. `weights` are those to
    draw with now."""

    def __init__(self, source: str, revision: str | None = None) -> None:
        self.source, self.revision = source, revision
        self.weights = Weights(DEFAULT)
        self.arrived = (source, revision) == (
            DEFAULT,
            None,
        )  # whether `weights` are those that were asked for
        self.problem: str | None = None  # why they cannot be had, in one line
        self._thread: threading.Thread | None = None

    @property
    def built_in(self) -> bool:
        """Whether `weights` came with the code."""
        return "/" not in self.weights.source and (BUILT_IN / self.weights.source).is_dir()

    def load(self, patience: float) -> None:
        """Tries to get the weights, unless they are there; comes back after so many seconds at the
        latest."""
        if not self.arrived and not (self._thread and self._thread.is_alive()):
            self.problem = None
            self._thread = threading.Thread(target=self._load, daemon=True)
            self._thread.start()
        if self._thread:
            self._thread.join(patience)

    def _load(self) -> None:
        try:
            found = Pipeline.from_pretrained(self.source, revision=self.revision)
            weights = Weights(self.source, found.commit)
            _ = pipeline(
                weights
            ).engine  # here, once; visitors who come at the same time would each start one
            self.weights, self.arrived = weights, True
        # in a thread nobody else would hear of it: whatever it is, the page must say so
        except Exception as error:
            self.problem = " ".join(str(error).split()) or type(error).__name__
