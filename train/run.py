"""One run, from the data to the folder that can be published.

It loads, trains, and meanwhile shows a bar, saves checkpoints, metrics and pictures, and pushes.
"""

import argparse
import copy
import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ddpm import Schedule, UNet, hub
from ddpm.files import write_atomic
from ddpm.pixels import png
from ddpm.settings import GUIDANCE
from ddpm.unet import MAX_ATTENTION

from .checkpoint import Header, alone, load_checkpoint, save_checkpoint
from .data import DATASETS, Data
from .loop import Budget, Recipe, Record, Trainer, from_data, guided, stopwatch, train
from .processes import first_then_others, is_first, join_processes
from .publish import artefact, card, export, push

BUDGET = ("minutes", "steps", "images")  # the options that say how long; one of them counts
METRICS, LOG_EVERY = push.METRICS, 50


def run(args: argparse.Namespace, command: str) -> int:
    """Trains as the options say and writes args.out. Returns the exit code.

    Raises ValueError and OSError for the user, FloatingPointError if the loss or a weight diverges.
    """
    device = join_processes(args.device)
    budget, recipe = budget_of(args, device), recipe_of(args)
    with first_then_others():  # the data may have to be downloaded
        if args.push and is_first():
            push.check(args.push)
        data = DATASETS[args.dataset].training(args.data, args.size)
    _check_guidance(args, data)

    torch.manual_seed(args.seed)
    model = build(args, data)
    before = start_from(args.init, model) if args.init and not args.resume else artefact.NO_HISTORY
    sample = from_data(data.to(device), recipe, model.schedule.T, args.time_power)
    subject, weaker = artefact.of_data(data, args), None
    if args.weaker:
        alike = ("channels", "size", "classes", "schedule")
        weaker, config = _load("--weaker", args.weaker, model, alike)
        if config.get("distilled"):
            raise ValueError(f"--weaker {args.weaker}: it is distilled, and knows few of the times")
        source = f"the images in {args.data}, or the weights of {args.weaker}, are"
        fingerprint = subject.fingerprint + config["sha256"]
        subject = subject._replace(source=source, fingerprint=fingerprint)
        made = (config.get("history") or artefact.NO_HISTORY)["commands"]
        new = [each for each in made if each not in before["commands"]]
        before = before | {"commands": [*before["commands"], *new]}  # the card tells all it takes
    if args.guidance or args.unlabelled_guidance:
        weights = args.guidance, args.unlabelled_guidance
        sample = guided(sample, model.to(device), *weights, weaker and weaker.to(device))
    trainer = Trainer(model.to(device), sample, recipe, compile=args.compile)
    return complete(args, trainer, subject, budget, command, before)


def complete(
    args: argparse.Namespace,
    trainer: Trainer,
    subject: artefact.Subject,
    budget: Budget,
    command: str,
    before: dict[str, Any],
    *,
    module: str = "train",
) -> int:
    """Trains until the budget is used up, and writes args.out. Returns the exit code.

    before: the history of the weights that the run starts from. module: which resumes it, by
    python -m. Raises as `run`.
    """
    header = load_checkpoint(args.out, trainer) if args.resume else None
    settings = _settings(args, subject, header, command, before)
    settings["hardware"] = card.hardware(trainer.device)
    seconds = stopwatch(header.seconds if header else 0.0)
    with (
        alone(args.out, header) if trainer.rank == 0 else nullcontext(),
        _Watcher(args, trainer, subject, settings, budget, seconds) as watcher,
        _interrupts(trainer.world) as interrupted,
    ):
        for record in train(trainer, budget, seconds=seconds):
            watcher.look(record)
            if interrupted:
                break
        watcher.save()
    if interrupted:  # there is one process: several keep the signals' usual effect
        again = f"python -m {module} --out {args.out} --resume"
        print(f"Stopped at step {trainer.step}. To go on: {again}")
        return 130
    if is_first():
        artefact.write(
            args.out, trainer.ema, subject, settings, step=trainer.step, seconds=seconds()
        )
        how = f"python -m ddpm --model {args.out} --out digits.gif"
        print(f"The model is in {args.out}. To sample from it: {how}")
        if args.push:
            watcher.pusher.finish()
            _push(args)
    return 0


