"""How many CPUs there are to use, read from a file system made up for it."""

import os
import subprocess
import sys

import pytest
import torch

from ddpm.engine import cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes a machine: how many CPUs a process may run on, its groups, and files of
    the groups."""

    def make(count, groups, **files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
        monkeypatch.setattr(cpus, "_ROOT", tmp_path)
        for name, text in {
            "proc/self/cgroup": groups,
            **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
        }.items():
            if text is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)

    return make


def version_1(group, quota):
    """The files of a group of version 1."""
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("count", "groups", "files", "expected"),
    [
        (1, None, {}, 1),
        (64, None, {}, 64),
        # Version 2: the group, or one above it, may be limited.
        (64, "0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        (64, "0::/\n", {"cpu.max": "max 100000\n"}, 64),
        (64, "0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        (64, "0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        (1, "0::/\n", {"cpu.max": "200000 100000\n"}, 1),
        (64, "0::/\n", {}, 64),
        (64, "0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (64, "0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "300000 100000\n"}, 2),
        (64, "0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        # Version 1, which keeps a mount for each controller.
        (64, "5:cpu,cpuacct:/x\n3:memory:/x\n", version_1("cpu,cpuacct/x", 200000), 2),
        (64, "5:cpu,cpuacct:/of/the/host\n", version_1("cpu,cpuacct", 400000), 4),
        (64, "5:cpu,cpuacct:/\n", version_1("cpu,cpuacct", -1), 64),
        # What no kernel writes.
        (64, "0::/\n", {"cpu.max": ""}, 64),
        (64, "0::/\n", {"cpu.max": "x y\n"}, 64),
        (64, "0::/\n", {"cpu.max": "200000 0\n"}, 64),
        (64, "", {"cpu.max": "200000 100000\n"}, 64),
    ],
)
def test_a_container_has_the_cpus_it_was_granted(machine, count, groups, files, expected):
    machine(count, groups, **files)
    assert cpus.available() == expected


def test_without_linux_all_cpus_count(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_ROOT", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cpus.available() == 3


def test_threads_are_as_many_as_cpus_unless_the_user_said_otherwise(machine, monkeypatch):
    machine(64, "0::/\n", **{"cpu.max": "200000 100000\n"})
    before = torch.get_num_threads()
    try:
        assert cpus.use_all() == before, "the tests set OMP_NUM_THREADS"
        monkeypatch.delenv("OMP_NUM_THREADS")
        torch.set_num_threads(8)  # as torch would start there
        assert cpus.use_all() == torch.get_num_threads() == 2
        torch.set_num_threads(1)  # fewer than there are: it had a reason
        assert cpus.use_all() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_forked_process_does_not_wait_for_threads_that_were_not_forked_along():
    code = """if True:
        import os, signal, torch
        from ddpm.engine.cpus import use_all
        assert use_all() == 2
        large = torch.ones(10**6)
        large.exp()  # torch starts its threads
        if not (child := os.fork()):
            signal.alarm(60)
            large.exp()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, "the child hung"
    """
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
