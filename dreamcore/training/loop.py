"""The run: photographs in, a personalised model and images of it out.

What the run has done is always on the disk: metrics line by line, checkpoints whole, the finished model at once.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.installed import choose_backend
from ..backends.out_of_memory import PREPARING, SAVING, TRAINING, VALIDATION, advise, during
from ..config import TrainConfig
from ..errors import LostRankError
from ..io.files import explain_disk_errors
from ..io.names import METRICS, SAMPLES
from ..io.names import VALIDATION as MEASUREMENTS
from ..runs import checkpoint
from ..runs.layout import also_images, also_log
from ..runs.resume import length_settings
from ..track import RunInfo
from ..track.metrics import read_lines
from .export import write_model
from .metrics_recorder import MetricsRecorder
from .publishing import publish
from .run_report import RunReport
from .second_names import also_network, also_weights
from .setup import Begun, Prepared, begin, complete
from .signals import StopRequest
from .validation import ValidationImages, image_files, save_images


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
        RunError: the run had started and cannot go on, or is finished and cannot be published; it says what is kept.
    """
    started, begun = time.monotonic(), None

    def keep(entry: str) -> Path | None:
        return begun.run_folder.keep_in_log(entry) if begun and begun.run_folder else None

    with ExitStack() as stack, advise(config, choose_backend(config.backend), PREPARING, keep):
        begun = begin(config, stack)
        if begun.finished is not None:
            begun.trackers.message(
                f"the run in {begun.folder} is finished, after {begun.finished} updates; a larger max_train_steps goes "
                "on with it"
            )
            _publish(begun, begun.finished)
            return Run(begun.folder, begun.finished, 0)
        loop = _Loop(started, prepared := complete(begun))
        outcome = "failed"
        try:
            run = loop.run()
        except BaseException as error:
            loop.report.failed(loop.done, error)
            raise
        else:
            loop.conclude(run)
            outcome = "stopped" if run.exit_code else "finished"
        finally:
            prepared.trackers.close(outcome)
        loop.also_log()
        if not run.exit_code:
            _publish(begun, run.updates)
    return run


def _publish(begun: Begun, updates: int) -> None:
    """Publish a finished run where that is asked for, on the main process."""
    if begun.run_folder:
        publish(begun.config, begun.folder, begun.data.model.index["_class_name"], updates, begun.trackers.message)


