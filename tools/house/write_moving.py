"""Write the tables of docs/moving.md from what other trainers' names mean here: `python -m tools.house.write_moving`.

Each stands between two comments that name it; what stands around them is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dreamcore.config import GenerateConfig, Settings, TrainConfig
from dreamcore.config.compat import SYSTEMS, Meaning, System
from dreamcore.config.names import ALIASES
from dreamcore.families import FAMILIES
from dreamcore.runs.layout import LAYOUTS
from tests.support.paths import ROOT

FILE = ROOT / "docs" / "moving.md"
INTERNAL = ("kohya_script",)
"""What a script's file name says, and no flag of theirs."""
SHORT = 12
"""Rows of names without effect, beyond which they are folded."""
TITLES = {"torch": "PyTorch", "paddle": "Paddle", "mindspore": "MindSpore", None: "any of ours"}
Line = tuple[str, ...]


def table(head: Line, rows: Iterable[Line]) -> list[str]:
    """A table's lines."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, *rows)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]


def quoted(value: Any) -> str:
    """A value as it is typed; small numbers as 5e-6."""
    if isinstance(value, float) and 0 < value < 0.01:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"`{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}`"
    return f"`{','.join(value) if isinstance(value, list) else value}`"


def trainers() -> list[str]:
    """Which there are."""
    return table(
        ("`--like`", "whose", "runs on"),
        ((f"[`{one.name}`](#{one.name})", one.about, TITLES[one.backend]) for one in SYSTEMS.values()),
    )


def everywhere() -> list[str]:
    """Names that mean the same whoever's they are."""
    return table(("name", "here"), ((f"`{name}`", f"`{ours}`") for name, ours in ALIASES.items()))


def layouts() -> list[str]:
    """Where files lie besides."""
    rows = []
    for name, names in LAYOUTS.items():
        files = [names.image, names.log, names.weights, names.network and f"checkpoint-{{step}}/{names.network}"]
        listed = ", ".join(f"`{file}`" for file in files if file)
        rows.append((f"`{name}`", listed or "–", "`OUTPUT_DIR/DATE_TIME`" if names.dated else "`OUTPUT_DIR`"))
    return table(("`--layout`", "files besides ours", "a run's folder"), rows)


def scripts(system: System) -> list[str]:
    """Which scripts are known, and what their names say."""
    rows = []
    for file, script in system.scripts.items():
        said = [f"--{name}" if value is True else f"--{name} {value}" for name, value in script.settings.items()]
        own = [f for f in said if f.split()[0].removeprefix("--") in INTERNAL]
        flags = " ".join([f"dreambooth {script.command} --like {system.name}", *(f for f in said if f not in own)])
        rows.append((f"`{file}`", f"`{flags}`" + (", with that script's own defaults" if own else "")))
    return table(("script", "is"), rows)


def defaults(system: System) -> list[str]:
    """Its defaults where they are other than ours: of training, for every model and by family, and of making images."""
    lines = _other_defaults(TrainConfig, system.defaults)
    columns = _columns(system)
    if names := dict.fromkeys(name for _, values in columns for name in values):
        cells = [(n, [quoted(values[n]) if n in values else "" for _, values in columns]) for n in names]
        head = ("setting", "ours", *(models for models, _ in columns))
        lines += ["", "By model and method:", "", *table(head, ((f"`{n}`", _ours(n), *own) for n, own in cells))]
    if system.generates:
        lines += ["", "Of `dreambooth generate`:", "", *_other_defaults(GenerateConfig, system.generates)]
    return lines


def _other_defaults(cls: type[Settings], theirs: Mapping[str, Any]) -> list[str]:
    other = {name: value for name, value in theirs.items() if value != cls.model_fields[name].default}
    return table(("setting", "ours", "theirs"), ((f"`{n}`", _ours(n, cls), quoted(v)) for n, v in other.items()))


