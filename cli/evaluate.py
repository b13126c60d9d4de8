"""`dreambooth evaluate RUN|FOLDER`: what was learned of a subject, as a table or JSON, and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dreamcore
from dreamcore.config import load_config
from dreamcore.config.evaluate import EvaluateConfig

from .flags import parse_settings


def run(about: str, argv: Sequence[str]) -> int:
    """Print the table, or with --json all that was measured."""
    words = [word for word in argv if word != "--json"]
    given = parse_settings(EvaluateConfig, "evaluate", about, words, "RUN|FOLDER [--json] ")
    found = dreamcore.evaluate(load_config(EvaluateConfig, *given))
    if "--json" in argv:
        print(json.dumps({"folder": str(found.folder), **found.content}, indent=1))
    else:
        print(found, "", *found.files, sep="\n")
    return 0
