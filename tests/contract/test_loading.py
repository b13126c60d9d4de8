"""Models that are not as they should be are refused by name before training; odd but whole ones are read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.errors import ConfigError
from dreamcore.formats.weight_files import choose_weights
from dreamcore.hub import models as hub
from dreamcore.models.folder import ModelFolder

from ..support.runs import PRIOR, numbers, small_run
from ..support.tiny import in_one_file

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rename(file: Path, change: Any) -> None:
    save_file(change(dict(load_file(file))), file, metadata={"format": "pt"})


def without(name: str) -> Any:
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (UNET, without("conv_in.weight"), r"missing keys.*conv_in\.weight"),
        (UNET, lambda t: {**t, "extra": t["conv_in.bias"]}, "unexpected keys.*extra"),
        (UNET, lambda t: {**t, "conv_in.bias": t["conv_in.bias"][:3]}, r"conv_in\.bias"),
        (TEXT, without("text_model.final_layer_norm.weight"), r"final_layer_norm\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    file: str, change: Any, words: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    rename(model / file, change)
    with pytest.raises(ConfigError, match=words):
        small_run(model, photos, tmp_path / "out")


def test_a_tokenizer_in_one_file(model: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """As transformers 5 saves it: the same words, those of class images and of warnings too."""
    in_one_file(model / "tokenizer")
    settings = PRIOR | {"instance_prompt": "a photo of zwx dog"}
    run = small_run(model, photos, tmp_path / "one", **settings)
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "two", **settings))
    assert "'zwx' splits into 3 tokens" in (tmp_path / "one" / "log.txt").read_text()


def test_position_numbers_of_old_files_are_no_weights(
    model: Path, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    import numpy as np

    ids = np.arange(77, dtype=np.int64)[None]
    rename(model / TEXT, lambda t: {**t, "text_model.embeddings.position_ids": ids})
    run = small_run(model, photos, tmp_path / "a")
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "b"))


def test_a_text_encoder_without_its_published_prefix_is_read(
    model: Path, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """As transformers 5 writes it; elsewhere the whole text encoder would silently be random."""
    rename(model / TEXT, lambda t: {k.removeprefix("text_model."): v for k, v in t.items()})
    run = small_run(model, photos, tmp_path / "a")
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "b"))


def test_the_autoencoders_old_attention_names(model: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """As files of 2022 have them."""

    def old(tensors: dict[str, Any]) -> dict[str, Any]:
        for new, name in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            tensors = {k.replace(f".{new}.", f".{name}."): v for k, v in tensors.items()}
        return tensors

    before = load_file(model / VAE).keys()
    rename(model / VAE, old)
    assert load_file(model / VAE).keys() != before
    run = small_run(model, photos, tmp_path / "a")
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "b"))


def test_a_variant_is_read_and_written_plain(model: Path, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    for name in (UNET, TEXT, VAE):
        file = model / name
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(ConfigError, match=r"no weights; there is variant fp16 \(--variant\)"):
        small_run(model, photos, tmp_path / "a")
    run = small_run(model, photos, tmp_path / "a", variant="fp16")
    assert numbers(run) == numbers(small_run(tiny_model, photos, tmp_path / "b"))
    assert (run.folder / TEXT).is_file(), "the finished model has no variant"
    assert load_file(run.folder / TEXT).keys() == load_file(tiny_model / TEXT).keys()


def test_every_component_is_carried_over(model: Path, photos: Path, tmp_path: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (model / "model_index.json").write_text(json.dumps(index))
    (model / "feature_extractor").mkdir()
    (model / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    run = small_run(model, photos, tmp_path / "out")
    assert (run.folder / "feature_extractor" / "preprocessor_config.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: (m / "model_index.json").unlink(), r"not a diffusers model \(it has no model_index.json\)"),
        (lambda m: (m / "model_index.json").write_text("{"), "cannot be read as JSON"),
        (lambda m: (m / "model_index.json").write_text('{"_class_name": "OtherPipeline"}'), "'OtherPipeline' is not"),
        (lambda m: (m / "unet" / "config.json").unlink(), r"unet/config\.json is missing"),
        (lambda m: (m / UNET).unlink(), "unet: no weights"),
        (lambda m: shutil.rmtree(m / "scheduler"), r"scheduler/config\.json is missing"),
    ],
)
def test_a_folder_that_is_no_model(spoil: Any, words: str, model: Path, photos: Path, tmp_path: Path) -> None:
    spoil(model)
    with pytest.raises(ConfigError, match=words):
        small_run(model, photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 30}, "resolution: 30 is not a multiple of 4.*; 32 would be"),
        ({"instance_data_dir": "/nowhere"}, "instance_data_dir: /nowhere"),
        ({"device": "abacus"}, "device: 'abacus'"),
        ({"mixed_precision": "fp16", "device": "cpu"}, "mixed_precision: fp16 needs"),
        ({"lora_layers": ["no_such"], "use_lora": True}, "lora_layers: no_such"),
        ({"revision": "main"}, "revision: 'main' was given"),
        ({"variant": "fp8"}, "no weights of variant 'fp8'"),
        ({"backend": "jax"}, "backend: 'jax' is not known"),
        ({"report_to": "tensorbord"}, "did you mean tensorboard"),
        ({"validation_data_dir": "/nowhere"}, "validation_data_dir: /nowhere"),
    ],
)
def test_settings_refused_before_training(
    settings: dict[str, Any], words: str, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        small_run(tiny_model, photos, tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_an_unreadable_photograph_is_named(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    victim = sorted(folder.iterdir())[2]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(ConfigError, match=victim.name):
        small_run(tiny_model, folder, tmp_path / "out")


def test_the_output_cannot_be_the_photographs(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    with pytest.raises(ConfigError, match="is instance_data_dir as well"):
        small_run(tiny_model, folder, folder)


def test_min_snr_without_a_value_is_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rescale_betas_zero_snr": True}))
    with pytest.raises(ConfigError, match="snr_gamma: this model predicts noise"):
        small_run(model, photos, tmp_path / "out", snr_gamma=5.0)


def test_warnings_say_what_is_cut_and_what_splits(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = "a photo of zwx dog " + "in snow " * 60
    small_run(
        tiny_model,
        photos,
        tmp_path,
        instance_prompt=long.strip(),
        resolution=64,
        with_prior_preservation=True,
        class_prompt="a photo of dog in snow",
        num_class_images=1,
        prior_num_inference_steps=1,
        max_train_steps=1,
    )
    said = " ".join(capfd.readouterr().err.split())
    assert re.search(
        r"instance_prompt: prompt of \d+ tokens, of which the text encoder sees 75; cut off: '[ insow]+…'", said
    )
    assert "'zwx' splits into 3 tokens" in said
    assert "made for 32×32" in said


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], None, ["model.safetensors"]),
        (["pytorch_model.bin", "model.fp16.safetensors"], None, ["pytorch_model.bin"]),
        (["model.fp16.safetensors", "model.safetensors"], "fp16", ["model.fp16.safetensors"]),
        (
            [
                "diffusion_pytorch_model-00002-of-00002.safetensors",
                "diffusion_pytorch_model-00001-of-00002.safetensors",
            ],
            None,
            [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)],
        ),
        (["model-00001-of-00002.fp16.safetensors"], "fp16", ["model-00001-of-00002.fp16.safetensors"]),
        (["optimizer.bin", "flax_model.msgpack", "config.json"], None, []),
    ],
)
def test_which_files_are_the_weights(names: list[str], variant: str | None, chosen: list[str]) -> None:
    assert choose_weights(names, variant) == chosen


def test_a_vanished_id_names_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    def vanished(*_: Any, **__: Any) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(HfApi, "model_info", vanished)
    with pytest.raises(ConfigError, match="no such model.*stable-diffusion-v1-5/stable-diffusion-v1-5"):
        ModelFolder.open("runwayml/stable-diffusion-v1-5")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="the Hub cannot be reached.*Offline, give the path"):
        ModelFolder.open("someone/some-model")


def test_only_one_form_of_the_weights_is_fetched() -> None:
    files = ["model_index.json", "README.md", "v1-5.ckpt", "unet/config.json", "tokenizer/merges.txt"]
    weights = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"]
    variants = ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.fp16.bin"]
    needed = set(hub.needed_files(files + weights + variants, None))
    assert needed == {"model_index.json", "unet/config.json", "tokenizer/merges.txt", weights[1]}
    assert variants[0] in hub.needed_files(files + weights + variants, "fp16")


def test_a_backend_that_is_not_installed_says_how(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("dreamcore.backends.installed.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"backend: torch is not installed; pip install '\.\[torch\]' in a clone"):
        small_run(tiny_model, photos, tmp_path, backend="torch")
    with pytest.raises(ConfigError, match="backend: none is installed"):
        small_run(tiny_model, photos, tmp_path)


def test_several_backends_are_asked_about(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("dreamcore.backends.installed.entry_points", lambda: {"torch": "a:b", "elsewhere": "c:d"})
    monkeypatch.setattr("dreamcore.backends.installed.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"several are installed \(torch, elsewhere\); choose one with --backend"):
        small_run(tiny_model, photos, tmp_path)
