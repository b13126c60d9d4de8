"""sd-scripts' files (arguments, data sets, prompts for sample images), and the command lines of its documents."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import TrainConfig
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError

from .test_kohya import OURS, config_of, started

DATA = """
[general]
enable_bucket = true
caption_extension = '.txt'
keep_tokens = 1

[[datasets]]
resolution = [512, 768]
batch_size = 4
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = 'HERE/hoge'
  class_tokens = 'hoge girl'
  num_repeats = 3

  [[datasets.subsets]]
  image_dir = 'HERE/fuga'
  class_tokens = 'fuga boy'
  SUBSET

  [[datasets.subsets]]
  is_reg = true
  image_dir = 'HERE/reg'
  class_tokens = 'human'
  keep_tokens = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hoge/a.png", "fuga/b.png", "reg/1.png", "reg/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "fuga/b.txt").write_text("a boy, smiling")
    return tmp_path


def data_file(folder: Path, subset: str = "", text: str = DATA) -> str:
    file = folder / "data.toml"
    file.write_text(text.replace("HERE", folder.as_posix()).replace("SUBSET", subset))
    return f"--dataset_config={file}"


def refused(*words: str, ours: tuple[str, ...] = OURS[:1]) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(*words, ours=ours)
    return str(caught.value)


def test_a_data_set(folder: Path) -> None:
    config = config_of(data_file(folder), "--train_batch_size=1", "--resolution=1024", ours=OURS[:1])
    assert config.concepts is not None
    assert [(c.instance_prompt, c.repeats, c.class_prompt) for c in config.concepts] == [
        ("hoge girl", 3, "human"), ("fuga boy", 1, "human"),
    ]  # fmt: skip
    assert {c.class_data_dir for c in config.concepts} == {str(folder / "reg")}
    assert (config.width, config.height, config.train_batch_size) == (512, 768, 4)
    assert config.use_captions and config.caption_source == "files" and config.keep_tags == 0
    assert config.aspect_ratio_buckets and config.num_class_images == 2
    assert config.bucket_shapes is not None and "768,512" in config.bucket_shapes.split(";")
    shuffled = config_of(data_file(folder), "--shuffle_caption", ours=OURS[:1])
    assert shuffled.shuffle_tags and shuffled.keep_tags == 2


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        ("flip_aug = true", "random_flip is off for"),
        ("keep_tokens = 5\n  shuffle_caption = true", "keep_tags is 2 for"),
        ("metadata_file = 'a.json'", "metadata_file: captions are read from NAME.txt"),
        ("color_aug = true", "color_aug: colours are not changed"),
        ("strange = 1", "strange: no option of a data set"),
        ("is_reg = 'perhaps'", "expected true or false"),
    ],
)
def test_what_subsets_cannot_have_alone(folder: Path, subset: str, said: str) -> None:
    message = refused(data_file(folder, subset))
    assert said in message and "dataset_config: " in message and "data.toml" in message


def test_data_sets_of_two_sizes_and_damaged_ones(folder: Path) -> None:
    second = "\n[[datasets]]\nresolution = 256\n[[datasets.subsets]]\nimage_dir = 'HERE/hoge'\nclass_tokens = 'x'\n"
    assert "is 512 for" in refused(data_file(folder, text=DATA + second))
    for text in ("datasets = 3", "[[datasets]]\nresolution = 512", "not toml", "[general]"):
        assert "dataset_config: " in refused(data_file(folder, text=text))
    assert "no such folder" in refused(data_file(folder, text=DATA.replace("HERE/fuga", "HERE/gone")))
    assert "given together with instance_data_dir" in refused(data_file(folder), ours=OURS)
    as_json = folder / "data.json"
    subset = {"image_dir": str(folder / "hoge"), "class_tokens": "hoge", "num_repeats": 5}
    as_json.write_text(json.dumps({"datasets": [{"resolution": 512, "subsets": [subset]}]}))
    config = config_of(f"--dataset_config={as_json}", ours=OURS[:1])
    assert (config.instance_prompt, config.repeats, config.resolution) == ("hoge", 5, 512)
    two = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'HERE/hoge'\nclass_tokens = 'x'\n"
    assert config_of(data_file(folder, text=two), "--dataset_repeats=7", ours=OURS[:1]).repeats == 7


