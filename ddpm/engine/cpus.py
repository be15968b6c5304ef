"""How many CPUs this process has.

A container shows all those of the machine, even where it may use only two.
"""

import math
import os
from functools import partial
from pathlib import Path

import torch

_ROOT = Path("/")  # of /proc and /sys


def available() -> int:
    """CPUs that this process may use, 1 or more.

    The least of those it may run on and the CPU time that its container is granted, rounded up.
    """
    some = hasattr(os, "sched_getaffinity")  # not on a Mac
    may_run_on = len(os.sched_getaffinity(0)) if some else os.cpu_count() or 1
    return max(1, math.ceil(min(may_run_on, _quota())))


def use_all() -> int:
    """Lets torch compute with `available` threads, if torch chose more. Returns their number.

    Torch goes by the cores and does not see a quota. Engines that start afterwards use the same
    number. Call it at the start of a program. If OMP_NUM_THREADS is set, it does not change the
    number.

    A process forked from this one, as on ZeroGPU, computes with one thread: the others do not
    survive the fork, and torch would wait for them for ever.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(min(torch.get_num_threads(), available()))
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
    return torch.get_num_threads()


def _quota() -> float:
    """CPU seconds per second that Linux's control groups grant.

    The least of this process's group and those above it; infinite if there is no limit.
    """
    try:
        groups = (_ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            mount, files = "sys/fs/cgroup", ("cpu.max", "cpu.max")
        elif "cpu" in controllers.split(","):
            mount, files = f"sys/fs/cgroup/{controllers}", ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        # A container may see the path that its group has on the machine, and the group itself at
        # the mount.
        group = _ROOT / mount / path.lstrip("/")
        folders = [
            folder for folder in (group, *group.parents) if folder.is_relative_to(_ROOT / mount)
        ]
        least = min([least, *(_ratio(*(folder / name for name in files)) for folder in folders)])
    return least


def _ratio(quota: Path, period: Path) -> float:
    """The first word of one file divided by the last of the other; infinite if there is no limit.

    Both are in microseconds.
    """
    try:
        granted, of = int(quota.read_text().split()[0]), int(period.read_text().split()[-1])
    except (OSError, ValueError, IndexError):  # no such group; or "max", no limit
        return math.inf
    return granted / of if granted > 0 and of > 0 else math.inf  # -1: no limit
