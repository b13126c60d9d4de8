"""What is held of the embeddings of prompts, on a backend of NumPy's arrays whose answers are worked by hand."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamcore.families import STABLE_DIFFUSION
from dreamcore.families.base import words_mask
from dreamcore.families.encoders import LANGUAGE_MODEL
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import TINYWORLD
from dreamcore.text import rows as kept_rows
from dreamcore.text.conditioning import CACHED_PROMPTS, TextConditioner
from dreamcore.text.conditions import Conditioning
from dreamcore.text.encoder import LoadedEncoder, Tokens, templated
from dreamcore.text.hooks import TextHooks

Array = np.ndarray[Any, Any]
TOKENS, WIDTH = 4, 3
ROW = TOKENS * WIDTH * 4
"""Bytes of a prompt."""


class Counted(TextConditioner[Array], TextHooks[Array]):
    """Words that know which of their arrays still live, and which prompts were encoded."""

    def __init__(self) -> None:
        model = ModelFolder.open(TINYWORLD)
        part = LoadedEncoder[Array](model.text_encoders[0], letters, SimpleNamespace(config=None), TOKENS)
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

    def encode_prompt(self, part: LoadedEncoder[Array], tokens: Tokens, precision: Any) -> Conditioning[Array]:
        prompt = bytes(tokens[0][0].tolist()).decode()
        self.encoded.append((prompt, precision))
        return Conditioning(self._noted(worked(prompt)[None] * (1 if precision == "float32" else 2)), None)

    def held(self) -> int:
        """Bytes of the arrays that live."""
        return sum(array.nbytes for made in self.made if (array := made()) is not None)

    def _noted(self, array: Array) -> Array:
        self.made.append(weakref.ref(array))
        return array


def letters(prompts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
    """A tokenizer for which every byte is a token."""
    return {"input_ids": [list(prompt.encode()) for prompt in prompts]}


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
    monkeypatch.setattr(kept_rows, "ON_DEVICE", 5 * ROW)
    prompts = [f"a dog, {i}" for i in range(20)]
    most = 0
    encode = words.encode_prompt

    def watched(part: LoadedEncoder[Array], tokens: Tokens, precision: Any) -> Conditioning[Array]:
        nonlocal most
        most = max(most, words.held())
        return encode(part, tokens, precision)

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


class LanguageModel(Counted):
    """One whose words are its tokens' numbers, three of them for every token; between a template's own, which the
    denoiser does not see but for the first."""

    def __init__(self, **described: Any) -> None:
        super().__init__()
        part = self.encoders[0]
        part.tokenizer, part.max_length = self.written, 6
        more = {"kind": LANGUAGE_MODEL, "template": "<ab>{}.", "keeps_first": 1, "drops": lambda before: before - 2}
        part.description = replace(part.description, **(more | described))
        family = replace(STABLE_DIFFUSION, masks={"mask": words_mask})
        self._model = SimpleNamespace(  # type: ignore[assignment]
            family=family, words_width=None, zeroes_empty=False, absent_words={}
        )

    @staticmethod
    def written(texts: Any, *, max_length: int = 99, padding: str = "", **_: Any) -> dict[str, list[Any]]:
        if isinstance(texts, str):
            return {"input_ids": list(texts.encode())}
        rows = [list(text.encode())[:max_length] for text in texts]
        full = max_length if padding == "max_length" else 0
        return {
            "input_ids": [row + [0] * (full - len(row)) for row in rows],
            "attention_mask": [[1] * len(row) + [0] * (full - len(row)) for row in rows],
        }

    def encode_prompt(self, part: LoadedEncoder[Array], tokens: Tokens, precision: Any) -> Conditioning[Array]:
        return Conditioning(np.repeat(tokens[0][:, :, None], WIDTH, 2).astype(np.float32))


def text(condition: Conditioning[Array]) -> list[bytes]:
    return [bytes(row[:, 0].astype(int).tolist()) for row in given(condition)]


def test_what_of_a_template_the_denoiser_sees() -> None:
    """The first token and those from the second but last of the template on, cut or filled up to six in all."""
    words = LanguageModel()
    words.set_prompts(["x", "a long prompt"])
    condition = words.condition(np.array([0, 1]))
    assert text(condition) == [b"<>x.\0\0", b"<>a lo"]
    assert condition.lengths is not None and condition.lengths.tolist() == [4, 6]


def test_words_without_padding_are_filled_up_to_the_longest_of_a_batch() -> None:
    words = LanguageModel(trims=True)
    words.set_prompts(["x", "xyz", "w"])
    assert text(words.condition(np.array([0, 2]))) == [b"<>x.", b"<>w."]
    condition = words.condition(np.array([0, 1]))
    assert text(condition) == [b"<>x.\0\0", b"<>xyz."]
    assert condition.lengths is not None and condition.lengths.tolist() == [4, 6]


def test_negative_prompts_may_stand_in_no_template() -> None:
    words = LanguageModel(bare_negative=True, lowers=True)
    words.set_prompts(["  A Dog ", ""])
    assert text(words.condition(np.array([0, 1]))) == [b"<>a do", b"\0" * 6]
    assert text(words.embeddings(["Fog"], negative=True)) == [b"fog\0\0\0"]
    assert text(words.embeddings(["Fog"])) == [b"<>fog."], "which is another thing than the same words above"


def test_a_chat_template_is_the_tokenizers_own() -> None:
    asked: list[Any] = []

    def apply(messages: list[dict[str, str]], **options: Any) -> str:
        asked.append((messages, options))
        return "said"

    described = replace(STABLE_DIFFUSION.text_encoders[0], chat={"add_generation_prompt": True}, system="Describe.")
    assert templated(described, SimpleNamespace(apply_chat_template=apply), "a dog") == "said"
    messages = [{"role": "system", "content": "Describe."}, {"role": "user", "content": "a dog"}]
    assert asked == [(messages, {"tokenize": False, "add_generation_prompt": True})]
