"""What the trainings of a cell measured, and the mean of it with an interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cells import SEEDS

DRAWS = 4000
Values = dict[tuple[str, int], float]
"""(Subject, training seed) -> a measure."""


def values(records: list[dict[str, Any]], cell: str, measure: str) -> Values:
    """One measure of a cell's trainings; what was not trained is the same for every seed."""
    found: Values = {}
    for one in records:
        if one["cell"] == cell and measure in one["measures"]:
            of_all = SEEDS if cell == "before" else (one["seed"],)
            found |= {(one["subject"], seed): one["measures"][measure]["value"] for seed in of_all}
    return found


def bootstrap(found: Values) -> tuple[float, float, float]:
    """Mean over subjects, and its 95 % interval over training seeds, which are drawn anew for each subject."""
    subjects = sorted({subject for subject, _ in found})
    rng, parts = np.random.default_rng(0), list[NDArray[np.float64]]()
    for subject in subjects:
        each = np.array([value for (of, _), value in sorted(found.items()) if of == subject])
        parts.append(each[rng.integers(len(each), size=(DRAWS, len(each)))].mean(1))
    mean = float(np.mean([np.mean([v for (of, _), v in found.items() if of == subject]) for subject in subjects]))
    low, high = np.quantile(np.mean(parts, 0), [0.025, 0.975])
    return mean, float(low), float(high)