def _columns(system: System) -> list[tuple[str, Mapping[str, Any]]]:
    """What depends on the model: for each family and method, those alike in one column."""
    found: list[tuple[list[tuple[str, str]], Mapping[str, Any]]] = []
    for family in dict.fromkeys(one.name for one in FAMILIES.values() if system.backend in (None, *one.backends)):
        for method in ("full", "LoRA"):
            values = system.of_model(family, method == "LoRA")
            alike = next((names for names, other in found if other == values), None)
            found += [] if alike is not None else [([], values)]
            (found[-1][0] if alike is None else alike).append((family.replace("Stable Diffusion", "SD"), method))
    return [(_heading(names), values) for names, values in found]


def _heading(names: list[tuple[str, str]]) -> str:
    methods: dict[str, list[str]] = {}
    for family, method in names:
        methods.setdefault(family, []).append(method)
    return "; ".join(family + ("" if len(which) == 2 else f", {which[0]}") for family, which in methods.items())


def _ours(name: str, cls: type[Settings] = TrainConfig) -> str:
    """Our default; where there is none, what the setting's description says of it."""
    field = cls.model_fields[name]
    if field.is_required():
        return "required"
    if field.default is not None:
        return quoted(field.default)
    said = re.search(r"[Dd]efault(?: alpha)?(?: is|:)? (.+?)(?:\.?$|; |\. )", field.description or "")
    return said[1] if said else "–"


def names(system: System) -> list[str]:
    """What its names mean; where both commands have the same, once."""
    if dict(system.train) == dict(system.generate) or not system.generate:
        return _names(system, system.train)
    return [
        *("Of `dreambooth train`:", "", *_names(system, system.train), ""),
        *("Of `dreambooth generate`:", "", *_names(system, system.generate)),
    ]


def _names(system: System, meanings: Mapping[str, Meaning]) -> list[str]:
    rows = [(f"`{name}`", "`config`: a file of settings") for name in system.configuration if meanings is system.train]
    kinds: dict[str, dict[str, list[str]]] = {"accepted": {}, "refused": {}}
    for name, meaning in meanings.items():
        kind, _, why = meaning.words.partition(": ")
        if name in INTERNAL:
            continue
        if kind in kinds:
            kinds[kind].setdefault(why, []).append(name)
            continue
        words = f"{meaning.words}, whose values have other names too" if meaning.words == f"`{name}`" else meaning.words
        rows.append((f"`{name}`", f"{words}; beside it images are made" if name in system.draws else words))
    lines = table(("name", "here"), rows)
    for kind, title in (("accepted", "Accepted, and changes nothing"), ("refused", "Refused")):
        if kinds[kind]:
            lines += ["", *_by_reason(title, kinds[kind])]
    return lines


def _by_reason(title: str, reasons: Mapping[str, list[str]]) -> list[str]:
    """Names that have no effect, a line for each reason; a long list is folded."""
    count = sum(len(names) for names in reasons.values())
    rows = [(", ".join(f"`{name}`" for name in names), why) for why, names in reasons.items()]
    lines = table((title.lower(), "why"), rows)
    if count <= SHORT:
        return lines
    return ['<details markdown="1">', f"<summary>{title}: {count} names</summary>", "", *lines, "", "</details>"]


def blocks() -> dict[str, list[str]]:
    """Every table, by the name in its comment."""
    found = {"trainers": trainers(), "everywhere": everywhere(), "layouts": layouts()}
    parts: dict[str, Callable[[System], list[str]]] = {"scripts": scripts, "defaults": defaults, "names": names}
    for system in SYSTEMS.values():
        found |= {f"{system.name} {part}": write(system) for part, write in parts.items()}
    return found


def document() -> str:
    """The guide with its tables as they are now."""
    text = FILE.read_text(encoding="utf-8")
    found = blocks()
    there = re.findall(r"<!-- table: (.+?) -->", text)
    if sorted(there) != sorted(found):
        raise SystemExit(f"{FILE}: expected each of these comments once: {', '.join(sorted(found))}")
    for name, lines in found.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        before, _, after = text.partition(begin)
        text = "\n".join([f"{before}{begin}", "", *lines, "", end + after.partition(end)[2]])
    return text


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
