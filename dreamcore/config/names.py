"""Names of settings: other trainers' spellings, names that have no place here, and the nearest name to a misspelt one.

One setting has one name, diffusers' where diffusers has one; these tables let a command line written for another
trainer be carried over, or say why a flag of it is not needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

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
    "use_dora": "DoRA is not trained here; use_lora trains plain LoRA",
}
"""Other trainers' name -> why it has no counterpart."""


def canonical_names(values: Mapping[str, Any], known: Iterable[str], problems: list[str]) -> dict[str, Any]:
    """`values` under this library's names (hyphens as underscores).

    Args:
        problems: receives what is wrong: unknown names, each with the nearest known one, and names given twice under
            two spellings with two values.
    """
    known = list(known)
    result: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for raw, value in values.items():
        name = raw.replace("-", "_")
        name = ALIASES[name] if name in ALIASES and name not in known and ALIASES[name] in known else name
        if name not in known:
            problems.append(unknown_name(raw, known))
        elif name in result and result[name] != value:
            other = raw if raw != name else spelt[name]
            problems.append(f"{name}: given twice (also as {other}); give it once")
        else:
            result[name], spelt[name] = value, raw
    return result


def unknown_name(name: str, known: Collection[str]) -> str:
    """The message for a setting that does not exist."""
    plain = name.lstrip("-").replace("-", "_")
    if plain in RETIRED:
        return f"{plain}: not a setting here; {RETIRED[plain]}"
    near = nearest(plain, known) or nearest(plain.removeprefix("no_"), known)
    return f"{plain}: unknown setting; " + (f"did you mean {near}?" if near else "--help lists them all")


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that `name` misspells: a slip or two of the finger, or its words in another order.

    Nothing that merely looks alike: following a wrong hint is worse than having none.
    """
    slips = 0 if len(name) < 4 else 1 if len(name) < 8 else 2
    found = [(_slips(name, one), one) for one in known if abs(len(one) - len(name)) <= slips]
    found += [(0, one) for one in known if sorted(one.split("_")) == sorted(name.split("_"))]
    return min((near for near in found if near[0] <= slips), default=(0, None))[1]


def _slips(one: str, other: str) -> int:
    """Letters left out, put in, exchanged for others or for their neighbours, that make `one` of `other` (the optimal
    string alignment distance)."""
    before, last = list[int](), list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]
