"""`dreambooth data FOLDER`: the photographs as training would see them, as a table or JSON, and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dreamcore
from dreamcore.commands.data import failure_as_json, in_words
from dreamcore.config import load_config
from dreamcore.config.look import DataConfig
from dreamcore.errors import ConfigError

from .flags import parse_settings


def run(about: str, argv: Sequence[str]) -> int:
    """Print the report.  A ConfigError, and so status 2, means that training would not take them; warnings do not."""
    words = [word for word in argv if word != "--json"]
    as_json = "--json" in argv
    try:
        given = parse_settings(DataConfig, "data", about, words, "[FOLDER] [--json] ")
        report = dreamcore.data_report(load_config(DataConfig, *given))
    except ConfigError as error:
        if as_json:
            print(failure_as_json(error))
        raise
    print(json.dumps(report.as_dict(), indent=2) if as_json else in_words(report))
    return 0
