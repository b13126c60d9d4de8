"""A run's report, written anew as the run goes on: whenever it stops, however it does, there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import in_a_line
from ..io.files import explain_disk_errors, write_atomically
from ..io.names import LOG, REPORT_DATA
from ..io.progress import progress
from ..report import write_card, write_report
from ..report.images import picture_files
from ..runs.next_steps import next_steps
from ..text.prompts import subject_words
from ..track.files import warnings_in

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
        self._photographs: list[list[Path]] | None = None
        self.lora = ""
        """How much of the finished LoRA other programs find, in words."""
        self.why = ""
        """Why it has finished before its last update, in words."""

    def write(self, done: int, how: str, *, ended: bool) -> None:
        """Write it as of `done` updates; `how` says in words whether and how the run has ended.

        Raises:
            RunError: the disk is full, or cannot be written.
        """
        p = self._p
        if p.run_folder is None:
            return
        with explain_disk_errors(f"writing the report to {p.folder}"), progress("writing the report"):
            if self._photographs is None:
                subjects = [s.images for s in p.data.subjects]
                self._photographs = picture_files(subjects, p.folder, p.run_folder.manifest.own)
            extras = {
                "instance_images": [str(path) for paths in self._photographs for path in paths],
                "class_images": [str(path.resolve()) for paths in p.class_images.values() for path in paths],
                "pipeline": p.data.model.index["_class_name"],
                "subjects": list(self._subjects(self._photographs)),
                "state": f"{how}, {done:,} of {self._total:,} updates done",
                "ended": ended,
                "warnings": warnings_in(p.folder / LOG),  # those of the run's earlier parts, too
                **({"lora": self.lora} if self.lora else {}),
                **({"judge": p.scoring.judge.name, "about_judge": p.scoring.judge.about} if p.scoring else {}),
                "timing": {
                    "preparation, seconds": self._prepared_in,
                    "in all, seconds": time.monotonic() - self._started,
                    **p.memory.stages,
                },
            }
            write_atomically(p.folder / REPORT_DATA, json.dumps(extras, indent=1))
            write_report(p.folder)

    def _subjects(self, photographs: Sequence[Sequence[Path]]) -> Iterator[dict[str, Any]]:
        """Each subject's words and its class's, and how many of the images listed are its own."""
        p = self._p
        for number, (subject, files) in enumerate(zip(p.data.subjects, photographs, strict=True)):
            words = subject_words(p.config, subject.concept, subject.images, subject.prompts)
            classes = p.resolved.classes.get(number)
            own = {"class_prompt": classes.sampler.prompt} if classes else {}
            counts = {"instance_images": len(files), "class_images": len(p.class_images.get(number, ()))}
            yield {"words": words, **own, **counts}

    def along_the_way(self, done: int) -> None:
        """Write it while the run goes on, which a report that cannot be written does not end."""
        try:
            self.write(done, "not ended when this was written", ended=False)
        except Exception as error:
            self._warn(error)

    def ended(self, done: int, stopped_by: str) -> None:
        """Write it of a run that has finished, or that something has stopped, and say what comes next."""
        if self._p.run_folder:
            if not stopped_by:
                with explain_disk_errors(f"writing the card to {self._p.folder}"):
                    write_card(self._p.folder, self._p.run_folder.manifest, self._p.data.model.index["_class_name"])
            finished = f"finished ({self.why})" if self.why else "finished"
            self.write(done, f"stopped by {stopped_by}" if stopped_by else finished, ended=True)
            for line in next_steps(self._p.folder).in_words(stopped=bool(stopped_by)):
                self._p.trackers.message(line, "result")

    def failed(self, done: int, error: BaseException) -> None:
        """Write it of a run that ends with an error, which is not hidden by any that comes in doing so."""
        try:
            how = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed ({in_a_line(error)})"
            self.write(done, how, ended=True)
        except BaseException as other:  # a second Ctrl-C, too
            self._warn(other)

    def _warn(self, error: BaseException) -> None:
        self._p.trackers.warn(f"the report could not be written: {error or type(error).__name__}")
