"""What training would see of the photographs: the substance of `dreambooth data`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config.look import DataConfig
from ..config.photographs import PHOTOGRAPHS
from ..config.used import Context, refuse_idle
from ..data.inspection import Inspection, inspect
from ..data.sheet import draw_sheet
from ..io.files import AGAIN, explain_disk_errors, numbered, usable_file, write_new
from ..io.images import png_bytes
from ..models.folder import ModelFolder
from ..runs.overlaps import refuse_among_photographs
from ..text.prompts import places
from ..text.tokenizer import Tokenizer
from ..track import shows_progress
from ..training.settings import image_size
from ..training.training_data import bucket_choice, crop_of, open_subjects

RANDOM = (
    "crops are drawn at random: the sheet dims what none of them can show, and frames the middle one, which "
    "--center_crop takes alone"
)
USUAL_SIDE, USUAL_FACTOR = 512, 8
"""Of Stable Diffusion, where no model is named."""


@dataclass(frozen=True)
class DataReport:
    """The photographs of each concept, as training would see them."""

    folders: list[Path]
    inspections: list[Inspection]
    """One for each folder."""
    size: tuple[int, int]
    """(H, W) of the training images, where there are no buckets."""
    sheet: Path
    """The contact sheet, written."""
    held_out: list[Path]
    """Photographs that would not train."""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        parts = [
            {"folder": str(folder)} | inspection.as_dict()
            for folder, inspection in zip(self.folders, self.inspections, strict=True)
        ]
        whole = {"photographs_usable": True, "size": list(self.size), "sheet": str(self.sheet), "concepts": parts}
        return whole | {"held_out": [str(path) for path in self.held_out]}


@shows_progress
def report_data(config: DataConfig) -> DataReport:
    """Look at every photograph as training would, and write the contact sheet.

    Raises:
        ConfigError: training would not take the photographs: the setting or file, and what would be right.
    """
    model = tokenizer = None
    sheet = Path(config.sheet).expanduser()
    usable_file(sheet, "sheet")
    refuse_among_photographs(config, sheet)
    side = config.resolution or USUAL_SIDE
    size = (config.height, config.width) if config.height and config.width else (side, side)
    if config.pretrained_model_name_or_path is not None:
        model = ModelFolder.of(config)
        size, tokenizer = image_size(config, model, lambda text: None), Tokenizer.known(model)
    crop = crop_of(config, *size)
    shapes = bucket_choice(config, crop, model.size_step if model else USUAL_FACTOR)
    subjects, held_out = open_subjects(config, crop, shapes, lambda text: None, model)
    asked = places(config, [(subject.concept, subject.images) for subject in subjects])
    refuse_idle(config, Context(places=asked), PHOTOGRAPHS)
    inspections = [
        inspect(
            subject.images,
            subject.crops,
            prompts=[wordings[0] for wordings in subject.prompts] if all(subject.prompts) else None,
            count_tokens=(lambda text: len(tokenizer.tokenize(text))) if tokenizer else None,
            window=tokenizer.window if tokenizer else None,
        )
        for subject in subjects
    ]
    with explain_disk_errors(f"sheet: {sheet}", AGAIN):
        sheet = write_new(numbered(sheet), png_bytes(np.asarray(_stacked([draw_sheet(one) for one in inspections]))))
    held = [photo.path for part in held_out for photo in part.images.photos]
    return DataReport([subject.images.folder for subject in subjects], inspections, size, sheet, held)


def _stacked(sheets: list[Image.Image]) -> Image.Image:
    """Sheets one below the other, on white."""
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def in_words(report: DataReport) -> str:
    """Tables, remarks and notes as text."""
    lines = []
    for folder, inspection in zip(report.folders, report.inspections, strict=True):
        head, rows = inspection.table()
        rows = [[_short(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        used = [i for i in range(len(head)) if any(row[i] for row in rows)]
        lines += [f"{folder}: {len(rows)} images"]
        lines += ["  ".join(row[i].ljust(widths[i]) for i in used).rstrip() for row in [head, *rows]]
        remarks = [f"{row.name}: {remark.text}" for row in inspection.rows for remark in row.remarks]
        remarks += [remark.text for remark in inspection.remarks]
        lines += [f"  warning: {text}" for text in remarks] + [f"  note: {text}" for text in inspection.notes]
    if report.held_out:
        lines.append(f"held out of training: {', '.join(path.name for path in report.held_out)}")
    if any(row.reach != row.crop for inspection in report.inspections for row in inspection.rows):
        lines.append(RANDOM)
    return "\n".join([*lines, f"contact sheet: {report.sheet}"])


def _short(text: str, most: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def failure_as_json(error: Exception) -> str:
    """What --json prints where training would not start."""
    return json.dumps({"photographs_usable": False, "error": str(error)}, indent=2)
