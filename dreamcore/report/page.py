"""The page: one HTML file that loads nothing, not even from beside itself."""

from __future__ import annotations

from html import escape
from itertools import chain
from typing import Any

import numpy as np

from . import live, top
from .collect import RunData, SubjectData, is_number
from .curves import curves
from .elements import duration, figure, gallery, missing, note, sample, section, spoken, table, text, typed, when
from .style import STYLE

MOST_INSTANCES, MOST_CLASS_IMAGES = 24, 12
"""Images that are shown of a subject and of its class."""
MOST_SEEDS = 12
"""Validation images that are shown of one update."""
MOST_STEPS = 12
"""Updates whose images are shown side by side, the first and the last among them."""


def render_page(data: RunData) -> str:
    """The whole page."""
    sections = (
        top.use(data),
        top.warnings(data),
        section("Before and after", _before_after(data)),
        section("Along the way", _film(data)) if _has_film(data) else "",
        *_subjects(data),
        section("The run in figures", top.told(data)),
        section("Curves", curves(data)),
        _scores(data),
        section("Time", _timing(data)),
        section("Configuration", _configuration(data)),
    )
    return (
        f'<!DOCTYPE html><html lang="en"{live.attributes(data)}><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(live.POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(data.name)}: DreamBooth report</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
        f"</head><body>{top.header(data)}<main>{''.join(sections)}</main><script>{live.SCRIPT}</script></body></html>\n"
    )


def _subjects(data: RunData) -> list[str]:
    """The photographs of each subject and the images of its class, under their own words."""
    if not any(one.instance_images or one.class_images for one in data.subjects):
        return [section("The subject", missing("The run folder does not say which images were trained on."))]
    several = len(data.subjects) > 1
    return [
        part
        for number, one in enumerate(data.subjects, 1)
        for part in _subject(one, f"Subject {number}" if several else "The subject", several, number)
    ]


def _subject(one: SubjectData, title: str, several: bool, number: int) -> list[str]:
    words = f'<p class="words">{text(one.words)}</p>' if one.words else ""
    found = [section(title, words + gallery(one.instance_images, "instance image", MOST_INSTANCES))]
    if one.class_images:
        about = note(
            "What the model itself draws of the class, or photographs of it, which keep it from all turning into the "
            "subject."
        )
        words = f'<p class="words">{text(one.class_prompt)}</p>' if one.class_prompt else ""
        heading = f"The class of subject {number}" if several else "The class"
        found.append(section(heading, words + about + gallery(one.class_images, "class image", MOST_CLASS_IMAGES)))
    return found


def _before_after(data: RunData) -> str:
    if not data.samples:
        return missing("No validation images: set validation_prompt to have them made before and during training.")
    last = max(data.samples)
    if 0 not in data.samples or last == 0:
        return missing("There are images from " + ("before training only." if last == 0 else "after training only."))
    numbers = sorted(set(data.samples[0]) & set(data.samples[last]))[:MOST_SEEDS]
    pairs = "".join(
        figure(
            f'<div class="pair">{sample(data, 0, n, 512)}{sample(data, last, n, 512)}</div>',
            f"Image {n + 1}: before training, and {when(last)}",
        )
        for n in numbers
    )
    prompt = note(f"Each pair comes from the same seed. Prompt: {text(data.prompt)}") if data.prompt else ""
    return f'{prompt}<div class="pairs">{pairs}</div>'


def _has_film(data: RunData) -> bool:
    """Whether there is more to show than before and after."""
    return len(data.samples) > 2 or (bool(data.samples) and 0 not in data.samples)


def _film(data: RunData) -> str:
    steps = spread(list(data.samples), MOST_STEPS)
    numbers = sorted(set(chain.from_iterable(data.samples[step] for step in steps)))[:MOST_SEEDS]
    cells = "".join(
        f'<div class="step">{"before" if step == 0 else f"{step:,}"}</div>'
        + "".join(sample(data, step, n, 256) if n in data.samples[step] else "<div></div>" for n in numbers)
        for step in steps
    )
    left_out = len(data.samples) - len(steps)
    more = f" {left_out} of {len(data.samples)} validations are left out here." if left_out else ""
    return (
        f"{note(f'The same seeds after more and more updates.{more}')}"
        f'<div class="film" style="--pictures: {len(numbers)}; --steps: {len(steps)}">{cells}</div>'
    )


def spread(items: list[int], most: int) -> list[int]:
    """Every item, or every second, third ... so that at most `most` remain; the first and the last always do."""
    stride = max(1, -(-(len(items) - 1) // (most - 1)))
    return items[:-1:stride] + items[-1:]


def _scores(data: RunData) -> str:
    if not data.scores:
        return ""
    return section("Scores", note(text(data.about_scores)) * bool(data.about_scores) + table(spoken(data.scores)))


def _timing(data: RunData) -> str:
    seconds = data.column("seconds")
    rows: dict[str, Any] = {}
    if np.isfinite(seconds).any():
        rows = {
            "updates recorded": f"{len(seconds):,}",
            "all updates": duration(float(np.nansum(seconds))),
            "one update, median": duration(float(np.nanmedian(seconds))),
        }
    for name, value in spoken(data.timing).items():
        # Numbers are seconds, but for a rate such as "updates per second".
        timed = is_number(value) and " per " not in name
        rows[name.removesuffix(" seconds").rstrip(",")] = duration(value) if timed else value
    if not rows:
        return missing("No times were recorded.")
    said = "How long each part took, and the most memory that it held; what was predicted, `dreambooth plan` says."
    return note(typed(said)) + table(rows)


def _configuration(data: RunData) -> str:
    if not data.config:
        return missing("The run folder has no readable config.yaml.")
    summary = f"All {len(data.config)} settings that the run used"
    return f"<details><summary>{summary}</summary>{table(data.config, 'settings')}</details>"