ARGUMENTS = """
[model_arguments]
pretrained_model_name_or_path = "m"
v2 = false
[additional_network_arguments]
network_module = "networks.lora"
network_dim = 16
network_args = []
network_train_unet_only = true
[optimizer_arguments]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.1", "betas=(0.9, 0.95)"]
learning_rate = 1e-4
text_encoder_lr = [5e-5, 5e-5]
lr_scheduler_type = ""
max_train_epochs = 4
[others]
keep_tokens_separator = ""
huber_schedule = "snr"
dynamo_backend = "no"
wandb_api_key = ""
huggingface_token = "hf_secret"
"""


def test_a_file_of_arguments(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(ARGUMENTS)
    config = started("train_network.py", f"--config_file={file}", *OURS[1:], "--network_dim=8", "--learning_rate=2e-4")
    assert (config.rank, config.learning_rate, config.adam_beta2) == (8, 2e-4, 0.95)
    assert (config.num_train_epochs, config.max_train_steps, config.train_text_encoder) == (4, None, False)
    assert config.token == "hf_secret" and "hf_secret" not in repr(config) + repr(config.notes) + str(config.given())
    file.write_text(ARGUMENTS.replace('wandb_api_key = ""', 'wandb_api_key = "top_secret"'))
    with pytest.raises(ConfigError, match="WANDB_API_KEY") as caught:
        started("train_network.py", f"--config_file={file}", *OURS[1:])
    assert "top_secret" not in str(caught.value)


def sampled(tmp_path: Path, text: str, *words: str, name: str = "prompts.txt") -> TrainConfig:
    file = tmp_path / name
    file.write_text(text)
    return config_of(f"--sample_prompts={file}", "--resolution=512", *(words or ("--sample_every_n_steps=50",)))


LINE = "# comment\nsks dog --n low quality --w 512 --h 512 --d 1 --s 20 --l 7 --ss euler\n"


def test_a_prompt_for_samples(tmp_path: Path) -> None:
    config = sampled(tmp_path, LINE)
    assert (config.validation_prompt, config.validation_negative_prompt) == ("sks dog", "low quality")
    assert (config.validation_num_inference_steps, config.validation_guidance_scale) == (20, 7.0)
    assert (config.validation_scheduler, config.validation_steps, config.num_validation_images) == ("euler", 50, 1)
    every = "--sample_every_n_epochs=2"
    assert sampled(tmp_path, "dog", every, "--sample_sampler=k_euler").validation_scheduler == "euler"
    assert sampled(tmp_path, LINE, "--seed=1").validation_prompt is None  # without an interval none is drawn
    assert sampled(tmp_path, LINE, "--sample_at_first").validation_prompt == "sks dog"
    toml = "[prompt]\nscale = 3.0\n[[prompt.subset]]\nprompt = 'sks dog'\nwidth = 512\n"
    assert sampled(tmp_path, toml, name="prompts.toml").validation_guidance_scale == 3
    assert sampled(tmp_path, '["sks dog --s 9"]', name="p.json").validation_num_inference_steps == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\ntwo\n", "holds 2 prompts"),
        ("dog --w 640", "images are drawn in the training's size, 512 x 512"),
        ("dog --ss heun", "--ss: heun: not among the samplers"),
        ("dog --cn a.png", "--cn: not there"),
        ("dog --g 3 --l 4", "leave --l out"),
        ("", "holds 0 prompts"),
    ],
)
def test_prompts_that_cannot_be_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match="sample_prompts: ") as caught:
        sampled(tmp_path, text)
    assert said in str(caught.value)
    assert "validate_every_n_steps: other than" in refused("--validate_every_n_steps=3", "--sample_every_n_steps=4")


