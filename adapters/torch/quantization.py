"""Layers whose weight is kept in fewer bits, as `dreamcore.backends.quantization` describes the forms.

bitsandbytes and torchao have such layers too.  These are here because either makes every start of a program that
imports peft seconds longer, wants layers of its own, to which peft has to have a key, and has none for convolutions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

from dreamcore.backends.quantization import BLOCK, NF4, SECOND_BLOCK, quantised
from dreamcore.config.common import Quantization

AT_ONCE = 2**22
"""Numbers that are quantised at a time: what that takes besides is some tens of MiB, however large the weight."""
TINY = 2.0**-100
"""Magnitudes below it count as it: far beyond what weights are, and no factor is lost in float32 or bfloat16."""
Stored = dict[str, torch.Tensor]


class Form(ABC):
    """A way to keep a weight."""

    @abstractmethod
    def kinds(self, shape: Sequence[int]) -> dict[str, tuple[Sequence[int], torch.dtype]]:
        """Shapes and types of what stands for a weight of this shape."""

    @abstractmethod
    def encode(self, weight: torch.Tensor) -> Stored:
        """What stands for a weight, on its device."""

    @abstractmethod
    def decode(self, stored: Stored, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """The weight again, of this shape."""


class Rows(Form):
    """Rows of `codes`, each times a factor."""

    dtype: torch.dtype

    @abstractmethod
    def factors(self, largest: torch.Tensor) -> torch.Tensor:
        """Of rows, from their largest magnitudes; never zero, and what bfloat16 holds exactly."""

    @abstractmethod
    def codes(self, rows: torch.Tensor) -> torch.Tensor:
        """Of rows that are divided by their factors; may overwrite them."""

    def kinds(self, shape: Sequence[int]) -> dict[str, tuple[Sequence[int], torch.dtype]]:
        rows = shape[0]
        return {"codes": ((rows, math.prod(shape[1:])), self.dtype), "factors": ((rows, 1), torch.float32)}

    def encode(self, weight: torch.Tensor) -> Stored:
        rows = weight.flatten(1)
        codes = torch.empty(rows.shape, dtype=self.dtype, device=rows.device)
        factors = torch.empty(len(rows), 1, device=rows.device)
        for part in _parts(len(rows), max(1, AT_ONCE // rows.shape[1])):
            whole = rows[part].float()
            factors[part] = self.factors(torch.linalg.vector_norm(whole, torch.inf, 1, keepdim=True))
            codes[part] = self.codes(whole / factors[part])
        return {"codes": codes, "factors": factors}

    def decode(self, stored: Stored, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        wide = torch.float32 if dtype is torch.float16 else dtype  # small factors are too small for fp16
        return (stored["codes"].to(wide) * stored["factors"].to(wide)).to(dtype).view(*shape)


class Int8(Rows):
    dtype = torch.int8

    def factors(self, largest: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(largest.clamp(min=TINY) / 127)
        return torch.ldexp((mantissa * 256).ceil() / 256, exponent)  # rounded up, to the eight digits of bfloat16

    def codes(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.round_().clamp_(-127, 127).to(torch.int8)


class Float8(Rows):
    dtype = torch.float8_e4m3fn

    def factors(self, largest: torch.Tensor) -> torch.Tensor:
        return (largest.clamp(min=TINY) / 448).log2().ceil().exp2()

    def codes(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.clamp_(-448, 448).to(torch.float8_e4m3fn)  # beyond that it would be none


class NormalFloat4(Form):
    """Two codes of a byte, the first in its upper half."""

    def kinds(self, shape: Sequence[int]) -> dict[str, tuple[Sequence[int], torch.dtype]]:
        blocks = -(-math.prod(shape) // BLOCK)
        return {
            "codes": ((blocks * BLOCK // 2,), torch.uint8),
            "magnitudes": ((blocks,), torch.int8),
            "factors": ((-(-blocks // SECOND_BLOCK),), torch.float32),
            "mean": ((1,), torch.float32),
        }

    def encode(self, weight: torch.Tensor) -> Stored:
        numbers = weight.flatten()
        blocks = -(-len(numbers) // BLOCK)
        codes = torch.empty(blocks * BLOCK // 2, dtype=torch.uint8, device=numbers.device)
        largest = torch.empty(blocks, device=numbers.device)
        borders = numbers.new_tensor([(low + high) / 2 for low, high in pairwise(NF4)], dtype=torch.float32)
        for part in _parts(blocks, AT_ONCE // BLOCK):
            some = numbers[part.start * BLOCK : part.stop * BLOCK].float()
            whole = F.pad(some, (0, -len(some) % BLOCK)).view(-1, BLOCK)
            largest[part] = most = torch.linalg.vector_norm(whole, torch.inf, 1)
            nearest = torch.bucketize(whole / most.clamp(min=TINY)[:, None], borders, out_int32=True).view(-1, 2)
            codes[part.start * BLOCK // 2 : part.stop * BLOCK // 2] = nearest[:, 0] * 16 + nearest[:, 1]
        mean = largest.mean().view(1)
        rest = F.pad(largest - mean, (0, -blocks % SECOND_BLOCK)).view(-1, SECOND_BLOCK)
        factors = (torch.linalg.vector_norm(rest, torch.inf, 1, keepdim=True) / 127).clamp(min=TINY)
        magnitudes = (rest / factors).round_().to(torch.int8).flatten()[:blocks].clone()
        return {"codes": codes, "magnitudes": magnitudes, "factors": factors.flatten(), "mean": mean}

    def decode(self, stored: Stored, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        codes, magnitudes, factors = stored["codes"], stored["magnitudes"], stored["factors"]
        each = factors.repeat_interleave(SECOND_BLOCK)[: len(magnitudes)]
        largest = (magnitudes * each + stored["mean"]).clamp_(min=0)
        pairs = _pairs(dtype, codes.device)[codes.int()].view(-1, BLOCK)
        pairs *= largest.to(dtype)[:, None]
        return pairs.flatten()[: math.prod(shape)].view(*shape)


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[256, 2] what each byte of two codes stands for."""
    values = torch.tensor(NF4, dtype=dtype)
    return torch.stack([values.repeat_interleave(16), values.repeat(16)], 1).to(device)


