"""An update waits for no number: nothing is copied to the host before `metrics` asks, and nothing is built twice.

On a CPU a copy costs nothing, so it is not timed but caught: by PyTorch's operators that need a value on the host, and
by the methods of a tensor that hand one out without an operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dreamcore.training.setup import Prepared, prepare

from ..support import needs
from ..support.runs import PRIOR, configuration

pytestmark = needs.torch

METHODS = (
    "item",
    "cpu",
    "numpy",
    "tolist",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__array__",
    "__contains__",
)
OPERATORS = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
    *("nonzero", "masked_select", "unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"),
}
"""Operators whose result, or whose shape, the host must wait for."""

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "prior, accumulation, text encoder": {
        **PRIOR,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "train_text_encoder": True,
        "snr_gamma": 5.0,
        "use_ema": True,
    },
    "lora with dropout": {"use_lora": True, "lora_dropout": 0.2, "gradient_checkpointing": True},
    "bf16 without clipping": {"mixed_precision": "bf16", "max_grad_norm": 0, "channels_last": True},
    "fp16": {"mixed_precision": "fp16"},
}


class Copied(AssertionError):
    """A value went to the host."""


@contextmanager
def nothing_copied() -> Iterator[None]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Guard(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ in OPERATORS:
                raise Copied(str(func))
            if func.overloadpacket.__name__ == "index" and any(_is_mask(i) for i in args[1]):
                raise Copied("indexing by a mask")
            return func(*args, **(kwargs or {}))

    def _is_mask(index: Any) -> bool:
        return index is not None and index.dtype in (torch.bool, torch.uint8)

    def refuse(name: str) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            raise Copied(f"Tensor.{name}")

        return method

    with pytest.MonkeyPatch.context() as patched, Guard():
        for name in METHODS:
            patched.setattr(torch.Tensor, name, refuse(name))
        yield


@pytest.fixture
def prepared(
    request: pytest.FixtureRequest, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Prepared]:
    from dreamcore.adapters.torch import backend, precision

    monkeypatch.setattr(backend, "check_precision", lambda name, *_: precision.DTYPES[name])  # fp16 on this CPU
    with ExitStack() as stack:
        yield prepare(configuration(tiny_model, photos, tmp_path, **CASES[request.param]), stack)


@pytest.mark.parametrize("prepared", CASES, indirect=True)
def test_the_step_copies_nothing_to_the_host(prepared: Prepared) -> None:
    for update in range(3):
        batches = prepared.batcher.micro_batches(update)
        with nothing_copied():
            prepared.backend.train_step(batches, prepared.resolved.rates.at(update))
    results = prepared.backend.metrics()
    assert len(results) == 3
    assert all(r.grad_norm > 0 for r in results)


@pytest.mark.parametrize("prepared", ["full", "lora with dropout"], indirect=True)
def test_the_step_encodes_nothing_again(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither images nor words: both were encoded before the first update."""
    backend: Any = prepared.backend

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("encoded in the middle of training")

    for network in (backend.vae, *(part.network for part in backend.text.encoders)):
        monkeypatch.setattr(network, "forward", refuse)
    monkeypatch.setattr(backend.vae, "encode", refuse)
    for update in range(2):
        backend.train_step(prepared.batcher.micro_batches(update), prepared.resolved.rates.at(update))


def test_the_guard_catches_what_it_should() -> None:
    import torch

    value = torch.ones(3)
    for copy in (
        lambda: value[0].item(),
        lambda: float(value[0]),
        lambda: bool(value[0] > 0),
        lambda: value.numpy(),
        lambda: value[value > 0],
        lambda: torch.equal(value, value),
        lambda: torch.nonzero(value),
        lambda: torch.ops.aten._local_scalar_dense.default(value[0]),
    ):
        with pytest.raises(Copied), nothing_copied():
            copy()
