"""Names of settings: spellings that are understood everywhere, and the nearest name to a misspelt one.

One setting has one name, diffusers' where diffusers has one.  What other trainers call it, system by system: `compat`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .compat import SYSTEMS, Meaning, Refused
from .compat.meaning import TOKEN

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
"""Another name -> ours, whoever's it is: the meaning is the same."""
PRESET = "preset"
"""The line of a configuration file that names what it builds on."""


def canonical_names(
    values: Mapping[str, Any],
    known: Iterable[str],
    problems: list[str],
    table: Mapping[str, Meaning],
    notes: list[str],
) -> dict[str, Any]:
    """`values` under this library's names (hyphens as underscores).

    Args:
        problems: receives what is wrong: names given twice under two spellings with two values, names and values that
            have no counterpart here.
        table: what another trainer's names mean here; what it leaves is for `unknown_names`, once its parts are joined.
        notes: receives what is to be said of names that are understood.
    """
    known = list(known)
    result: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for raw, value in values.items():
        name = raw.replace("-", "_")
        try:
            settings = _settings(name, value, known, table, notes)
        except Refused as error:
            problems.append(f"{raw}: {error}")
            continue
        for own, meant in settings.items():
            if own in result and str(result[own]).lower() != str(meant).lower():
                other = raw if raw != own else spelt[own]
                problems.append(f"{own}: given twice (also as {other}); give it once")
            else:
                result[own], spelt[own] = meant, raw
    return result


def _settings(
    name: str, value: Any, known: Collection[str], table: Mapping[str, Meaning], notes: list[str]
) -> Mapping[str, Any]:
    if name in table and value is not None:
        if table[name].warning:
            notes.append(f"{name}: {table[name].warning}")
        return table[name].read(value)
    if name in ALIASES and name not in known and ALIASES[name] in known:
        name = ALIASES[name]
    return {name: value}


def unknown_names(values: Mapping[str, Any], known: Iterable[str], problems: list[str]) -> dict[str, Any]:
    """`values` without those that are no settings; `problems` receives a message for each."""
    known = [*known, TOKEN]
    problems += [unknown_name(name, known) for name in values if name not in known]
    return {name: value for name, value in values.items() if name in known}


def unknown_name(name: str, known: Collection[str]) -> str:
    """The message for a setting that does not exist."""
    plain = name.lstrip("-").replace("-", "_")
    if having := [one.name for one in SYSTEMS.values() if plain in one.every_name]:
        return f"{plain}: a name of {' and '.join(having)}; --like {having[0]} gives it its meaning"
    if plain == PRESET:
        return f"{plain}: a line of configuration files; elsewhere a preset is named by config: --config NAME"
    known = [*known, *(alias for alias, name in ALIASES.items() if name in known)]
    near = nearest(plain, known) or nearest(plain.removeprefix("no_"), known)
    return f"{plain}: unknown setting; " + (f"did you mean {near}?" if near else "--help all lists them")


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
