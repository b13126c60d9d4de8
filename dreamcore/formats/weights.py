"""Weights in files: under published names and in PyTorch's layout, whatever library wrote them.

Reading needs no framework.  A network is filled completely or not at all: names of old files are translated by a small
table, and any other difference is an error that names it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, RunError
from .pdparams import read_pdparams
from .tensors import Entry, Tensors, as_float, write_tensors

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

IGNORED = ("position_ids",)
"""Endings of names that hold no weight: position numbers, which old versions stored."""
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Parts of the names of the autoencoder's attention in files of 2022, and what they are called since."""
PREFIX = "text_model."
"""What CLIP's published names begin with, and transformers 5 leaves out."""
TIED = {"encoder.embed_tokens.weight": "shared.weight"}
"""The two names of T5's table, of which published files have one or both."""
RENAMED = (
    ("model.", "model.language_model."),
    ("visual.", "model.visual."),
    ("language_model.model.", "model.language_model."),
    ("language_model.model.", "language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("model.", ""),
)
"""Beginnings of the names of Qwen 2.5 VL, Qwen 3 VL and Mistral 3 in published files, and in transformers since 4.52,
with the head that says the next word or without."""
NEXT_WORD = "lm_head.weight"
"""Of language models, which some networks tie to their embeddings though their files have both."""
TABLE = "pos_embed.pos_embed"
"""SD3's positions, which are computed, and published all the same; they do not train."""
READ_AHEAD = 64 * 2**20
"""Bytes of mapped files that are read before their pages are given back."""
EMBEDDINGS = ("embedding", "embeddings", "embed_tokens", "shared", "relative_attention_bias")
"""Endings of the names of lookup tables, which are no Linear layers though their weights have two dimensions."""


def read_weights(files: Sequence[Path], *, paddles: bool = False) -> Arrays:
    """All arrays of a component's files, in PyTorch's layout; bfloat16 becomes float32.

    Args:
        paddles: whether the folder is ppdiffusers', whose safetensors files need not say so themselves.

    Raises:
        ConfigError: a damaged file, or one of a form that only PyTorch reads.
    """
    arrays: Arrays = {}
    for file in files:
        if file.suffix == ".safetensors":
            arrays |= read_safetensors(file, paddles=paddles)
        elif file.suffix == ".pdparams":
            arrays |= {name: swap_layout(name, value) for name, value in read_pdparams(file).items()}
        else:
            raise ConfigError(
                f"{file}: pickled weights, which only the torch backend reads; dreambooth convert FOLDER NEW_FOLDER "
                "--allow_pickle makes others of them"
            )
    return arrays


def read_safetensors(file: Path, *, paddles: bool = False) -> Arrays:
    """The arrays of one file by name, sorted, in PyTorch's layout.

    Metadata tell whose layout a file has: `pt` and `pd` say it; `np` is written by paddlenlp in Paddle's layout and by
    others in PyTorch's, so that it counts in a folder of ppdiffusers' (`paddles`) alone.

    Raises:
        ConfigError: it is damaged, or holds numbers of a type that is not known.
    """
    tensors = Tensors(file)
    # copies, for a file may be replaced while its weights are in use
    arrays = {name: np.array(as_float(tensors.entry(name))) for name in tensors}
    if _in_paddles_layout(tensors, paddles):
        return {name: swap_layout(name, value) for name, value in arrays.items()}
    return arrays


@dataclass(frozen=True)
class WeightSource:
    """A component's weights where they lie: in files that stay open, or that are read whole each time.

    Args:
        entries: by name, in PyTorch's layout.
        mapped: files that stay open.
        whole: files of a form that cannot be read tensor by tensor.
    """

    entries: Mapping[str, Entry]
    mapped: Sequence[Tensors] = ()
    whole: Sequence[_WholeFile] = ()

    def named(self, entries: Mapping[str, Entry]) -> WeightSource:
        """The same files, and their weights under other names."""
        return replace(self, entries=entries)

    def read(self) -> Iterator[tuple[str, Entry]]:
        """One weight after the other; of mapped files no more than `READ_AHEAD` stays in memory."""
        read = 0
        for name, entry in self.entries.items():
            yield name, entry
            read += entry.size
            if read >= READ_AHEAD:
                self._give_back()
                read = 0
        self._give_back()
        for file in self.whole:
            file.forget()

    def _give_back(self) -> None:
        for file in self.mapped:
            file.give_back()


class _WholeFile:
    """A file whose arrays are there from the first that is asked for until they are forgotten."""

    def __init__(self, file: Path):
        self._file, self._arrays = file, dict[str, NDArray[Any]]()

    def entries(self) -> dict[str, Entry]:
        self._arrays = read_weights([self._file])
        found = {name: Entry.of(value) for name, value in self._arrays.items()}
        self.forget()
        return {name: Entry(e.dtype, e.shape, partial(self._array, name)) for name, e in found.items()}

    def _array(self, name: str) -> NDArray[Any]:
        if not self._arrays:
            self._arrays = read_weights([self._file])
        return self._arrays[name]

    def forget(self) -> None:
        self._arrays = {}


def open_weights(files: Sequence[Path], *, paddles: bool = False) -> WeightSource:
    """As `read_weights`, but safetensors files are read tensor by tensor, in the types that they have.

    Raises:
        ConfigError: as there.
    """
    entries: dict[str, Entry] = {}
    mapped, whole = list[Tensors](), list[_WholeFile]()
    for file in files:
        if file.suffix != ".safetensors":
            whole.append(_WholeFile(file))
            entries |= whole[-1].entries()
            continue
        mapped.append(tensors := Tensors(file))
        found = tensors.entries()
        if _in_paddles_layout(tensors, paddles):
            found = {name: _swapped(name, entry) for name, entry in found.items()}
        entries |= found
    return WeightSource(entries, mapped, whole)


def _in_paddles_layout(tensors: Tensors, paddles: bool) -> bool:
    written_by = tensors.metadata.get("format")
    return written_by == "pd" or (written_by == "np" and paddles)


def _swapped(name: str, entry: Entry) -> Entry:
    """Out of Paddle's layout."""
    if not is_linear(name, len(entry.shape)):
        return entry
    return Entry(entry.dtype, entry.shape[::-1], lambda: entry.read().T)


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    return Tensors(file).metadata


def read_exactly(file: Path, shapes: Mapping[str, Sequence[int]], what: str) -> Arrays:
    """The arrays of one file, which has to hold these and no others.

    Args:
        what: for what they are, in words.

    Raises:
        RunError: arrays that are missing, left over or of another shape.
    """
    arrays = read_safetensors(file)
    if problem := misfit(arrays, shapes):
        raise RunError(f"{file}: does not fit {what}: {problem}")
    return arrays


def read_part(
    file: Path, shapes: Mapping[str, Sequence[int]], beside: Mapping[str, Sequence[int]], what: str
) -> Arrays:
    """`read_exactly` of some of a file's arrays, which are copied; those beside are left there.

    Raises:
        RunError: arrays that are missing, left over or of another shape.
    """
    tensors = Tensors(file)
    if problem := misfit(tensors, {**shapes, **beside}):
        raise RunError(f"{file}: does not fit {what}: {problem}")
    return {name: np.array(as_float(tensors.entry(name))) for name in shapes}


def write_safetensors(
    file: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as every library reads them."""
    write_tensors(file, {name: Entry.of(np.asarray(value)) for name, value in arrays.items()}, metadata)


def component_file(folder: Path) -> Path:
    """Where `from_pretrained` looks for the weights of a folder: only diffusers' configurations name their class."""
    config = folder / "config.json"
    diffusers = config.is_file() and "_class_name" in json.loads(config.read_text(encoding="utf-8"))
    return folder / ("diffusion_pytorch_model.safetensors" if diffusers else "model.safetensors")


def save_component(folder: Path, source: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write trained weights beside the configuration of their source, as `from_pretrained` loads them."""
    folder.mkdir()
    shutil.copyfile(source / "config.json", folder / "config.json")
    write_safetensors(component_file(folder), arrays)


def save_entries(folder: Path, source: Path, entries: Mapping[str, Entry]) -> None:
    """`save_component` of weights that come one after the other."""
    folder.mkdir()
    shutil.copyfile(source / "config.json", folder / "config.json")
    write_tensors(component_file(folder), entries)


def is_linear(name: str, dimensions: int) -> bool:
    """Whether a weight of that published name is a Linear layer's: [out, in] in PyTorch, [in, out] in Paddle.

    >>> is_linear("time_embedding.linear_1.weight", 2), is_linear("text_model.embeddings.token_embedding.weight", 2)
    (True, False)
    """
    layer, _, kind = name.rpartition(".")
    return dimensions == 2 and kind == "weight" and not layer.endswith(EMBEDDINGS)


def swap_layout(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """A weight from PyTorch's layout in Paddle's, or the other way round; its own inverse."""
    return value.T if is_linear(name, value.ndim) else value


def known_names(arrays: Mapping[str, T], wanted: Iterable[str]) -> dict[str, T]:
    """Arrays under the names that a network has, as far as the names are old or lack CLIP's prefix."""
    wanted = set(wanted)
    found: dict[str, T] = {}
    for name, value in arrays.items():
        new = name
        for old, now in OLD_ATTENTION.items():
            new = new.replace(old, now)
        if PREFIX + name in wanted:
            new = PREFIX + name
        if new not in wanted:
            new = TIED.get(name, new)
        for old, now in RENAMED:
            if new not in wanted and name.startswith(old):
                new = now + name.removeprefix(old)
        if new not in wanted and name.endswith((*IGNORED, NEXT_WORD)):
            continue
        found[new if new in wanted else name] = value
    return found


class Shaped(Protocol):
    """An array, or what will be one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def misfit(arrays: Mapping[str, Shaped], shapes: Mapping[str, Sequence[int]], network: str = "") -> str | None:
    """What is wrong with arrays for a network of these weights, in words; None where they fit."""
    problems = {
        "missing keys": shapes.keys() - arrays.keys(),
        "unexpected keys": arrays.keys() - shapes.keys(),
        "mismatched keys": {n for n, s in shapes.items() if n in arrays and arrays[n].shape != tuple(s)},
    }
    return problem_in_words(problems, network)


def problem_in_words(problems: Mapping[str, Iterable[str]], network: str = "") -> str | None:
    """The first kind of problem of which there are names, with the first of them; None where there are none.

    Args:
        network: the class that has it, if that is worth saying.
    """
    for kind, names in problems.items():
        if listed := sorted(names):
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            return f"{kind}{network and f' for {network}'}: {', '.join(listed[:5])}{more}"
    return None
