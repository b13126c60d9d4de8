"""The finished model: every component of the source pipeline, the trained ones replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.protocol import Backend
from ..diffusion.schedule import FIXED_VARIANCE, learns_variance
from ..formats.ppdiffusers import PUBLISHED, published_index, to_ppdiffusers
from ..formats.precision import round_weights
from ..formats.weight_files import choose_weights
from ..io.names import INDEX, LEARNED_FILE, embeddings_name, lora_name
from ..models.folder import ModelFolder
from .lora_export import WrittenLora, header_of, write_lora_files

if TYPE_CHECKING:
    from .setup import Prepared

REWRITTEN = (".bin", ".pdparams")
"""Forms of weights that the finished model does not keep; nor does it keep Paddle's layout of them."""


def write_model(p: Prepared, folder: Path, updates: int) -> WrittenLora | None:
    """Write what a run has trained into an empty folder: LoRA files, or a whole pipeline in a library's layout; and
    new words' embeddings.

    What does not train is copied byte for byte where no precision is asked for; weights in another form (.bin, a
    variant) are rewritten as plain safetensors.

    Args:
        updates: how many the run has made.

    Returns:
        What is to be said of LoRA files; None of a pipeline.

    Raises:
        RunError: a number that has no place in the precision that is asked for.
    """
    resolved, written = p.resolved, None
    _write_words(p, folder)
    if p.config.words_alone:
        return None
    if (trained := p.backend.trained_lora(averaged=True)) is not None:
        header = header_of(p, trained, updates)
        written = write_lora_files(trained, p.data.model, folder, lora_name(p.folder), resolved.save_precision, header)
    else:
        _write_pipeline(p.backend, p.data.model, folder, text_encoders=resolved.saves_text_encoders)
        if resolved.save_precision != "fp32":
            for file in sorted(folder.glob("*/*.safetensors")):
                round_weights(file, resolved.save_precision)
    if resolved.export_format == "ppdiffusers":
        to_ppdiffusers(folder)
    return written


def _write_words(p: Prepared, folder: Path) -> None:
    """Write the embeddings of new words, where a run has trained any: all in one file, and, of a model with one text
    encoder, each by itself."""
    words = p.backend.new_words(averaged=True) if p.config.train_text_encoder_ti else None
    if words is not None:
        words.save(folder / embeddings_name(p.folder))
        if len(p.data.model.text_encoders) == 1:
            words.save_apart(folder, LEARNED_FILE)


def _write_pipeline(backend: Backend, model: ModelFolder, folder: Path, *, text_encoders: bool) -> None:
    """Write every component and the index.

    Args:
        text_encoders: write them; without them the index says null, as diffusers has it.
    """
    backend.export(folder, averaged=True)
    without = [] if text_encoders else [encoder.network for encoder in model.text_encoders]
    for name in without:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in model.components:
        if not (folder / name).exists() and name not in without:
            _carry_over(backend, model, name, folder / name)
    if learns_variance(config := model.config("scheduler")):  # of which the training was not
        fixed = json.dumps(config | {"variance_type": FIXED_VARIANCE}, indent=2)
        (folder / "scheduler" / "scheduler_config.json").write_text(fixed + "\n", encoding="utf-8")
    if (index := published_index(model.index) | {name: [None, None] for name in without}) == model.index:
        shutil.copyfile(model.path / INDEX, folder / INDEX)
    else:
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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
