"""A run's report, written anew as the run goes on: whenever it stops, however it does, there is one."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from ..errors import in_a_line
from ..io.files import explain_disk_errors, write_atomically
from ..io.names import REPORT, REPORT_DATA
from ..report import write_report
from ..report.images import picture_files

if TYPE_CHECKING:
    from .setup import Prepared


class RunReport:
    """Writes report.html and report.png, on the main process.

    Args:
        prepared: the run.
        started: when preparing it began, by the monotonic clock.
        total: its updates.
    """

    def __init__(self, prepared: Prepared, started: float, total: int):
        self._p, self._started, self._total = prepared, started, total
        self._prepared_in = time.monotonic() - started
        self._subject: list[str] | None = None
        self.lora = ""
        """How much of the finished LoRA other programs find, in words."""

    def write(self, done: int, how: str) -> None:
        """Write it as of `done` updates; `how` says in words whether and how the run has ended.

        Raises:
            RunError: the disk is full, or cannot be written.
        """
        p = self._p
        if p.run_folder is None:
            return
        with explain_disk_errors(f"writing the report to {p.folder}"):
            if self._subject is None:
                subjects = [s.images for s in p.data.subjects]
                self._subject = [str(path) for path in picture_files(subjects, p.folder, p.run_folder.manifest.own)]
            extras = {
                "instance_images": self._subject,
                "class_images": [str(path.resolve()) for path in p.class_images],
                "state": f"{how}, {done:,} of {self._total:,} updates done",
                **({"lora": self.lora} if self.lora else {}),
                "timing": {
                    "preparation, seconds": self._prepared_in,
                    "in all, seconds": time.monotonic() - self._started,
                    **p.memory.stages,
                },
            }
            write_atomically(p.folder / REPORT_DATA, json.dumps(extras, indent=1))
            write_report(p.folder)

    def along_the_way(self, done: int) -> None:
        """Write it while the run goes on, which a report that cannot be written does not end."""
        try:
            self.write(done, "not ended when this was written")
        except Exception as error:
            self._warn(error)

    def ended(self, done: int, stopped_by: str) -> None:
        """Write it of a run that has finished, or that something has stopped, and say where it is."""
        self.write(done, f"stopped by {stopped_by}" if stopped_by else "finished")
        if self._p.run_folder:
            self._p.trackers.message(f"report: {self._p.folder / REPORT}")

    def failed(self, done: int, error: BaseException) -> None:
        """Write it of a run that ends with an error, which is not hidden by any that comes in doing so."""
        try:
            self.write(done, "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed ({in_a_line(error)})")
        except BaseException as other:  # a second Ctrl-C, too
            self._warn(other)

    def _warn(self, error: BaseException) -> None:
        self._p.trackers.warn(f"the report could not be written: {error or type(error).__name__}")
