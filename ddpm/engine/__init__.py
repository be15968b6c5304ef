"""What computes the network: ONNX Runtime where it can, PyTorch everywhere else.

On a CPU, ONNX Runtime takes a fraction of PyTorch's time for the same numbers
(`python -m train.benchmark.sampling` measures it). It is optional: where its package is missing,
broken, or gives different results, PyTorch does the work, and `Engine.text` says so and why.
"""

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..unet import Network, UNet
from . import onnx

# images that ONNX Runtime gets at once: it never frees memory, and more are no faster
_MOST = 64
_BYTES = 2**28  # for the largest tensor in a layer, of all images that are computed at once
_AGREE = 1e-3  # the largest difference from PyTorch, relative to the largest value; 1e-5 is usual


class Engine(NamedTuple):
    """A way to compute the network, and a line of text about it (it contains no user input)."""

    run: Network
    text: str


def pytorch(model: UNet) -> Engine:
    """The model itself, as it is at the time of each call."""

    def run(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        with torch.inference_mode():
            out: Tensor = model(x, t, y)
        return out.clone()  # outside of inference mode, so that it is a normal tensor

    where = model.conv_in.weight.device
    threads = _threads() if where.type == "cpu" else ""
    text = f"PyTorch {torch.__version__} on {where}{threads}"
    return Engine(_in_parts(run, _at_once(model)), text)


def onnx_runtime(model: UNet) -> Engine:
    """ONNX Runtime, with a copy of the weights as they are now.

    It starts as many threads as torch has now. They do not survive a fork: each process needs an
    engine of its own. Raises whatever the package raises if it does not work.
    """
    # From 1.29 on it sends usage data to its maker, and leaves an identifier in the home folder,
    # unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # optional, and only here

    onnxruntime.set_default_logger_severity(3)  # it warns of every GPU that it does not find
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Between two layers a thread spins (keeps a CPU busy while it waits). On an idle machine this
    # is the fastest; where other programs need the CPUs, it takes them from the threads that still
    # compute. Spinning for 200 µs at most keeps the first and halves the harm of the second.
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
    """The fastest engine that works here, for a model whose weights will not change.

    On a CPU the memory format of the weights is changed in place to channels last, with which
    PyTorch takes half the time. Never raises: PyTorch is always there.
    """
    if model.conv_in.weight.device.type != "cpu":
        return pytorch(model)
    ours = pytorch(model.to(memory_format=torch.channels_last))
    try:
        engine = onnx_runtime(model)
        _check(engine.run, ours.run, model)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        why = "is not installed" if missing else f"cannot be imported: {_line(error)}"
    # Of whatever kind: an optional package must not stop the generation of images.
    except Exception as error:
        why = f"does not work: {_line(error)}"
    else:
        return engine
    return Engine(ours.run, f"{ours.text}; ONNX Runtime {why}")


def _at_once(model: UNet) -> int:
    """How many images at once stay within _BYTES.

    Counted are the values of a level and, where ONNX Runtime computes attention, one value for each
    pair of pixels and each head.
    """
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
    """The same network for any number of images: it is given at most `most` at once."""

    def run_all(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if len(x) <= most:
            return run(x, t, y)
        parts = [slice(k, k + most) for k in range(0, len(x), most)]
        return torch.cat([run(x[p], t[p], None if y is None else y[p]) for p in parts])

    return run_all


def _check(run: Network, reference: Network, model: UNet) -> None:
    """Raises ValueError unless both give the same for two noisy images."""
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
