"""The report of a run: report.html, one file with everything in it, and report.png, a contact sheet."""

from __future__ import annotations

from pathlib import Path

from ..io.files import explain_disk_errors, write_atomically
from ..io.names import REPORT, REPORT_SHEET
from ..runs.watching import WatchedRun
from .card import write_card
from .collect import RunData, collect
from .page import render_page
from .sheet import render_sheet

__all__ = ["RunData", "collect", "write_card", "write_report"]


def write_report(run_folder: Path, seen: WatchedRun | None = None) -> tuple[Path, Path]:
    """Write report.html and report.png from what the run folder holds; what is missing, the report says.

    Read are config.yaml, status.json, metrics.jsonl, validation.jsonl, samples/step-STEP-K.png, checkpoint-N, and
    report_data.json with any of instance_images and class_images (lists of paths, relative to the run folder or
    absolute), subjects (words and class_prompt of each, and how many of these images, in their order, are its own),
    state (words), ended (whether state is the run's last), warnings (list of words), timing and scores (mappings from a
    name to a number or words), about_scores (what they mean), validation_loss (list of [update, loss]).

    Args:
        seen: the run as it was seen from outside, where whoever writes the report holds the folder; None: as it is.

    Returns:
        The paths of report.html and report.png.

    Raises:
        RunError: they cannot be written.
    """
    data = collect(run_folder, seen)
    page, sheet = run_folder / REPORT, run_folder / REPORT_SHEET
    with explain_disk_errors(f"writing the report to {run_folder}"):
        write_atomically(page, render_page(data).encode("utf-8", "replace"))
        write_atomically(sheet, render_sheet(data))
    return page, sheet
