"""The network as an ONNX graph with its weights, for other programs to compute.

It is the same function as `UNet.forward`, written from the loaded weights in a few milliseconds,
byte by byte. The format is protocol buffers, of which eight messages are needed
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto gives the numbers of their fields);
torch's own exporter takes seconds and needs two more packages. The graph has only standard
operators of opset 17. The number of images is left open, so one graph serves every batch.

Read it beside unet.py: every function here has the name of what it translates. Only the grouping
of the sums differs: the linear layers from emb to the blocks become one, with the scales and
shifts of the norms they act on folded in, and attention does not transpose the image.
"""

import math
import struct
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..unet import Attention, Downsample, ResidualBlock, UNet, Upsample

OPSET, IR = 17, 8  # of the operators and of the file; any ONNX Runtime since 2022 knows them
Attribute = int | float | str | Sequence[int]
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}  # TensorProto.DataType


def _varint(n: int) -> bytes:
    """A whole number, seven bits a byte, the lowest first.

    Negative numbers are written as 64-bit two's complement.
    """
    n &= 2**64 - 1
    parts = bytearray()
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    return bytes([*parts, n])


def _message(*fields: tuple[int, int | float | str | bytes]) -> bytes:
    """A protocol buffer of (number, value) fields.

    A field may come more than once. A value that is itself a message is given as bytes.
    """
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
        elif isinstance(value, float):
            parts += [_varint(number << 3 | 5), struct.pack("<f", value)]
        else:
            value = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(value)), value]
    return b"".join(parts)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, 2))
    if isinstance(value, float):
        return _message((1, name), (2, value), (20, 1))
    if isinstance(value, str):
        return _message((1, name), (4, value), (20, 3))
    return _message((1, name), *((8, item) for item in value), (20, 7))


def _value(name: str, dtype: type, shape: Sequence[int | str]) -> bytes:
    """An input or output: its element type and shape.

    A length is a number or, if it is left open, a word.
    """
    dims = ((1, _message((2 if isinstance(d, str) else 1, d))) for d in shape)
    return _message(
        (1, name), (2, _message((1, _message((1, _TYPES[np.dtype(dtype)]), (2, _message(*dims))))))
    )


