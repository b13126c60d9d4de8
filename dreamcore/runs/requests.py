"""What is asked of a run from outside: files in its records, answered and removed by the run itself.

`OUT/.dreambooth/requests/ID.json` asks; beside it the run writes `ID.answer.json`, and then removes the request.  Who
asks, reads the answer and removes that; what nobody fetches goes when the next run in the folder begins.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..io.files import write_atomically
from ..io.names import RECORDS, REQUESTS

LOOK_SECONDS = 1.0
"""A run looks for requests no more often: on a shared disk each look can cost a part of a short update."""
_NAME = re.compile(r"\d+-\d+\.json")
Action = Literal["stop", "sample"]


@dataclass(frozen=True)
class Request:
    """One request."""

    file: Path
    action: Action
    prompt: str | None = None
    """Of the images; None for the validation's."""

    @property
    def answer_file(self) -> Path:
        """Where its answer is written."""
        return self.file.with_suffix(".answer.json")

    def ask(self) -> None:
        """Put it, or put it again.

        Raises:
            OSError: the run's records cannot be written.
        """
        self.file.parent.mkdir(exist_ok=True)
        content = {"action": self.action, "prompt": self.prompt}
        write_atomically(self.file, json.dumps(content), settle=False)

    def withdraw(self) -> None:
        """Take it back; where it has an answer, that goes."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
            self.answer_file.unlink(missing_ok=True)
            self.file.parent.rmdir()

    def lost(self) -> bool:
        """Whether nothing is left of it: a run that has just begun removes what was asked of an earlier one."""
        return not self.file.exists() and not self.answer_file.exists()

    def read_answer(self) -> Mapping[str, Any] | None:
        """The run's answer; None before there is one."""
        try:
            content = json.loads(self.answer_file.read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


def new_request(run: Path, action: Action, prompt: str | None = None) -> Request:
    """One of which nobody knows yet."""
    return Request(run / RECORDS / REQUESTS / f"{time.time_ns()}-{os.getpid()}.json", action, prompt)


class Inbox:
    """The requests of a run, as the run sees them; none of them ends it, whatever it says.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self._place = run / RECORDS / REQUESTS
        self._looked = float("-inf")
        self._answered = set[str]()

    def look(self) -> list[Request]:
        """What is asked for now, in the order in which it was; nothing where it has looked a moment ago."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        try:
            names = {entry.name for entry in os.scandir(self._place) if _NAME.fullmatch(entry.name)}
        except OSError:  # mostly: nobody asks for anything
            return []
        return [found for name in sorted(names - self._answered) if (found := _read(self._place / name)) is not None]

    def answer(self, request: Request, content: Mapping[str, Any]) -> None:
        """Answer a request, and remove it; on a full disk whoever asks learns from the run's end."""
        self._answered.add(request.file.name)  # it may stay, on a disk that is read-only by now
        with suppress(OSError):
            write_atomically(request.answer_file, json.dumps(content), settle=False)
        with suppress(OSError):
            request.file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what an earlier run has left."""
        shutil.rmtree(self._place, ignore_errors=True)

    def close(self) -> None:
        """Remove the requests; answers stay for those who wait for them."""
        with suppress(OSError):
            for entry in list(os.scandir(self._place)):
                if _NAME.fullmatch(entry.name):
                    Path(entry).unlink(missing_ok=True)
            self._place.rmdir()


def _read(file: Path) -> Request | None:
    """A request; None where the file says nothing that is known."""
    try:
        content = json.loads(file.read_bytes())
        action, prompt = content["action"], content.get("prompt")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = action in ("stop", "sample") and (prompt is None or isinstance(prompt, str))
    return Request(file, action, prompt) if known else None
