"""Refuse a site that asks another host for something: `python -m tools.house.check_site site`, in `nox -s docs`.

Links that a reader may follow are no such thing; scripts, styles, fonts, pictures and frames are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ASKS = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\s(?:src|srcset|data)=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\shref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:url\(|@import\s)["']?(?:https?:)?//[^"')\s]+""",
    re.IGNORECASE,
)


def asked(site: Path) -> list[str]:
    """What pages and styles would fetch from elsewhere, each with its file."""
    files = [file for file in sorted(site.rglob("*")) if file.suffix in (".html", ".css", ".svg")]
    return [f"{file}: {found[0]}" for file in files for found in ASKS.finditer(file.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    pages = asked(Path(sys.argv[1]))
    if not (Path(sys.argv[1]) / "index.html").is_file() or pages:
        sys.exit("\n".join(pages) or "no site there")
