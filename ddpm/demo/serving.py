"""Which weights an app uses: those it was told to use; until they are available, the built-in ones.

Nothing here waits for a slow network longer than it is told to. If the weights cannot be loaded,
`Serving.problem` says why.
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
    """The network, loaded once per process.

    A process that has not loaded the weights yet finds them in the cache.
    """
    return Pipeline.from_pretrained(weights.source, revision=weights.commit)


def on_fastest_device(weights: Weights) -> Pipeline:
    """The same, on the GPU if this process has one."""
    found = pipeline(weights)
    found.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return found


class Serving:
    """Loads the weights that an app was told to use, in a thread of its own.

    `weights` are those to use now.
    """

    def __init__(self, source: str, revision: str | None = None) -> None:
        self.source, self.revision = source, revision
        self.weights = Weights(DEFAULT)
        # Whether `weights` are those that were asked for.
        self.arrived = (source, revision) == (DEFAULT, None)
        self.problem: str | None = None  # why they could not be loaded, in one line
        self._thread: threading.Thread | None = None

    @property
    def built_in(self) -> bool:
        """Whether `weights` came with the code."""
        return "/" not in self.weights.source and (BUILT_IN / self.weights.source).is_dir()

    def load(self, patience: float) -> None:
        """Starts to load the weights, unless they are there; waits at most `patience` seconds."""
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
            # Here, once: several visitors at the same time would each start an engine.
            _ = pipeline(weights).engine
            self.weights, self.arrived = weights, True
        # In a thread the error would be lost: whatever it is, the page must say so.
        except Exception as error:
            self.problem = " ".join(str(error).split()) or type(error).__name__