class _Graph:
    """Grows a graph: every method adds to it and returns the name of what it computes."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.constants: dict[str, bytes] = {}

    def constant(self, value: Tensor | Sequence[int]) -> str:
        """Weights as float32, numbers as int64."""
        array = (
            value.detach().cpu().float().numpy()
            if isinstance(value, Tensor)
            else np.array(value, np.int64)
        )
        name = f"c{len(self.constants)}"
        self.constants[name] = _message(
            *((1, d) for d in array.shape),
            (2, _TYPES[array.dtype]),
            (8, name),
            (9, array.tobytes()),
        )
        return name

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Attribute) -> str:
        """The operator `kind`; with several outputs, the names of all with spaces in between."""
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(
            _message(
                *((1, name) for name in inputs),
                *((2, name) for name in names),
                (4, kind),
                *((5, _attribute(*item)) for item in attributes.items()),
            )
        )
        return " ".join(names)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a length, -1 is what is left."""
        return self("Reshape", x, self.constant(shape))

    def silu(self, x: str) -> str:
        return self("Mul", x, self("Sigmoid", x))

    def conv(self, layer: nn.Conv2d, x: str) -> str:
        assert layer.bias is not None and not isinstance(layer.padding, str)  # as UNet makes them
        weight, bias, pads = self.constant(layer.weight), self.constant(layer.bias), layer.padding
        return self("Conv", x, weight, bias, pads=[pads[0]] * 4, strides=layer.stride)

    def gemm(self, weight: Tensor, bias: Tensor, x: str) -> str:
        return self("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def normalized(self, layer: nn.GroupNorm, x: str, side: int) -> str:
        """Mean 0 and variance 1 in each group, without the scale and shift of the layer."""
        ones = torch.ones(layer.num_groups)
        x = self(
            "InstanceNormalization",
            self.reshape(x, 0, layer.num_groups, -1),
            self.constant(ones),
            self.constant(0 * ones),
            epsilon=layer.eps,
        )
        return self.reshape(x, 0, layer.num_channels, side, side)

    def norm(self, layer: nn.GroupNorm, x: str, side: int) -> str:
        scale, shift = (self.constant(p[:, None, None]) for p in (layer.weight, layer.bias))
        return self("Add", self("Mul", self.normalized(layer, x, side), scale), shift)

    def pointwise(self, layer: nn.Linear, x: str, scale: float = 1.0) -> str:
        """scale * layer(x), at every pixel."""
        weight = (scale * layer.weight)[:, :, None, None]
        return self("Conv", x, self.constant(weight), self.constant(scale * layer.bias))

    def doubled(self, x: str) -> str:
        """Height and width doubled by repetition."""
        scales = self.constant(torch.tensor([1.0, 1.0, 2.0, 2.0]))
        return self(
            "Resize",
            x,
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def attention(self, m: Attention, x: str, side: int) -> str:
        c = m.norm.num_channels
        d = c // m.heads
        h = self.norm(m.norm, x, side)
        q, k, v = (
            self.reshape(self.pointwise(layer, h, scale), 0, m.heads, d, side**2)  # N×heads×d×HW
            for layer, scale in ((m.q, d**-0.5), (m.k, 1.0), (m.v, 1.0))
        )
        weights = self(
            "Softmax", self("MatMul", self("Transpose", q, perm=[0, 1, 3, 2]), k), axis=-1
        )  # N×heads×HW×HW
        h = self("MatMul", v, self("Transpose", weights, perm=[0, 1, 3, 2]))
        return self("Add", x, self.pointwise(m.out, self.reshape(h, 0, c, side, side)))

    def residual(self, m: ResidualBlock, x: str, scale: str, shift: str, side: int) -> str:
        """scale and shift N×C×1×1: those of norm2 combined with those from emb."""
        h = self.conv(m.conv1, self.silu(self.norm(m.norm1, x, side)))
        h = self("Add", self("Mul", self.normalized(m.norm2, h, side), scale), shift)
        h = self.conv(m.conv2, self.silu(h))
        h = self("Add", self.conv(m.shortcut, x) if isinstance(m.shortcut, nn.Conv2d) else x, h)
        return self.attention(m.attention, h, side) if isinstance(m.attention, Attention) else h


def _embedding(g: _Graph, model: UNet) -> str:
    """SiLU of the embedding of time and label, N×E, from the inputs t and y."""
    dim = model.conv_in.out_channels
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / (dim // 2))
    angles = g(
        "Mul",
        g.reshape(g("Sub", "t", g.constant(torch.ones(1))), -1, 1),
        g.constant(frequencies[None]),
    )
    emb = g("Concat", g("Cos", angles), g("Sin", angles), axis=1)
    first, last = cast(nn.Linear, model.time[0]), cast(nn.Linear, model.time[2])
    emb = g.gemm(last.weight, last.bias, g.silu(g.gemm(first.weight, first.bias, emb)))
    if model.label is not None:
        emb = g("Add", emb, g("Gather", g.constant(model.label.weight), "y"))
    return g.silu(emb)


def _steering(g: _Graph, blocks: list[ResidualBlock], emb: str) -> list[str]:
    """Scales and shifts of the second norm of every block, N×C×1×1 each, from one matrix product.

    norm * (1 + scale) + shift, with scale and shift linear in emb, after norm = weight * z + bias,
    is linear in emb too: z * (weight + weight * scale) + (bias + bias * scale + shift).
    """
    weights, biases = [], []
    for m in blocks:
        (to_scale, to_shift), (scale, shift) = m.emb.weight.chunk(2), m.emb.bias.chunk(2)
        weight, bias = m.norm2.weight, m.norm2.bias
        weights += [weight[:, None] * to_scale, bias[:, None] * to_scale + to_shift]
        biases += [weight * (1 + scale), bias * (1 + scale) + shift]
    every = g.reshape(g.gemm(torch.cat(weights), torch.cat(biases), emb), 0, -1, 1, 1)
    return g(
        "Split", every, g.constant([len(b) for b in biases]), outputs=len(biases), axis=1
    ).split()


def graph(model: UNet) -> bytes:
    """An ONNX file with the inputs x, t, y and the output of `UNet.forward`.

    x (N×C×H×W) and t (N) are float32, y (N) is int64, the output is N×C×H×W. y is required, and
    holds `classes` where there is no label; the graph of a network without labels has no y.
    """
    g = _Graph()
    blocks = [m for m in (*model.down, *model.middle, *model.up) if isinstance(m, ResidualBlock)]
    steering = iter(_steering(g, blocks, _embedding(g, model)))
    side = model.size

    def block(m: nn.Module, h: str) -> str:
        nonlocal side
        if isinstance(m, ResidualBlock):
            return g.residual(m, h, next(steering), next(steering), side)
        assert isinstance(m, Downsample | Upsample)  # the three kinds that a UNet has
        side = side // 2 if isinstance(m, Downsample) else side * 2
        return g.conv(m.conv, g.doubled(h) if isinstance(m, Upsample) else h)

    skips = [h := g.conv(model.conv_in, "x")]
    for m in model.down:
        skips.append(h := block(m, h))
    for m in model.middle:
        h = block(m, h)
    for m in model.up:
        h = block(m, h if isinstance(m, Upsample) else g("Concat", h, skips.pop(), axis=1))
    out = g.conv(model.conv_out, g.silu(g.norm(model.norm_out, h, side)))

    image = ("N", model.channels, model.size, model.size)
    inputs = [_value("x", np.float32, image), _value("t", np.float32, ["N"])]
    inputs += [_value("y", np.int64, ["N"])] if model.label is not None else []
    whole = _message(
        *((1, node) for node in g.nodes),
        (2, "unet"),
        *((5, c) for c in g.constants.values()),
        *((11, value) for value in inputs),
        (12, _value(out, np.float32, image)),
    )
    return _message((1, IR), (7, whole), (8, _message((2, OPSET))))
