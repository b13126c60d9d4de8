"""A model on disk in diffusers' layout, read without any framework: what it consists of, its schedule, its identity."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diffusion.schedule import NoiseSchedule
from ..errors import ConfigError
from ..families import ENCODERS, FAMILIES, REFUSED, Family, TextEncoder
from ..formats.weight_files import choose_weights, variant_in
from ..io.hashing import remembered_sha256
from ..io.names import INDEX, ONE_FILE, PICKLES
from .checkpoint_folder import checkpoint_networks, is_checkpoint
from .fields import (
    STATES,
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
from .latent_space import LatentSpace
from .locate import locate, locate_part, locate_tokenizer, locate_transformer

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
        layers: the hidden states that make up words, in place of the family's (`TextEncoder.layers`).
    """

    path: Path
    index: dict[str, Any]
    variant: str | None = None
    replaced: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()

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
            model = replace(model, replaced={**model.replaced, **replaced})
            model.check()
        model = model._completed(settings)
        optional = tuple(encoder.network for encoder in model.family.text_encoders if encoder.optional)
        if optional and settings.drop_t5:
            model = replace(model, without=optional)
        if any(encoder.layers for encoder in model.family.text_encoders):
            chosen = settings.text_encoder_out_layers or model.index.get(STATES)
            model = replace(model, layers=tuple(chosen or ()))
            model.check_layers()
        return model

    def _completed(self, settings: ModelSettings) -> ModelFolder:
        """With the text encoders and tokenizers that the family's models are published without, as far as they are not
        there: of the folder or repository that the settings name, or that the family knows."""
        index, replaced = dict(self.index), dict(self.replaced)
        for encoder in (e for e in self.family.text_encoders if e.elsewhere):
            usual = None
            for component in (encoder.network, encoder.tokenizer):
                setting = f"pretrained_{component}_name_or_path"
                named = getattr(settings, setting) or usual
                usual = named or (encoder.elsewhere if _is_null(index.get(component)) else None)
                if usual:
                    path, class_name = locate_transformer(setting, usual, component, settings.cache_dir)
                    replaced[component], index[component] = (setting, path), ["transformers", class_name]
        if replaced == self.replaced:
            return self
        model = replace(self, index=index, replaced=replaced)
        model.check()
        return model

    @classmethod
    def open(cls, name: str, revision: str | None = None, variant: str | None = None, **more: Any) -> ModelFolder:
        """The model in a folder, or what `locate` finds by `name` and `more`; of a checkpoint of full training the
        finished run with the checkpoint's networks.

        Raises:
            ConfigError: not a model, a family that is not known, files missing; says what would be right.
        """
        path = locate(name, revision, variant, **more)
        replaced: Mapping[str, tuple[str, Path]] = {}
        if is_checkpoint(path):
            replaced, path = checkpoint_networks(path), path.absolute().parent
        index_file = path / INDEX
        if not index_file.is_file():
            raise ConfigError(
                f"pretrained_model_name_or_path: {path}: not a diffusers model (it has no {INDEX}); give such a folder "
                "or a model in one .safetensors file"
            )
        model = cls(path, read_json(index_file), variant, replaced)
        model.check()
        return model

    def check(self) -> None:
        """Raise ConfigError where the folder cannot be used as its index says."""
        check_index(self.path / INDEX, self.index)
        pipeline = self.index["_class_name"]
        if pipeline not in FAMILIES:
            why = f" ({REFUSED[pipeline]})" if pipeline in REFUSED else ""
            raise ConfigError(
                f"{self.path / INDEX}: _class_name {pipeline!r} is not supported{why}; expected one of "
                f"{', '.join(FAMILIES)}"
            )
        for name in self.networks:
            self.class_name(name)
            self.config(name)
            check_shards(self.folder(name), self.weight_files(name))
        for encoder in self.text_encoders:
            self.class_name(encoder.tokenizer)
            self.window(encoder)
            words = self.folder(encoder.network) / "config.json", self._words_config(encoder)
            check_tokens(self.folder(encoder.tokenizer), *words)
            check_width(*words, *self._words_taken)
        _ = self.schedule, self.latents

    def check_layers(self) -> None:
        """Raise ConfigError where the hidden states that make up words are not there, or not as wide together as the
        denoiser takes words."""
        for encoder in self.text_encoders:
            config, where = self._words_config(encoder), self.folder(encoder.network) / "config.json"
            there, layers = config.get("num_hidden_layers"), encoder.layers
            if layers and there is not None and not 0 <= min(layers) <= max(layers) <= int(there):
                raise ConfigError(
                    f"text_encoder_out_layers: {', '.join(map(str, layers))}: {where} has {there} layers; give others"
                )
            taken = self.config(self.family.denoiser)
            name, width = "joint_attention_dim", taken.get("joint_attention_dim")
            if self.family.parts_words:
                name = "num_text_layers · text_hidden_dim"
                width = math.prod(int(taken.get(part) or 0) for part in name.split(" · ")) or None
            together = len(layers) * int(config.get("hidden_size") or 0)
            if together and width is not None and together != width:
                raise ConfigError(
                    f"text_encoder_out_layers: {', '.join(map(str, layers))}: together {together} wide ({where}: "
                    f"hidden_size), while the denoiser takes words of {width} ({name}); give as many layers as that "
                    "makes"
                )

    @property
    def family(self) -> Family:
        return FAMILIES[self.index["_class_name"]]

    @property
    def text_encoders(self) -> tuple[TextEncoder, ...]:
        """Those of the family that are there and wanted."""

        def there(encoder: TextEncoder) -> bool:
            null = _is_null(self.index.get(encoder.network))
            if encoder.elsewhere:
                return not null
            return not (encoder.optional and (null or encoder.network in self.without))

        return tuple(self._of_its_class(encoder) for encoder in self.family.text_encoders if there(encoder))

    @property
    def classifier_free(self) -> bool:
        """Whether images are guided by a second answer, without or to negative words: not those of models distilled to
        few steps, as model_index.json says."""
        return self.family.classifier_free and not self.index.get("is_distilled", False)

    def _of_its_class(self, encoder: TextEncoder) -> TextEncoder:
        """As the index says, for a family's models need not all have the same."""
        name = self.class_name(encoder.network)
        if name not in ENCODERS:
            raise ConfigError(
                f"{self.path / INDEX}: {encoder.network} is a {name}; expected a text encoder of class "
                f"{', '.join(ENCODERS)}"
            )
        found = encoder.of_class(ENCODERS[name])
        return replace(found, layers=self.layers) if self.layers and found.layers else found

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
        return int(self.needed(self.family.denoiser, "joint_attention_dim")) if len(groups) > 1 else None

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

    def needed(self, component: str, field: str) -> Any:
        """A field of a component's configuration that has no default."""
        value = self.config(component).get(field)
        if value is None:
            raise ConfigError(f"{self.folder(component) / 'config.json'}: {field}: is missing")
        return value

    def _words_config(self, encoder: TextEncoder) -> dict[str, Any]:
        """A text encoder's configuration, of a model of words and images that of its words."""
        config, nested = self.config(encoder.network), self._of_its_class(encoder).kind.nested
        return dict(config[nested]) if nested and isinstance(config.get(nested), dict) else config

    def window(self, encoder: TextEncoder) -> int:
        """Tokens of a prompt that a text encoder sees at most, begin and end marks included: as many as it has
        positions, of which T5 has none, or as its tokenizer takes."""
        usual = self._of_its_class(encoder).kind.positions or 10**6
        positions = self._words_config(encoder).get("max_position_embeddings") or usual
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
            schedule = NoiseSchedule.from_config(
                self.config("scheduler") | ({} if self.family.shift is None else {"shift": self.family.shift}),
                self.family.time_scale,
                time_falls=self.family.time_falls,
                output_sign=self.family.output_sign,
            )
        least, most = schedule.levels.min(), schedule.levels.max()
        if not (least >= 0 and (np.isfinite(most) if schedule.prediction == "edm" else most <= 1)):
            raise ConfigError(
                f"{self.folder('scheduler') / 'scheduler_config.json'}: its numbers make no noise schedule: from "
                f"{least:.3g} to {most:.3g}"
            )
        return schedule

    @cached_property
    def latents(self) -> LatentSpace:
        """What latents are to it."""
        return LatentSpace.of(self)

    @property
    def latent_factor(self) -> int:
        """Pixels of the image along one side of a latent's pixel."""
        return self.latents.factor

    @property
    def latent_channels(self) -> int:
        return self.latents.channels

    @property
    def size_step(self) -> int:
        """Pixels that the sides of an image are multiples of: latents may be of any size, but a UNet on pixels halves
        them as often as it has levels."""
        if self.family.vae is None:
            return int(2 ** (len(self.needed(self.family.denoiser, "block_out_channels")) - 1))
        return self.latent_factor * self.token_side

    @property
    def token_side(self) -> int:
        """Latents along a side of what is one token to the denoiser; 1 where it has none."""
        config = self.config(self.family.denoiser)
        return max(int(config.get("patch_size") or min(config.get("all_patch_size") or [1])), self.family.patch)

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the model was trained on."""
        side = self.config(self.family.denoiser).get("sample_size") or self.family.sample_size
        return int(side) * self.latent_factor

    @property
    def zeroes_empty(self) -> bool:
        """Whether zeros stand for empty words, instead of what the text encoders make of them."""
        return bool(self.index.get("force_zeros_for_empty_prompt", self.family.zeroes_empty))

    def built_with(self, component: str) -> dict[str, Any]:
        """Fields of a component's configuration, and what they are set to when its network is built."""
        if component == self.family.denoiser:
            return dict(self.family.built_with)
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


def _is_null(named: Any) -> bool:
    """Whether an entry of model_index.json names no component."""
    return named in (None, [None, None])
