"""One run from the data to the artefact, with all that people see of it: bar, pictures, metrics,
checkpoints."""

import argparse
import copy
import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from ddpm import Schedule, UNet, hub
from ddpm.engine.cpus import use_all
from ddpm.files import write_atomic
from ddpm.pixels import png
from ddpm.unet import MAX_ATTENTION

from .checkpoint import alone, load_checkpoint, read_header, save_checkpoint
from .data import DATASETS, Data
from .loop import Budget, Recipe, Record, Trainer, stopwatch, train
from .publish import artefact, card, export, push

BUDGET = ("minutes", "steps", "images")  # the options that say how long; one of them counts
METRICS, LOG_EVERY = push.METRICS, 50


def run(args: argparse.Namespace, command: str) -> int:
    """Trains as the options say and writes args.out. Returns the exit code.

    Raises ValueError and OSError for what the user can mend, FloatingPointError if the loss is no
    number any more."""
    device = join_processes(args.device)
    if args.batch_size is None:
        args.batch_size = 512 if device.type == "cuda" else 64
    if all(getattr(args, name) is None for name in BUDGET):
        args.minutes = 10.0 if device.type == "cuda" else 60.0
    steps = math.ceil(args.images / args.batch_size) if args.images else args.steps

    first = not dist.is_initialized() or dist.get_rank() == 0
    if args.push_every and not args.push:
        raise ValueError("--push-every needs --push NAMESPACE/NAME")
    if args.push and first:
        push.check(args.push)

    recipe = Recipe(**{name: getattr(args, name) for name in Recipe.__dataclass_fields__})
    data = _load_data(args)
    torch.manual_seed(args.seed)
    model = build(args, data)
    before = _start_from(args.init, model) if args.init and not args.resume else artefact.NO_HISTORY
    trainer = Trainer(model.to(device), data.to(device), recipe, compile=args.compile)
    header = read_header(args.out) if args.resume else None
    if header:
        load_checkpoint(args.out, trainer)
    fingerprint = data.fingerprint()
    if header and header.settings["fingerprint"] != fingerprint:
        raise ValueError(
            f"the images in {args.data} are not those that {args.out} was started with"
        )
    settings = settings_of(args) | {
        "commands": [*(header.settings["commands"] if header else []), command],
        "fingerprint": fingerprint,
        "before": header.settings.get("before", before) if header else before,
        "hardware": card.hardware(device),
    }
    seconds = stopwatch(header.seconds if header else 0.0)

    budget = Budget(steps, args.minutes)
    with (
        alone(args.out, header) if trainer.rank == 0 else nullcontext(),
        _Watcher(args, trainer, data, settings, budget, seconds) as watcher,
        _interrupts(trainer.world) as interrupted,
    ):
        for record in train(trainer, budget, seconds=seconds):
            watcher.look(record)
            if interrupted:
                break
        watcher.save()
    if trainer.rank == 0:
        if interrupted:
            print(
                f"Stopped at step {trainer.step}. To go on: python -m train --out {args.out} --resume"
            )
            return 130
        artefact.write(args.out, trainer.ema, data, settings, step=trainer.step, seconds=seconds())
        print(
            f"The model is in {args.out}. To draw with it: python -m ddpm --model {args.out} --out digits.gif"
        )
        if args.push:
            watcher.pusher.finish()
            try:
                print(f"It is on the Hub: {push.push(push.published(args.out), args.push).url}")
            except (ValueError, OSError) as error:
                raise OSError(
                    f"{error}. Then: python -m train.publish.push {args.out} {args.push}"
                ) from error
    return 0


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }


