"""Which update is the best so far, and whether to go on looking for a better one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..backends.protocol import World
from ..config import TrainConfig
from ..config.selecting import measure, patience
from ..errors import ConfigError
from ..io.names import BEST, VALIDATION
from ..runs import best
from ..runs.best import Best
from ..track.metrics import read_lines
from .scoring import Scoring


@dataclass(frozen=True)
class Criterion:
    """What the best checkpoint is chosen by."""

    by: str
    patience: int | None
    """Measurements in a row without a better one after which the run ends; None: it goes on."""

    @classmethod
    def from_config(cls, config: TrainConfig, scoring: Scoring | None, *, measured: bool) -> Criterion | None:
        """None where no best checkpoint is kept.

        Args:
            scoring: of the main process.
            measured: whether images are scored, or a loss on held-out photographs is measured.

        Raises:
            ConfigError: it looks at what the judge cannot see.
        """
        by = measure(config) if measured else None
        if by in ("words", "both") and scoring is not None and not scoring.knows_words():
            if config.best_by is not None:
                raise ConfigError(
                    f"best_by: {by}: {scoring.judge.name} knows no words of {scoring.prompt!r}; give a judge that does "
                    "(clip), or best_by subject"
                )
            by = "subject"
        return None if by is None else cls(by, patience(config))


class Verdict(NamedTuple):
    """What a measurement means, for all ranks alike."""

    better: bool = False
    """It is the best so far: its checkpoint is to be kept."""
    enough: bool = False
    """Nothing better has come for so long that the run ends."""


class Selection:
    """Looks at what was measured: validation.jsonl, and checkpoint-best, are all the memory it has.

    Args:
        criterion: None where no best checkpoint is kept.
        scoring: of the main process.
        folder: the run's.
        world: its ranks.
        main: whether this is the main process.
        warn: told where the best checkpoint that is there was chosen by another measure.
    """

    def __init__(
        self,
        criterion: Criterion | None,
        scoring: Scoring | None,
        folder: Path,
        world: World,
        *,
        main: bool,
        warn: Callable[[str], None],
    ):
        self._criterion, self._scoring, self._folder, self._world, self._main = criterion, scoring, folder, world, main
        self.best: Best | None = None
        """On the main process."""
        if criterion is None or not main:
            return
        found = best.read(folder)
        if found is not None and found.by != criterion.by:
            warn(
                f"{BEST} was chosen by {found.by}, and from here on {criterion.by} counts: the next measurement "
                "takes its place"
            )
        elif found is not None:
            self.best = found

    def look(self, done: int) -> Verdict:
        """What the measurement after this update means; every rank comes here."""
        if self._criterion is None or done == 0:
            return Verdict()
        mine = self._judged(self._criterion, done) if self._main else Verdict()
        return Verdict(*json.loads(self._world.broadcast(json.dumps(mine))))

    def _judged(self, criterion: Criterion, done: int) -> Verdict:
        values = self._values(criterion.by)
        if (value := values.get(done)) is None:
            return Verdict()
        better = self.best is None or self.best.beaten_by(value)
        if better:
            self.best = Best(done, criterion.by, value, values.get(0))
        assert self.best is not None
        since = sum(self.best.update < update <= done for update in values)
        return Verdict(better, criterion.patience is not None and since >= criterion.patience)

    def _values(self, by: str) -> dict[int, float]:
        """Update -> its measurement, of those that have a finite one."""
        records = dict[int, dict[str, float]]()
        for record in read_lines(self._folder / VALIDATION):
            records.setdefault(record["step"], {}).update(record)
        found = {}
        for update, record in records.items():
            if by == "validation_loss":
                value = record.get(by)
            else:
                value = self._scoring.summed_up(record, by) if self._scoring else None
            if value is not None and math.isfinite(value):
                found[update] = value
        return found
