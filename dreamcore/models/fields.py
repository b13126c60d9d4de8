"""A model's JSON files: read, and refused by file and field where a value is of another kind than its name asks for.

A configuration is checked as soon as it is read, long before a library builds a network from it.  Fields that are not
listed here are passed on as they are; what a library then makes of them is `building`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, create_model, model_validator

from ..errors import ConfigError, RunError

Whole = Annotated[int, Field(gt=0, le=2**24)]
Above = Annotated[float, Field(gt=0)]
Few = Annotated[list[Whole], Field(min_length=1, max_length=16)]

_BY_KIND: dict[Any, str] = {
    Whole: "in_channels latent_channels norm_num_groups num_layers num_single_layers joint_attention_dim patch_size "
    "caption_projection_dim pooled_projection_dim pos_embed_max_size addition_time_embed_dim num_class_embeds "
    "projection_class_embeddings_input_dim addition_embed_type_num_heads conv_in_kernel conv_out_kernel "
    "encoder_hid_dim time_embedding_dim "
    "hidden_size intermediate_size num_hidden_layers max_position_embeddings vocab_size projection_dim "
    "d_model d_kv d_ff num_heads relative_attention_num_buckets relative_attention_max_distance",
    Whole | list[Whole]: "layers_per_block attention_head_dim num_attention_heads cross_attention_dim out_channels",
    Few: "block_out_channels axes_dims_rope all_patch_size",
    float: "norm_eps layer_norm_eps layer_norm_epsilon dropout dropout_rate attention_dropout freq_shift shift_factor "
    "mid_block_scale_factor resnet_out_scale_factor initializer_factor",
    StrictBool | list[StrictBool]: "only_cross_attention mid_block_only_cross_attention",
    StrictBool: "guidance_embeds flip_sin_to_cos upcast_attention use_linear_projection center_input_sample "
    "dual_cross_attention use_quant_conv use_post_quant_conv mid_block_add_attention force_upcast "
    "class_embeddings_concat is_encoder_decoder use_attention_mask resnet_skip_time_act",
    str: "_class_name act_fn hidden_act mid_block_type addition_embed_type time_embedding_type feed_forward_proj "
    "dense_act_fn model_type resnet_time_scale_shift attention_type encoder_hid_dim_type class_embed_type "
    "cross_attention_norm time_embedding_act_fn",
    str | StrictBool: "qk_norm",
    list[str]: "down_block_types up_block_types architectures",
    list[float]: "latents_mean latents_std",
    list[int]: "dual_attention_layers",
}
"""Kind -> names of a network's fields; the same name means the same in every class.  All may be null."""


class Fields(BaseModel):
    """Some fields of a file; what else there is stays as it is."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def _named(kinds: Mapping[Any, str]) -> dict[str, Any]:
    pairs = ((name, kind) for kind, names in kinds.items() for name in names.split())
    return {f"f_{name}": (kind | None, Field(None, alias=name)) for name, kind in pairs}


NetworkFields: Any = create_model("NetworkFields", __base__=Fields, **_named(_BY_KIND))


class DenoiserFields(NetworkFields):  # type: ignore[misc]  # made above
    """A UNet's or transformer's config.json."""

    sample_size: Whole | None = None


class AutoencoderFields(NetworkFields):  # type: ignore[misc]
    """An autoencoder's config.json, as far as latents depend on it."""

    block_out_channels: Few | None = None
    latent_channels: Whole | None = None
    z_dim: Whole | None = None
    temperal_downsample: list[StrictBool] | None = None
    encoder_block_out_channels: Few | None = None
    f_patch_size: Whole | list[Whole] | None = Field(None, alias="patch_size")
    scaling_factor: Annotated[float, Field(gt=0)] = 1.0
    latents_std: list[Above] | None = None
    latents_mean: list[float] | None = None

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        name = "latent_channels" if self.z_dim is None else "z_dim"
        channels = getattr(self, name)
        for values in (self.latents_mean, self.latents_std):
            if values is not None and channels is not None and len(values) != channels:
                raise ValueError(f"latents_mean and latents_std need {channels} numbers, as {name} says")
        return self


class ScheduleFields(Fields):
    """scheduler_config.json."""

    class_name: str | None = Field(None, alias="_class_name")
    num_train_timesteps: Annotated[int, Field(gt=0, le=100_000)] = 1000
    prediction_type: str = ""
    beta_schedule: str = ""
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    trained_betas: Annotated[list[float], Field(min_length=1)] | None = None
    rescale_betas_zero_snr: bool | None = None
    sigma_min: Above | None = None
    sigma_max: Above | None = None
    sigma_data: Above = 0.5
    sigma_schedule: str = ""
    rho: Above = 7.0
    shift: Above = 1.0
    use_dynamic_shifting: bool | None = None
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_beta_sigmas: bool | None = None
    invert_sigmas: bool | None = None
    time_shift_type: str = ""
    base_shift: Annotated[float, Field(gt=-100, lt=100)] = 0.5
    max_shift: Annotated[float, Field(gt=-100, lt=100)] = 1.15
    base_image_seq_len: Whole = 256
    max_image_seq_len: Whole = 4096
    steps_offset: int = 0
    timestep_spacing: str = ""
    clip_sample: bool = False
    clip_sample_range: Above = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, Field(gt=0, le=1)] = 0.995
    sample_max_value: Above = 1.0
    variance_type: str | None = None
    set_alpha_to_one: bool = False
    skip_prk_steps: bool = False

    @model_validator(mode="after")
    def _two_lengths(self) -> Self:
        if self.base_image_seq_len == self.max_image_seq_len:
            raise ValueError("base_image_seq_len and max_image_seq_len are equal, and no line goes through one point")
        return self


