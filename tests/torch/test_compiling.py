"""What `compile` compiles: each network once, whole, whatever changes from update to update.

A graph more would be minutes more at any update of a run on a GPU; on a CPU it shows as soon as on a card.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.protocol import Batch

from ..support import needs
from ..support.runs import prepared

pytestmark = needs.torch


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that were traced; nothing is compiled from them, which would take minutes."""
    import torch

    from dreamcore.adapters.torch import backend

    traced: list[Any] = []

    def kept(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    def compiled(self: Any) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=kept)

    torch._dynamo.reset()
    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    monkeypatch.setattr(backend, "check_compiler", lambda device: None)
    return traced


LORA: dict[str, Any] = {"use_lora": True, "rank": 2, "lora_dropout": 0.1}


@pytest.mark.parametrize(
    "settings",
    [
        LORA | {"lr_scheduler": "cosine", "gradient_accumulation_steps": 2},
        {"mixed_precision": "bf16"},
    ],
    ids=["rate, dropout, accumulation", "16 bits"],
)
def test_a_network_is_one_graph_and_is_traced_once(
    settings: dict[str, Any], tiny_model: Path, photos: Path, tmp_path: Path, graphs: list[Any]
) -> None:
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path, stack, compile=True, **settings)
        rates = [run.resolved.rates.at(update) for update in range(3)]
        for update, lr in enumerate(rates):
            run.backend.train_step(run.batcher.micro_batches(update), lr)
            assert len(graphs) == 1, f"update {update}"
        if "lr_scheduler" in settings:
            assert len({lr["unet"] for lr in rates}) == 3


def test_further_shapes_share_one_graph(tiny_model: Path, photos: Path, tmp_path: Path, graphs: list[Any]) -> None:
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path, stack, compile=True, use_lora=True, rank=2)
        (batch,), lr = run.batcher.micro_batches(0), run.resolved.rates.at(0)

        def cut(height: int, width: int) -> Batch:
            return replace(batch, x=batch.x[:, :, :height, :width], target=batch.target[:, :, :height, :width])

        run.backend.train_step([cut(8, 8)], lr)
        run.backend.train_step([cut(8, 4)], lr)
        assert len(graphs) == 2
        for height, width in ((4, 8), (6, 4), (8, 8)):
            run.backend.train_step([cut(height, width)], lr)
        assert len(graphs) <= 3, "sizes, and at most which of them are equal, but not each anew"
