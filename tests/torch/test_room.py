"""A text encoder finds the device free of the denoiser, which comes back for its own work."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..support import needs
from ..support.runs import prepared

pytestmark = needs.torch


@pytest.mark.parametrize("lora", [True, False])
def test_the_denoiser_makes_room_for_words(
    lora: bool, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights go, for their files bring them back; those that train go to the host."""
    with ExitStack() as stack:
        more = {"use_lora": True, "rank": 2} if lora else {}
        found = prepared(tiny_model, photos, tmp_path, stack, **more)
        backend: Any = found.backend
        moved: list[tuple[Any, bool]] = []
        monkeypatch.setattr(backend, "on_device", True)
        monkeypatch.setattr(backend.residence, "_move", lambda network, away=False: moved.append((network, away)))
        weight, own = backend.denoiser.conv_in.weight, not lora
        before = weight.detach().clone()
        assert weight.untyped_storage().nbytes() == weight.nbytes
        backend.set_prompts(["a cat", "a dog"])
        assert moved == [(backend.denoiser, True)] * own
        assert (weight.untyped_storage().nbytes() == weight.nbytes) is own
        assert not {"text_encoder", "vae"} & backend.residence.bytes.keys()
        backend.train_step(found.batcher.micro_batches(0), found.resolved.rates.at(0))
        assert moved == [(backend.denoiser, True), (backend.denoiser, False)] * own
        assert lora == bool((weight == before).all())
