"""Looking at the model while it trains: at each validation, and when somebody asks for images from outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

from ..backends.out_of_memory import VALIDATION, during
from ..errors import ConfigError, in_a_line
from ..io.files import explain_disk_errors
from ..io.names import SAMPLES
from ..io.names import VALIDATION as MEASUREMENTS
from ..runs.layout import also_images
from ..runs.requests import Request
from ..track.metrics import read_lines
from .setup import Prepared
from .validation import ValidationImages, asked_files, image_files, save_images

T = TypeVar("T")


class Looking:
    """Makes validation's images and measures its loss.

    Args:
        prepared: the run.
        total: its updates.
    """

    def __init__(self, prepared: Prepared, total: int):
        self._p, self._resolved, self._total = prepared, prepared.resolved, total

    def owes(self, done: int) -> bool:
        """Whether a run that goes on had saved this update's checkpoint and was not spared to look at the model."""
        p, owes = self._p, False
        if p.run_folder and self._resolved.intervals.validates(done, self._total):
            maker = self._maker(done)
            files = image_files(p.folder / SAMPLES, done, len(maker.seeds)) if maker else []
            known = self._known(done)
            owes = (
                not all(f.exists() for f in files)
                or (p.held_out is not None and "validation_loss" not in known)
                or (self._scores(done) and p.scoring is not None and p.scoring.judge.likenesses[0] not in known)
            )
            if not owes:
                self._also_name(done, files)  # should it have been killed in between
        return self._agreed(owes)

    def _agreed(self, mine: T) -> T:
        """What the main process has said, ready for JSON, on every rank."""
        found: T = json.loads(self._p.backend.world.broadcast(json.dumps(mine)))
        return found

    def validate(self, done: int) -> None:
        """Make validation images, score them and measure the held-out loss; each rank its share, and the main process
        looks at the images and writes."""
        p, found = self._p, dict[str, float]()
        if p.held_out and not self._agreed(p.run_folder is not None and "validation_loss" in self._known(done)):
            found["validation_loss"] = p.held_out.loss(p.backend)
        if maker := self._maker(done):
            files = self._make(maker, done)
            if p.scoring and self._scores(done):
                found |= p.scoring.score(files)
        if found:
            p.trackers.scalars(done, found)

    def _scores(self, done: int) -> bool:
        return done == 0 or self._resolved.intervals.evaluates(done, self._total)

    def ends_early(self, done: int) -> None:
        """The run's last update is this one: make the last images, where they have words of their own."""
        self._total = done
        if maker := self._resolved.final_validation:
            self._make(maker, done)

    def answer(self, requests: Sequence[Request], done: int) -> bool:
        """Make the images that are asked for, each rank its share; returns whether validation's are among them.

        An error in that is the answer, and does not end the run.

        Args:
            requests: on the main process; none on others.
        """
        made = False
        for number, prompt in enumerate(self._agreed([request.prompt for request in requests])):
            request = requests[number] if requests else None
            try:
                files = self._asked(prompt, done)
            except Exception as error:
                if request:
                    self._p.trackers.warn(f"images that were asked for could not be made: {error}")
                    self._tell(request, {"error": in_a_line(error), "to_mend": isinstance(error, ConfigError)})
                continue
            made = made or prompt is None
            if request:
                names = [file.relative_to(self._p.folder).as_posix() for file in files]
                self._tell(request, {"update": done, "files": names})
        return made

    @during(VALIDATION)
    def _asked(self, prompt: str | None, done: int) -> list[Path]:
        p = self._p
        if prompt is None:
            if (maker := self._maker(done)) is None:
                raise ConfigError("this run has no validation_prompt; give the words of the images: --prompt TEXT")
            return self._make(maker, done)
        maker = ValidationImages.from_config(p.config, p.data, prompt)
        assert maker is not None, "there is a prompt"
        sets = (asked_files(p.folder / SAMPLES, done, number, len(maker.seeds)) for number in count(1))
        files = next(files for files in sets if not any(file.exists() for file in files))
        self._save(maker, files)
        p.trackers.message(f"update {done}: images of {maker.sampler.prompt!r}, as asked, in {files[0].parent}")
        return files

    def _make(self, maker: ValidationImages, done: int) -> list[Path]:
        """Images under the names of a validation after this update."""
        p = self._p
        files = image_files(p.folder / SAMPLES, done, len(maker.seeds))
        self._save(maker, files)
        self._also_name(done, files)
        p.trackers.images(done, files, maker.sampler.prompt)
        return files

    def _also_name(self, done: int, files: Sequence[Path]) -> None:
        """Give images their second names, on the main process."""
        if self._p.run_folder is None:
            return
        with explain_disk_errors(f"writing {self._p.folder}"):
            also_images(self._p.folder, self._p.run_folder.manifest, self._resolved.names, done, files)

    def _save(self, maker: ValidationImages, files: Sequence[Path]) -> None:
        p = self._p
        images = maker.make(p.backend)
        if p.run_folder is None:
            return
        with explain_disk_errors(f"writing validation images to {p.folder / SAMPLES}"):
            p.run_folder.manifest.own(f"{SAMPLES}/{file.name}" for file in files)
            save_images(images, files)

    def _tell(self, request: Request, content: dict[str, object]) -> None:
        if self._p.run_folder:
            self._p.run_folder.requests.answer(request, content)

    def _maker(self, done: int) -> ValidationImages | None:
        """What makes the validation's images after this update."""
        return (self._resolved.final_validation if done == self._total else None) or self._resolved.validation

    def _known(self, done: int) -> set[str]:
        """What was measured after this update: of that which the run goes on from."""
        if done != self._p.first:
            return set()
        records = read_lines(self._p.folder / MEASUREMENTS)
        return {name for record in records if record["step"] == done for name in record}
