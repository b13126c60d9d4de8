"""Lets the tests run in a tree that is not installed: `adapters`, `cli` ... lie beside `dreamcore`, not inside it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import dreamcore

if find_spec("dreamcore.adapters") is None:
    dreamcore.__path__.append(str(Path(__file__).parent))
