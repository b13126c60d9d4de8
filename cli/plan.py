"""`dreambooth plan`: what a run would take of memory, as a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dreamcore
from dreamcore.config import TrainConfig, load_config

from .flags import parse_settings


def run(about: str, argv: Sequence[str]) -> int:
    """Print the plan.  A ConfigError, and so status 2, means that training would not start for another reason than
    memory; what does not fit is said, and no error."""
    words = [word for word in argv if word != "--json"]
    plan = dreamcore.plan(
        load_config(TrainConfig, *parse_settings(TrainConfig, "plan", about, words, "[FOLDER] [--json] "))
    )
    print(json.dumps(plan.as_dict(), indent=2) if "--json" in argv else plan.in_words())
    return 0
