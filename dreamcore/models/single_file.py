"""A model that is one file in the original layout becomes a folder in diffusers' layout, once.  The way back is
`to_original`.

What shapes do not tell comes from the published models' facts, from a description (`original_config`), or from what the
file says of itself; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError
from ..formats.single_files import Contents, contents, recognized
from ..formats.tensors import Entry, Tensors
from ..formats.torch_pickle import read_torch_pickle
from ..io.hashing import file_sha256, remembered_sha256
from .from_original import Said, fill_folder, fill_part, identity_of
from .ldm_checkpoint import convert_ldm_checkpoint, open_ldm_checkpoint
from .model_cache import made_once

FORM = 1
"""Counts changes of what the folder holds, so that an old one is not taken for a new one."""
_ZIP, _PICKLE, _GGUF = b"PK\x03\x04", b"\x80", b"GGUF"
_SAFETENSORS, _MINDSPORE = "safetensors", "mindspore"


def open_single_file(
    file: Path, *, original_config: Path | None = None, version: str | None = None, allow_pickle: bool = False
) -> Path:
    """The folder in diffusers' layout that a model in one file becomes: made once, in a cache, whole or not at all.

    Args:
        file: safetensors; or MindONE's .ckpt, told by its content; or a pickle of PyTorch's, with `allow_pickle`.
        original_config: what describes the model where its shapes do not: a YAML file in the original layout (SD 1 and
            2), or a folder in diffusers' layout, whose configurations, schedule and tokenizers it takes.
        version: "1.5", "2.0", "2.0-v", "2.1" or "2.1-v", which Stable Diffusion it is.

    Raises:
        ConfigError: the file is damaged, is none of the models that are known (says what it is, where that is known),
            lacks parts, or leaves open what has to be known.
        RunError: the cache cannot be written.
    """
    if _form(file, allow_pickle) == _MINDSPORE:
        return open_ldm_checkpoint(file, original_config, version)
    said = ["single file", FORM, remembered_sha256(file), identity_of(original_config), version]
    return made_once(said, lambda folder: _convert(file, folder, original_config, version))


def open_part(file: Path, component: str, described: Path, *, allow_pickle: bool = False) -> Path:
    """The folder of one network of a file, to use in place of a model's own; in the cache, as `open_single_file`.

    Args:
        component: what pipelines call it.
        described: that model's folder, whose configuration it has.

    Raises:
        ConfigError: it is not there, or is built otherwise than that model's.
    """
    if _form(file, allow_pickle) == _MINDSPORE:
        raise ConfigError(f"{file}: a checkpoint of MindONE's; only a whole model is read from such a file")
    config = described / component / "config.json"
    said = ["part", FORM, remembered_sha256(file), component, file_sha256(config)]

    def fill(folder: Path) -> None:
        found = _read(file)[0]
        if component not in found.parts:
            raise ConfigError(f"{file}: holds {found.layout.name}'s {', '.join(found.parts)}, and no {component}")
        fill_part(folder, found, component, described, str(file))

    return made_once(said, fill) / component


def convert_single_file(
    file: Path,
    folder: Path,
    *,
    original_config: Path | None = None,
    version: str | None = None,
    allow_pickle: bool = False,
) -> tuple[str, ...]:
    """Fill an empty folder with what a model in one file becomes; as `open_single_file`.

    Returns:
        the file's names that have no place in the folder, sorted: every other one is there.
    """
    if _form(file, allow_pickle) == _MINDSPORE:
        return convert_ldm_checkpoint(file, original_config, version, folder)
    return _convert(file, folder, original_config, version)


def _convert(file: Path, folder: Path, described: Path | None, version: str | None) -> tuple[str, ...]:
    found, metadata = _read(file)
    fill_folder(folder, found, Said(str(file), described, version, metadata))
    return found.left_out


def _read(file: Path) -> tuple[Contents, Mapping[str, str]]:
    """A file's tensors by part, and what it says of itself."""
    entries, metadata, beside = _entries(file)
    layout = recognized(entries, str(file))
    found = contents(entries, layout, str(file))
    return Contents(layout, found.parts, found.facts, tuple(sorted([*found.left_out, *beside]))), metadata


def _entries(file: Path) -> tuple[dict[str, Entry], Mapping[str, str], tuple[str, ...]]:
    """A file's tensors, its metadata, and what it holds besides."""
    if _form(file, True) == _SAFETENSORS:
        tensors = Tensors(file)
        return tensors.entries(), tensors.metadata, ()
    pickled = read_torch_pickle(file)
    return pickled.entries(), {}, pickled.left_out


def _form(file: Path, allow_pickle: bool) -> str:
    """What kind of file it is, by its first bytes, and by its ending where they tell nothing.

    Raises:
        ConfigError: it is not there, or of a kind that is not read, or a pickle that is not allowed.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    with file.open("rb") as opened:
        start = opened.read(9)
    if start.startswith(_GGUF):
        raise ConfigError(
            f"{file}: GGUF, quantized weights, which are not read; give the file of the same model in fp16 or bf16"
        )
    if file.suffix == ".safetensors" or start[8:] == b"{":
        return _SAFETENSORS
    if start.startswith((_ZIP, _PICKLE)):
        if not allow_pickle:
            read_torch_pickle(file, allow_pickle=False)  # which refuses it
        return "pickle"
    if file.suffix != ".ckpt":
        raise ConfigError(
            f"{file}: is no model: neither a folder, nor weights in one file (.safetensors, or a pickle of PyTorch's)"
        )
    return _MINDSPORE