def _check_guidance(args: argparse.Namespace, data: Data) -> None:
    """Raises ValueError for guidance that cannot be learned."""
    GUIDANCE.check("guidance", args.guidance)
    GUIDANCE.check("unlabelled-guidance", args.unlabelled_guidance)
    labelled = data.classes and args.drop_label < 1
    unlabelled = not data.classes or args.drop_label > 0
    if args.weaker and not (args.guidance or args.unlabelled_guidance):
        raise ValueError(
            "--weaker is what guidance leads away from: give --guidance, --unlabelled-guidance or "
            "both"
        )
    if args.guidance and not (labelled and (unlabelled or args.weaker)):
        raise ValueError(
            "--guidance compares samples with a label and without: it needs classes and a "
            "--drop-label between 0 and 1. Without classes there is --unlabelled-guidance"
        )
    if args.unlabelled_guidance and not (unlabelled and args.weaker):
        raise ValueError(
            "--unlabelled-guidance needs a --weaker model to lead away from, and samples without a "
            "label: no classes, or --drop-label above 0"
        )


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The options that shape the result. Raises ValueError for one that cannot work."""
    return Recipe(**{name: getattr(args, name) for name in Recipe.__dataclass_fields__})


def budget_of(args: argparse.Namespace, device: torch.device) -> Budget:
    """How long to train. Batch size and duration, if left out, are filled in for the device."""
    on_gpu = device.type == "cuda"
    if args.batch_size is None:
        args.batch_size = 512 if on_gpu else 64
    if all(getattr(args, name) is None for name in BUDGET):
        args.minutes = 10.0 if on_gpu else 60.0
    if args.minutes is not None:
        return Budget(args.minutes, timed=True)
    return Budget(
        math.ceil(args.images / args.batch_size) if args.images else args.steps, timed=False
    )


def _settings(
    args: argparse.Namespace,
    subject: artefact.Subject,
    header: Header | None,
    command: str,
    before: dict[str, Any],
) -> dict[str, Any]:
    """The options, and what else a later resume or the card must know.

    header: of the checkpoint that the run goes on from. Raises ValueError if that was made from
    something else.
    """
    saved = header.settings if header else {}
    if header and saved["fingerprint"] != subject.fingerprint:
        raise ValueError(f"{subject.source} not those that {args.out} was started with")
    return settings_of(args) | {
        "commands": [*saved.get("commands", []), command],
        "fingerprint": subject.fingerprint,
        "before": saved.get("before", before),
    }


def _push(args: argparse.Namespace) -> None:
    """The finished run to the Hub. Raises OSError that says how to push it later."""
    try:
        print(f"It is on the Hub: {push.push(push.published(args.out), args.push).url}")
    except (ValueError, OSError) as error:
        raise OSError(
            f"{error}. Then: python -m train.publish.push {args.out} {args.push}"
        ) from error


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }


class _Watcher:
    """Takes each Record, and shows, saves and pushes what is due.

    Only in the first process; in the others it only checks the loss.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        trainer: Trainer,
        subject: artefact.Subject,
        settings: dict[str, Any],
        budget: Budget,
        seconds: Callable[[], float],
    ) -> None:
        self.args, self.trainer, self.subject = args, trainer, subject
        self.settings, self.seconds = settings, seconds
        self.unlogged: list[Record] = []
        self.logged = trainer.step, seconds()
        self.bar: tqdm | None = None
        self.pusher = push.Background(args.push, args.push_every)
        if trainer.rank == 0:
            self.save()
            (args.out / "samples").mkdir(exist_ok=True)
            _forget_after(args.out / METRICS, trainer.step)
            # Fractions of the budget, not steps: with --minutes the number of steps is not known.
            self.bar = tqdm(
                total=1.0,
                initial=budget.fraction(trainer.step, seconds()),
                bar_format="{percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}",
            )

    def look(self, record: Record) -> None:
        """Called after every update."""
        self.unlogged.append(record)
        if self.bar is not None:
            self.bar.update(record.fraction - self.bar.n)
        if record.step % LOG_EVERY == 0:
            self._log()
        if record.step % self.args.checkpoint_every == 0:
            self.save()
        if record.step % self.args.sample_every == 0 and self.trainer.rank == 0:
            picture = png(artefact.sample(self.trainer.ema, self.subject).sheet())
            write_atomic(self.args.out / "samples" / f"{record.step:08d}.png", picture)
        if self.trainer.rank == 0 and self.args.push and self.pusher.due():
            self.push()

    def push(self) -> None:
        """Sends the model as it is now to the Hub, in the background, from a copy on the CPU."""
        step, seconds = self.trainer.step, self.seconds()
        ema = copy.deepcopy(self.trainer.ema).cpu()

        def make() -> dict[str, bytes]:
            files = artefact.contents(ema, self.subject, self.settings, step=step, seconds=seconds)
            metrics = self.args.out / METRICS
            if metrics.exists():
                files[METRICS] = metrics.read_bytes()
            return files | export.layout(ema, self.subject.facts)

        self.pusher.start(make)

    def save(self) -> None:
        """Writes a checkpoint.

        Before that it checks the losses since the last one, so that NaN and infinite values are
        never saved.
        """
        self._log()
        if self.trainer.rank == 0:
            save_checkpoint(self.args.out, self.trainer, self.settings, self.seconds())

    def _log(self) -> None:
        """Writes the mean loss and the speed since the last call to metrics.jsonl and the bar."""
        if not self.unlogged:
            return
        record = self.unlogged[-1]
        loss = torch.stack([each.loss for each in self.unlogged]).mean().item()
        self.unlogged.clear()
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