COMMON = (
    *("--pretrained_model_name_or_path=m", "--output_dir=out", "--output_name=my_lora", "--save_model_as=safetensors"),
    *("--network_dim=32", "--network_alpha=16", "--learning_rate=1e-4", "--optimizer_type=AdamW8bit"),
    *("--lr_scheduler=constant", "--max_train_epochs=10", "--save_every_n_epochs=1", "--gradient_checkpointing"),
)
LORA: dict[str, Any] = {
    "use_lora": True, "rank": 32, "lora_alpha": 16.0, "learning_rate": 1e-4, "optimizer": "adamw8bit",
    "num_train_epochs": 10, "max_train_steps": None, "checkpointing_epochs": 1, "output_dir": str(Path("out/my_lora")),
    "gradient_checkpointing": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        ("train_network.py", ["--network_module=networks.lora", "--sdpa"], {"mixed_precision": "no"}),
        (
            "sdxl_train_network.py",
            ["--network_module=networks.lora", "--unet_lr=1e-4", "--text_encoder_lr1=1e-5", "--text_encoder_lr2=1e-5",
             "--cache_text_encoder_outputs", "--cache_latents", "--mixed_precision=bf16"],
            {"text_encoder_lr": 1e-5, "mixed_precision": "bf16"},
        ),
        (
            "flux_train_network.py",
            ["--network_module=networks.lora_flux", "--guidance_scale=1.0", "--timestep_sampling=flux_shift",
             "--model_prediction_type=raw", "--cache_text_encoder_outputs", "--network_train_unet_only"],
            {"guidance_scale": 1.0, "resolution_shift": True, "weighting_scheme": "logit_normal",
             "train_text_encoder": False},
        ),
        (
            "sd3_train_network.py",
            ["--network_module=networks.lora_sd3", "--training_shift=3", "--weighting_scheme=uniform"],
            {"weighting_scheme": "none", "train_text_encoder": False},
        ),
    ],
)  # fmt: skip
def test_command_lines_of_the_documents(script: str, words: list[str], expected: dict[str, Any], folder: Path) -> None:
    config = started(script, *COMMON, data_file(folder), *words)
    wanted = LORA | expected
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert config.concepts is not None and len(config.concepts) == 2
    assert any("written as OUTPUT_NAME.safetensors" in note for note in config.notes)
    refuse_idle(config, Context())


def test_scripts_whose_defaults_are_not_there_say_so(folder: Path) -> None:
    for script, said in (
        ("flux_train_network.py", "model_prediction_type: sigma_scaled is not there, and is the default; give raw"),
        ("sd3_train.py", "training_shift: weighting_scheme uniform with a shift of 1 is not there"),
    ):
        with pytest.raises(ConfigError, match=said):
            started(script, *OURS)
    with pytest.raises(ConfigError, match="timestep_sampling: sigma, shifted by 3, is not there"):
        started("flux_train.py", *OURS, "--model_prediction_type=raw")
    with pytest.raises(ConfigError, match="in_json: captions are read from NAME.txt"):
        started("fine_tune.py", *OURS, "--in_json=meta.json")
    assert not started("fine_tune.py", *OURS).train_text_encoder


def test_a_shift_is_one_of_the_normals_mean() -> None:
    """Noise levels drawn as there, σ = s·g / (1 + (s − 1)·g) of a logistic normal g, have the mean ln s in logits."""
    config = config_of("--timestep_sampling=shift", "--discrete_flow_shift=4", "--model_prediction_type=raw")
    places = [1 / (1 + math.exp(-(config.logit_mean + z))) for z in (-1.5, 0.0, 0.7)]
    theirs = [1 / (1 + math.exp(z)) for z in (-1.5, 0.0, 0.7)]
    assert [1 - u for u in places] == pytest.approx([4 * g / (1 + 3 * g) for g in theirs])
