"""What runs have written into a folder: `OUT/.dreambooth/manifest.json`.

Nothing in a run's folder is ever replaced or removed that the manifest does not name.  A name is there before the file
is, so that a run that was killed leaves nothing of which nobody knows whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..io.files import write_atomically
from ..io.names import MANIFEST, RECORDS

FORMAT = 1


@dataclass
class Manifest:
    """The records of one folder."""

    folder: Path
    """The run's folder."""
    files: set[str] = field(default_factory=set)
    """What runs there have written, or were about to write, by names relative to the folder."""
    moving: str | None = None
    """Sub-folder of the records to which these files are being moved."""
    finished: Mapping[str, Any] | None = None
    """How far the finished run went, and by which settings; None where none has finished."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The folder's records; None where there are none, or none that can be read."""
        try:
            content = json.loads((folder / RECORDS / MANIFEST).read_text(encoding="utf-8"))
            files = {str(name) for name in content["files"]}
            inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)
            if content["format"] != FORMAT or not inside:
                return None
            return cls(folder, files, content["moving"], content["finished"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def records(self) -> Path:
        """The sub-folder that holds them, and what is being written or was moved aside."""
        return self.folder / RECORDS

    def own(self, names: Iterable[str]) -> None:
        """Record files that are about to be written."""
        if new := set(names) - self.files:
            self.files |= new
            self.write()

    def write(self) -> None:
        """Write the records down."""
        content = {
            "format": FORMAT,
            "files": sorted(self.files),
            "moving": self.moving,
            "finished": self.finished,
        }
        write_atomically(self.records / MANIFEST, json.dumps(content, indent=1))
