"""Zeros in the place of one text encoder's answer (`clip_l_dropout_rate` and its like), on every backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder

from ..support.runs import PRIOR, prepared, small_run

RATES: dict[str, Any] = {"clip_l_dropout_rate": 0.5, "clip_g_dropout_rate": 0.0, "t5_dropout_rate": 0.7}
CAPTIONS: dict[str, Any] = {"caption_dropout": 0.3, "tokenizer_max_length": 20, "max_sequence_length": 24}


def test_what_the_denoiser_is_told(family_models: Callable[[str], Path], photos: Path, tmp_path: Path) -> None:
    """The other encoders' numbers to the bit, and zeros in a dropped one's places of words and pooled embedding; class
    images keep all their words."""
    model = family_models("sd3")
    folder = ModelFolder.open(str(model))
    (first, second) = (int(folder.config(n)["hidden_size"]) for n in ("text_encoder", "text_encoder_2"))
    pooled = int(folder.config("text_encoder")["projection_dim"])
    with ExitStack() as stack:
        run = prepared(model, photos, tmp_path / "out", stack, **RATES, **CAPTIONS, **PRIOR, train_batch_size=24)
        batch, kinds = run.batcher.update(0)[0][0], run.batcher.update(0)[1]
        text: Any = run.backend.text  # type: ignore[attr-defined]
        host: Any = run.backend.to_host  # type: ignore[attr-defined]
        whole = [host(t) for t in text.condition(batch.prompt).values(folder.family).values()]
        told = [host(t) for t in text.condition(batch.prompt, batch.dropped).values(folder.family).values()]
    assert batch.dropped is not None and batch.dropped.shape == (48, 3)
    drops = batch.dropped[kinds == 0]
    assert not batch.dropped[kinds == 1].any() and not drops[:, 1].any()
    assert 6 <= drops[:, 0].sum() <= 18 and 11 <= drops[:, 2].sum() <= 22
    assert len({tuple(row) for row in drops.tolist()}) == 4, "each by itself"
    words, pools = whole
    for row, (one, _, t5) in enumerate(batch.dropped):
        words[row, :20, :first] *= not one
        words[row, 20:] *= not t5
        pools[row, :pooled] *= not one
    assert words.shape[1] == 44 and words[:, :20, first : first + second].any((1, 2)).all()
    for mine, wanted in zip(told, (words, pools), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_encoders_that_train_are_dropped_alike(
    family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    """Factors that have learned nothing answer as the encoders do."""
    lora = {"use_lora": True, "train_batch_size": 4, "max_train_steps": 1, **CAPTIONS}
    model, losses = family_models("sd3"), []
    for more in (RATES, RATES | {"train_text_encoder": True}):
        losses.append(small_run(model, photos, tmp_path / str(len(losses)), **lora, **more).metrics[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_one_text_encoder_has_no_other_beside_it(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clip_l_dropout_rate=0.5: acts only on models with several text encoders"):
        small_run(tiny_model, photos, tmp_path, clip_l_dropout_rate=0.5)
