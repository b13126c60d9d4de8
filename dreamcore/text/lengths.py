"""How many tokens of a prompt its text encoder sees."""

from __future__ import annotations

from ..config import TrainConfig
from ..errors import ConfigError
from ..families import TextEncoder


def padded_length(config: TrainConfig, encoder: TextEncoder, window: int) -> int:
    """Tokens that a text encoder's prompts are padded to and cut at.

    Args:
        window: tokens that its tokenizer allows.

    Raises:
        ConfigError: more than those.
    """
    setting = encoder.length_setting
    length = getattr(config, setting)
    return (encoder.length or window) if length is None else checked_length(length, window, setting)


def checked_length(length: int, longest: int, setting: str = "tokenizer_max_length") -> int:
    """Tokens that prompts are padded or cut to, of at most the tokenizer's own; `setting` is who asks.

    Raises:
        ConfigError: it is more.
    """
    if length > longest:
        raise ConfigError(f"{setting}: {length} is more than the {longest} tokens that this model takes")
    return length
