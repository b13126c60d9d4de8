"""A text encoder at work: which tokens it sees of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..families import TextEncoder
from .lengths import padded_length
from .new_words import NewWords
from .rows import Rows

T = TypeVar("T")
"""A backend's tensors."""
Tokens = tuple[NDArray[np.int64], NDArray[np.int64]]
"""A prompt's token ids and its attention mask, each [1, length]."""


@dataclass
class LoadedEncoder(Generic[T]):
    """One text encoder at work."""

    description: TextEncoder
    tokenizer: Any
    network: Any
    window: int
    """Tokens that the encoder takes at most (`ModelFolder.window`)."""
    max_length: int = 0
    trains: bool = False
    """Whether the network's weights, among them LoRA's, change from update to update."""
    words: NewWords | None = None
    """Words that prompts hold and that are spelt with tokens of their own."""
    uses_mask: bool = False
    """Whether the network is told which tokens are words."""
    ids: T | None = None
    """[prompts, length] of the prompts that batches number, where the network trains; masks alike."""
    masks: T | None = None
    answers: Rows[T] | None = None
    """To those prompts, where it does not."""

    def __post_init__(self) -> None:
        if self.description.kind.generates and self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # as pipelines fill Llama's words up
        self.max_length = self.description.length or self.window
        padding = self.description.sees_padding
        own = getattr(self.network.config, "use_attention_mask", None)
        self.uses_mask = self.description.kind.generates or (bool(own) if padding is None else not padding)

    def settle(self, config: TrainConfig) -> None:
        """Pad, cut and mask as the settings say."""
        self.max_length = padded_length(config, self.description, self.window)
        if self.description.sees_padding is not None and config.text_encoder_use_attention_mask is not None:
            self.uses_mask = config.text_encoder_use_attention_mask

    def tokens(self, prompt: str, *, bare: bool = False) -> Tokens:
        """Its token ids and attention mask; padded with the tokenizer's own token, as its model was
        trained (end-of-text for SD 1, "!" for SD 2).

        Args:
            bare: whether the prompt stands in no template.
        """
        described, prompt = self.description, self.spelt(prompt)
        if described.lowers:
            prompt = prompt.lower().strip()
        if described.without:
            prompt = prompt.replace(described.without, "")
        text = prompt if bare else templated(described, self.tokenizer, prompt)
        cut = {"max_length": self.max_length + (0 if bare else self.dropped), "truncation": True}
        if not described.kind.generates:
            ids = np.array(self.tokenizer([text], padding="max_length", **cut)["input_ids"], np.int64)
            words = len(self.tokenizer([text], **cut)["input_ids"][0])
            return ids, (np.arange(ids.shape[1]) < words).astype(np.int64)[None]
        side: dict[str, Any] = {"padding_side": "right"} if described.pads_right else {}
        if text.startswith(getattr(self.tokenizer, "bos_token", None) or "\0"):  # the template has written it
            side["add_special_tokens"] = False
        padding = "longest" if described.trims else "max_length"
        if described.ending:
            return self._ended(text, cut["max_length"], {"padding": padding, **side})
        made = self.tokenizer([text], padding=padding, **side, **cut)
        return np.array(made["input_ids"], np.int64), np.array(made["attention_mask"], np.int64)

    def _ended(self, text: str, length: int, padding: dict[str, Any]) -> Tokens:
        """A text's tokens with those of the ending, which no cut takes away, before padding: they see the same as where
        padding comes between."""
        ending = self.tokenizer(self.description.ending)["input_ids"]
        ids = self.tokenizer(text, max_length=length - len(ending), truncation=True)["input_ids"] + ending
        made = self.tokenizer.pad({"input_ids": [ids]}, max_length=length, return_attention_mask=True, **padding)
        return np.array(made["input_ids"], np.int64), np.array(made["attention_mask"], np.int64)

    def spelt(self, prompt: str) -> str:
        """A prompt with its new words spelt in their tokens."""
        return prompt if self.words is None else self.words.spelt(prompt)

    @cached_property
    def dropped(self) -> int:
        """How many tokens of the template its words are without."""
        described = self.description
        if described.drops is None:
            return 0
        before = described.template.partition("{}")[0]
        return described.drops(len(self.tokenizer(before)["input_ids"]))


def templated(described: TextEncoder, tokenizer: Any, prompt: str) -> str:
    """The text that a text encoder reads for a prompt."""
    text = described.template.replace("{}", prompt)
    if described.chat is None:
        return text
    said = [("system", described.system)] if described.system else []
    reads_images = described.kind.nested is not None  # what it is told comes in parts

    def parts(content: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": content}] if reads_images else content

    messages = [{"role": role, "content": parts(content)} for role, content in (*said, ("user", text))]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **described.chat))