class _Loop:
    def __init__(self, started: float, prepared: Prepared):
        self.p, self.resolved = prepared, prepared.resolved
        self.done = prepared.first
        """Updates made."""
        self.world = prepared.backend.world
        self.total = self.resolved.rates.total
        self.saved = prepared.first
        """The update that the newest checkpoint was written after."""
        prior = prepared.batcher.weighting.prior_loss_weight if prepared.batcher.plan.classes else None
        self.recorder = MetricsRecorder(prepared.backend, prior, prepared.trackers)
        self.report = RunReport(prepared, started, self.total)

    def run(self) -> Run:
        p = self.p
        info = RunInfo(p.folder, self.total, p.first + 1, self.resolved.settings, self.resolved.logging_dir)
        p.trackers.start(info)
        self.also_log()
        if p.first == 0 or self.owes_validation(p.first):
            self.validate(p.first)
        else:
            self.report.along_the_way(p.first)
        with StopRequest(p.trackers.message) as stop:
            for update in range(p.first, self.total):
                self.update(update)
                if (update + 1) % self.world.asks_every == 0 and self.agreed(stop):
                    return self.stopped(update + 1, stop)
        p.memory.end(TRAINING)
        self.finish()
        return Run(p.folder, self.total, 0)

    @during(TRAINING)
    def update(self, update: int) -> None:
        """Update number `update` (from 0), and what is due after it."""
        p, done, last = self.p, update + 1, update + 1 == self.total
        batches, kinds = p.batcher.update(update, self.world.rank)
        lr = self.resolved.rates.at(update)
        p.backend.train_step(batches, lr)
        self.done = done
        self.recorder.note(done, lr, batches, kinds)
        intervals = self.resolved.intervals
        checkpoints, validates = self.due(intervals.checkpointing, done), intervals.validates(done, self.total)
        if self.due(intervals.logging, done) or checkpoints or validates or last:
            self.recorder.flush()
        if checkpoints or last:
            self.save(done)  # first: whatever happens to the images, the training is safe
        if validates:
            self.validate(done)

    def owes_validation(self, done: int) -> bool:
        """Whether a run that goes on had saved this update's checkpoint and was not spared to look at the model."""
        p, owes = self.p, False
        if p.run_folder and self.resolved.intervals.validates(done, self.total):
            maker = self.maker(done)
            files = image_files(p.folder / SAMPLES, done, len(maker.seeds)) if maker else []
            owes = not all(f.exists() for f in files) or (p.held_out is not None and not self.measured(done))
        return bool(json.loads(self.world.broadcast(json.dumps(owes))))

    def maker(self, done: int) -> ValidationImages | None:
        """What makes the validation's images after this update."""
        return (self.resolved.final_validation if done == self.total else None) or self.resolved.validation

    def measured(self, done: int) -> bool:
        """Whether the loss on held-out photographs after this update is known: of that which the run goes on from."""
        return done == self.p.first and done in {record["step"] for record in read_lines(self.p.folder / MEASUREMENTS)}

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
        self.recorder.flush()
        self.save(done)
        self.p.trackers.message(
            f"stopped after update {done} of {self.total}; go on with --resume_from_checkpoint latest"
        )
        return Run(self.p.folder, done, stop.exit_code)

    @during(SAVING)
    def save(self, done: int) -> None:
        """Write a checkpoint, on the main process, unless this update has one."""
        p = self.p
        if done == self.saved:
            return
        self.saved = done
        if p.run_folder:

            def write(folder: Path) -> None:
                p.backend.export(folder, averaged=False)
                p.backend.save_state(folder)
                also_network(folder, p.data.model, self.resolved.names)

            limit = self.resolved.intervals.checkpoints_in_training
            limit = limit + 1 if limit and self.resolved.intervals.spares(done, self.total) else limit
            saved = p.run_folder.save_checkpoint(done, write, p.identity, limit, p.trackers.message)
            with explain_disk_errors(f"writing {p.folder}"):
                epoch = -(-done // self.resolved.plan.updates_per_epoch)
                also_weights(p.run_folder, saved, p.data.model, self.resolved.names, epoch, limit or epoch)
            p.trackers.message(f"saved checkpoint-{done}")
        self.world.barrier()
        self.recorder.restart_clock()

    @during(VALIDATION)
    def validate(self, done: int) -> None:
        """Make validation images and measure the held-out loss, on the main process."""
        p = self.p
        if p.run_folder and p.held_out and not self.measured(done):
            p.trackers.scalars(done, {"validation_loss": p.held_out.loss(p.backend)})
        if p.run_folder and (maker := self.maker(done)):
            images = maker.make(p.backend)
            files = image_files(p.folder / SAMPLES, done, len(images))
            with explain_disk_errors(f"writing validation images to {p.folder / SAMPLES}"):
                p.run_folder.manifest.own(f"{SAMPLES}/{file.name}" for file in files)
                save_images(images, files)
                also_images(p.folder, p.run_folder.manifest, self.resolved.names, done, files)
            p.trackers.images(done, files, maker.sampler.prompt)
        self.report.along_the_way(done)
        p.backend.offload()
        self.world.barrier()
        self.recorder.restart_clock()

    def also_log(self) -> None:
        """Give the log its name in another trainer's layout."""
        if self.p.run_folder:
            with explain_disk_errors(f"writing {self.p.folder}"):
                also_log(self.p.folder, self.p.run_folder.manifest, self.resolved.names)

    @during(SAVING)
    def finish(self) -> None:
        """Write the finished model, on the main process; a checkpoint holds what it is made of."""
        p = self.p
        if p.run_folder:
            with explain_disk_errors(f"writing the finished model to {p.folder}"):
                final = p.run_folder.new_final()
                layout, encoders = self.resolved.export_format, self.resolved.saves_text_encoders
                write_model(p.backend, p.data.model, final, layout, text_encoders=encoders)
                p.run_folder.publish(final)
            p.trackers.message(f"the finished model is in {p.folder}")

    def conclude(self, run: Run) -> None:
        """Write the report, on the main process, and with it the last of a finished run."""
        p = self.p
        self.report.ended(run.updates, run.exit_code)
        if p.run_folder and not run.exit_code:
            p.run_folder.finish(run.updates, length_settings(p.config))
            if self.resolved.intervals.checkpoints_kept == 0:
                checkpoint.prune(p.folder, self.total, 0, p.trackers.message)
            elif self.resolved.intervals.spares(run.updates, self.total):
                checkpoint.drop(p.folder, self.total, p.trackers.message)
        with suppress(LostRankError):  # all is written, and who is past this may be gone before the others notice
            self.world.barrier()
