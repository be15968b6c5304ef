"""Who computes next: many visitors share one network.

A film grows a little at a time (`tasks.SHOW_EVERY`). Before each time it waits for its turn. The
task with the least work in all goes first: short work passes long work, and among equals the
earlier task goes first. What one address has at work counts together, so that many short tasks of
one do not hold up a short one of another; and it is bounded.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from .tasks import Film

# Seconds for which a turn is kept for shorter work that has just handed out a film, and is about to
# come back for the next; otherwise longer work would take every second turn.
KEPT = 0.2
PATIENCE = 0.5  # seconds after which a waiting request is told how many are before it
MOST = 64  # tasks at the same time, of all
# Network evaluations that one may have at work: all sessions of an address together, and a session.
# The largest task that is allowed fits into either.
MOST_WORK = 60_000, 30_000


class _Task(NamedTuple):
    """A task that was let in. They are ordered by rank and arrival."""

    rank: int  # its work, and that of the shorter tasks of the same address
    arrival: int
    work: int
    who: tuple[str, ...]


class Turns:
    """One turn at a time, for any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: _Task | None = None
        self._arrivals = count()
        # Since when each is away to hand out a film; None: it waits.
        self._all: dict[_Task, float | None] = {}

    def share(
        self, films: Iterator[Film], work: int, listens: Callable[[], bool], who: Sequence[str] = ()
    ) -> Iterator[Film | int]:
        """The same films, each computed in its turn; while it waits, how many others are before.

        work: network evaluations times images, in all. listens: whether the client still fetches.
        who: its address and its session, as far as they are known.

        Raises ValueError when too much is at work already, and when the client has gone.
        """
        me = self._enter(work, who)
        film, waited = None, False  # the newest film; whether it was told to wait since
        try:
            while True:
                if before := self._take(me, listens):
                    waited = True
                    yield before  # again and again: only here it can be closed
                    continue
                try:
                    new = next(films, None)
                finally:
                    self._give_back(me)
                if new is None:
                    if waited and film is not None:
                        yield film  # a client takes what comes last for the result
                    return
                film, waited = new, False
                yield film
        finally:
            with self._changed:
                self._all.pop(me, None)
                self._changed.notify_all()

    def _enter(self, work: int, who: Sequence[str]) -> _Task:
        who = tuple(who)
        with self._changed:
            if len(self._all) >= MOST:
                raise ValueError(f"{MOST} requests are at work already: try again in some seconds")
            for place, (name, most) in enumerate(zip(who, MOST_WORK, strict=False)):
                taken = sum(each.work for each in self._all if each.who[place:][:1] == (name,))
                if taken and taken + work > most:
                    raise ValueError(
                        f"your other requests take {taken:,} network evaluations already, and this "
                        f"one {work:,}; at most {most:,} at a time: wait for them, or stop them"
                    )
            shorter = (each.work for each in self._all if each.who[:1] == who[:1] != ())
            rank = work + sum(each for each in shorter if each <= work)
            me = _Task(rank, next(self._arrivals), work, who)
            self._all[me] = None
            return me

    def _take(self, me: _Task, listens: Callable[[], bool]) -> int:
        """Waits for a turn, and takes it: 0. After PATIENCE: how many others are before."""
        until = time.monotonic() + PATIENCE
        with self._changed:
            self._all[me] = None
        while True:
            if not listens():  # without the lock: it may take a while
                raise ValueError("nobody fetched the result: it was not computed any further")
            with self._changed:
                if self._is_next(me):
                    self._busy = me
                    return 0
                if (left := until - time.monotonic()) <= 0:
                    self._all[me] = time.monotonic()
                    before = sum(other < me for other in self._all)
                    return before + (self._busy is not None and self._busy > me)
                self._changed.wait(min(KEPT, left))

    def _is_next(self, me: _Task) -> bool:
        now = time.monotonic()
        return not self._busy and not any(
            other < me and (away is None or now - away < KEPT) for other, away in self._all.items()
        )

    def _give_back(self, me: _Task) -> None:
        with self._changed:
            self._busy, self._all[me] = None, time.monotonic()
            self._changed.notify_all()
