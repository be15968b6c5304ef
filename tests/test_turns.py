"""Whose turn it is: the network is asked by one at a time, and what is least work goes first."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddpm.demo.turns import KEPT, Turns


def always():
    return True


def films(name, count, log, meet=None):
    """Stands for a task: each film is noted when it is made; the first one waits for the others to be there."""
    for k in range(count):
        if meet and k == 0:
            meet.wait(30)
        log.append(name)
        yield k


def test_the_films_come_as_they_are():
    assert list(Turns().share(films("a", 5, []), 1, always)) == [0, 1, 2, 3, 4]


def test_one_at_a_time_the_least_work_first_and_nobody_is_forgotten():
    turns, log, busy, there = Turns(), [], [], threading.Event()

    def made(name, count):
        for k in range(count):
            if name == 99:
                there.wait(30)  # it is making its first film when the others come
            busy.append(name)
            assert len(busy) == 1, "two at a time"
            log.append(name)
            busy.remove(name)
            yield k

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(list, turns.share(made(99, 10), 99, always))
        while len(turns._all) < 1:
            time.sleep(0.001)
        others = [pool.submit(list, turns.share(made(work, 10), work, always)) for work in (50, 7, 30, 2)]
        while len(turns._all) < 5:
            time.sleep(0.001)
        there.set()
        assert [job.result(timeout=60) for job in (first, *others)] == [list(range(10))] * 5
    ends = {work: len(log) - log[::-1].index(work) for work in (2, 7, 30, 50, 99)}
    assert ends == dict(sorted(ends.items(), key=lambda item: item[1])), "the shorter, the sooner"
    assert not turns._all


def test_equal_work_is_done_in_the_order_in_which_it_came():
    turns, log, meet = Turns(), [], threading.Event()
    with ThreadPoolExecutor(4) as pool:
        jobs = []
        for k in range(4):
            jobs.append(pool.submit(list, turns.share(films(k, 3, log, meet if k == 0 else None), 5, always)))
            while len(turns._all) < k + 1:
                time.sleep(0.001)
        meet.set()
        [job.result(timeout=60) for job in jobs]
    assert log == sorted(log)


def test_who_takes_no_turn_any_more_holds_nobody_up():
    """A film that was handed out, and whose maker never came back: closed, or not even that."""
    turns, log = Turns(), []
    gone = turns.share(films("gone", 9, log), 1, always)
    stuck = turns.share(films("stuck", 9, log), 2, always)
    next(gone), next(stuck)
    gone.close()
    assert len(turns._all) == 1
    assert len(list(turns.share(films("long", 3, log), 100, always))) == 3
    assert log.count("stuck") == 1 and KEPT < 1


def test_what_fails_or_is_not_heard_gives_its_turn_back():
    turns = Turns()

    def failing():
        yield 1
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        list(turns.share(failing(), 1, always))
    with pytest.raises(ValueError, match="nobody fetched"):
        list(turns.share(films("deaf", 9, []), 1, lambda: False))
    assert not turns._all and list(turns.share(films("next", 2, []), 9, always)) == [0, 1]
