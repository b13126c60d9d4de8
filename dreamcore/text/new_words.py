"""New words: what stands in prompts for a subject, and the tokens whose embeddings are learned for it (textual
inversion, arXiv 2208.01618)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..config import TrainConfig


@dataclass(frozen=True)
class NewWords:
    """Words that a model does not know by itself.

    Args:
        tokens: word, as prompts have it -> the tokens that it is spelt with, in order.
    """

    tokens: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, config: TrainConfig, count: int) -> NewWords:
        """As diffusers' scripts number them: <s0><s1> for the first word, <s2><s3> for the second.

        Args:
            count: tokens of each word.
        """
        numbered = enumerate(words_of(config))
        return cls({word: tuple(f"<s{k * count + i}>" for i in range(count)) for k, word in numbered})

    @property
    def all(self) -> list[str]:
        """Every token, in order."""
        return [token for tokens in self.tokens.values() for token in tokens]

    def spelt(self, prompt: str) -> str:
        """A prompt with its new words spelt in tokens: the text that any other program is given."""
        for word, tokens in self.tokens.items():
            prompt = prompt.replace(word, "".join(tokens))
        return prompt


def words_of(config: TrainConfig) -> list[str]:
    """The words of `token_abstraction`."""
    return [word for word in re.split(r"[,\s]+", config.token_abstraction) if word]