def _parts(count: int, each: int) -> Iterator[slice]:
    return (slice(first, min(first + each, count)) for first in range(0, count, each))


FORMS: dict[Quantization, Form] = {"int8": Int8(), "fp8": Float8(), "nf4": NormalFloat4()}


class _Product(torch.autograd.Function):
    """A product or convolution with a weight that is made for it, and made again for the gradient of its input: what
    autograd would keep for that is the weight as a whole, of every layer."""

    @staticmethod
    def forward(ctx: Any, layer: QuantizedLayer, x: torch.Tensor, bias: Any, *stored: torch.Tensor) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        ctx.save_for_backward(*stored)
        return layer.answer(x, layer.whole(stored, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        stored = ctx.saved_tensors  # once: it may be fetched, or computed again
        gradient = ctx.layer.of_input(grad, ctx.layer.whole(stored, grad.dtype), ctx.shape)
        return None, gradient, None, *(None for _ in stored)


class QuantizedLayer(torch.nn.Module):
    """A layer whose `weight`, as others see it, is made anew each time that it is asked for.

    Its parameter of that name has shape, type and device, and one number; the bits are in buffers, which no file has.
    """

    form: Form
    names: tuple[str, ...]
    """Of what stands for the weight; its buffers are called `quantized_` and that."""
    there: bool
    """Whether the weight has come."""

    def keep_in(self, form: Form) -> None:
        """Keep the weight in this form, once it comes."""
        kinds = form.kinds(self._shape)
        self.form, self.names = form, tuple(kinds)
        for name, (_, dtype) in kinds.items():
            self.register_buffer(f"quantized_{name}", torch.empty(0, dtype=dtype), persistent=False)
        self.let_go()

    @property
    def weight(self) -> torch.Tensor:
        placeholder = self._parameters["weight"]
        assert placeholder is not None
        return self.whole(self.stored, placeholder.dtype) if self.__dict__.get("there") else placeholder

    @property
    def stored(self) -> list[torch.Tensor]:
        """What stands for the weight."""
        return [self._buffers[f"quantized_{name}"] for name in self.names]

    @property
    def _shape(self) -> torch.Size:
        return self._parameters["weight"].shape

    def whole(self, stored: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """The weight, of what stands for it."""
        return self.form.decode(dict(zip(self.names, stored, strict=True)), self._shape, dtype)

    def hold(self, weight: torch.Tensor) -> int:
        """Take a weight; returns the bytes that it takes here."""
        kept = self.form.encode(weight.to(self._parameters["weight"].device))
        for name, tensor in kept.items():
            self._buffers[f"quantized_{name}"].data = tensor
        self.there = True
        return sum(tensor.nbytes for tensor in kept.values())

    def let_go(self) -> None:
        """Of the weight: of each buffer one number is left, as large as it likes."""
        device = self._parameters["weight"].device
        for name, (shape, dtype) in self.form.kinds(self._shape).items():
            self._buffers[f"quantized_{name}"].data = torch.zeros(1, dtype=dtype, device=device).expand(*shape)
        self.there = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = self._parameters["bias"]
        answer: torch.Tensor = _Product.apply(self, x.to(dtype), None if bias is None else bias.to(dtype), *self.stored)
        return answer

    @abstractmethod
    def answer(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer's answer."""

    @abstractmethod
    def of_input(self, grad: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The gradient of its input, of this shape."""


class QuantizedLinear(QuantizedLayer, torch.nn.Linear):
    def answer(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)

    def of_input(self, grad: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return grad @ weight


class QuantizedConv2d(QuantizedLayer, torch.nn.Conv2d):
    def answer(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def of_input(self, grad: torch.Tensor, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        how = (self.stride, self.padding, self.dilation, self.groups)
        return torch.nn.grad.conv2d_input(shape, weight, grad, *how)


def quantize(network: torch.nn.Module, published: Callable[[str], str], method: Quantization) -> dict[str, Any]:
    """Let layers of a network, whose weights are not there yet, keep them in fewer bits; returns them by the published
    names of their weights.

    Args:
        published: a layer's own name -> the one in files.
    """
    found: dict[str, QuantizedLayer] = {}
    for name, layer in network.named_modules():
        weight = f"{published(name)}.weight"
        if (cls := _class_of(layer)) and quantised(weight, layer.weight.shape):
            layer.__class__ = cls  # in its place, for whoever holds it
            layer.keep_in(FORMS[method])
            found[weight] = layer
    return found


def _class_of(layer: torch.nn.Module) -> type[QuantizedLayer] | None:
    """Of those alone whose arithmetic is known: none derived from them."""
    if type(layer) is torch.nn.Linear:
        return QuantizedLinear
    plain = type(layer) is torch.nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return QuantizedConv2d if plain else None
