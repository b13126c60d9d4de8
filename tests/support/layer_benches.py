"""A Linear layer and a convolution with factors beside them, on whichever backend is installed: what they answer, and
the gradient of the factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.lora import Lora

INPUTS, OUTPUTS, KERNEL, SIDE, STRIDE = 12, 10, 3, 5, 2
Arrays = dict[str, np.ndarray]


def arrays() -> Arrays:
    """The layers' weights and biases, and what they are given."""
    draw = np.random.default_rng(5)
    shapes = {
        "linear.weight": (OUTPUTS, INPUTS), "linear.bias": (OUTPUTS,), "linear": (2, 3, INPUTS),
        "conv.weight": (OUTPUTS, INPUTS, KERNEL, KERNEL), "conv.bias": (OUTPUTS,), "conv": (2, INPUTS, SIDE, SIDE),
    }  # fmt: skip
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def bench(lora: Lora, values: Arrays) -> Any:
    """Of the backend that is installed."""
    return {"torch": Torch, "paddle": Paddle, "mindspore": MindSpore}[installed_backends()[0]](lora, values)


class Torch:
    def __init__(self, lora: Lora, values: Arrays):
        import torch
        from diffusers.loaders import PeftAdapterMixin

        from dreamcore.adapters.torch.lora import add_lora

        class Net(torch.nn.Module, PeftAdapterMixin):
            def __init__(self) -> None:
                super().__init__()
                self.linear = torch.nn.Linear(INPUTS, OUTPUTS)
                self.conv = torch.nn.Conv2d(INPUTS, OUTPUTS, KERNEL, STRIDE, 1)

        self.net = Net()
        self.net.load_state_dict({name: torch.from_numpy(a) for name, a in values.items() if "." in name})
        self.net.requires_grad_(False)
        self.factors = add_lora(self.net, "unet", lora)

    def set(self, given: Arrays) -> None:
        import torch

        for name, array in given.items():
            self.factors[name].data.copy_(torch.from_numpy(array))

    def values(self) -> Arrays:
        return {name: factor.detach().numpy().copy() for name, factor in self.factors.items()}

    def answer(self, layer: str, x: np.ndarray) -> np.ndarray:
        import torch

        return getattr(self.net, layer)(torch.from_numpy(x)).detach().numpy()  # type: ignore[no-any-return]

    def gradients(self, layer: str, x: np.ndarray, towards: np.ndarray) -> Arrays:
        """Of Σ answer · towards."""
        import torch

        own = {n: f for n, f in self.factors.items() if f".{layer}." in n and not n.endswith(("A0", "B0"))}
        for factor in own.values():
            factor.requires_grad_(True)
        total = (getattr(self.net, layer)(torch.from_numpy(x)) * torch.from_numpy(towards)).sum()
        found = torch.autograd.grad(total, list(own.values()))
        return {name: gradient.numpy() for name, gradient in zip(own, found, strict=True)}


class Paddle:
    def __init__(self, lora: Lora, values: Arrays):
        from paddle import nn

        from dreamcore.adapters.paddle.lora import add_lora
        from dreamcore.adapters.paddle.models import put

        class Net(nn.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(INPUTS, OUTPUTS)
                self.conv = nn.Conv2D(INPUTS, OUTPUTS, KERNEL, STRIDE, 1)

        self.net = Net()
        for name, weight in self.net.named_parameters():
            put(name, weight, values[name])
            weight.stop_gradient = True
        self.factors = add_lora(self.net, "unet", lora)

    def set(self, given: Arrays) -> None:
        from dreamcore.adapters.paddle.models import fill

        fill({name: self.factors[name] for name in given}, given)

    def values(self) -> Arrays:
        from dreamcore.adapters.paddle.models import arrays

        return arrays(self.factors)

    def answer(self, layer: str, x: np.ndarray) -> np.ndarray:
        import paddle

        return getattr(self.net, layer)(paddle.to_tensor(x)).numpy()  # type: ignore[no-any-return]

    def gradients(self, layer: str, x: np.ndarray, towards: np.ndarray) -> Arrays:
        import paddle

        from dreamcore.adapters.paddle.models import published

        own = {n: f for n, f in self.factors.items() if f".{layer}." in n and not n.endswith(("A0", "B0"))}
        for factor in own.values():
            factor.stop_gradient = False
        total = (getattr(self.net, layer)(paddle.to_tensor(x)) * paddle.to_tensor(towards)).sum()
        found = paddle.grad(total, list(own.values()))
        return {name: published(name, gradient) for name, gradient in zip(own, found, strict=True)}


class MindSpore:
    def __init__(self, lora: Lora, values: Arrays):
        import mindspore as ms
        from mindspore import mint, nn

        from dreamcore.adapters.mindspore import cpu_shim
        from dreamcore.adapters.mindspore.lora import add_lora

        ms.set_device("CPU")
        cpu_shim.install()

        class Net(nn.Cell):
            def __init__(self) -> None:
                super().__init__()
                self.linear = mint.nn.Linear(INPUTS, OUTPUTS)
                self.conv = mint.nn.Conv2d(INPUTS, OUTPUTS, KERNEL, STRIDE, 1)

        self.net = Net()
        for name, weight in self.net.parameters_and_names():
            weight.set_data(ms.Tensor(values[name]))
            weight.requires_grad = False
        self.factors = add_lora(self.net, "unet", lora)

    def set(self, given: Arrays) -> None:
        from dreamcore.adapters.mindspore.models import fill

        fill({name: self.factors[name] for name in given}, given)

    def values(self) -> Arrays:
        from dreamcore.adapters.mindspore.models import arrays

        return arrays(self.factors)

    def answer(self, layer: str, x: np.ndarray) -> np.ndarray:
        import mindspore as ms

        return getattr(self.net, layer)(ms.Tensor(x)).asnumpy()  # type: ignore[no-any-return]

    def gradients(self, layer: str, x: np.ndarray, towards: np.ndarray) -> Arrays:
        import mindspore as ms

        own = {n: f for n, f in self.factors.items() if f".{layer}." in n and not n.endswith(("A0", "B0"))}
        for factor in own.values():
            factor.requires_grad = True
        net = getattr(self.net, layer)
        run = ms.value_and_grad(lambda given: (net(given) * ms.Tensor(towards)).sum(), None, list(own.values()))
        found = run(ms.Tensor(x))[1]
        return {name: gradient.asnumpy() for name, gradient in zip(own, found, strict=True)}


def applied(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What a Linear layer or the convolution of a weight answers, in NumPy."""
    if weight.ndim == 2:
        return x @ weight.T + bias
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (2, 3))[:, :, ::STRIDE, ::STRIDE]
    return np.einsum("nihwkl,oikl->nohw", windows, weight) + bias[:, None, None]


def own(factors: Mapping[str, np.ndarray], layer: str) -> Arrays:
    """A layer's factors by the ends of their names, in float64."""
    before = f"unet.{layer}"
    return {name.removeprefix(before): a.astype(np.float64) for name, a in factors.items() if name.startswith(before)}
