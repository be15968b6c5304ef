"""Who computes next: many visitors share one network.

A film grows a little at a time (`tasks.SHOW_EVERY`). Before each time it waits for its turn. The
task with the least work in all goes first: short work passes long work, and among equals the
earlier task goes first.
"""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

from .tasks import Film

# Seconds for which a turn is kept for shorter work that has just handed out a film, and is about to
# come back for the next; otherwise longer work would take every second turn.
KEPT = 0.2


class Turns:
    """One turn at a time, for any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._arrivals = count()
        # By work and arrival: since when each is away to hand out a film; None: it waits.
        self._all: dict[tuple[int, int], float | None] = {}

    def share(
        self, films: Iterator[Film], work: int, listens: Callable[[], bool]
    ) -> Iterator[Film]:
        """The same films, each computed in its turn. Raises ValueError when the client has gone.

        work: network evaluations times images, in all. listens: whether the client still fetches.
        """
        me = work, next(self._arrivals)
        try:
            while True:
                self._take(me, listens)
                try:
                    film = next(films, None)
                finally:
                    self._give_back(me)
                if film is None:
                    return
                yield film
        finally:
            with self._changed:
                self._all.pop(me, None)
                self._changed.notify_all()

    def _take(self, me: tuple[int, int], listens: Callable[[], bool]) -> None:
        with self._changed:
            self._all[me] = None
            while True:
                if not listens():
                    raise ValueError("nobody fetched the result: it was not computed any further")
                if self._is_next(me):
                    break
                self._changed.wait(KEPT)
            self._busy = True

    def _is_next(self, me: tuple[int, int]) -> bool:
        now = time.monotonic()
        return not self._busy and not any(
            other < me and (away is None or now - away < KEPT) for other, away in self._all.items()
        )

    def _give_back(self, me: tuple[int, int]) -> None:
        with self._changed:
            self._busy, self._all[me] = False, time.monotonic()
            self._changed.notify_all()
