"""Training that begins with a LoRA file's factors."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import read_lora
from dreamcore.models.folder import ModelFolder
from dreamcore.training import setup

from ..support.lora import ENCODER, UNET, folded, write_lora
from ..support.runs import configuration, prepared

LAYERS = [f"{UNET}.to_q", f"{UNET}.to_out.0", ENCODER.replace("self_attn", "mlp.fc1")]
LORA: dict[str, Any] = {"use_lora": True, "train_text_encoder": True}


@pytest.fixture(scope="module")
def file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of rank 2 and alpha 0.5."""
    return write_lora(tiny_model, tmp_path_factory.mktemp("lora") / "first.safetensors", LAYERS, alpha=0.5)


def test_before_the_first_update_it_answers_as_with_the_file(
    tiny_model: Path, photos: Path, file: Path, tmp_path: Path
) -> None:
    """Of another rank and another scale than the file's, beside a model into which it is folded; then it trains."""
    with ExitStack() as stack:
        given = LORA | {"rank": 4, "lora_alpha": 12.0}
        begun = prepared(tiny_model, photos, tmp_path / "a", stack, **given, init_lora=str(file), use_ema=True)
        batches, _ = begun.batcher.update(0, 0)
        losses = [begun.backend.loss(batch) for batch in batches]
        model = folded(tiny_model, tmp_path / "folded", {file: 1.0})
        other = prepared(model, photos, tmp_path / "b", stack, **LORA, latent_cache_dir=None)
        np.testing.assert_allclose(losses, [other.backend.loss(batch) for batch in batches], rtol=1e-5)
        before = begun.backend.trained_lora(averaged=True)
        assert before is not None and (before.rank, before.alpha) == (4, 12.0)
        first = before.factors[f"{LAYERS[0]}.lora_B.weight"].copy()
        begun.backend.train_step(batches, {"unet": 1e-3, "text_encoder": 1e-3})
        begun.backend.metrics()
        after = begun.backend.trained_lora(averaged=False)
        assert after is not None
        last = after.factors[f"{LAYERS[0]}.lora_B.weight"]
        assert not first[:, 2:].any() and last[:, 2:].all(), "what was padded trains too"


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(setup, "load_suggested", load)


def test_a_smaller_rank_and_what_is_no_file_are_refused_first(
    tiny_model: Path, photos: Path, file: Path, tmp_path: Path, nothing_loads: None
) -> None:
    inside = tmp_path / "out" / "out.safetensors"
    inside.parent.mkdir()
    shutil.copyfile(file, inside)
    for given, words in {
        ("rank", 1): "has rank 2, and this run's rank is 1; .* dreambooth convert resize .* NEW_FILE --rank 1",
        ("init_lora", str(tmp_path)): "no LoRA file there",
        ("init_lora", str(inside)): "where a run in output_dir writes its results",
        ("use_lora", False): "acts only with use_lora",
    }.items():
        settings = {"use_lora": True, "init_lora": str(file), **dict([given])}
        with pytest.raises(ConfigError, match=f"^init_lora.*{words}"), ExitStack() as stack:
            prepared(tiny_model, photos, tmp_path / "out", stack, **settings)


def test_the_rank_is_the_files(tiny_model: Path, photos: Path, file: Path, tmp_path: Path, nothing_loads: None) -> None:
    """Where the user gives none, whatever a preset suggests; a run's folder is its file."""
    (tmp_path / "run").mkdir()
    shutil.copyfile(file, tmp_path / "run" / "pytorch_lora_weights.safetensors")
    for place in (file, tmp_path / "run"):
        config = configuration(tiny_model, photos, tmp_path / "out", use_lora=True, init_lora=str(place))
        with ExitStack() as stack:
            assert setup.begin(config.suggest({"rank": 8}), stack).config.rank == 2
    with ExitStack() as stack:
        config = configuration(tiny_model, photos, tmp_path / "out", use_lora=True, init_lora=str(file), rank=8)
        assert setup.begin(config, stack).config.rank == 8


def test_layers_that_would_be_lost_are_refused(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    linear = [f"{UNET[:-6]}.ff.net.2", f"{UNET}.to_q"]
    encoder = [f"{UNET}.to_q", *LAYERS[2:]]
    for layers, given, words in (
        (
            linear,
            {},
            r"net\.2: this run would not train it, .* lost; give lora_layers to_q,to_k,to_v,to_out\.0,net\.2$",
        ),
        (
            linear,
            {"lora_layers": ["to_k"]},
            r"to_q: this .* it, nor 1 more, .*; give lora_layers to_k,net\.2,to_q$",
        ),
        (encoder, {}, rf"{encoder[1]}: this run would not train it, and they would be lost; give train_text_encoder$"),
    ):
        file = write_lora(tiny_model, tmp_path / "other.safetensors", layers)
        config = configuration(tiny_model, photos, tmp_path / "out", use_lora=True, rank=2, **given)
        lora = Lora.of(config, ModelFolder.open(str(tiny_model)))
        trained = lora.chosen("unet", [UNET.partition(".")[2] + f".{layer}" for layer in ("to_q", "to_k")])
        with pytest.raises(ConfigError, match=f"^init_lora: .*{words}"):
            lora.first_factors(file, read_lora(file), {f"unet.{name}.lora_A.weight": (2, 32) for name in trained})
