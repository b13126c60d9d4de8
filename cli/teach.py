"""`dreambooth teach FOLDER --class WORD`: from photographs to a model that knows their subject, nothing else needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dreamcore.config import load_config
from dreamcore.config.teach import TeachConfig
from dreamcore.errors import ConfigError, RunError

from .flags import parse_settings


def run(about: str, argv: Sequence[str]) -> int:
    """Teach; 1 where the answer was no."""
    given = parse_settings(TeachConfig, "teach", about, argv, "FOLDER --class WORD [--model FILE_OR_ID] [--yes] ")
    config = load_config(TeachConfig, *given)
    from dreamcore.commands.teach import same_again, teach

    asks = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        ended = teach(config, _ask if asks else None, _say)
    except KeyboardInterrupt:
        print(f"\ndreambooth: interrupted; the same command again: {same_again(config)}", file=sys.stderr)
        return 130
    except RunError as error:
        raise type(error)(f"{error}\nonce that is mended, the same command goes on: {same_again(config)}") from error
    if ended is not None and ended.exit_code:
        print(f"or the same command again: {same_again(config)}", file=sys.stderr)
    return 1 if ended is None else ended.exit_code


def _ask(question: str) -> str:
    """The answer to a question.

    Raises:
        ConfigError: the input has ended.
    """
    try:
        return input(question)
    except EOFError:
        raise ConfigError("yes: the input has ended before the answer; --yes begins without being asked") from None


def _say(text: str) -> None:
    print(text, flush=True)
