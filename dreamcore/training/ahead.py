"""The host one update ahead of the device: what the next update trains on is formed on a thread while this one runs.

Every draw is keyed by its place in the run (`diffusion/randomness.py`), so nothing depends on who forms a batch or
when, and there is no state of a sampler that could be ahead of the weights: a checkpoint says which update was applied,
and a run that goes on, or that was killed, forms the next one anew.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """What updates train on, one after the other.

    Args:
        form: forms what an update (from 0) trains on, or the part of it that asks nothing of the networks.
        total: updates of the run; None where nothing is formed ahead, because forming it needs the networks.
    """

    def __init__(self, form: Callable[[int], Made], total: int | None):
        self._form, self._total = form, total
        self._thread = None if total is None else ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[Made]] | None = None

    def __call__(self, update: int) -> Made:
        """What an update trains on; the next one's is begun.

        Raises:
            Exception: what forming it has raised, on whichever thread.
        """
        if self._thread is None or self._total is None:
            return self._form(update)
        begun, self._next = self._next, None
        made = begun[1].result() if begun and begun[0] == update else self._form(update)
        if update + 1 < self._total:
            self._next = update + 1, self._thread.submit(self._form, update + 1)
        return made

    def close(self) -> None:
        """Form nothing more."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
