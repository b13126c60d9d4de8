"""The finished model: every component of the source pipeline, the trained ones replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..backends.protocol import Backend
from ..config.train import ExportFormat
from ..formats.ppdiffusers import PUBLISHED, published_index, to_ppdiffusers
from ..formats.weight_files import choose_weights
from ..io.names import INDEX, LORA_FILE
from ..models.folder import ModelFolder

REWRITTEN = (".bin", ".pdparams")
"""Forms of weights that the finished model does not keep; nor does it keep Paddle's layout of them."""


def write_model(
    backend: Backend,
    model: ModelFolder,
    folder: Path,
    layout: ExportFormat = "diffusers",
    *,
    text_encoders: bool = True,
) -> None:
    """Write what a run has trained into an empty folder: a LoRA file, or a whole pipeline in a library's layout.

    What does not train is copied byte for byte; weights in another form (.bin, a variant) are rewritten as plain
    safetensors.

    Args:
        text_encoders: write them; without them the index says null, as diffusers has it.
    """
    backend.export(folder, averaged=True)
    if not (folder / LORA_FILE).exists():
        without = [] if text_encoders else [encoder.network for encoder in model.text_encoders]
        for name in without:
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in model.components:
            if not (folder / name).exists() and name not in without:
                _carry_over(backend, model, name, folder / name)
        if (index := published_index(model.index) | {name: [None, None] for name in without}) == model.index:
            shutil.copyfile(model.path / INDEX, folder / INDEX)
        else:
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if layout == "ppdiffusers":
        to_ppdiffusers(folder)


def _carry_over(backend: Backend, model: ModelFolder, name: str, target: Path) -> None:
    source = model.folder(name)
    names = [f.name for f in source.iterdir() if f.is_file()]
    weights = choose_weights(names, model.variant) or choose_weights(names, None)
    plain = model.variant is None or weights == choose_weights(names, None)
    plain = plain and model.index[name][0] not in PUBLISHED
    target.mkdir()
    for file in names:
        is_weight = file.endswith((".safetensors", ".bin", ".pdparams", ".msgpack", ".onnx", ".index.json"))
        is_index = len(weights) > 1 and file.endswith(".index.json")
        if not is_weight or (plain and (file in weights or is_index) and not file.endswith(REWRITTEN)):
            shutil.copyfile(source / file, target / file)
    if weights and (not plain or weights[0].endswith(REWRITTEN)):
        backend.rewrite_weights([source / w for w in weights], target)