class TokenizerFields(Fields):
    """tokenizer_config.json."""

    model_max_length: Annotated[float, Field(gt=2)] = 77


class ShardFields(Fields):
    """The index of weights in several files; libraries ask for its `metadata`, be it empty."""

    weight_map: dict[str, str]
    metadata: dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_fields(path: Path, fields: type[BaseModel]) -> dict[str, Any]:
    """A file's JSON object, whose fields are as they should be.

    Raises:
        ConfigError: naming file and field, what it holds and what would be right; or as `read_json`.
    """
    value = read_json(path)
    check_fields(path, value, fields)
    return value


def check_fields(path: Path, value: Mapping[str, Any], fields: type[BaseModel]) -> None:
    """Raise ConfigError as `read_fields` does, for a file that has been read."""
    try:
        fields.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        name, *_ = [str(part) for part in first["loc"]] or [""]
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise ConfigError(f"{path}: {name}: is missing") from None
        received = f"; received {_short(value.get(name))}" if name else ""
        raise ConfigError(f"{path}: {name + ': ' if name else ''}{what[0].lower()}{what[1:]}{received}") from None


STATES = "text_encoder_select_layers"
"""The field of model_index.json that numbers the hidden states that are words (Krea 2)."""


def check_index(path: Path, index: Mapping[str, Any]) -> None:
    """Check that model_index.json names a pipeline, and each component by its library and class, or null.

    Raises:
        ConfigError: naming file and field.
    """
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: _class_name: expected the name of a pipeline; received {_short(name)}")
    for component, value in index.items():
        if component == STATES:
            if not isinstance(value, list) or not all(type(layer) is int for layer in value):
                raise ConfigError(f"{path}: {component}: expected a list of layers; received {_short(value)}")
            continue
        if not isinstance(value, list):
            continue
        if len(value) != 2 or not all(part is None or isinstance(part, str) for part in value):
            raise ConfigError(f"{path}: {component}: expected [library, class], or nulls; received {_short(value)}")
        if Path(component).name != component or component.startswith("."):
            raise ConfigError(f"{path}: {component!r}: expected the name of a folder beside this file")
    zeros = index.get("force_zeros_for_empty_prompt", False)
    if not isinstance(zeros, bool):
        raise ConfigError(f"{path}: force_zeros_for_empty_prompt: expected true or false; received {_short(zeros)}")


def check_shards(folder: Path, files: Sequence[Path]) -> None:
    """Check the index of a component's weights, where they lie in several files and there is one."""
    for file in sorted(folder.glob(f"*{files[0].suffix}.index*.json")) if len(files) > 1 else ():
        read_fields(file, ShardFields)


def check_tokens(tokenizer: Path, file: Path, config: Mapping[str, Any]) -> None:
    """Check that a text encoder's embeddings have a row for each of its tokenizer's tokens.

    Args:
        tokenizer: the tokenizer's folder.
        file: the text encoder's configuration.
        config: what it holds.

    Raises:
        ConfigError: a token without a row; or a file of other contents than a tokenizer's.
    """
    rows = config.get("vocab_size") or 0
    names = ("vocab.json", "vocab.txt", "added_tokens.json", "tokenizer.json", "tokenizer_config.json")
    for name in names if rows else ():
        if not (there := tokenizer / name).is_file():
            continue
        value = {} if name == "vocab.txt" else read_json(there)
        try:
            lines = there.read_bytes().rstrip().count(b"\n") if name == "vocab.txt" else -1
            last = max(_token_numbers(name, value), default=lines)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            raise ConfigError(f"{there}: not a tokenizer's: {error!r}") from None
        if last >= rows:
            raise ConfigError(
                f"{there}: has a token of number {last}, and the text encoder's embeddings end at {rows - 1} "
                f"({file}: vocab_size {rows}); take the tokenizer that it was trained with"
            )


def check_width(file: Path, config: Mapping[str, Any], field: str, width: int | None) -> None:
    """Raise ConfigError where T5's words are not of the denoiser's `width`, which `field` of its configuration says;
    CLIP's are filled up or cut to it."""
    if width is not None and config.get("d_model") not in (None, width):
        raise ConfigError(
            f"{file}: d_model: {config['d_model']}, while the denoiser takes words of width {width} (its "
            f"config.json: {field})"
        )


def _token_numbers(name: str, value: dict[str, Any]) -> list[int]:
    if name == "tokenizer_config.json":
        return [int(number) for number in value.get("added_tokens_decoder", {})]
    if name != "tokenizer.json":
        return [int(number) for number in value.values()]
    vocabulary = value["model"]["vocab"]
    own = range(len(vocabulary)) if isinstance(vocabulary, list) else map(int, vocabulary.values())
    return [*own, *(int(token["id"]) for token in value.get("added_tokens") or ())]


@contextmanager
def building(what: Path, class_name: str) -> Iterator[None]:
    """Turn what a library raises while it builds a part from a model's files into one sentence that names them.

    Raises:
        ConfigError: the part cannot be built.
    """
    try:
        yield
    except (ConfigError, RunError, MemoryError):
        raise
    except Exception as error:  # libraries raise anything where a configuration is not what they expect
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{what}: cannot be loaded as {class_name}: {_short(reason, 500, str)}") from error


def _short(value: Any, most: int = 80, form: Any = repr) -> str:
    text = str(form(value))
    return text if len(text) <= most else f"{text[:most]}…"
