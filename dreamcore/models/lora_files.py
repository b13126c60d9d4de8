"""LoRA files that settings name: a file, or a run's folder that holds one; MindONE's as one that backends read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import ConfigError
from ..formats.lora import read_lora
from ..formats.lora_raw import MAGNITUDE
from ..formats.tensors import Tensors
from ..io.names import LORA_FILE
from .folder import ModelFolder
from .mindone_lora import read_mindone_lora


def find_lora(setting: str, name: str) -> Path:
    """The LoRA file that a setting names.

    Raises:
        ConfigError: there is none, or it is of a form that is not read.
    """
    path = Path(name).expanduser()
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"{setting}: {name}: no LoRA file there; expected a .safetensors file or a folder with {LORA_FILE}"
        )
    if file.suffix not in (".safetensors", ".ckpt"):
        raise ConfigError(f"{setting}: {name}: only .safetensors files are read, and MindONE's .ckpt")
    return file


def rank_of(file: Path, model: ModelFolder) -> int:
    """The largest rank of a LoRA file's factors.

    Raises:
        ConfigError: as `formats.lora.read_lora`.
    """
    with as_safetensors(file, model) as readable:
        return max(pair.rank for pair in read_lora(readable).values())


def lengths_first(loras: Sequence[tuple[Path, float]]) -> list[tuple[Path, float]]:
    """LoRA files with their strengths, those of DoRA first: the lengths that they set are of the model's own weights,
    whether a backend adds LoRA to weights or beside them."""
    return sorted(loras, key=lambda lora: not sets_lengths(lora[0]))


def sets_lengths(file: Path) -> bool:
    """Whether a LoRA file's names are DoRA's."""
    names = Tensors(file) if file.suffix == ".safetensors" else ()
    return any(name.endswith((".dora_scale", MAGNITUDE, f"{MAGNITUDE}.weight")) for name in names)


@contextmanager
def as_safetensors(file: Path, model: ModelFolder) -> Iterator[Path]:
    """A LoRA file as one that backends read."""
    if file.suffix == ".safetensors":
        yield file
        return
    with TemporaryDirectory() as folder:
        read = Path(folder) / file.with_suffix(".safetensors").name
        read_mindone_lora(file, model, read)
        yield read
