"""Several processes that work on one run (torchrun): joining them, and what only the first does.

Without torchrun there is one process: it is the first, and nothing waits.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from ddpm.engine.cpus import use_all

_LINE = 2000  # bytes of an error message that the other processes get


def join_processes(wanted: str) -> torch.device:
    """The device of this process; joins the others first if torchrun started it.

    wanted: auto, cpu or cuda. Raises ValueError if a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch finds no GPU here; leave the option out to run on the CPU"
        )
    on_gpu = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    use_all()
    if on_gpu:
        torch.cuda.set_device(_local_rank())
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def first_then_others() -> Iterator[None]:
    """The body runs in the first process of each machine, and after that in its other processes.

    For what the first leaves on the disk for the others, such as a downloaded data set. If it
    raises ValueError or OSError there, the others raise a ValueError with the same message instead
    of running the body. All processes must call this, or the others wait for ever.
    """
    if not dist.is_initialized():
        yield
    elif _local_rank() > 0:
        if failed := _shared(""):
            raise ValueError(failed)
        yield
    else:
        try:
            yield
        except (ValueError, OSError) as error:
            _shared(str(error) or type(error).__name__)
            raise
        if failed := _shared(""):  # on another machine
            raise ValueError(failed)


def _local_rank() -> int:
    """Which of the processes on this machine this one is, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def _shared(message: str) -> str:
    """The first message that is not empty, of all processes in their order. Waits for all."""
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    text = message.encode()[:_LINE]
    mine = torch.zeros(_LINE, dtype=torch.uint8, device=device)
    mine[: len(text)] = torch.tensor(list(text), dtype=torch.uint8, device=device)
    everyone = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    found = (bytes(each.tolist()).rstrip(b"\0").decode(errors="replace") for each in everyone)
    return next(filter(None, found), "")
