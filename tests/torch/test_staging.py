"""Arrays staged ahead of the device, on a CPU that stands in for it: what is sent is found, and used in a safe order.

Streams, events and locked memory are written down instead of being asked of a card, which this says nothing about.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..support import needs
from ..support.runs import PRIOR, prepared

pytestmark = needs.torch

Log = list[tuple[Any, ...]]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What is asked of the card, in its order, each with the stream of the thread that asks."""
    import torch

    said: Log = []
    current = threading.local()

    def now() -> str:
        return str(getattr(current, "stream", "main"))

    class Stream:
        def __init__(self, device: Any):
            said.append(("stream", str(device)))

        def record_event(self) -> int:
            said.append(("event", number := len(said)))
            return number

    class Main:
        def wait_event(self, event: int) -> None:
            said.append(("wait", event))

    @contextmanager
    def chosen(stream: Stream) -> Iterator[None]:
        current.stream = "side"
        yield
        current.stream = "main"

    main, to = Main(), torch.Tensor.to

    def locked(self: torch.Tensor) -> torch.Tensor:
        said.append(("lock", now()))
        return self.clone()

    def copied(self: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        if options.get("non_blocking"):
            said.append(("copy", now()))
        return to(self, *given, **options)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", chosen)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.Tensor, "pin_memory", locked)
    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: said.append(("keep for", stream is main)), raising=False
    )
    return said


def staging() -> Any:
    import torch

    from dreamcore.adapters.torch.staging import Staging

    return Staging(torch.device("cpu"))


def arrays(*values: float) -> list[np.ndarray[Any, Any]]:
    return [np.full((2, 3), value, np.float32) for value in values]


def test_copies_go_by_the_side_stream_and_are_waited_for_before_they_are_used(log: Log) -> None:
    staged, (one, other) = staging(), arrays(1, 2)
    worker = threading.Thread(target=staged.send, args=([one, other],))
    worker.start()
    worker.join()
    sent = [[("lock", "side"), ("copy", "side"), ("event", number)] for number in (3, 6)]
    assert log == [("stream", "cpu"), *sent[0], *sent[1]]
    log.clear()
    assert (staged.take(other).numpy() == 2).all()
    assert log == [("wait", 6), ("keep for", True)], "its own copy's event, on the stream that computes"
    assert staged.take(other) is None, "once"
    assert staged.take(np.copy(one)) is None, "and no array that is only equal"


def test_this_updates_arrays_are_still_there_when_the_next_ones_have_come(log: Log) -> None:
    """The thread may be done with the next batch before this update has come to its second micro-batch."""
    staged, (first, second), this, after = staging(), arrays(1, 2), arrays(3), arrays(4)
    staged.send([first, second])
    staged.send(this)
    assert staged.take(first) is not None and staged.take(second) is not None
    staged.send(after)
    assert staged.take(this[0]) is not None and staged.take(after[0]) is not None


def test_no_more_than_two_updates_wait(log: Log) -> None:
    staged, never = staging(), arrays(1)
    staged.send(never)
    for value in (2.0, 3.0):
        staged.send(arrays(value))
    assert staged.take(never[0]) is None
    assert len(staged._there) == 2


def test_what_a_thread_changed_afterwards_was_not_sent(log: Log) -> None:
    """Locked memory is a copy, which nobody else writes to while it travels."""
    staged, (one,) = staging(), arrays(1)
    staged.send([one])
    one[:] = 9
    assert (staged.take(one).numpy() == 1).all()


@pytest.mark.parametrize("kind", ["plain", "prior"])
def test_all_that_an_update_asks_for_was_staged(
    kind: str, tiny_model: Path, photos: Path, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array that is copied on the way would be sent and never found, silently."""
    settings: dict[str, Any] = {"gradient_accumulation_steps": 2, "use_lora": True, "rank": 2}
    if kind == "prior":
        settings |= PRIOR | {"num_class_images": 1, "prior_num_inference_steps": 1}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path, stack, **settings)
        backend: Any = run.backend
        batches, following = run.batcher.micro_batches(0), run.batcher.micro_batches(1)
        plain = backend.loss(batches[0])
        monkeypatch.setattr(backend, "_staging", staged := staging())
        backend.stage(batches)
        sent = len(staged._there[0])
        assert sent == sum(
            isinstance(array, np.ndarray)
            for batch in batches
            for array in (batch.x, batch.target, batch.t, batch.weight, batch.mask, *batch.extra.values())
        )
        backend.stage(following)
        np.testing.assert_array_equal(backend.loss(batches[0]), plain)
        backend.stage(batches)
        backend.stage(following)
        log.clear()
        backend.train_step(batches, run.resolved.rates.at(0))
        assert not staged._there[0], "all of it was asked for"
        assert [what for what, *_ in log].count("wait") == sent
        assert len(staged._there[1]) > 0
