"""What the documents give to type: README.md and the pages of docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .paths import ROOT

ELSEWHERE = {"settings.md", "moving.md"}
"""Written by a tool, with nothing to type; and typed by tests/house/test_moving.py."""
PROGRAMS = ("dreambooth", "python", "pip", "nox")


class Line(NamedTuple):
    """Something to type."""

    file: str
    number: int
    kind: str
    """shell, python or toml."""
    text: str


def documents() -> list[Path]:
    """README.md first, then the pages of docs/, as mkdocs.yml has them."""
    pages = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert {*pages} == {page.name for page in (ROOT / "docs").glob("*.md")}, "mkdocs.yml: nav names every page"
    return [ROOT / "README.md", *(ROOT / "docs" / page for page in pages if page not in ELSEWHERE)]


def typed() -> list[Line]:
    """Every line of them all; what several say alike is typed once, where it is said first."""
    lines = [line for document in documents() for line in lines_of(document)]
    return [line for number, line in enumerate(lines) if line.text not in {one.text for one in lines[:number]}]


def lines_of(document: Path) -> Iterator[Line]:
    """A document's indented blocks, and the commands among its words.  What stands between fences is to be read."""
    name = document.relative_to(ROOT).as_posix()
    lines = _without_fences(document.read_text(encoding="utf-8")).splitlines()
    block = list[str]()
    for number, line in enumerate([*lines, "end"], 1):
        if line.startswith("    ") or (block and not line):
            block.append(line[4:])
            continue
        yield from _of_block(name, block, number - len(block))
        block = []
        words = " ".join(lines[number - 1 : number + 1])  # a command may go on in the next line
        commands = re.finditer(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`", words)
        yield from (Line(name, number, "shell", said[1]) for said in commands if said.start() < len(line))


def _without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)


def _of_block(file: str, block: list[str], first: int) -> Iterator[Line]:
    text = "\n".join(block).strip()
    if text.startswith(("import ", "from ")):
        yield Line(file, first, "python", text + "\n")
        return
    if text.startswith(("[[", "preset = ")):
        yield Line(file, first, "toml", text + "\n")
        return
    command = ""
    for number, line in enumerate(block, first):
        command += line.removesuffix("\\")
        if command.strip() and not line.endswith("\\"):
            yield Line(file, number, "shell", command.partition("  #")[0].strip())
            command = ""
