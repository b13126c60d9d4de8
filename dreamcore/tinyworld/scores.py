"""What the judge thinks of a run's own images, for its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from ..io.files import write_atomically
from ..io.names import REPORT_DATA
from ..report import collect, write_report
from . import judge
from .subjects import Subject

Pictures = NDArray[np.uint8]
ABOUT = (
    "What a small network says that tells the embedded model's drawings apart: in how many images it sees the subject "
    "itself, and in how many a thing of its class. Likeness is the mean cosine to the photographs: 1 is the same."
)


def scores(subject: Subject, before: Pictures, after: Pictures) -> dict[str, str]:
    """Subject and class scores of the first and the last images of a run, uint8 [N, 64, 64, 3], in words."""
    references = np.stack([np.asarray(p) for p in subject.pictures()])
    found = {}
    for when, made in (("before", before), ("after", after)):
        likeness = judge.subject_scores(references, made)
        shown, kinds = likeness >= judge.threshold(), judge.look(made).kind
        found[f"subject, {when}"] = f"{shown.sum()} of {len(made)} images; likeness {likeness.mean():.2f}"
        found[f"{subject.kind}, {when}"] = f"{kinds.count(subject.kind)} of {len(made)} images"
    return found


def add_to_report(run: Path, subject: Subject) -> dict[str, str]:
    """Judge the images that a finished run made along the way, and write its report again with the scores."""
    samples = collect(run).samples
    if not samples:
        raise ConfigError(f"{run}: holds no images in samples/; train with a validation_prompt")
    first, last = (
        np.stack([np.asarray(Image.open(path).convert("RGB")) for path in samples[step].values()])
        for step in (min(samples), max(samples))
    )
    found = scores(subject, first, last)
    path = run / REPORT_DATA
    extras = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_atomically(path, json.dumps(extras | {"scores": found, "about_scores": ABOUT}, indent=1))
    write_report(run)
    return found
