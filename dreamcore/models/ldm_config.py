"""Configurations in diffusers' layout for a Stable Diffusion of which there are weights alone.

Most of them follow from the arrays' shapes.  What does not is said by MindONE's model configuration (a YAML file of
its `configs`), or follows from the version: Stable Diffusion 1 has 8 heads everywhere and predicts noise, 2 has heads
of 64 channels; whether a version 2 predicts noise or v, nothing in its weights tells.  The other values are those of
the published repositories (stable-diffusion-v1-5, stable-diffusion-2-base, stable-diffusion-2-1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ..config.yaml12 import load
from ..errors import ConfigError
from ..formats.ldm_geometry import TextShapes, UNetShapes, VAEShapes
from .fields import Few, Fields, Whole

LIBRARY = "0.42.1"
"""The version of diffusers that the configurations are written for."""
VERSIONS = {"1.5": "epsilon", "2.0": "epsilon", "2.0-v": "v_prediction", "2.1": "epsilon", "2.1-v": "v_prediction"}
"""MindONE's names of the versions -> what they predict."""
_SPOKEN = {"eps": "epsilon", "noise": "epsilon", "velocity": "v_prediction", "v": "v_prediction"}
"""What MindONE's configurations call that."""
ENGLISH = ("BpeTokenizer", "CLIPTokenizer")
"""MindONE's names of CLIP's tokenizer."""


@dataclass(frozen=True)
class Shapes:
    """What the arrays of the three networks tell."""

    unet: UNetShapes
    vae: VAEShapes
    text: TextShapes


class _UNet(Fields):
    model_channels: Whole
    channel_mult: Few
    num_res_blocks: Whole
    attention_resolutions: list[int]
    num_heads: int = -1
    num_head_channels: int = -1
    context_dim: Whole
    use_linear_in_transformer: bool = False
    transformer_depth: Whole = 1
    upcast_attn: bool = False


class _Autoencoder(Fields):
    ch: Whole
    ch_mult: Few
    num_res_blocks: Whole


class _AutoencoderParams(Fields):
    ddconfig: _Autoencoder


class _TextParams(Fields):
    layers: Whole | None = None
    width: Whole | None = None
    heads: Whole | None = None
    use_quick_gelu: bool | None = None
    tokenizer_name: str = ENGLISH[0]


class _UNetConfig(Fields):
    params: _UNet


class _AutoencoderConfig(Fields):
    params: _AutoencoderParams


class _TextConfig(Fields):
    params: _TextParams = _TextParams()


class _Params(Fields):
    unet_config: _UNetConfig
    first_stage_config: _AutoencoderConfig
    cond_stage_config: _TextConfig = _TextConfig()
    parameterization: str = "eps"
    beta_schedule: str = "linear"
    linear_start: float = Field(1e-4, gt=0, lt=1)
    linear_end: float = Field(2e-2, gt=0, lt=1)
    timesteps: Whole = 1000
    scale_factor: float = Field(1.0, gt=0)


class _Model(Fields):
    params: _Params
    prediction_type: str = "noise"


class _File(Fields):
    model: _Model


@dataclass(frozen=True)
class Facts:
    """What shapes do not tell.

    Args:
        second: whether it is a Stable Diffusion 2.
        heads: attention heads, everywhere or of each level.
    """

    second: bool
    prediction: str
    heads: int | list[int]
    text_heads: int
    quick_gelu: bool
    upcast: bool = False
    beta_start: float = 0.00085
    beta_end: float = 0.012
    timesteps: int = 1000
    scaling: float = 0.18215


