"""A model on disk in diffusers' layout, read without any framework: what it consists of, its schedule, its identity."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..diffusion.schedule import NoiseSchedule
from ..errors import ConfigError
from ..families import ENCODERS, FAMILIES, Family, TextEncoder
from ..formats.weight_files import choose_weights, variant_in
from ..io.hashing import remembered_sha256
from ..io.names import INDEX, ONE_FILE, PICKLES
from .fields import (
    AutoencoderFields,
    DenoiserFields,
    Fields,
    NetworkFields,
    ScheduleFields,
    TokenizerFields,
    check_index,
    check_shards,
    check_tokens,
    check_width,
    read_fields,
    read_json,
)
from .locate import locate, locate_part, locate_tokenizer

if TYPE_CHECKING:
    from ..config.common import ModelSettings


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers pipeline's folder.

    Args:
        path: the folder.
        index: contents of model_index.json.
        variant: which variant of the weight files to read, such as fp16.
        replaced: by component, the setting that names a folder to use in place of the model's own, and that folder.
        without: optional text encoders that are left out.
    """

    path: Path
    index: dict[str, Any]
    variant: str | None = None
    replaced: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: ModelSettings) -> ModelFolder:
        """The model that the settings name, with the autoencoder and the text encoders that they ask for.

        Raises:
            ConfigError: as `open`.
        """
        cache = settings.cache_dir
        name = settings.pretrained_model_name_or_path
        more: dict[str, Any] = {"cache": cache}
        if name.endswith(ONE_FILE):
            more |= {"original_config": settings.original_config, "version": settings.sd_version}
            more["allow_pickle"] = name.endswith(PICKLES) and settings.allow_pickle
        model = cls.open(name, settings.revision, settings.variant, **more)
        parts = {("pretrained_unet_name_or_path", model.family.denoiser): settings.pretrained_unet_name_or_path}
        if model.family.vae is not None:
            vae = "pretrained_vae_model_name_or_path", model.family.vae
            parts[vae] = settings.pretrained_vae_model_name_or_path
        replaced = {
            component: (
                setting,
                locate_part(
                    *(setting, name, component, model.class_name(component), cache),
                    described=model.path,
                    allow_pickle=name.endswith(PICKLES) and settings.allow_pickle,
                ),
            )
            for (setting, component), name in parts.items()
            if name is not None
        }
        if settings.tokenizer_name is not None:
            first = model.family.text_encoders[0].tokenizer
            replaced[first] = "tokenizer_name", locate_tokenizer(settings.tokenizer_name, first, cache)
        if replaced:
            model = replace(model, replaced=replaced)
            model.check()
        optional = tuple(encoder.network for encoder in model.family.text_encoders if encoder.optional)
        return replace(model, without=optional) if optional and settings.drop_t5 else model

    @classmethod
    def open(cls, name: str, revision: str | None = None, variant: str | None = None, **more: Any) -> ModelFolder:
        """The model in a folder, or what `locate` finds by `name` and `more`.

        Raises:
            ConfigError: not a model, a family that is not known, files missing; says what would be right.
        """
        path = locate(name, revision, variant, **more)
        index_file = path / INDEX
        if not index_file.is_file():
            raise ConfigError(
                f"pretrained_model_name_or_path: {path}: not a diffusers model (it has no {INDEX}); give such a folder "
                "or a model in one .safetensors file"
            )
        model = cls(path, read_json(index_file), variant)
        model.check()
        return model

    def check(self) -> None:
        """Raise ConfigError where the folder cannot be used as its index says."""
        check_index(self.path / INDEX, self.index)
        pipeline = self.index["_class_name"]
        if pipeline not in FAMILIES:
            raise ConfigError(
                f"{self.path / INDEX}: _class_name {pipeline!r} is not supported; expected one of {', '.join(FAMILIES)}"
            )
        for name in self.networks:
            self.class_name(name)
            self.config(name)
            check_shards(self.folder(name), self.weight_files(name))
        for encoder in self.text_encoders:
            self.class_name(encoder.tokenizer)
            self.window(encoder)
            words = self.folder(encoder.network) / "config.json", self.config(encoder.network)
            check_tokens(self.folder(encoder.tokenizer), *words)
            check_width(*words, *self._words_taken)
        _ = self.schedule, self.latent_scaling

    @property
    def family(self) -> Family:
        return FAMILIES[self.index["_class_name"]]

    @property
    def text_encoders(self) -> tuple[TextEncoder, ...]:
        """Those of the family that are there and wanted."""

        def there(encoder: TextEncoder) -> bool:
            null = self.index.get(encoder.network) in (None, [None, None])
            return not (encoder.optional and (null or encoder.network in self.without))

        return tuple(self._of_its_class(encoder) for encoder in self.family.text_encoders if there(encoder))

    def _of_its_class(self, encoder: TextEncoder) -> TextEncoder:
        """As the index says, for a family's models need not all have the same."""
        name = self.class_name(encoder.network)
        if name not in ENCODERS:
            raise ConfigError(
                f"{self.path / INDEX}: {encoder.network} is a {name}; expected a text encoder of class "
                f"{', '.join(ENCODERS)}"
            )
        return encoder.of_class(ENCODERS[name])

    @property
    def absent_words(self) -> dict[int, int]:
        """Groups of words for which zeros stand, their encoders being left out -> how many tokens they have."""
        there = {encoder.network for encoder in self.text_encoders}
        left_out = (e for e in self.family.text_encoders if e.network not in there)
        return {e.group: e.length or 0 for e in left_out if e.group is not None}

    @property
    def words_width(self) -> int | None:
        """Width that words are filled up to with zeros, or cut to, where groups of them follow one another."""
        groups = {e.group for e in self.family.text_encoders if e.group is not None}
        return int(self._needed(self.family.denoiser, "joint_attention_dim")) if len(groups) > 1 else None

    @property
    def _words_taken(self) -> tuple[str, int | None]:
        """Which field of the denoiser's configuration says how wide T5's words are, and what."""
        if self.words_width is not None:
            return "joint_attention_dim", self.words_width
        return "encoder_hid_dim", self.config(self.family.denoiser).get("encoder_hid_dim")

    @property
    def networks(self) -> tuple[str, ...]:
        """Sub-folders of the networks that training and sampling use."""
        vae = () if self.family.vae is None else (self.family.vae,)
        return self.family.denoiser, *vae, *(encoder.network for encoder in self.text_encoders)

    def folder(self, component: str) -> Path:
        """Where a component lies."""
        return self.replaced[component][1] if component in self.replaced else self.path / component

    @property
    def components(self) -> list[str]:
        """Sub-folders that the index names and that are not null."""
        named = [k for k, v in self.index.items() if isinstance(v, list) and len(v) == 2 and v[0] is not None]
        return [name for name in named if (self.path / name).is_dir()]

    def class_name(self, component: str) -> str:
        """The class that model_index.json names for a component.

        Raises:
            ConfigError: it names none.
        """
        named = self.index.get(component)
        if not isinstance(named, list) or None in named:
            raise ConfigError(f"{self.path / INDEX}: {component}: expected [library, class]; received {named!r:.80}")
        return str(named[1])

    def config(self, component: str) -> dict[str, Any]:
        """A component's configuration (config.json, or scheduler_config.json), a copy: mindone writes into it.

        Raises:
            ConfigError: it is missing or damaged, or one of its fields is of another kind than its name asks for.
        """
        if component not in self._configs:
            self._configs[component] = self._read_config(component)
        return copy.deepcopy(self._configs[component])

    @cached_property
    def _configs(self) -> dict[str, dict[str, Any]]:
        """Those that have been read: the autoencoder's is asked for at every image."""
        return {}

    def _read_config(self, component: str) -> dict[str, Any]:
        special: dict[str | None, type[Fields]] = {
            self.family.denoiser: DenoiserFields,
            self.family.vae: AutoencoderFields,
        }
        for name in ("config.json", "scheduler_config.json"):
            if (file := self.folder(component) / name).is_file():
                return read_fields(file, special.get(component, NetworkFields if name[0] == "c" else ScheduleFields))
        raise ConfigError(f"pretrained_model_name_or_path: {self.path}: {component}/config.json is missing")

    def _needed(self, component: str, field: str) -> Any:
        """A field of a component's configuration that has no default."""
        value = self.config(component).get(field)
        if value is None:
            raise ConfigError(f"{self.folder(component) / 'config.json'}: {field}: is missing")
        return value

    def window(self, encoder: TextEncoder) -> int:
        """Tokens of a prompt that a text encoder sees at most, begin and end marks included: as many as it has
        positions, of which T5 has none, or as its tokenizer takes."""
        usual = self._of_its_class(encoder).kind.positions or 10**6
        positions = self.config(encoder.network).get("max_position_embeddings") or usual
        file = self.folder(encoder.tokenizer) / "tokenizer_config.json"
        own = read_fields(file, TokenizerFields).get("model_max_length") if file.is_file() else None
        return int(min(own or positions, positions))

    def weight_files(self, component: str) -> list[Path]:
        """A component's weight files: safetensors where there are any, else .bin, else .pdparams."""
        folder = self.folder(component)
        there = [f.name for f in folder.iterdir()] if folder.is_dir() else []
        names = choose_weights(there, self.variant)
        if not names and component in self.replaced:
            names = choose_weights(there, None)
        if names:
            return [folder / name for name in names]
        other = sorted({v for f in folder.glob("*") if (v := variant_in(f.name))})
        hint = f"; there is variant {', '.join(other)} (--variant)" if other else ""
        what = f"no weights of variant {self.variant!r}" if self.variant else "no weights"
        raise ConfigError(f"pretrained_model_name_or_path: {folder}: {what}{hint}")

    def variant_of(self, component: str) -> str | None:
        """The variant that a component's weight files are of."""
        return variant_in(self.weight_files(component)[0].name)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels of the model's own scheduler configuration."""
        with np.errstate(all="ignore"):
            schedule = NoiseSchedule.from_config(self.config("scheduler"), self.family.time_scale)
        least, most = schedule.levels.min(), schedule.levels.max()
        if not (least >= 0 and (np.isfinite(most) if schedule.prediction == "edm" else most <= 1)):
            raise ConfigError(
                f"{self.folder('scheduler') / 'scheduler_config.json'}: its numbers make no noise schedule: from "
                f"{least:.3g} to {most:.3g}"
            )
        return schedule

    @property
    def latent_factor(self) -> int:
        """Pixels of the image along one side of a latent's pixel."""
        return 1 if self.family.vae is None else _halved(self.config(self.family.vae)["block_out_channels"])

    @property
    def latent_channels(self) -> int:
        return 3 if self.family.vae is None else int(self.config(self.family.vae)["latent_channels"])

    @property
    def latent_scaling(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shift and scale, each [C, 1, 1] or [1, 1, 1]: latents are (what the autoencoder answers − shift) · scale."""
        none: dict[str, Any] = {"scaling_factor": 1.0}
        config = none if self.family.vae is None else self.config(self.family.vae)
        scale = float(config.get("scaling_factor", 0.18215))
        mean, std = config.get("latents_mean"), config.get("latents_std")
        shift = [config.get("shift_factor") or 0.0] if mean is None else mean
        return _planes(shift), _planes([scale / s for s in std] if std is not None else [scale])

    @property
    def size_step(self) -> int:
        """Pixels that the sides of an image are multiples of: latents may be of any size, but a UNet on pixels halves
        them as often as it has levels."""
        if self.family.vae is None:
            return _halved(self._needed(self.family.denoiser, "block_out_channels"))
        return self.latent_factor * self.token_side

    @property
    def token_side(self) -> int:
        """Latents along a side of what is one token to the denoiser; 1 where it has none."""
        return max(int(self.config(self.family.denoiser).get("patch_size") or 1), self.family.patch)

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the model was trained on."""
        side = self.config(self.family.denoiser).get("sample_size") or self.family.sample_size
        return int(side) * self.latent_factor

    @property
    def zeroes_empty(self) -> bool:
        """Whether zeros stand for empty words, instead of what the text encoders make of them."""
        return bool(self.index.get("force_zeros_for_empty_prompt", self.family.zeroes_empty))

    def without_dropout(self, component: str) -> dict[str, float]:
        """Fields of a component's configuration, and what they are set to when its network is built."""
        encoders = {encoder.network: encoder for encoder in self.text_encoders}
        return dict.fromkeys(encoders[component].kind.dropout, 0.0) if component in encoders else {}

    def unused(self, component: str) -> tuple[str, ...]:
        """Beginnings of the published names of a component's weights that nothing depends on: they do not train."""
        encoders = {encoder.network: encoder for encoder in self.text_encoders}
        return encoders[component].unused(self.config(component)) if component in encoders else ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and configurations that training and sampling use."""
        digest = hashlib.sha256()
        for name in self.networks:
            for file in self.weight_files(name):
                digest.update(f"{name}/{file.name}:{remembered_sha256(file)}\n".encode())
            said = {key: value for key, value in self.config(name).items() if not key.startswith("_")}
            digest.update(json.dumps(said, sort_keys=True).encode())
        digest.update(json.dumps(self.config("scheduler"), sort_keys=True).encode())
        for name in sorted(self.replaced.keys() - set(self.networks)):  # a tokenizer; the model's own comes with it
            for file in sorted(file for file in self.folder(name).iterdir() if file.is_file()):
                digest.update(f"{name}/{file.name}:{remembered_sha256(file)}\n".encode())
        return digest.hexdigest()


def _halved(levels: Sequence[int]) -> int:
    """By how much a network of so many levels divides the sides of an image."""
    return int(2 ** (len(levels) - 1))


def _planes(values: Iterable[float]) -> NDArray[np.float32]:
    return np.array(list(values), np.float32).reshape(-1, 1, 1)
