"""What libraries warn of while a run lasts, in one line each instead of with lines of their code, and once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .base import Level

HARMLESS = (
    "torch: None of the inputs have requires_grad",  # latents have none, and what trains is behind them
    "diffusers: `FluxPosEmbed` is deprecated",  # by Chroma's transformer, which is diffusers' own
)
"""Beginnings of warnings, each with its library, in which there is nothing for whoever trains: they are details."""


@contextmanager
def told_by_libraries(tell: Callable[[str, Level], None]) -> Iterator[None]:
    """Pass Python's warnings on, within; nothing is silenced that Python's own filters let through."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            before(message, category, filename, lineno, file, line)
            return
        text = f"{_library(filename)}: {' '.join(str(message).split())}"
        tell(text, "detail" if text.startswith(HARMLESS) else "warning")

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = before


def _library(filename: str) -> str:
    """Whose a file is: the package that lies in a folder that Python imports from."""
    path = Path(filename)
    for place in sorted(filter(None, sys.path), key=len, reverse=True):
        if path.is_relative_to(place):
            return path.relative_to(place).parts[0].removesuffix(".py")
    return path.stem
