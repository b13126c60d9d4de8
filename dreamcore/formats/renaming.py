"""Tensors under other names, in both directions by one table, and each computed only when it is written.

A table has a file's name of a tensor -> the published names of those that it holds, one after the other along its first
axis.  The few tensors that differ in more than their names have a class of tuple that says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .pdparams import read_pdparams
from .tensors import Entry, Tensors, as_float
from .torch_pickle import read_torch_pickle
from .weights import is_linear, problem_in_words

Names = dict[str, tuple[str, ...]]
"""A file's name of a tensor -> the published names of the tensors that it holds along its first axis."""


class Convolution(tuple[str, ...]):
    """The file has [out, in, 1, 1], which is written, or [out, in, 1] or [out, in], which is published."""


class Transposed(tuple[str, ...]):
    """The file has [in, out], where [out, in] is published."""


class Swapped(tuple[str, ...]):
    """The file has its halves (shift, scale) the other way round."""


class Uneven(tuple[str, ...]):
    """Of the tensors that it holds, the last is four times as long as each of the others."""


def published_entries(old: Mapping[str, Entry], names: Names, what: str) -> dict[str, Entry]:
    """Entries under their published names and in the published shapes; views of `old` where that is possible.

    Args:
        old: by the file's names, as `names` has them.
        what: the file, and the part of it, for messages.

    Raises:
        ConfigError: names that are missing or left over, or a tensor that does not split.
    """
    _account(old.keys(), names, what)
    found: dict[str, Entry] = {}
    for name, published in names.items():
        entry = old[name]
        if isinstance(published, Convolution):
            entry = _as_linear(name, entry, what)
        elif isinstance(published, Transposed):
            entry = transposed(entry)
        elif isinstance(published, Swapped):
            entry = _swapped(name, entry, what)
        found |= zip(published, _pieces(name, entry, published, what), strict=True)
    return found


def original_entries(published: Mapping[str, Entry], names: Names, what: str) -> dict[str, Entry]:
    """Entries under the file's names and in its shapes; the inverse of `published_entries`.

    Raises:
        ConfigError: names that are missing or left over, or tensors that do not belong together.
    """
    _account(published.keys(), {name: () for many in names.values() for name in many}, what)
    found: dict[str, Entry] = {}
    for old, many in names.items():
        entry = joined([published[name] for name in many], f"{what}: {old}")
        if isinstance(many, Convolution):
            entry = _shaped(entry, (*entry.shape, 1, 1))
        elif isinstance(many, Transposed):
            entry = transposed(entry)
        elif isinstance(many, Swapped):
            entry = _swapped(old, entry, what)
        found[old] = entry
    return found


def read_entries(files: Sequence[Path], *, paddles: bool = False, allow_pickle: bool = False) -> dict[str, Entry]:
    """All tensors of a component's files in PyTorch's layout, none of them read yet; types stay as they are.

    Args:
        paddles: as for `weights.read_weights`.

    Raises:
        ConfigError: a damaged file, or pickled weights that are not allowed.
    """
    found: dict[str, Entry] = {}
    for file in files:
        if file.suffix == ".safetensors":
            tensors = Tensors(file)
            written_by = tensors.metadata.get("format")
            swap = written_by == "pd" or (written_by == "np" and paddles)
            entries = tensors.entries()
        elif file.suffix == ".pdparams":
            swap, entries = True, {name: Entry.of(value) for name, value in read_pdparams(file).items()}
        else:
            swap, entries = False, read_torch_pickle(file, allow_pickle=allow_pickle).entries()
        found |= {n: transposed(e) if swap and is_linear(n, len(e.shape)) else e for n, e in entries.items()}
    return found


def transposed(entry: Entry) -> Entry:
    """Of two dimensions."""
    return Entry(entry.dtype, entry.shape[::-1], lambda: entry.read().T)


def joined(entries: Sequence[Entry], what: str = "") -> Entry:
    """Entries one after the other along their first axis.

    Raises:
        ConfigError: they differ in type, or in the other axes.
    """
    first, *others = entries
    if not others:
        return first
    if any(e.dtype != first.dtype or e.shape[1:] != first.shape[1:] or not e.shape for e in entries):
        raise ConfigError(f"{what}: holds tensors of one type and width; there are {_words(entries)}")
    length = sum(entry.shape[0] for entry in entries)
    return Entry(first.dtype, (length, *first.shape[1:]), lambda: np.concatenate([e.read() for e in entries]))


def cast(entry: Entry, dtype: str) -> Entry:
    """Numbers of another type, F16, BF16 or F32, rounded to the nearest, to the even one of two; whole numbers stay."""
    if entry.dtype == dtype or entry.dtype not in ("F16", "BF16", "F32", "F64"):
        return entry
    return Entry(dtype, entry.shape, lambda: _to(dtype, as_float(entry)))


def _to(dtype: str, value: NDArray[Any]) -> NDArray[Any]:
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return value.astype({"F16": np.float16, "F32": np.float32}[dtype])
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32).reshape(value.shape)
    rounded = np.asarray(bits >> 16)  # step by step in one array: the largest tensor has hundreds of MiB
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    found = rounded.astype(np.uint16)
    found[np.isnan(value)] = 0x7FC0
    return found


def _pieces(name: str, entry: Entry, published: tuple[str, ...], what: str) -> list[Entry]:
    if len(published) == 1:
        return [entry]
    shares = [1] * (len(published) - 1) + [4 if isinstance(published, Uneven) else 1]
    if not entry.shape or entry.shape[0] % sum(shares):
        raise ConfigError(f"{what}: {name}: its shape {entry.shape} does not split into {len(published)}")
    unit = entry.shape[0] // sum(shares)
    ends = pairwise(unit * end for end in (0, *accumulate(shares)))
    return [Entry(entry.dtype, (end - start, *entry.shape[1:]), _rows(entry, start, end)) for start, end in ends]


def _rows(entry: Entry, start: int, end: int) -> Callable[[], NDArray[Any]]:
    return lambda: entry.read()[start:end]


def _shaped(entry: Entry, shape: tuple[int, ...]) -> Entry:
    return Entry(entry.dtype, shape, lambda: entry.read().reshape(shape))


def _swapped(name: str, entry: Entry, what: str) -> Entry:
    if not entry.shape or entry.shape[0] % 2:
        raise ConfigError(f"{what}: {name}: its shape {entry.shape} does not split into 2")
    return Entry(entry.dtype, entry.shape, lambda: np.roll(entry.read(), entry.shape[0] // 2, axis=0))


def _as_linear(name: str, entry: Entry, what: str) -> Entry:
    if len(entry.shape) < 2 or any(side != 1 for side in entry.shape[2:]):
        raise ConfigError(f"{what}: {name}: expected a convolution of size 1; its shape is {entry.shape}")
    return _shaped(entry, entry.shape[:2])


def _words(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{entry.dtype} {entry.shape}" for entry in entries)


def _account(there: Any, wanted: Mapping[str, Any], what: str) -> None:
    problems = {"missing keys": wanted.keys() - there, "unexpected keys": there - wanted.keys()}
    if problem := problem_in_words(problems):
        raise ConfigError(f"{what}: {problem}")
