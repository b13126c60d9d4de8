"""Every function that the CPU is lent, value and gradient, against PyTorch."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ..crossing.cases import reference
from ..crossing.operators import OPERATORS, direction, inputs
from ..support import needs
from ..support.paths import ROOT

pytestmark = needs.mindspore


@pytest.fixture(scope="module")
def wanted() -> Any:
    return np.load(reference("operators.npz"))


@pytest.mark.parametrize("name", OPERATORS)
def test_value_and_gradient(name: str, wanted: Any) -> None:
    import mindspore as ms

    from dreamcore.adapters.mindspore import cpu_shim

    shapes, call = OPERATORS[name]
    tensors = [ms.Tensor(array) for array in inputs(shapes)]
    value = call(cpu_shim, *tensors)
    expected = wanted[f"{name}.value"]
    np.testing.assert_allclose(value.asnumpy(), expected, rtol=1e-5, atol=1e-5)
    if not tensors:
        return
    weights = ms.Tensor(direction(expected.shape))
    derive = ms.grad(lambda *t: (call(cpu_shim, *t) * weights).sum(), tuple(range(len(tensors))))
    gradients = derive(*tensors)
    for i, gradient in enumerate(gradients if isinstance(gradients, tuple) else (gradients,)):
        np.testing.assert_allclose(
            gradient.asnumpy(), wanted[f"{name}.gradient{i}"], rtol=1e-4, atol=2e-5, err_msg=f"input {i}"
        )


def test_every_function_has_a_case() -> None:
    """A function that comes to the shim without a case fails here."""
    import inspect

    from dreamcore.adapters.mindspore import cpu_shim

    functions = {n for n, f in inspect.getmembers(cpu_shim, inspect.isfunction) if f.__module__ == cpu_shim.__name__}
    public = {n for n in functions if not n.startswith("_")} - {"install", "install_in_mindone"}
    assert public == {re.split(r"[ ,]", name)[0] for name in OPERATORS}


def test_nothing_is_installed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore import Tensor, mint

    from dreamcore.adapters.mindspore import cpu_shim

    def found() -> Any:
        cells = [cell.construct for cell in (mint.nn.Conv2d, mint.nn.LayerNorm, mint.nn.Embedding)]
        return {**vars(mint), **vars(mint.nn.functional)}, cells, Tensor.repeat_interleave

    before = found()
    monkeypatch.setattr(cpu_shim.ms, "get_context", lambda name: "Ascend")
    assert cpu_shim.install() is False
    assert before == found()
    dispatch, gated = SimpleNamespace(scaled_dot_product_attention=len), SimpleNamespace(construct=len)
    attention = SimpleNamespace(math_attention_op=len)
    cpu_shim.install_in_mindone(dispatch, SimpleNamespace(GEGLU=gated), SimpleNamespace(Attention=attention))
    assert dispatch.scaled_dot_product_attention is gated.construct is attention.math_attention_op is len


def test_the_shim_is_all_in_one_module() -> None:
    """No other module of the adapter asks for the CPU to replace an operator."""
    folder = ROOT / "adapters" / "mindspore"
    others = [f for f in folder.glob("*.py") if f.name != "cpu_shim.py"]
    assert len(others) > 5
    assert not [f.name for f in others if re.search(r"mint\S* = |\.construct = ", f.read_text())]
