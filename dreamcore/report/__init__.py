"""The report of a run: report.html, one file with everything in it, and report.png, a contact sheet."""

from __future__ import annotations

from pathlib import Path

from ..io.files import explain_disk_errors, write_atomically
from ..io.names import REPORT, REPORT_SHEET
from .collect import RunData, collect
from .page import render_page
from .sheet import render_sheet

__all__ = ["RunData", "collect", "write_report"]


def write_report(run_folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.png from what the run folder holds; what is missing, the report says.

    Read are config.yaml, metrics.jsonl, validation.jsonl, samples/step-STEP-K.png, checkpoint-N, and report_data.json
    with any of instance_images and class_images (lists of paths, relative to the run folder or absolute), state
    (words), timing and scores (mappings from a name to a number or words), validation_loss (list of [update, loss]).

    Returns:
        The paths of report.html and report.png.

    Raises:
        RunError: they cannot be written.
    """
    data = collect(run_folder)
    page, sheet = run_folder / REPORT, run_folder / REPORT_SHEET
    with explain_disk_errors(f"writing the report to {run_folder}"):
        write_atomically(page, render_page(data).encode("utf-8", "replace"))
        write_atomically(sheet, render_sheet(data))
    return page, sheet
