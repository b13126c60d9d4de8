"""A run's report and card made anew: `dreambooth report`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..errors import ConfigError
from ..io.files import explain_disk_errors
from ..io.locks import BusyError, held
from ..io.names import MANIFEST, RECORDS, REPORT, REPORT_SHEET
from ..report import write_card, write_report
from ..runs.manifest import Manifest
from .runs import find_run


def make_report(run: Path) -> list[Path]:
    """Write a run's report.html and report.png, and a finished run's card, from what its folder holds.

    Args:
        run: its folder, or one with a single run at work below it.

    Returns:
        The files written, report.html first.

    Raises:
        ConfigError: no such run, or a file of that name is there that no run on record has written.
        RunError: the folder cannot be written.
    """
    found = find_run(run)
    folder = found.folder
    with explain_disk_errors(f"writing the report to {folder}", "give the command again"), ExitStack() as stack:
        try:
            stack.enter_context(held(folder))
        except BusyError:  # the run is at work: its report's names are on record, and its card comes at its end
            return list(write_report(folder, found))
        manifest = Manifest.read(folder)
        if manifest is not None:  # a run of before there were manifests has no records, and gets none here
            _refuse_strangers(folder, manifest)
            manifest.own((REPORT, REPORT_SHEET))
        card = write_card(folder, manifest)  # first: the report lists it
        return [*write_report(folder, found), *([card] if card else [])]


def _refuse_strangers(folder: Path, manifest: Manifest) -> None:
    for name in (REPORT, REPORT_SHEET):
        if (folder / name).exists() and name not in manifest.files:
            raise ConfigError(
                f"{folder / name}: is there, and no run that is on record ({RECORDS}/{MANIFEST}) has written it; move "
                "it away"
            )
