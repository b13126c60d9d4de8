"""New words at work: rows beside the text encoders' tables of tokens, which alone of the encoders train.

As in diffusers' scripts of pivotal tuning, all rows of an encoder are drawn back towards the deviation of its own table
after every update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ..config import TrainConfig
from ..diffusion.randomness import new_word
from ..errors import ConfigError
from ..families.base import short_names
from ..formats.embeddings import Embeddings
from ..text.new_words import NewWords
from .protocol import Float

if TYPE_CHECKING:
    from ..text.encoder import LoadedEncoder
    from .hooks import Hooks

T = TypeVar("T")
DRAWN_BACK = 0.1
"""By which power of the deviations' ratio."""


class Inversion(Generic[T]):
    """New words of some text encoders.

    Args:
        hooks: the backend's.
        encoders: all of the model's; prompts are spelt for each, whether it has rows of its own or not.
        words: what is learned.
        rows: text encoder, as other programs call it -> [tokens, width].
        spreads: text encoder -> deviation of its table.
    """

    def __init__(
        self,
        hooks: Hooks[T],
        encoders: Sequence[LoadedEncoder[T]],
        words: NewWords,
        rows: Mapping[str, Float],
        spreads: Mapping[str, float],
    ):
        self._hooks, self.words, self._spreads = hooks, words, spreads
        self._names = dict(zip(short_names([part.description for part in encoders]), encoders, strict=True))
        self.rows: dict[str, T] = {}
        """By text encoder."""
        if unknown := [name for name in rows if name not in self._names]:
            raise ConfigError(f"embeddings: of {', '.join(unknown)}: this model has {', '.join(self._names)}")
        for part in encoders:
            part.words = words
        for name, array in rows.items():
            self.rows[name] = self._add(name, array)

    @classmethod
    def first(cls, hooks: Hooks[T], encoders: Sequence[LoadedEncoder[T]], config: TrainConfig) -> Inversion[T]:
        """New words before the first update: at random as widely spread as the table is, or as another word is.

        Raises:
            ConfigError: that word is none of the text encoder's.
        """
        names = short_names([part.description for part in encoders])
        trained = {name: part for name, part in zip(names, encoders, strict=True) if part.trains}
        if not trained:
            raise ConfigError("train_text_encoder_ti: the only text encoder here is a T5; give enable_t5_ti too")
        like = dict[str, list[int]]()
        if config.initializer_concept is None:
            count = config.num_new_tokens_per_abstraction or 2
        else:
            for name, part in trained.items():
                like[name] = list(part.tokenizer(config.initializer_concept, add_special_tokens=False)["input_ids"])
            count = max(map(len, like.values()))
            if not min(map(len, like.values())):
                raise ConfigError(f"initializer_concept: {config.initializer_concept!r}: no words")
        words = NewWords.of(config, count)
        rows, spreads = dict[str, Float](), dict[str, float]()
        for name, part in trained.items():
            table = hooks.table(part)
            spreads[name] = float(table.std(dtype=np.float64, ddof=1))
            if name in like:  # its tokens again and again, as many as all words have
                rows[name] = table[np.resize(like[name], len(words.all))]
            else:
                drawn = [new_word(config.seed, f"{name} {k}") for k in range(len(words.all))]
                rows[name] = np.stack([draw.standard_normal(table.shape[1]) * spreads[name] for draw in drawn])
        return cls(hooks, encoders, words, {name: array.astype(np.float32) for name, array in rows.items()}, spreads)

    def _add(self, name: str, array: Float) -> T:
        part = self._names[name]
        tokenizer, tokens, first = part.tokenizer, self.words.all, len(part.tokenizer)
        tokenizer.add_tokens(tokens, special_tokens=True)
        numbers = tokenizer.convert_tokens_to_ids(tokens)
        if list(numbers) != list(range(first, first + len(tokens))) or array.shape[0] != len(tokens):
            raise ConfigError(f"token_abstraction: {', '.join(tokens)}: the tokenizer of {name} knows some already")
        width = self._hooks.table_shape(part)[1]
        if array.shape[1] != width:
            raise ConfigError(f"embeddings: {name}: {array.shape[1]} wide, and this model's are {width}")
        return self._hooks.add_rows(part, first, array)

    @property
    def parameters(self) -> dict[str, dict[str, T]]:
        """By component, then by COMPONENT.TABLE.new_words."""
        found = {}
        for name, rows in self.rows.items():
            network, table = self._names[name].description.network, self._names[name].description.kind.table
            found[network] = {f"{network}.{table.removesuffix('.weight')}.new_words": rows}
        return found

    def draw_back(self) -> None:
        """After an update: rows · (the table's deviation / theirs)^0.1, all rows of an encoder together."""
        for name, tensor in self.rows.items():
            rows: Any = tensor
            size = int(np.prod(rows.shape))
            spread = ((rows - rows.mean()).square().sum() / (size - 1)).sqrt()
            self._hooks.put(tensor, rows * (self._spreads[name] / spread) ** DRAWN_BACK)

    def learned(self) -> Embeddings:
        """What files hold: copies, for the rows may be averages for the moment."""
        copies = {name: np.array(self._hooks.to_host(rows)) for name, rows in self.rows.items()}
        return Embeddings(self.words.tokens, copies)

    def fill(self, found: Embeddings) -> None:
        """Go on from what `learned` told."""
        for name, tensor in self.rows.items():
            self._hooks.put(tensor, self._hooks.to_device(found.rows[name]))
