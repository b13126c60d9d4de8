"""Every family on every backend that runs it; on the others a refusal in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from dreamcore.backends.installed import RANK_VARIABLES, installed_backends
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.data.image_set import CLASS, INSTANCE
from dreamcore.errors import ConfigError
from dreamcore.families import FAMILIES, REFUSED
from dreamcore.models.folder import ModelFolder
from dreamcore.training.setup import prepare

from ..support.runs import PRIOR, configuration, numbers, small_run
from ..support.tiny import draw_photos
from ..support.tiny_families import WRITERS
from ..support.tiny_models import EVERY

BACKEND = installed_backends()[0]
PIPELINES = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline"}
PIPELINES |= {"if1": "IFPipeline", "if2": "IFSuperResolutionPipeline"}
NEWER = {
    "FluxKontextPipeline": "kontext",
    "Flux2KleinPipeline": "klein",
    "Flux2Pipeline": "dev",
    "Lumina2Pipeline": "lumina2",
    "QwenImagePipeline": "qwen-image",
    "ZImagePipeline": "z-image",
    "SanaPipeline": "sana",
    "ChromaPipeline": "chroma",
    "HiDreamImagePipeline": "hidream",
    "Krea2Pipeline": "krea2",
    "ErnieImagePipeline": "ernie-image",
}
"""Families whose runs are tested beside diffusers' pipelines, in `tests/torch`."""
RUNS = [name for name, pipeline in PIPELINES.items() if BACKEND in FAMILIES[pipeline].backends]
FEW = [name for name in RUNS if not name.startswith("if")] if BACKEND != "mindspore" else []
"""Families whose runs are tested in every respect (`test_deepfloyd_if.py` has what is other there); on MindSpore, slow
on a CPU, one is broken off here, and `tests/crossing` compares all of them with PyTorch's."""
LOOKING = {"validation_prompt": "a dog", "num_validation_images": 1, "validation_num_inference_steps": 2}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"use_ema": True},
    "lora": {"use_lora": True, "rank": 2, "lora_alpha": 6, "train_text_encoder": True, "learning_rate": 1e-2},
}
Models = Callable[[str], Path]


def test_every_backend_runs_a_family_or_says_why_not() -> None:
    for family in FAMILIES.values():
        assert {*family.backends} | family.absent.keys() == {*RANK_VARIABLES}, family.name
        assert not {*family.backends} & family.absent.keys(), family.name


def test_every_family_has_a_model() -> None:
    assert PIPELINES.keys() == WRITERS.keys()
    assert {*PIPELINES.values()} | NEWER.keys() == FAMILIES.keys() - {"StableDiffusionPipeline"}
    assert {*NEWER.values()} <= EVERY.keys()


def test_what_no_piece_suffices_for_is_refused_with_its_reason(family_models: Models, tmp_path: Path) -> None:
    assert not REFUSED.keys() & FAMILIES.keys()
    folder = Path(shutil.copytree(family_models("sdxl"), tmp_path / "model"))
    for pipeline, reason in REFUSED.items():
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline}))
        with pytest.raises(ConfigError) as refused:
            ModelFolder.open(str(folder))
        assert f"'{pipeline}' is not supported ({reason}); expected one of" in str(refused.value)