def facts(shapes: Shapes, model_config: Path | None, version: str | None, what: str) -> Facts:
    """What the model configuration, the version or convention say of a model with these shapes.

    Args:
        what: the file of weights, for messages.

    Raises:
        ConfigError: they contradict the arrays or each other, or leave open what has to be known.
    """
    check_version(version)
    linear, context = shapes.unet.linear, shapes.unet.context
    if shapes.unet.in_channels != shapes.vae.latent_channels:
        raise ConfigError(
            f"{what}: its UNet takes {shapes.unet.in_channels} channels where latents have "
            f"{shapes.vae.latent_channels}: a model for inpainting or of depth, which is not supported"
        )
    if shapes.text.width != context:
        raise ConfigError(
            f"{what}: its UNet takes words of width {context}, its text encoder makes {shapes.text.width}"
        )
    if version is not None and version.startswith("2") != linear:
        raise ConfigError(f"{what}: version {version} was given; its arrays are those of a version {1 + linear}")
    if model_config is not None:
        return _by_file(shapes, model_config, version)
    if context != (1024 if linear else 768):
        raise ConfigError(
            f"{what}: words of width {context} are no published model's; give original_config: its YAML file, or the "
            "folder in diffusers' layout of a model like it"
        )
    if linear and version is None:
        raise ConfigError(
            f"{what}: a Stable Diffusion 2, whose weights do not tell whether it predicts noise or v; give sd_version "
            f"({', '.join(name for name in VERSIONS if name[0] == '2')}) or original_config, its YAML file"
        )
    prediction = VERSIONS[version or "1.5"]
    heads = [_divided(channels, 64, what) for channels in shapes.unet.geometry.channels] if linear else 8
    return Facts(linear, prediction, heads, shapes.text.width // 64, not linear, upcast=version == "2.1-v")


def check_version(version: str | None) -> None:
    """Raise ConfigError where a version is none that is known."""
    if version is not None and version not in VERSIONS:
        raise ConfigError(f"version: {version!r} is not known; expected one of {', '.join(VERSIONS)}")


def _by_file(shapes: Shapes, path: Path, version: str | None) -> Facts:
    model = _read(path)
    params, unet = model.params, model.params.unet_config.params
    _compare(path, params, shapes)
    for field, word in (("parameterization", params.parameterization), ("prediction_type", model.prediction_type)):
        if word not in _SPOKEN:
            raise ConfigError(f"{path}: {field}: {word!r} is not supported; expected one of {', '.join(_SPOKEN)}")
    v = "v_prediction" in (_SPOKEN[params.parameterization], _SPOKEN[model.prediction_type])
    prediction = "v_prediction" if v else "epsilon"
    if version is not None and VERSIONS[version] != prediction:
        raise ConfigError(f"{path}: says that the model predicts {prediction}; version {version} was given")
    if (tokenizer := params.cond_stage_config.params.tokenizer_name) not in ENGLISH:
        raise ConfigError(
            f"{path}: tokenizer_name: {tokenizer!r} is not supported (Wukong's Chinese words are cut by it); expected "
            f"one of {', '.join(ENGLISH)}"
        )
    if params.beta_schedule != "linear":
        raise ConfigError(f"{path}: beta_schedule: {params.beta_schedule!r} is not supported; expected 'linear'")
    if unet.num_head_channels > 0:
        heads: int | list[int] = [_divided(c, unet.num_head_channels, path) for c in shapes.unet.geometry.channels]
    elif unet.num_heads > 0:
        heads = unet.num_heads
    else:
        raise ConfigError(f"{path}: unet_config: give num_heads or num_head_channels")
    text, second = params.cond_stage_config.params, shapes.unet.linear
    return Facts(
        second,
        prediction,
        heads,
        text_heads=text.heads or max(shapes.text.width // 64, 1),
        quick_gelu=not second if text.use_quick_gelu is None else text.use_quick_gelu,
        upcast=unet.upcast_attn or version == "2.1-v",
        beta_start=params.linear_start,
        beta_end=params.linear_end,
        timesteps=params.timesteps,
        scaling=params.scale_factor,
    )


def _read(path: Path) -> _Model:
    try:
        return _File.model_validate(load(path.read_text(encoding="utf-8"))).model
    except (OSError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its whole"
            raise ConfigError(f"{path}: {where}: {first['msg']}; received {first['input']!r:.80}") from None
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None


def _compare(path: Path, params: _Params, shapes: Shapes) -> None:
    """Refuse a configuration that is of another model than the arrays."""
    unet, vae = params.unet_config.params, params.first_stage_config.params.ddconfig
    there, latents = shapes.unet.geometry, shapes.vae.geometry
    levels = range(len(unet.channel_mult))
    pairs: dict[str, tuple[Any, Any]] = {
        "model_channels · channel_mult": (tuple(unet.model_channels * m for m in unet.channel_mult), there.channels),
        "num_res_blocks": (unet.num_res_blocks, there.layers),
        "attention_resolutions": (tuple(2**n in unet.attention_resolutions for n in levels), there.attention),
        "transformer_depth": (unet.transformer_depth, there.depth),
        "context_dim": (unet.context_dim, shapes.unet.context),
        "use_linear_in_transformer": (unet.use_linear_in_transformer, shapes.unet.linear),
        "ddconfig: ch · ch_mult": (tuple(vae.ch * m for m in vae.ch_mult), latents.channels),
        "ddconfig: num_res_blocks": (vae.num_res_blocks, latents.layers),
    }
    text, words = params.cond_stage_config.params, shapes.text
    pairs |= {"layers": (text.layers or words.layers, words.layers), "width": (text.width or words.width, words.width)}
    for field, (said, found) in pairs.items():
        if said != found:
            raise ConfigError(f"{path}: {field}: says {said}, where the checkpoint's arrays have {found}")


def _divided(channels: int, width: int, what: object) -> int:
    if channels % width:
        raise ConfigError(f"{what}: {channels} channels do not split into heads of {width}")
    return channels // width
