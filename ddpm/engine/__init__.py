"""What computes the network: ONNX Runtime where it can, PyTorch everywhere else.

On a CPU, ONNX Runtime takes a fraction of PyTorch's time for the same numbers (`python -m
train.benchmark.sampling` measures it). It is not needed: where its package is missing, broken, or
of another mind than PyTorch, PyTorch does the work, and `Engine.text` says so and why."""

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..unet import Network, UNet
from . import onnx

# images that ONNX Runtime is given at once: it never gives memory back, and more are no faster
_MOST = 64
_BYTES = 2**28  # for the largest thing that a layer makes of the images that are computed at once
_AGREE = 1e-3  # the largest difference to PyTorch, beside the largest value; 1e-5 is usual


class Engine(NamedTuple):
    """A way to compute the network, and a line of words about it (of no visitor's making)."""

    run: Network
    text: str


def pytorch(model: UNet) -> Engine:
    """The model itself, as it is at the time of each call."""

    def run(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with torch.inference_mode():
            out: Tensor = model(x, t, y)
        return out.clone()  # out here, where it becomes a tensor like any other

    where = model.conv_in.weight.device
    threads = _threads() if where.type == "cpu" else ""
    text = f"PyTorch {torch.__version__} on {where}{threads}"
    return Engine(_in_parts(run, _at_once(model)), text)


def onnx_runtime(model: UNet) -> Engine:
    """ONNX Runtime, with a copy of the weights as they are now. Raises whatever the package does if
    it is not right.

    It starts as many threads as torch has now. They do not outlive a fork: a process draws with an
    engine of its own."""
    # From 1.29 on it reports to its maker, and leaves an identifier in the home folder, unless it
    # is told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # optional, and only here

    onnxruntime.set_default_logger_severity(3)  # it warns of every GPU that it does not find
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait by spinning answer fastest where they have the CPUs to themselves; where
    # they have not, they hold up the very work that they wait for. This long a wait keeps the one
    # and halves the other.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    session = onnxruntime.InferenceSession(
        onnx.graph(model), options, providers=["CPUExecutionProvider"]
    )

    def run(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        given: dict[str, Any] = {"x": x, "t": t}
        if model.label is not None:
            given["y"] = torch.full(t.shape, model.classes) if y is None else y
        arrays = {name: value.detach().contiguous().numpy() for name, value in given.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return Engine(
        _in_parts(run, min(_MOST, _at_once(model))),
        f"ONNX Runtime {onnxruntime.__version__} on cpu" + _threads(),
    )


def fastest(model: UNet) -> Engine:
    """The best that works here for a model whose weights will not change. Never raises: PyTorch is
    always there.

    On a CPU the weights are laid out anew in place, channels last, which PyTorch computes with in
    half the time."""
    if model.conv_in.weight.device.type != "cpu":
        return pytorch(model)
    ours = pytorch(model.to(memory_format=torch.channels_last))
    try:
        engine = onnx_runtime(model)
        _check(engine.run, ours.run, model)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        why = "is not installed" if missing else f"cannot be imported: {_line(error)}"
    except (
        Exception
    ) as error:  # of whatever kind: a package that nobody needs must not stop a picture
        why = f"does not work: {_line(error)}"
    else:
        return engine
    return Engine(ours.run, f"{ours.text}; ONNX Runtime {why}")


def _at_once(model: UNet) -> int:
    """How many images at once stay within _BYTES: what a level holds, and, where ONNX Runtime
    attends, a number for each pair of pixels and each head."""
    largest = max(
        m * side**2 * max(model.width, side**2 if attends else 0)
        for m, side, attends in zip(
            model.mults,
            [model.size >> level for level in range(len(model.mults))],
            (*model.attention[:-1], True),  # the middle, at the last level's side, always attends
            strict=True,
        )
    )
    return max(1, _BYTES // (4 * largest))


def _in_parts(run: Network, most: int) -> Network:
    """The same for any number of images, of which the network is given so many at once."""

    def run_all(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if len(x) <= most:
            return run(x, t, y)
        parts = [slice(k, k + most) for k in range(0, len(x), most)]
        return torch.cat([run(x[p], t[p], None if y is None else y[p]) for p in parts])

    return run_all


def _check(run: Network, reference: Network, model: UNet) -> None:
    """Raises ValueError unless both say the same of two noisy images."""
    x = torch.randn(
        2, model.channels, model.size, model.size, generator=torch.Generator().manual_seed(0)
    )
    t, y = (
        torch.tensor([1.0, model.schedule.T]),
        torch.tensor([0, model.classes]) if model.classes else None,
    )
    expected = reference(x, t, y)
    off = (run(x, t, y) - expected).abs().max() / expected.abs().max().clamp(min=1)
    if not off <= _AGREE:  # NaN compares false
        raise ValueError(f"it is off by {off:.1g} of what PyTorch computes")


def _threads() -> str:
    threads = torch.get_num_threads()
    return f", {threads} thread{'s' if threads > 1 else ''}"


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
