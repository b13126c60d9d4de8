"""A model on disk in diffusers' layout, read without any framework: what it consists of, its schedule, its identity."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .diffusion import NoiseSchedule
from .errors import ConfigError
from .families import FAMILIES, Family
from .tinyworld import model_path

INDEX = "model_index.json"
TINYWORLD = "tinyworld"
"""The embedded model's name."""
_WEIGHTS = re.compile(
    r"^(?P<base>\w+?)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<old_variant>\w+))?\.(?P<kind>safetensors|bin|pdparams)$"
)
_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model", "model_state", "diffusion_paddle_model")


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers pipeline's folder.

    Args:
        path: the folder.
        index: contents of model_index.json.
        variant: which variant of the weight files to read, such as fp16.
    """

    path: Path
    index: dict[str, Any]
    variant: str | None = None

    @classmethod
    def open(cls, name: str, revision: str | None = None, variant: str | None = None) -> ModelFolder:
        """The model in a folder, or fetched from the Hub where `name` is an id there.

        Raises:
            ConfigError: not a model, a family that is not known, files missing; says what would be right.
        """
        path = Path(name).expanduser()
        if name == TINYWORLD and not path.exists():
            path = model_path()
        elif not path.exists():
            from .hub import download, is_repo_id

            if not is_repo_id(name):
                raise ConfigError(f"pretrained_model_name_or_path: {name}: no such folder")
            path = download(name, revision, variant)
        elif revision is not None:
            raise ConfigError(f"revision: {revision!r} was given, but {name} is a folder on this machine")
        index_file = path / INDEX
        if not index_file.is_file():
            raise ConfigError(
                f"pretrained_model_name_or_path: {path}: not a diffusers model (it has no {INDEX}); a single .ckpt or "
                ".safetensors file has to be converted first"
            )
        model = cls(path, _read_json(index_file), variant)
        model.check()
        return model

    def check(self) -> None:
        """Raise ConfigError where the folder cannot be used as its index says."""
        pipeline = self.index.get("_class_name")
        if pipeline not in FAMILIES:
            raise ConfigError(
                f"{self.path / INDEX}: _class_name {pipeline!r} is not supported; expected one of {', '.join(FAMILIES)}"
            )
        for name in (self.family.denoiser, self.family.vae, *(e for _, e in self.family.text_encoders)):
            self.config(name)
            self.weight_files(name)
        _ = self.schedule

    @property
    def family(self) -> Family:
        return FAMILIES[self.index["_class_name"]]

    @property
    def components(self) -> list[str]:
        """Sub-folders that the index names and that are not null."""
        named = [k for k, v in self.index.items() if isinstance(v, list) and len(v) == 2 and v[0] is not None]
        return [name for name in named if (self.path / name).is_dir()]

    def class_name(self, component: str) -> str:
        """The class that model_index.json names for a component."""
        return str(self.index[component][1])

    def config(self, component: str) -> dict[str, Any]:
        """A component's configuration (config.json, or scheduler_config.json)."""
        for name in ("config.json", "scheduler_config.json"):
            if (self.path / component / name).is_file():
                return _read_json(self.path / component / name)
        raise ConfigError(f"pretrained_model_name_or_path: {self.path}: {component}/config.json is missing")

    def weight_files(self, component: str) -> list[Path]:
        """A component's weight files: safetensors where there are any, else .bin, else .pdparams."""
        folder = self.path / component
        names = choose_weights((f.name for f in folder.iterdir()) if folder.is_dir() else (), self.variant)
        if names:
            return [folder / name for name in names]
        other = sorted({v for f in folder.glob("*") if (v := _variant(f.name))})
        hint = f"; there is variant {', '.join(other)} (--variant)" if other else ""
        what = f"no weights of variant {self.variant!r}" if self.variant else "no weights"
        raise ConfigError(f"pretrained_model_name_or_path: {folder}: {what}{hint}")

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels of the model's own scheduler configuration."""
        return NoiseSchedule.from_config(self.config("scheduler"))

    @property
    def latent_factor(self) -> int:
        """Pixels of the image along one side of a latent's pixel."""
        return int(2 ** (len(self.config(self.family.vae)["block_out_channels"]) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.config(self.family.vae)["latent_channels"])

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the model was trained on."""
        return int(self.config(self.family.denoiser)["sample_size"]) * self.latent_factor

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and configurations that training and sampling use."""
        digest = hashlib.sha256()
        encoders = [e for _, e in self.family.text_encoders]
        for name in (self.family.denoiser, self.family.vae, *encoders):
            for file in self.weight_files(name):
                digest.update(f"{name}/{file.name}:{file_sha256(file)}\n".encode())
        digest.update(json.dumps(self.config("scheduler"), sort_keys=True).encode())
        return digest.hexdigest()


def choose_weights(names: Iterable[str], variant: str | None) -> list[str]:
    """Of one component's file names, those of its weights: safetensors before .bin before Paddle's, shards together."""
    found: dict[str, list[str]] = {"safetensors": [], "bin": [], "pdparams": []}
    for name in sorted(names):
        match = _WEIGHTS.match(name)
        if match and match["base"] in _WEIGHT_NAMES and _variant(name) == variant:
            found[match["kind"]].append(name)
    return found["safetensors"] or found["bin"] or found["pdparams"]


def _variant(name: str) -> str | None:
    match = _WEIGHTS.match(name)
    return (match["variant"] or match["old_variant"]) if match and match["base"] in _WEIGHT_NAMES else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
