"""README.zh.md says what README.md says: the same sections, command lines, names, links and figures.

So what `test_readme` types of the one is typed of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest

import pytest

from ..support.paths import ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
TO_EACH_OTHER = {"README.md", "README.zh.md"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
FIGURE = re.compile(r"\d+(?:[.,]\d+)*(?:e-\d+)?")


def sections(text: str) -> list[tuple[int, str]]:
    """(level of its heading, all below it) of each."""
    parts = re.split(r"^(#+) .*\n", text, flags=re.MULTILINE)
    return [(len(level), body) for level, body in zip(parts[1::2], parts[2::2], strict=True)]


def commands(body: str) -> list[str]:
    """The lines of code blocks without their comments, which are for people to read."""
    lines = [line for line in body.splitlines() if line.startswith("    ")]
    return [line.split("  #")[0].rstrip() for line in lines]


def prose(body: str) -> str:
    """What is neither code nor a link's address."""
    lines = [line for line in body.splitlines() if not line.startswith("    ")]
    return LINK.sub("]", "\n".join(lines))


def links(body: str) -> list[str]:
    return [link for link in LINK.findall(body) if link not in TO_EACH_OTHER]


def names(body: str) -> Counter[str]:
    """What stands in code within sentences, whose order another language may turn."""
    return Counter(" ".join(name.split()) for name in CODE.findall(prose(body)))


def figures(body: str) -> Counter[str]:
    return Counter(FIGURE.findall(CODE.sub("", prose(body))))


def rows(body: str) -> list[list[str]]:
    """The figures in each row of its tables."""
    return [FIGURE.findall(LINK.sub("]", line)) for line in body.splitlines() if line.startswith("|")]


BOTH = list(zip_longest(sections(ENGLISH), sections(CHINESE), fillvalue=(0, "")))


def test_they_have_the_same_sections() -> None:
    assert [level for (level, _), _ in BOTH] == [level for _, (level, _) in BOTH]
    assert len(BOTH) > 5


@pytest.mark.parametrize("what", [commands, links, names, figures, rows])
@pytest.mark.parametrize("number", range(len(BOTH)))
def test_each_says_the_same(number: int, what) -> None:  # type: ignore[no-untyped-def]
    (_, english), (_, chinese) = BOTH[number]
    assert what(chinese) == what(english), f"section {number + 1}: bring README.zh.md into step with README.md"


def test_it_is_chinese_and_leads_to_the_other() -> None:
    assert "](README.md)" in CHINESE.split("\n## ")[0]
    for number, (_, (_, chinese)) in enumerate(BOTH):
        letters = re.findall(r"[^\W\d_]", CODE.sub("", prose(chinese)))
        wide = [letter for letter in letters if "\u4e00" <= letter <= "\u9fff"]
        assert len(wide) > 0.4 * len(letters), f"section {number + 1}"


def test_a_difference_is_found() -> None:
    english = "# a\n\n    do --x 1  # so\n\nSee [b](c.md), `--y` and 30 of 64.\n\n| a | 2e-06 |\n"
    assert commands(english) == ["    do --x 1"] and links(english) == ["c.md"]
    assert (
        names(english) == {"--y": 1}
        and figures(english) == {"30": 1, "64": 1, "2e-06": 1}
        and rows(english) == [["2e-06"]]
    )
