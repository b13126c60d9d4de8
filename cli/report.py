"""`dreambooth report RUN`: a run's report made anew, of one at work, finished, stopped or dead."""

from __future__ import annotations

from collections.abc import Sequence

import dreamcore
from dreamcore.errors import ConfigError

from .flags import CommandParser


def run(about: str, argv: Sequence[str]) -> int:
    """Print the files that were written."""
    parser = CommandParser(prog="dreambooth report", description=about, allow_abbrev=False)
    said = "the run's folder, or one with a single run at work below it (default: here)"
    parser.add_argument("run", nargs="?", metavar="RUN", help=said)
    words = parser.parse_args(argv)
    if parser.twice:
        raise ConfigError("\n".join(parser.twice))
    print(*dreamcore.run_report(words.run or "."), sep="\n")
    return 0
