"""What docs/files.md and docs/watching.md say of a run's files, to be held to what runs write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dreamcore.config import TrainConfig, read_config_file
from dreamcore.io import names

from .paths import ROOT

FOLDER, CHECKPOINT, RECORDS = "The folder", "A checkpoint", "The records"
JSON_FILES = {
    names.STATUS: names.STATUS,
    names.REPORT_DATA: names.REPORT_DATA,
    f".dreambooth/{names.MANIFEST}": RECORDS,
}
"""File of a run -> the section that describes its fields."""


def tables() -> dict[str, list[list[str]]]:
    """Section -> the names in the first cells of each of its tables."""
    found = dict[str, list[list[str]]]()
    for page in ("files.md", "watching.md"):
        section, inside = "", False
        for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
            if line.startswith("## "):
                section = line[3:]
            if line.startswith("|---"):
                found.setdefault(section, []).append([])
            inside = line.startswith("| `")
            if inside:
                found[section][-1] += re.findall(r"`([^`]+)`", line.split("|")[1])
    return found


def undescribed(run: Path) -> list[str]:
    """Files of a run's folder, and fields in them, of which the pages say nothing."""
    return sorted(set(_undescribed(run)))


def _undescribed(run: Path) -> Iterator[str]:
    said = tables()
    for file in (f.relative_to(run).as_posix() for f in run.rglob("*") if f.is_file()):
        inside = re.match(r"checkpoint-(?:\d+|best)/(.+)", file)
        if not _named(inside[1] if inside else file, said[CHECKPOINT][0] if inside else said[FOLDER][0]):
            yield file
    for name, section in JSON_FILES.items():
        if (run / name).exists():
            yield from (f"{name}: {key}" for key in json.loads((run / name).read_text()).keys() - {*said[section][0]})
    for name in (names.METRICS, names.VALIDATION):
        for line in (run / name).read_text().splitlines() if (run / name).exists() else ():
            yield from (f"{name}: {key}" for key in json.loads(line).keys() - {*said[name][0]})
    for state in run.glob("checkpoint-*/state.json"):
        yield from (f"state.json: {key}" for key in json.loads(state.read_text()).keys() - {*said[CHECKPOINT][1]})
    yield from (
        f"{names.CONFIG}: {key}" for key in read_config_file(run / names.CONFIG).keys() - TrainConfig.model_fields
    )


def _named(file: str, said: list[str]) -> bool:
    """Whether a file is among those named: N is a number, NAME any name, and a folder stands for what is in it."""
    for name in said:
        pattern = re.escape(name).replace("NAME", "[^/]+").replace("N", r"\d+") + (".*" if name.endswith("/") else "")
        if re.fullmatch(pattern, file):
            return True
    return False