class _Watcher:
    """Looks at each Record, and shows and writes what is due. Only the first process does; the
    others just train."""

    def __init__(
        self,
        args: argparse.Namespace,
        trainer: Trainer,
        data: Data,
        settings: dict[str, Any],
        budget: Budget,
        seconds: Callable[[], float],
    ) -> None:
        self.args, self.trainer, self.data, self.settings, self.seconds = (
            args,
            trainer,
            data,
            settings,
            seconds,
        )
        self.losses: list[Tensor] = []
        self.last: Record | None = None
        self.logged = trainer.step, seconds()
        self.bar = None
        self.pusher = push.Background(args.push, args.push_every)
        if trainer.rank == 0:
            self.save()
            (args.out / "samples").mkdir(exist_ok=True)
            _forget_after(args.out / METRICS, trainer.step)
            # Fractions of the budget rather than steps: with --minutes nobody knows how many steps
            # there will be.
            self.bar = tqdm(
                total=1.0,
                initial=budget.fraction(trainer.step, seconds()),
                bar_format="{percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}",
            )

    def look(self, record: Record) -> None:
        """Called after every update."""
        self.losses.append(record.loss)
        self.last = record
        if self.bar is not None:
            self.bar.update(record.fraction - self.bar.n)
        if record.step % LOG_EVERY == 0:
            self._log()
        if record.step % self.args.checkpoint_every == 0:
            self.save()
        if record.step % self.args.sample_every == 0 and self.trainer.rank == 0:
            picture = png(artefact.draw(self.trainer.ema).grid())
            write_atomic(self.args.out / "samples" / f"{record.step:08d}.png", picture)
        if self.trainer.rank == 0 and self.args.push and self.pusher.due():
            self.push()

    def push(self) -> None:
        """Sends the model as it is now to the Hub, from a copy, on the CPU and in the
        background."""
        step, seconds, ema = (
            self.trainer.step,
            self.seconds(),
            copy.deepcopy(self.trainer.ema).cpu(),
        )

        def make() -> dict[str, bytes]:
            files = artefact.contents(ema, self.data, self.settings, step=step, seconds=seconds)
            metrics = self.args.out / METRICS
            return (
                files
                | export.layout(ema)
                | ({METRICS: metrics.read_bytes()} if metrics.exists() else {})
            )

        self.pusher.start(make)

    def save(self) -> None:
        """Writes a checkpoint, after a look at the losses since the last one: what is no number is
        never saved."""
        self._log()
        if self.trainer.rank == 0:
            save_checkpoint(self.args.out, self.trainer, self.settings, self.seconds())

    def _log(self) -> None:
        """Means since the last call, to metrics.jsonl and the bar."""
        if not self.losses:
            return
        record, loss = self.last, torch.stack(self.losses).mean().item()
        self.losses.clear()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} (up to step {record.step})")
        if self.bar is None:
            return
        (step, then), now = self.logged, self.seconds()
        rate = (record.step - step) * self.args.batch_size / max(now - then, 1e-9)
        self.logged = record.step, now
        line = {
            "step": record.step,
            "images": record.step * self.args.batch_size,
            "seconds": round(now, 3),
            "loss": loss,
            "lr": record.lr,
            "images_per_second": round(rate, 1),
        }
        with open(self.args.out / METRICS, "a") as file:
            file.write(json.dumps(line) + "\n")
        self.bar.set_postfix_str(
            f"step {record.step:,}, loss {loss:.4f}, {rate:,.0f} images/s", refresh=False
        )

    def __enter__(self) -> "_Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def join_processes(wanted: str) -> torch.device:
    """The device of this process; joins the others first if torchrun started it."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch finds no GPU here; leave the option out to train on the CPU"
        )
    on_gpu = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    use_all()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _load_data(args: argparse.Namespace) -> Data:
    """The data set. The first process of each machine comes first: it may have to download."""
    follows = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if follows and dist.is_initialized():
        dist.barrier()
    data = DATASETS[args.dataset](args.data, args.size)
    if not follows and dist.is_initialized():
        dist.barrier()
    return data


def build(args: argparse.Namespace, data: Data) -> UNet:
    """The network that the options and the data ask for. Raises ValueError naming what does not
    fit."""
    _, channels, size, _ = data.images.shape
    sides = [size >> level for level in range(len(args.mults))]
    attends = args.attention
    if attends is None:
        attends = [side for side in sides[1:] if side <= MAX_ATTENTION]
    if not set(attends) <= set(sides):
        raise ValueError(f"--attention takes sides of the levels, which are {sides}, got {attends}")
    return UNet(
        channels,
        size,
        len(data.classes),
        args.width,
        args.mults,
        args.blocks,
        [side in attends for side in sides],
        Schedule(args.schedule, args.T),
        args.prediction,
    )


def _start_from(source: str, model: UNet) -> dict[str, Any]:
    """Gives model the weights stored at source; returns what made them, as far as their config.json
    tells.

    Raises ValueError naming what differs if that is another network.
    """
    found, config, _ = hub.load(source)
    for name in (*hub.ARCHITECTURE, "schedule"):
        theirs, ours = getattr(found, name), getattr(model, name)
        if theirs != ours:
            raise ValueError(
                f"--init {source}: its {name} is {theirs}, the options and the data ask for {ours}"
            )
    model.load_state_dict(found.state_dict())
    return config.get("history") or artefact.NO_HISTORY


def _forget_after(metrics: Path, step: int) -> None:
    """Drops the lines that a killed run wrote after its last checkpoint (those steps are taken
    again), or broke off."""

    def stays(line: str) -> bool:
        try:
            return json.loads(line)["step"] <= step
        except (ValueError, TypeError, KeyError):
            return False

    if metrics.exists():
        kept = [
            line + "\n" for line in metrics.read_text(errors="replace").splitlines() if stays(line)
        ]
        write_atomic(metrics, "".join(kept).encode())


@contextmanager
def _interrupts(world: int) -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM in a list, so that a run stops after a whole step; a second one
    stops it at once.

    With several processes the signals keep their usual effect: one that stopped by itself would
    leave others waiting."""
    caught: list[int] = []
    if world > 1:
        yield caught
        return

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
