"""`log.txt`: what was said to the user, with the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ..io.names import LOG
from ..io.progress import Work
from .base import Level, RunInfo
from .display import ended_in_words

ENDED = "run ended: "


class LogFile:
    """Appends messages to log.txt in the run folder; those that come before `start` are kept until then."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._waiting: list[str] = []

    def start(self, info: RunInfo) -> None:
        self._path = info.folder / LOG
        left = f"updates {info.first_update} to {info.total_updates} start"
        self._write("info", left if info.first_update <= info.total_updates else "no update is left to make")

    def update(self, record: Mapping[str, float | int]) -> None:
        return None  # metrics.jsonl has them

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write("info", f"update {step}: " + ", ".join(f"{name} {value:.6g}" for name, value in values.items()))

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        self._write("info", f"update {step}: {len(paths)} images of {prompt!r}")

    def message(self, text: str, level: Level = "info") -> None:
        self._write(level, text)

    def began(self, work: Work) -> None:
        return None

    def changed(self, work: Work) -> None:
        return None

    def finished(self, work: Work, *, failed: bool) -> None:
        if not failed:
            self.message(ended_in_words(work), "detail")

    def close(self, outcome: str) -> None:
        if self._path is not None:
            self._write("info", f"{ENDED}{outcome}")
            self._path = None

    def _write(self, level: Level, text: str) -> None:
        self._waiting.append(_entry(level, text))
        if self._path is not None:
            entries, self._waiting = self._waiting, []
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(entries)


def write_entry(file: Path, level: str, text: str) -> None:
    """Add what was not said to the user to a log."""
    with file.open("a", encoding="utf-8") as log:
        log.write(_entry(level, text))


def run_ended(file: Path) -> str | None:
    """How the run ended that a log's last entry is of; None where it does not say so, or there is no log."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    starts = [line for line in lines if not line.startswith(" ")]
    return starts[-1].partition(ENDED)[2] or None if starts else None


def warnings_in(file: Path) -> list[str]:
    """The warnings in a log, each once, in the order in which they came; none where there is no log."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    within = False
    for line in lines:
        if line.startswith("    ") and within:
            found[-1] += f"\n{line[4:]}"
        elif not line.startswith(" "):
            _, _, rest = line.partition(" ")
            level, _, text = rest.partition(" ")
            within = level == "WARNING"
            found += [text.lstrip()] if within else []
    return list(dict.fromkeys(found))


def _entry(level: str, text: str) -> str:
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    body = text.replace("\n", "\n    ")  # an entry starts at the margin, its further lines do not
    return f"{time} {level.upper():7} {body}\n"