def build(args: argparse.Namespace, data: Data) -> UNet:
    """The network that the options and the data ask for.

    Raises ValueError if they contradict each other.
    """
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


def start_from(source: str, model: UNet) -> dict[str, Any]:
    """Loads the weights stored at source into model, and returns their history from config.json.

    Raises ValueError that names what differs if they are those of another network.
    """
    found, config = _load("--init", source, model, (*hub.ARCHITECTURE, "schedule"))
    model.load_state_dict(found.state_dict())
    history: dict[str, Any] | None = config.get("history")
    return history or artefact.NO_HISTORY


def _load(
    option: str, source: str, model: UNet, alike: tuple[str, ...]
) -> tuple[UNet, dict[str, Any]]:
    """The model at source, and its config. Raises ValueError if it differs from model in any of
    alike."""
    found, config, _ = hub.load(source)
    for name in alike:
        theirs, ours = getattr(found, name), getattr(model, name)
        if theirs != ours:
            raise ValueError(
                f"{option} {source}: its {name} is {theirs}, that of the network to train is {ours}"
            )
    return found, config


def _forget_after(metrics: Path, step: int) -> None:
    """Removes the lines of steps after the last checkpoint, and incomplete lines.

    Those steps are taken again. A killed run may leave a line incomplete.
    """

    def stays(line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= step)
        except (ValueError, TypeError, KeyError):
            return False

    if metrics.exists():
        kept = [
            line + "\n" for line in metrics.read_text(errors="replace").splitlines() if stays(line)
        ]
        write_atomic(metrics, "".join(kept).encode())


@contextmanager
def _interrupts(world: int) -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM in a list, so that a run stops after the step it is in.

    A second one stops it at once. With several processes the signals keep their usual effect: if
    one process stopped alone, the others would wait for it.
    """
    caught: list[int] = []
    if world > 1:
        yield caught
        return

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
