"""The documents' table of how far the backends lie apart, from what their tests have just written.

`python -m tests.crossing.table` measures and writes it into docs/how-it-works.md.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from dreamcore.track.metrics import read_lines

from ..support.paths import ROOT
from .cases import CASES, GREY_LEVELS, TOLERANCES, UPDATES, furthest, pictures, reference, reference_run, written_by

PAGE = ROOT / "docs" / "how-it-works.md"
HEAD = "| | loss | gradient norm | DDIM image, in grey levels of 255 |\n|---|---|---|---|\n"
LIMITS = {"loss": max(TOLERANCES.values()), "grad_norm": max(TOLERANCES.values()), "picture": max(GREY_LEVELS.values())}
"""The largest distance that the tests allow, relative or in grey levels."""


def measure() -> dict[str, dict[str, float]]:
    """Case -> the largest distance of any two backends in the updates that all of them make.

    Raises:
        FileNotFoundError: a backend's tests have not been run.
    """
    return {case: _measure(case) for case in CASES}


def _measure(case: str) -> dict[str, float]:
    runs = {"torch": reference_run(case), **{b: written_by(b, f"runs/{case}") for b in TOLERANCES}}
    made = {b: pictures(written_by(b, f"images of PyTorch's weights/{case}")) for b in TOLERANCES}
    made["torch"] = pictures(reference("pictures") / str(UPDATES["torch"]) / case)
    updates = min(UPDATES.values())
    metrics = {backend: read_lines(folder / "metrics.jsonl")[:updates] for backend, folder in runs.items()}
    apart = [furthest(metrics[one], metrics[other]) for one, other in combinations(runs, 2)]
    return {
        "loss": max(value for pair in apart for name, value in pair.items() if name.startswith("loss")),
        "grad_norm": max(pair["grad_norm"] for pair in apart),
        "picture": max(float(np.abs(made[one] - made[other]).max()) for one, other in combinations(runs, 2)),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """The page's lines."""
    rows = (f"| {case} | {f['loss']:.0e} | {f['grad_norm']:.0e} | {f['picture']:.0f} |\n" for case, f in found.items())
    return HEAD + "".join(rows)


def read(text: str) -> dict[str, dict[str, float]]:
    """The figures of the page."""
    rows = (line.strip("| ").split(" | ") for line in _rows(text).splitlines())
    return {case: dict(zip(LIMITS, map(float, figures), strict=True)) for case, *figures in rows}


def _rows(text: str) -> str:
    assert HEAD in text, f"{PAGE.name} has lost its table"
    return text.partition(HEAD)[2].partition("\n\n")[0]


def main() -> None:
    found = measure()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(HEAD + _rows(text) + "\n", table(found)), encoding="utf-8")
    print(table(found), end="")


if __name__ == "__main__":
    main()
