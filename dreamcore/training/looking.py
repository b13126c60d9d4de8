"""Looking at the model while it trains: at each validation, and when somebody asks for images from outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

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
            owes = not all(f.exists() for f in files) or (p.held_out is not None and not self._measured(done))
            if not owes:
                self._also_name(done, files)  # should it have been killed in between
        return bool(json.loads(p.backend.world.broadcast(json.dumps(owes))))

    def validate(self, done: int) -> None:
        """Make validation images and measure the held-out loss, on the main process."""
        p = self._p
        if p.run_folder and p.held_out and not self._measured(done):
            p.trackers.scalars(done, {"validation_loss": p.held_out.loss(p.backend)})
        if p.run_folder and (maker := self._maker(done)):
            self._make(maker, done)

    def answer(self, requests: Sequence[Request], done: int) -> bool:
        """Make the images that are asked for, on the main process; returns whether validation's are among them.

        An error in that is the answer, and does not end the run.
        """
        made = False
        for request in requests:
            try:
                files = self._asked(request.prompt, done)
            except Exception as error:
                self._p.trackers.warn(f"images that were asked for could not be made: {error}")
                self._tell(request, {"error": in_a_line(error), "to_mend": isinstance(error, ConfigError)})
                continue
            made = made or request.prompt is None
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
        """Give images their second names."""
        assert self._p.run_folder is not None
        with explain_disk_errors(f"writing {self._p.folder}"):
            also_images(self._p.folder, self._p.run_folder.manifest, self._resolved.names, done, files)

    def _save(self, maker: ValidationImages, files: Sequence[Path]) -> None:
        p = self._p
        assert p.run_folder is not None
        images = maker.make(p.backend)
        with explain_disk_errors(f"writing validation images to {p.folder / SAMPLES}"):
            p.run_folder.manifest.own(f"{SAMPLES}/{file.name}" for file in files)
            save_images(images, files)

    def _tell(self, request: Request, content: dict[str, object]) -> None:
        if self._p.run_folder:
            self._p.run_folder.requests.answer(request, content)

    def _maker(self, done: int) -> ValidationImages | None:
        """What makes the validation's images after this update."""
        return (self._resolved.final_validation if done == self._total else None) or self._resolved.validation

    def _measured(self, done: int) -> bool:
        """Whether the loss on held-out photographs after this update is known: of that which the run goes on from."""
        known = {record["step"] for record in read_lines(self._p.folder / MEASUREMENTS)}
        return done == self._p.first and done in known
