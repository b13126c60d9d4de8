"""`dreambooth compare RUN RUN ...`: runs beside each other, in words, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dreamcore
from dreamcore.commands.compare import in_words
from dreamcore.errors import ConfigError

from .flags import CommandParser


def run(about: str, argv: Sequence[str]) -> int:
    """Print what differs, and the page that was written."""
    parser = CommandParser(prog="dreambooth compare", description=about, allow_abbrev=False)
    said = "a run's folder, or one with a single run at work below it"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=said)
    said = "the page's file, or a folder for it (default: comparison.html here, under the next free name)"
    parser.add_argument("--output", metavar="FILE", help=said)
    said = "a folder that `dreambooth evaluate` has made of one of them; those in a run's folder are found"
    parser.add_argument("--evaluation", action="append", default=[], metavar="FOLDER", help=said)
    said = "print an object, as docs/watching.md describes it; a page is written only to --output"
    parser.add_argument("--json", action="store_true", help=said)
    words = parser.parse_args(argv)
    if parser.twice:
        raise ConfigError("\n".join(parser.twice))
    output = words.output or (None if words.json else ".")
    found = dreamcore.compare(*words.runs, output=output, evaluations=words.evaluation)
    if words.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        print(in_words(found), "", found.page, sep="\n")
    return 0
