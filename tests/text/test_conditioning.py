"""What is held of the embeddings of prompts, on a backend of NumPy's arrays whose answers are worked by hand."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import TINYWORLD
from dreamcore.text import conditioning
from dreamcore.text.conditioning import CACHED_PROMPTS, Conditioning, LoadedEncoder, TextConditioner, TextHooks

Array = np.ndarray[Any, Any]
TOKENS, WIDTH = 4, 3
ROW = TOKENS * WIDTH * 4
"""Bytes of a prompt."""


class Counted(TextConditioner[Array], TextHooks[Array]):
    """Words that know which of their arrays still live, and which prompts were encoded."""

    def __init__(self) -> None:
        model = ModelFolder.open(TINYWORLD)
        part = LoadedEncoder[Array](model.text_encoders[0], None, SimpleNamespace(config=None), TOKENS)
        super().__init__(model, [part], self, "float32")
        self.made: list[weakref.ref[Array]] = []
        self.encoded: list[tuple[str, Any]] = []
        self.rested = 0

    def to_device(self, array: Array) -> Array:
        return array

    def to_host(self, tensor: Array) -> Array:
        return tensor.copy()

    def rest(self, part: LoadedEncoder[Array]) -> None:
        self.rested += 1

    def concat(self, tensors: Sequence[Array], axis: int) -> Array:
        return self._noted(np.concatenate(tensors, axis))

    def rows(self, tensor: Array, rows: Array) -> Array:
        return self._noted(tensor[rows])

    def encode_prompt(self, part: LoadedEncoder[Array], prompt: str, precision: Any) -> Conditioning[Array]:
        self.encoded.append((prompt, precision))
        return Conditioning(self._noted(worked(prompt)[None] * (1 if precision == "float32" else 2)), None)

    def held(self) -> int:
        """Bytes of the arrays that live."""
        return sum(array.nbytes for made in self.made if (array := made()) is not None)

    def _noted(self, array: Array) -> Array:
        self.made.append(weakref.ref(array))
        return array


def worked(prompt: str) -> Array:
    return np.full((TOKENS, WIDTH), sum(prompt.encode()), np.float32)


@pytest.fixture
def words() -> Counted:
    return Counted()


def given(condition: Conditioning[Array]) -> Array:
    assert condition.prompt_embeds is not None
    return condition.prompt_embeds


def test_what_batches_number_is_held_once(words: Counted) -> None:
    prompts = [f"a dog, {i}" for i in range(3 * CACHED_PROMPTS)]
    before = given(words.embeddings(prompts[:3])).copy()
    words.set_prompts(prompts)
    assert words.held() == len(prompts) * ROW
    numbers = np.array([3, 0, 3])
    np.testing.assert_array_equal(given(words.condition(numbers)), np.stack([worked(prompts[i]) for i in numbers]))
    words.encoded.clear()
    np.testing.assert_array_equal(given(words.embeddings(prompts[:3])), before)
    np.testing.assert_array_equal(given(words.embeddings([prompts[-1]])), worked(prompts[-1])[None])
    assert not words.encoded, "they are known"
    assert words.held() == len(prompts) * ROW


def test_beyond_a_budget_embeddings_lie_in_the_hosts_memory(words: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are is the same, and those on the device are never more than they may be, one prompt's apart."""
    monkeypatch.setattr(conditioning, "ON_DEVICE", 5 * ROW)
    prompts = [f"a dog, {i}" for i in range(20)]
    most = 0
    encode = words.encode_prompt

    def watched(part: LoadedEncoder[Array], prompt: str, precision: Any) -> Conditioning[Array]:
        nonlocal most
        most = max(most, words.held())
        return encode(part, prompt, precision)

    monkeypatch.setattr(words, "encode_prompt", watched)
    words.set_prompts(prompts)
    assert most <= 5 * ROW
    assert words.held() == 5 * ROW
    assert words.rested == 1, "the text encoder has answered, and may go"
    numbers = np.array([19, 2, 7])
    np.testing.assert_array_equal(given(words.condition(numbers)), np.stack([worked(prompts[i]) for i in numbers]))


def test_another_precision_and_other_prompts_are_not_mistaken_for_them(words: Counted) -> None:
    words.set_prompts(["a dog", "a cat"])
    words.encoded.clear()
    np.testing.assert_array_equal(given(words.embeddings(["a dog"], "float16")), 2 * worked("a dog")[None])
    np.testing.assert_array_equal(given(words.embeddings(["a fish"])), worked("a fish")[None])
    assert words.encoded == [("a dog", "float16"), ("a fish", "float32")]
    words.forget()
    words.embeddings(["a cat"])
    assert words.encoded[-1] == ("a cat", "float32"), "by the weights as they are now"


def test_many_prompts_do_not_pile_up(words: Counted) -> None:
    for i in range(5 * CACHED_PROMPTS):
        for _ in range(2):  # images of two seeds
            words.embeddings([f"a dog, {i}"])
            words.embeddings([""])
    assert words.held() == CACHED_PROMPTS * ROW
    assert words.encoded.count(("", "float32")) == 1, "what is used again and again stays"
    assert len(words.encoded) == 5 * CACHED_PROMPTS + 1