@pytest.mark.parametrize("family", PIPELINES)
def test_what_is_absent_is_refused_in_words(
    family: str, family_models: Models, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = PIPELINES[family]
    if family in RUNS:
        monkeypatch.setitem(FAMILIES, name, replace(FAMILIES[name], backends=("torch2",)))
    words = f"does not run on {BACKEND}.*; use --backend torch.*or a model that {BACKEND} runs: Stable Diffusion 1"
    with pytest.raises(ConfigError, match=words) as refused:
        small_run(family_models(family), photos, tmp_path / "out")
    assert FAMILIES[name].absent.get(BACKEND, "") in str(refused.value)
    assert not (tmp_path / "out" / "config.yaml").exists()


@pytest.mark.parametrize("method", METHODS if BACKEND != "mindspore" else ["lora"])
@pytest.mark.parametrize("family", FEW or ["sd3"])
def test_a_run_broken_off_and_gone_on_with(
    family: str, method: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """Class images, validation, checkpoints, export: the same run as without the break."""
    model = family_models(family)
    settings = METHODS[method] | PRIOR | LOOKING
    settings |= {"validation_data_dir": str(photos), "validation_steps": 2, "center_crop": None, "random_flip": True}
    settings |= {"checkpointing_steps": 2, "class_data_dir": str(tmp_path / "classes")}
    whole = small_run(model, photos, tmp_path / "whole", **settings)
    broken = tmp_path / "broken" / whole.folder.name  # which a LoRA file bears
    shutil.copytree(whole.folder, broken)
    shutil.rmtree(broken / "checkpoint-4")
    for name in ("model_index.json", "pytorch_lora_weights.safetensors"):
        (broken / name).unlink(missing_ok=True)
    resumed = small_run(model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    weights = [f for f in whole.folder.rglob("*.safetensors") if "checkpoint-2" not in f.parts]
    assert weights
    for file in weights:
        mine, theirs = load_file(file), load_file(resumed.folder / file.relative_to(whole.folder))
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key], err_msg=f"{file}: {key}")
    assert len(list((whole.folder / "samples").glob("*.png"))) == 3
    told = json.loads((whole.folder / "report_data.json").read_text())["timing"]
    log = (whole.folder / "log.txt").read_text()
    for stage in ("generating class images", "encoding prompts", "encoding images", "training"):
        assert float(told[f"peak memory, {stage}"].split()[0]) > 0.05
        assert f"peak memory while {stage}: " in log


@pytest.mark.skipif("sd3" not in RUNS, reason="a family that this backend does not run")
def test_words_wider_than_the_denoiser_takes_are_cut(family_models: Models, photos: Path, tmp_path: Path) -> None:
    """CLIP's words beside each other are 80 wide: filled up to 96 with zeros, cut to 48, the same but for that."""
    wide, narrow = family_models("sd3"), Path(shutil.copytree(family_models("sd3"), tmp_path / "narrow"))
    for name, change in (
        ("transformer/config.json", {"joint_attention_dim": 48}),
        ("model_index.json", {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}),
    ):
        values = json.loads((narrow / name).read_text())
        (narrow / name).write_text(json.dumps(values | change))
    file = narrow / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["context_embedder.weight"] = np.ascontiguousarray(weights["context_embedder.weight"][:, :48])
    save_file(weights, file, metadata={"format": "pt"})
    words = []
    for number, model in enumerate((wide, narrow)):
        with ExitStack() as stack:
            config = configuration(model, photos, tmp_path / f"{number}", drop_t5=True if number == 0 else None)
            backend: Any = prepare(config, stack).backend
            words.append(np.asarray(backend.text.embeddings(["a photo of sks dog"]).prompt_embeds))
    assert words[0].shape == (1, 77 + 256, 96) and (words[0][:, :77, 80:] == 0).all()
    np.testing.assert_array_equal(words[1], words[0][..., :48])
    settings = {"use_lora": True, "rank": 2, "train_text_encoder": True, "max_train_steps": 1}
    assert small_run(narrow, photos, tmp_path / "run", **settings).updates == 1


@pytest.mark.parametrize("family", FEW)
def test_lora_and_its_training_show_in_the_pictures(
    family: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    model = family_models(family)
    run = small_run(model, photos, tmp_path / "run", **METHODS["lora"] | {"learning_rate": 0.05})
    trained = pictures(model, tmp_path / "trained", lora=str(run.folder))
    assert np.abs(trained - pictures(model, tmp_path / "base")).max() > 8
    alone = pictures(model, tmp_path / "alone", lora=str(run.folder), batch_size=1)
    assert np.abs(trained - alone).max() <= 1


def pictures(model: Path, output: Path, **settings: Any) -> Any:
    given = {"pretrained_model_name_or_path": str(model), "prompt": "a sks dog", "num_images": 2, "seed": 3}
    given |= {"num_inference_steps": 3, "contact_sheet": False, "output_dir": str(output), "height": 32, "width": 32}
    return np.stack([np.asarray(Image.open(f)) for f in generate(GenerateConfig.from_mapping(given | settings))]) + 0.0


@pytest.mark.parametrize("family", FEW)
def test_every_tokenizer_warns_of_what_it_cuts(
    family: str, family_models: Models, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = "a photo of sks dog " + "in snow " * 60
    small_run(family_models(family), photos, tmp_path, instance_prompt=long.strip(), max_train_steps=1)
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("of which the text encoder sees 75; cut off:") == 1, "what two tokenizers agree on is said once"


@pytest.mark.parametrize("family", [f for f in FEW if f == "sdxl"])
def test_every_sample_brings_its_own_size_and_crop(family: str, family_models: Models, tmp_path: Path) -> None:
    """Class images too, which are no part of the photographs; a mirrored sample's corner is of the mirrored image."""
    photos = draw_photos(tmp_path / "photos", count=2, size=64)
    classes = draw_photos(tmp_path / "classes", count=2, size=40, seed=4)
    settings = PRIOR | {"class_data_dir": str(classes), "num_class_images": 2, "train_batch_size": 2}
    settings |= {"center_crop": None, "random_flip": True, "max_train_steps": 20}
    with ExitStack() as stack:
        run = prepare(configuration(family_models(family), photos, tmp_path / "out", **settings), stack)
        seen: dict[int, list[tuple[int, ...]]] = {INSTANCE: [], CLASS: []}
        for update in range(20):
            (batch,), kinds = run.batcher.update(update)
            for kind, ids in zip(kinds, batch.extra["time_ids"], strict=True):
                seen[int(kind)].append(tuple(ids.astype(int)))
    sizes = {INSTANCE: {(64, 64), (80, 64)}, CLASS: {(40, 40), (50, 40)}}
    for kind, ids in seen.items():
        assert {i[:2] for i in ids} == sizes[kind]
        assert {i[4:] for i in ids} == {(32, 32)}
        assert all(0 <= top <= 8 and left == 0 for _, _, top, left, _, _ in ids)
        assert len({i[2] for i in ids}) > 2, "crops are drawn at random"


@pytest.mark.parametrize("family", FEW)
def test_an_autoencoder_of_its_own(family: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    """Other latents, and the finished pipeline holds it."""
    model = family_models(family)
    other = tmp_path / "other"
    shutil.copytree(model / "vae", other / "vae")
    config = json.loads((other / "vae" / "config.json").read_text())
    config["scaling_factor"] *= 2
    (other / "vae" / "config.json").write_text(json.dumps(config))
    plain = small_run(model, photos, tmp_path / "a", max_train_steps=1)
    run = small_run(
        model, photos, tmp_path / "b", max_train_steps=1, pretrained_vae_model_name_or_path=str(other / "vae")
    )
    assert run.metrics[0]["loss"] != plain.metrics[0]["loss"]
    assert json.loads((run.folder / "vae" / "config.json").read_text()) == config
    mine = pictures(run.folder, tmp_path / "pictures")
    theirs = pictures(model, tmp_path / "more", pretrained_vae_model_name_or_path=str(other))
    assert mine.shape == theirs.shape


@pytest.mark.parametrize(
    ("name", "words"),
    [("/nowhere", "no such folder"), ("photos", "no AutoencoderKL"), ("unet", "holds a UNet2DConditionModel")],
)
def test_an_autoencoder_that_is_none(name: str, words: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    place = {"photos": str(photos), "unet": str(tiny_model / "unet")}.get(name, name)
    with pytest.raises(ConfigError, match=f"pretrained_vae_model_name_or_path: .*{words}"):
        small_run(tiny_model, photos, tmp_path, pretrained_vae_model_name_or_path=place)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_folder_says_what_it_is(family: str, family_models: Models) -> None:
    model = ModelFolder.open(str(family_models(family)))
    assert model.family is FAMILIES[PIPELINES[family]]
    assert model.native_resolution % model.size_step == 0
