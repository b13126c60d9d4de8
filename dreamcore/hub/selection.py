"""Which of a run folder's files are published: an allow-list of names, for photographs and logs lie beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError
from ..formats.weight_files import choose_weights, variant_in
from ..io.names import INDEX, LEARNED_FILE, LORA_FILE, PADDLE_LORA_FILE, SAMPLES, embeddings_name, lora_name

SAMPLE = re.compile(r"step-(\d{6,})-(\d+)\.png")
"""Names of a validation's images, by update and number."""
LORA_FILES = (LORA_FILE, PADDLE_LORA_FILE)
CONFIGURATIONS = (
    *("config.json", "scheduler_config.json", "preprocessor_config.json", "generation_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
VOCABULARIES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.json", "spiece.model", "sentencepiece.bpe.model")
SHARD_INDICES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")
"""Which shard holds which weight."""
PLACES = ("_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file")
"""Fields of configurations in which the libraries note where they have read something."""
_ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:")


def published_files(folder: Path, updates: int | None = None) -> dict[str, Path]:
    """The files of a finished run that are published, by their names there.

    Args:
        updates: that the run made; images of later ones are another run's.

    Raises:
        ConfigError: there is no finished model.
    """
    if (folder / LORA_FILE).is_file():
        names = [name for name in (*LORA_FILES, lora_name(folder)) if (folder / name).is_file()]
        names += _embeddings(folder)
    elif (folder / INDEX).is_file():
        names = [INDEX, *(f"{part}/{name}" for part in _components(folder) for name in _component_files(folder / part))]
        names += _embeddings(folder)
    elif not (names := _embeddings(folder)):
        raise ConfigError(
            f"push_to_hub: {folder}: holds no finished model ({INDEX} or {LORA_FILE}); it is there once a run has ended"
        )
    return {name: folder / name for name in (*names, *last_samples(folder, updates))}


def _embeddings(folder: Path) -> list[str]:
    """The files of new words' embeddings."""
    return [name for name in (embeddings_name(folder), LEARNED_FILE) if (folder / name).is_file()]


def last_samples(folder: Path, updates: int | None = None) -> list[str]:
    """The images of a run's last validation, by their names relative to its folder; those made before update 1 are not
    of what it has trained."""
    found = [(int(m[1]), int(m[2]), m[0]) for f in (folder / SAMPLES).glob("*.png") if (m := SAMPLE.fullmatch(f.name))]
    found = [one for one in found if 0 < one[0] <= (one[0] if updates is None else updates)]
    last = max((update for update, _, _ in found), default=0)
    return [f"{SAMPLES}/{name}" for update, _, name in sorted(found) if update == last]


def replaced_files(there: Iterable[str], new: Iterable[str]) -> list[str]:
    """What an earlier upload has left in a repository that would pass for a part of the new one: images of another
    validation, and weights in other files, which diffusers might read in place of the new ones."""
    new = set(new)
    parts = {name.partition("/")[0] for name in new if "/" in name} - {SAMPLES}
    return [name for name in there if name not in new and _passes_for_a_part(name, parts, new)]


def _passes_for_a_part(name: str, parts: set[str], new: set[str]) -> bool:
    folder, _, base = name.rpartition("/")
    if folder == SAMPLES:
        return SAMPLE.fullmatch(base) is not None
    if not folder:
        return name in LORA_FILES and LORA_FILE in new
    return folder in parts and (base in SHARD_INDICES or bool(choose_weights([base], variant_in(base))))


def without_places(file: Path) -> Path | bytes:
    """A file to be uploaded; a configuration that says where on this machine something was read, without that."""
    if file.name not in (INDEX, *CONFIGURATIONS):
        return file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return file
    if not isinstance(content, dict):
        return file
    local = [key for key in PLACES if isinstance(value := content.get(key), str) and _ABSOLUTE.match(value)]
    if not local:
        return file
    kept = {key: value for key, value in content.items() if key not in local}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _components(folder: Path) -> list[str]:
    """The sub-folders that the model's index names."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"push_to_hub: {folder / INDEX}: is damaged: {error}") from None
    named = [n for n, value in index.items() if isinstance(value, list) and n.isidentifier()]
    return [name for name in named if (folder / name).is_dir()]


def _component_files(folder: Path) -> list[str]:
    names = sorted(f.name for f in folder.iterdir() if f.is_file())
    weights = choose_weights(names, None)
    allowed = {*CONFIGURATIONS, *VOCABULARIES, *weights, *(SHARD_INDICES if len(weights) > 1 else ())}
    return [name for name in names if name in allowed]
