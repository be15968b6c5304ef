"""Whose turn it is: the network is asked by one at a time, and what is least work goes first."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ddpm.demo.requests import MAX_WORK, rivals
from ddpm.demo.tasks import Compare
from ddpm.demo.turns import KEPT, MOST, MOST_WORK, Turns


def always():
    return True


def films(name, count, log, meet=None):
    """Stands for a task: each film is noted when it is made; the first one waits for the others to
    be there."""
    for k in range(count):
        if meet and k == 0:
            meet.wait(30)
        log.append(name)
        yield {"film": k}


def numbers(shared):
    """Which films came; what was told while waiting is left out."""
    return [film["film"] for film in shared if isinstance(film, dict)]


def test_the_films_come_as_they_are():
    assert list(Turns().share(films("a", 2, []), 1, always)) == [{"film": 0}, {"film": 1}]


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
            yield {"film": k}

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(numbers, turns.share(made(99, 10), 99, always))
        while len(turns._all) < 1:
            time.sleep(0.001)
        others = [
            pool.submit(numbers, turns.share(made(work, 10), work, always))
            for work in (50, 7, 30, 2)
        ]
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
            jobs.append(
                pool.submit(
                    numbers, turns.share(films(k, 3, log, meet if k == 0 else None), 5, always)
                )
            )
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
    assert numbers(turns.share(films("long", 3, log), 100, always)) == [0, 1, 2]
    assert log.count("stuck") == 1 and KEPT < 1


def test_what_fails_or_is_not_heard_gives_its_turn_back():
    turns = Turns()

    def failing():
        yield {"film": 1}
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        list(turns.share(failing(), 1, always))
    with pytest.raises(ValueError, match="nobody fetched"):
        list(turns.share(films("deaf", 9, []), 1, lambda: False))
    assert not turns._all and numbers(turns.share(films("next", 2, []), 9, always)) == [0, 1]


def test_what_waits_is_told_how_many_are_before_it():
    turns, making, going = Turns(), threading.Event(), threading.Event()

    def made():
        making.set()
        going.wait(60)
        yield {"film": 0}

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(numbers, turns.share(made(), 5, always))
        assert making.wait(60)
        others = [turns.share(films(work, 1, []), work, always) for work in (5, 5, 1)]
        # what is being made now is before all
        assert [next(other) for other in others] == [1, 2, 1]
        going.set()
        assert first.result(timeout=60) == [0]
        assert [numbers(other) for other in reversed(others)] == [[0]] * 3
    assert not turns._all


def test_what_comes_last_is_a_film_also_if_another_task_is_at_work_when_it_ends():
    turns, making, going = Turns(), threading.Event(), threading.Event()

    def made():
        making.set()
        going.wait(60)
        yield {"film": 9}

    shared = turns.share(films("one", 1, []), 5, always)
    assert next(shared) == {"film": 0}
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(numbers, turns.share(made(), 1, always))
        assert making.wait(60)
        assert next(shared) == 1  # it cannot know yet that this was all
        going.set()
        assert other.result(timeout=60) == [9]
    assert list(shared) == [{"film": 0}] and not turns._all


HERE, THERE = ("10.0.0.1", "a"), ("10.0.0.2", "b")


def test_many_short_tasks_of_one_do_not_pass_a_short_one_of_another():
    turns = Turns()
    mine = [turns._enter(320, list(HERE)) for _ in range(5)]
    other, shorter = turns._enter(320, THERE), turns._enter(10, HERE)
    assert sorted(turns._all) == [shorter, mine[0], other, *mine[1:]]
    long = turns._enter(4000, ("10.0.0.3", "c"))
    # one's own short task passes one's own long one
    assert turns._enter(320, ("10.0.0.3", "c")) < long


def test_what_one_address_and_one_session_have_at_work_is_bounded():
    turns, (of_address, of_session) = Turns(), MOST_WORK
    turns._enter(of_session, HERE)
    with pytest.raises(
        ValueError,
        match=f"take {of_session:,} network evaluations already, and this one 1; "
        f"at most {of_session:,} at a time: wait",
    ):
        turns._enter(1, HERE)
    for k in range(of_address // of_session - 1):
        turns._enter(of_session, (HERE[0], f"{k}"))
    with pytest.raises(ValueError, match=f"at most {of_address:,} at a time"):
        turns._enter(1, (HERE[0], "another"))
    turns._enter(of_session, THERE)
    turns._enter(of_session, ())  # called from Python


def test_a_session_may_have_the_largest_task_that_is_allowed():
    largest = Compare(
        rivals(
            tuple("0123456789"),
            [("ddim", 1000), ("ddim", 1000), ("ddim", 500)],
            label="any",
            count=4,
            seed=0,
            guidance=1.0,
        )
    )
    assert MAX_WORK < largest.work <= MOST_WORK[1] <= MOST_WORK[0]


def test_no_more_tasks_are_let_in_than_there_are_threads_for():
    turns = Turns()
    for k in range(MOST):
        turns._enter(1, (str(k), str(k)))
    with pytest.raises(ValueError, match=f"{MOST} requests are at work already: try again"):
        next(turns.share(films("late", 1, []), 1, always))
    assert len(turns._all) == MOST
