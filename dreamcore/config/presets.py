"""The presets that come with the package: what their headers say of them, and the settings that they are.

A header is the comment that a preset begins with.  Its first clause says what it is for; its lines `Memory:`, `Time:`
and `Source:`, which may go on over several, say what it needs and where its values are from, the short answer first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from .files import read_config_file

MEMORY = re.compile(r"(?P<gib>[\d.]+) GiB, (?P<how>predicted|measured)[^;]*; (?:a card with (?P<card>\d+) GB|no card)")
FACTS = re.compile(r"^(Memory|Time|Source): (.*?)(?=^(?:Memory|Time|Source): |^$|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Preset:
    """One preset, as its header describes it."""

    name: str
    about: str
    """What it is for, in one line."""
    memory_gib: float
    """At most at once, of the device's memory."""
    memory_how: Literal["predicted", "measured"]
    card_gb: int | None
    """The smallest usual card that has so much; None where none is needed."""
    memory: str
    """All that is said of memory."""
    time: str
    """How long it trains, in short; or that nobody has measured it."""
    source: str
    """Where its values are from, with an address, and which of them are not."""
    text: str
    """The file."""

    @property
    def values(self) -> dict[str, Any]:
        """Its settings."""
        return read_config_file(self.name)


def read_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: there is none.
    """
    read_config_file(name)
    text = (resources.files("dreamcore.configs") / f"{name}.toml").read_text(encoding="utf-8")
    header = re.match(r"(?:#.*\n)*", text)
    assert header is not None
    plain = re.sub(r"^# ?", "", header[0], flags=re.M)
    about = re.split(r"[;.:] ", " ".join(plain.partition("\n\n")[0].split()))[0].rstrip(".")
    facts = {found[1]: " ".join(found[2].split()) for found in FACTS.finditer(plain)}
    memory = MEMORY.match(facts["Memory"])
    assert memory is not None, f"{name}: a header's Memory says GiB, how that is known, and which card"
    how: Literal["predicted", "measured"] = "measured" if memory["how"] == "measured" else "predicted"
    card = int(memory["card"]) if memory["card"] else None
    return Preset(
        name,
        about,
        float(memory["gib"]),
        how,
        card,
        facts["Memory"],
        facts["Time"].partition(";")[0].rstrip("."),
        facts["Source"],
        text,
    )
