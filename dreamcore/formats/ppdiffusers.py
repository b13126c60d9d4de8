"""The two layouts of a pipeline's folder: diffusers', which is everyone's, and ppdiffusers' own.

They differ in the names of the libraries in model_index.json, in the files of weights and in the way that Linear
weights lie in them.  Turning one into the other needs no framework.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..io.names import INDEX, LORA_FILE, PADDLE_LORA_FILE, PADDLE_WEIGHTS
from .pdparams import write_pdparams
from .renaming import read_entries
from .tensors import Entry, as_float
from .weight_files import choose_weights
from .weights import Arrays, read_safetensors, swap_layout

LIBRARIES = {"diffusers": "ppdiffusers", "transformers": "ppdiffusers.transformers"}
"""What ppdiffusers calls the libraries that diffusers names."""
PUBLISHED = {
    "ppdiffusers": "diffusers",
    "ppdiffusers.transformers": "transformers",
    "paddlenlp.transformers": "transformers",
}
"""What diffusers calls the libraries that ppdiffusers names."""


def published_index(index: dict[str, Any]) -> dict[str, Any]:
    """A model_index.json of either layout, as diffusers reads it."""
    return _renamed(index, PUBLISHED)


def to_ppdiffusers(folder: Path) -> None:
    """Turn a finished pipeline, or the folder of a LoRA file, into what ppdiffusers loads by itself.

    A LoRA file stays, for every other reader, and one of ppdiffusers' own joins it.
    """
    if (folder / LORA_FILE).exists():
        arrays = _swapped(read_safetensors(folder / LORA_FILE))
        save_file(arrays, folder / PADDLE_LORA_FILE, metadata={"format": "pd"})
        return
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for name in [n for n, value in index.items() if isinstance(value, list) and (folder / n).is_dir()]:
        _turn_component(folder / name)
    (folder / INDEX).write_text(json.dumps(_renamed(index, LIBRARIES), indent=2) + "\n", encoding="utf-8")


def _turn_component(folder: Path) -> None:
    files = [folder / name for name in choose_weights((f.name for f in folder.iterdir()), None)]
    if not files or files[0].suffix != ".safetensors":
        return
    write_pdparams(folder / PADDLE_WEIGHTS, _Swapped(read_entries(files)))
    for file in (*files, *folder.glob("*.safetensors.index.json")):
        file.unlink()


class _Swapped(Mapping[str, NDArray[Any]]):
    """Tensors in Paddle's layout, each computed when it is asked for; bfloat16 as float32."""

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = entries

    def __getitem__(self, name: str) -> NDArray[Any]:
        return swap_layout(name, as_float(self._entries[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _swapped(arrays: Arrays) -> Arrays:
    return {name: np.asarray(swap_layout(name, value), order="C") for name, value in arrays.items()}


def _renamed(index: dict[str, Any], libraries: dict[str, str]) -> dict[str, Any]:
    return {
        name: [libraries.get(value[0], value[0]), value[1]] if isinstance(value, list) and len(value) == 2 else value
        for name, value in index.items()
    }
