"""Names of settings: other trainers' spellings, names that have no place here, and the nearest name to a misspelt one.

One setting has one name, diffusers' where diffusers has one; these tables let a command line written for another
trainer be carried over, or say why a flag of it is not needed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError

ALIASES = {
    "lora_rank": "rank",
    "save_steps": "checkpointing_steps",
    "writer_type": "report_to",
    "epochs": "num_train_epochs",
    "clip_grad_norm": "max_grad_norm",
    "lora_target_modules": "lora_layers",
    "train_data_repeats": "repeats",
    "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags",
    "enable_bucket": "aspect_ratio_buckets",
    "bucket_reso_steps": "bucket_step",
    "class": "class_word",
    "model": "pretrained_model_name_or_path",
}
"""Other trainers' name -> ours, where the meaning is the same."""

RETIRED = {
    "dataloader_num_workers": "photographs are decoded and encoded once, before training: no workers are needed",
    "local_rank": "the launcher's environment says it",
    "set_grads_to_none": "gradients are always freed after an update",
    "hub_token": "a token is never read from a flag or a file: set HF_TOKEN in the environment or log in",
    "offset_noise": "give the amount instead: noise_offset=0.1",
}
"""Other trainers' name -> why it has no counterpart."""


def canonical_names(values: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """`values` under this library's names (hyphens as underscores).

    Raises:
        ConfigError: for an unknown name, with the nearest known one; for a name given twice under two spellings.
    """
    known = list(known)
    result: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for raw, value in values.items():
        name = raw.replace("-", "_")
        name = ALIASES[name] if name in ALIASES and name not in known and ALIASES[name] in known else name
        if name not in known:
            raise ConfigError(unknown_name(raw, known))
        if name in result:
            other = raw if raw != name else spelt[name]
            raise ConfigError(f"{name}: given twice (also as {other}); give it once")
        result[name], spelt[name] = value, raw
    return result


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The message for a setting that does not exist."""
    plain = name.lstrip("-").replace("-", "_")
    if plain in RETIRED:
        return f"{plain}: not a setting here; {RETIRED[plain]}"
    near = difflib.get_close_matches(plain, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "; --help lists them all"
    return f"{plain}: unknown setting{hint}"
