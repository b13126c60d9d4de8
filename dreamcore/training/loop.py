"""The run: photographs in, a personalised model and images of it out.

What the run has done is always on the disk: metrics line by line, checkpoints whole, the finished model at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backends.installed import choose_backend, launch_rank
from ..backends.out_of_memory import PREPARING, SAVING, TRAINING, VALIDATION, advise, during
from ..backends.protocol import Batch
from ..config import TrainConfig
from ..errors import CallbackError, LostRankError
from ..formats.later import Later
from ..io.files import explain_disk_errors
from ..io.names import BEST
from ..report.run import Run
from ..runs import RunFolder, checkpoint
from ..runs.layout import also_log
from ..runs.resume import length_settings
from ..track import RunInfo, showing
from .ahead import Ahead
from .callbacks import Callback, Callbacks, UpdateFunction, check_callbacks
from .export import write_model
from .latents import Decoded
from .looking import Looking
from .lora_export import tell_readers
from .metrics_recorder import MetricsRecorder
from .publishing import publish
from .run_report import RunReport
from .run_status import told_of_failure
from .saving import WORTH, Saving, room
from .second_names import also_network, also_weights, owes_weights
from .selection import Selection
from .setup import Begun, Prepared, begin, complete
from .signals import Asker, StopRequest
from .steering import Steering

GO_ON = "go on with --resume_from_checkpoint latest"


def train(config: TrainConfig, callbacks: Sequence[Callback | UpdateFunction] = ()) -> Run:
    """Personalise a model.

    Args:
        callbacks: called on the main process while it trains.

    Raises:
        ConfigError: before any costly work, naming the setting or file that cannot be used and what would be right.
        RunError: the run had started and cannot go on, or is finished and cannot be published; it says what is kept.
        CallbackError: a callback failed; the run has stopped, and saved, or is finished.
    """
    check_callbacks(callbacks)
    started, begun = time.monotonic(), None

    def keep(entry: str) -> Path | None:
        return begun.run_folder.keep_in_log(entry) if begun and begun.run_folder else None

    with (
        showing(main_process=launch_rank(choose_backend(config.backend)) == 0),
        ExitStack() as stack,
        told_of_failure(lambda: begun.status if begun else None),
        advise(config, choose_backend(config.backend), PREPARING, keep),
    ):
        begun = begin(config, stack)
        if begun.finished is not None:
            begun.trackers.message(
                f"the run in {begun.folder} is finished, after {begun.finished} updates; a larger max_train_steps goes "
                "on with it"
            )
            _publish(begun, begun.finished)
            return Run(begun.folder, begun.finished, 0)
        told = Callbacks(callbacks)
        if begun.run_folder:
            begun.trackers.append(told)
        loop = _Loop(started, prepared := complete(begun), told)
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
            loop.close()
            prepared.trackers.close(outcome)
        loop.also_log()
        prepared.status.ended(run.updates, run.stopped_by, loop.report.why)
        if not run.exit_code:
            _publish(begun, run.updates)
        told.ended(run)
        told.check(f"the run is {outcome}, and all of it is in {run.folder}")
    return run


def _publish(begun: Begun, updates: int) -> None:
    """Publish a finished run where that is asked for, on the main process."""
    if begun.run_folder:
        publish(begun.config, begun.folder, begun.data.model.index["_class_name"], updates, begun.trackers.message)


class _Loop:
    def __init__(self, started: float, prepared: Prepared, callbacks: Callbacks):
        self.p, self.resolved = prepared, prepared.resolved
        self.done = prepared.first
        """Updates made."""
        self.world = prepared.backend.world
        self.total = self.resolved.rates.total
        self.saved = prepared.first
        """The update that the newest checkpoint was written after."""
        weighting, plan = prepared.batcher.weighting, prepared.batcher.plan
        prior = weighting.prior_loss_weight if plan.classes else None
        preserves = weighting.preservation_weight if plan.preserves else None
        self.recorder = MetricsRecorder(prepared.backend, prior, prepared.trackers, preserves)
        self.report = RunReport(prepared, started, self.total)
        self.looking = Looking(prepared, self.total)
        self.callbacks = callbacks
        inbox = prepared.run_folder.requests if prepared.run_folder else None
        self.steering = Steering(self.world, inbox, callbacks)
        main, criterion = prepared.run_folder is not None, prepared.criterion
        self.selection = Selection(
            criterion, prepared.scoring, prepared.folder, self.world, main=main, warn=prepared.trackers.warn
        )
        self.saving = Saving(prepared.trackers.message)
        ahead = prepared.batches_ahead
        self.batches = Ahead(self.form, self.total if ahead else None)
        self.images = Ahead(self.decode, None if ahead else self.total)
        self.enough = False
        """Nothing better has come for so long that the run ends."""

    def run(self) -> Run:
        p = self.p
        info = RunInfo(p.folder, self.total, p.first + 1, self.resolved.settings, self.resolved.logging_dir)
        p.trackers.start(info)
        self.also_log()
        if p.first and p.run_folder:
            self.name_again(p.first, p.run_folder)
        if p.first == 0 or self.looking.owes(p.first):
            self.validate(p.first)
        else:
            self.select(p.first)
            self.report.along_the_way(p.first)
        if p.finished_at == p.first:
            self.enough = False  # who goes on with a finished run wants more
        with StopRequest(p.trackers.message) as stop:
            for update in range(p.first, self.total):
                if self.enough:
                    break
                self.update(update)
                if (update + 1) % self.world.asks_every == 0 and self.heed(stop, update + 1):
                    return self.stopped(update + 1, stop)
        p.memory.end(TRAINING)
        if self.done < self.total:
            self.end_early()
        self.saving.wait()
        with p.status.doing("saving", self.total):
            self.finish()
        return Run(p.folder, self.total, 0)

    def close(self) -> None:
        """End what threads do."""
        self.batches.close()
        self.images.close()
        self.saving.close()

    def form(self, update: int) -> tuple[list[Batch], NDArray[np.int64]]:
        """What an update trains on, on its way to the device, and the kinds of its rows."""
        images = None if self.p.batches_ahead else self.images(update)
        batches, kinds = self.p.batcher.update(update, self.world.rank, images)
        self.p.backend.stage(batches)
        return batches, kinds

    def decode(self, update: int) -> Decoded:
        """The images that an update's latents are made of, where it makes them itself."""
        return self.p.batcher.decoded(update, self.world.rank)

    @during(TRAINING)
    def update(self, update: int) -> None:
        """Update number `update` (from 0), and what is due after it."""
        p, done, last = self.p, update + 1, update + 1 == self.total
        batches, kinds = self.batches(update)
        lr = self.resolved.rates.at(update)
        p.backend.train_step(batches, lr)
        self.saving.poll()
        self.done = done
        self.recorder.note(done, lr, batches, kinds)
        intervals = self.resolved.intervals
        checkpoints, validates = self.due(intervals.checkpointing, done), intervals.validates(done, self.total)
        if self.due(intervals.logging, done) or checkpoints or validates or last:
            self.flush()
        if checkpoints or last:
            self.save(done)  # first: whatever happens to the images, the training is safe
        if validates:
            self.validate(done)

    def flush(self) -> None:
        """Copy what was measured to the host, and say how far the run is."""
        self.recorder.flush()
        self.p.status.flushed(self.done, self.p.memory.so_far(), self.resolved.intervals.logging)

    @staticmethod
    def due(every: int | None, done: int) -> bool:
        return every is not None and done % every == 0

    def heed(self, stop: StopRequest, done: int) -> bool:
        """Whether to stop after this update: all ranks do, or none; or else make the images that are asked for."""
        asked = self.steering.agree(stop)
        if asked.sample and not asked.stop:
            self.sample(done)
        all_made = done == self.total and stop.asker is Asker.CALLBACK
        return asked.stop and not all_made

    def stopped(self, done: int, stop: StopRequest) -> Run:
        self.p.status.stopping(stop.by)
        self.flush()
        self.save(done)
        self.saving.wait()
        if stop.asker is Asker.FAILURE:
            raise CallbackError(f"{stop.words}; checkpoint-{done} is saved: {GO_ON}") from self.callbacks.error
        self.p.trackers.message(f"stopped after update {done} of {self.total}", "result")
        return Run(self.p.folder, done, stop.exit_code, stop.by)

    def end_early(self) -> None:
        """Let this update be the last one."""
        self.report.why = f"no better for {self.p.criterion.patience} measurements" if self.p.criterion else ""
        self.p.trackers.message(f"{self.report.why}: ends after update {self.done} of {self.total}", "result")
        self.total = self.done
        self.save(self.done)
        self.looking.ends_early(self.done)

    @during(SAVING)
    def save(self, done: int) -> None:
        """Write a checkpoint, on the main process, unless this update has one."""
        self.saving.wait()
        if done == self.saved:
            return
        self.saved = done
        with self.p.status.doing("saving", done):
            with self.p.backend.whole_state():
                if self.p.run_folder:
                    self.write_checkpoint(done, self.p.run_folder)
            self.world.barrier()
        self.recorder.restart_clock()

    def write_checkpoint(self, done: int, run_folder: RunFolder) -> None:
        p = self.p
        limit = self.resolved.intervals.checkpoints_in_training
        limit = limit + 1 if limit and self.resolved.intervals.spares(done, self.total) else limit
        later = Later(0) if self.resolved.names.network else room(on_host=not p.backend.on_device)
        finish = run_folder.begin_checkpoint(done, self.write_state, p.identity, later, p.trackers.message)

        def then(saved: Path) -> None:
            checkpoint.prune(run_folder.path, done, limit, p.trackers.message)
            self.name_weights(done, run_folder, saved, limit)
            p.status.saved(done)
            p.trackers.message(f"saved checkpoint-{done}")
            self.callbacks.saved(done, saved)

        if later.bytes < WORTH:
            then(finish(p.trackers.message))
        else:
            self.saving.begin(finish, then)

    def write_state(self, folder: Path) -> None:
        """Write a checkpoint's files but its record."""
        self.p.backend.export(folder, averaged=False)
        self.p.backend.save_state(folder)
        also_network(folder, self.p.data.model, self.resolved.names)

    @during(SAVING)
    def select(self, done: int) -> None:
        """Keep this update's checkpoint as the best where it is that, and see whether it is time to end."""
        better, self.enough = self.selection.look(done)
        if not better:
            return
        self.saving.wait()
        written = self.saved == done != self.p.first  # what the run goes on from may lie elsewhere
        with nullcontext() if written else self.p.backend.whole_state():
            if self.p.run_folder and (found := self.selection.best):
                self.p.run_folder.keep_best(found, self.write_state, self.p.identity, self.p.trackers.message)
                self.p.status.chosen(done)
                self.p.trackers.message(f"{BEST} is of update {done}: {found.words}")
        self.world.barrier()

    def name_weights(self, done: int, run_folder: RunFolder, saved: Path, limit: int | None) -> None:
        """Write the weights of a checkpoint under their second name, if there is one."""
        with explain_disk_errors(f"writing {self.p.folder}"):
            epoch = self.epoch(done)
            also_weights(run_folder, saved, self.p.data.model, self.resolved.names, epoch, limit or epoch)

    def epoch(self, done: int) -> int:
        """The epoch, from 1, that this update belongs to."""
        return -(-done // self.resolved.plan.updates_per_epoch)

    def name_again(self, done: int, run_folder: RunFolder) -> None:
        """Write what a run that was killed had saved, and not given its second name any more."""
        saved = dict(checkpoint.list_checkpoints(self.p.folder)).get(done)
        if saved and owes_weights(run_folder, self.resolved.names, self.epoch(done)):
            self.name_weights(done, run_folder, saved, self.resolved.intervals.checkpoints_in_training)

    @during(VALIDATION)
    def validate(self, done: int) -> None:
        """Make validation images and measure the held-out loss, on the main process."""
        with self.p.status.doing("validating", done):
            self.looking.validate(done)
            self.select(done)
            self.report.along_the_way(done)
            self.saving.wait()  # whoever is told of the images was told of the checkpoint before
            self.callbacks.validated(done)
            self.back_to_training()

    def sample(self, done: int) -> None:
        """Make the images that are asked for from outside, on the main process; training goes on as without them."""
        with self.p.status.doing("validating", done):
            if self.looking.answer(self.steering.requests, done):
                self.report.along_the_way(done)
            self.back_to_training()

    def back_to_training(self) -> None:
        """Leave the device to training, and its clock too."""
        self.p.backend.offload()
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
        with p.backend.whole_state():
            self.publish()

    def publish(self) -> None:
        p = self.p
        if p.run_folder:
            with explain_disk_errors(f"writing the finished model to {p.folder}"):
                final = p.run_folder.new_final()
                written = write_model(p, final, self.done)
                p.run_folder.publish(final)
            p.trackers.message(f"the finished model is in {p.folder}")
            if written is not None:
                self.report.lora = written.in_words
                tell_readers(written, p.folder, p.trackers.message)

    def conclude(self, run: Run) -> None:
        """Write the report, on the main process, and with it the last of a finished run."""
        p = self.p
        self.report.ended(run.updates, run.stopped_by)
        if p.run_folder and not run.exit_code:
            p.run_folder.finish(run.updates, length_settings(p.config))
            if self.resolved.intervals.checkpoints_kept == 0:
                checkpoint.prune(p.folder, self.total, 0, p.trackers.message)
            elif self.resolved.intervals.spares(run.updates, self.total):
                checkpoint.drop(p.folder, self.total, p.trackers.message)
        with suppress(LostRankError):  # all is written, and who is past this may be gone before the others notice
            self.world.barrier()
