"""The run: photographs in, a personalised model and pictures of it out.

What the run has done is always on the disk: metrics line by line, checkpoints whole, the finished model at once.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint
from .backend import choose_backend
from .config import TrainConfig
from .export import write_model
from .files import explain_disk_errors, write_atomically
from .ledger import Ledger
from .outofmemory import PREPARING, SAVING, TRAINING, VALIDATION, advise, during
from .report import write_report
from .report.pictures import picture_files
from .runfolder import METRICS, REPORT_DATA, SAMPLES
from .setup import Prepared, prepare
from .signals import StopRequest
from .track import RunInfo
from .track.files import LOG
from .track.metrics import read_lines
from .validation import save_pictures


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    folder: Path
    """Its results."""
    updates: int
    """Updates made, those before a resumption included."""
    exit_code: int
    """0; or 128 + the signal that stopped it early, with a checkpoint saved."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl."""
        return read_lines(self.folder / METRICS)


def train(config: TrainConfig) -> Run:
    """Personalise a model.

    Raises:
        ConfigError: before any costly work, naming the setting or file that cannot be used and what would be right.
        RunError: the run had started and cannot go on; it says what is kept.
    """
    log = Path(config.output_dir).expanduser() / LOG
    with ExitStack() as stack, advise(config, choose_backend(config.backend), PREPARING, log):
        loop = _Loop(time.monotonic(), prepared := prepare(config, stack))
        outcome = "failed"
        try:
            run = loop.run()
            loop.report()
            outcome = "stopped" if run.exit_code else "finished"
        finally:
            prepared.trackers.close(outcome)
    return run


class _Loop:
    def __init__(self, started: float, prepared: Prepared):
        self.started, self.prepared_in = started, time.monotonic() - started
        self.p, self.decided = prepared, prepared.decided
        self.world = prepared.backend.world
        self.total = self.decided.rates.total
        prior = prepared.batcher.prior_loss_weight if prepared.batcher.plan.classes else None
        self.ledger = Ledger(prepared.backend, prior, prepared.trackers)

    def run(self) -> Run:
        p = self.p
        info = RunInfo(p.folder, self.total, p.first + 1, self.decided.settings, self.decided.logging_dir)
        p.trackers.start(info)
        if p.first == 0:
            self.validate(0)
        with StopRequest(p.trackers.message) as stop:
            for update in range(p.first, self.total):
                self.update(update)
                if (update + 1) % self.world.asks_every == 0 and self.agreed(stop):
                    return self.stopped(update + 1, stop)
        p.memory.end("training")
        self.finish()
        return Run(p.folder, self.total, 0)

    @during(TRAINING)
    def update(self, update: int) -> None:
        """Update number `update` (from 0), and what is due after it."""
        p, done, last = self.p, update + 1, update + 1 == self.total
        batches, kinds = p.batcher.update(update, self.world.rank)
        lr = self.decided.rates.at(update)
        p.backend.train_step(batches, lr)
        self.ledger.note(done, lr, batches, kinds)
        rhythm = self.decided.rhythm
        checkpoints, validates = self.due(rhythm.checkpointing, done), self.due(rhythm.validation, done)
        if self.due(rhythm.logging, done) or checkpoints or validates or last:
            self.ledger.flush()
        if validates or (last and rhythm.validation):
            self.validate(done)  # before saving: what comes after a checkpoint is made again when a run goes on from it
        if checkpoints:
            self.save(done)

    @staticmethod
    def due(every: int | None, done: int) -> bool:
        return every is not None and done % every == 0

    def agreed(self, stop: StopRequest) -> bool:
        """Whether to stop after this update: all ranks do, or none.

        They ask each other from host to host after each update, for whoever sends a signal to all does not wait long;
        their devices need not have finished it.  Where the question goes through the devices, it is put only every
        `World.asks_every` updates.  A signal that comes while they ask is for the next time.
        """
        asked = stop.signal
        if self.world.size > 1:
            asked = int(np.max(self.world.gather(np.array([float(asked)]))))
        if asked:
            stop.signal = asked
        return asked != 0

    def stopped(self, done: int, stop: StopRequest) -> Run:
        self.ledger.flush()
        if not self.due(self.decided.rhythm.checkpointing, done):
            self.save(done)
        self.p.trackers.message(
            f"stopped after update {done} of {self.total}; go on with --resume_from_checkpoint latest"
        )
        return Run(self.p.folder, done, stop.exit_code)

    @during(SAVING)
    def save(self, done: int) -> None:
        """Write a checkpoint, on the main process."""
        p = self.p
        if p.run_folder:

            def write(folder: Path) -> None:
                p.backend.export(folder, averaged=False)
                p.backend.save_state(folder)

            checkpoint.save(p.folder, done, write, p.identity, self.decided.rhythm.checkpoints_kept)
            p.trackers.message(f"saved checkpoint-{done}")
        self.world.barrier()
        self.ledger.restart_clock()

    @during(VALIDATION)
    def validate(self, done: int) -> None:
        """Make validation pictures and measure the held-out loss, on the main process."""
        p = self.p
        if p.run_folder and p.held_out:
            p.trackers.scalars(done, {"validation_loss": p.held_out.loss(p.backend)})
        if p.run_folder and (maker := self.decided.pictures):
            pictures = maker.make(p.backend)
            p.trackers.images(done, save_pictures(pictures, p.folder / SAMPLES, done), maker.pictures.prompt)
        p.backend.park()
        self.world.barrier()
        self.ledger.restart_clock()

    @during(SAVING)
    def finish(self) -> None:
        """Write the finished model and the report, on the main process."""
        p = self.p
        if p.run_folder:
            with explain_disk_errors(f"writing the finished model to {p.folder}"):
                final = p.run_folder.new_final()
                write_model(p.backend, p.inputs.model, final, self.decided.export_format)
                p.run_folder.publish(final)
            p.trackers.message(f"the finished model is in {p.folder}")
        self.world.barrier()

    def report(self) -> None:
        """Write the report, on the main process."""
        p = self.p
        if p.run_folder:
            extras = {
                "instance_images": [
                    str(path) for path in picture_files([s.images for s in p.inputs.subjects], p.folder)
                ],
                "class_images": [str(path.resolve()) for path in p.class_images],
                "timing": {
                    "preparation, seconds": self.prepared_in,
                    "in all, seconds": time.monotonic() - self.started,
                    **p.memory.stages,
                },
            }
            with explain_disk_errors(f"writing the report to {p.folder}"):
                write_atomically(p.folder / REPORT_DATA, json.dumps(extras, indent=1))
            page, _ = write_report(p.folder)
            p.trackers.message(f"report: {page}")
