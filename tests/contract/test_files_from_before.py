"""Files that an earlier version wrote (`tests/support/written`: commit 0e612ab, on PyTorch) are read and continued as
ever, and what is written today has the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import dreamcore
from dreamcore.backends.installed import installed_backends
from dreamcore.config.files import read_config_file
from dreamcore.track.metrics import read_lines

from ..support import needs
from ..support.paths import ROOT

pytestmark = needs.backend
WRITTEN = ROOT / "tests" / "support" / "written"
TOLERANCE = 2e-4
"""Relative, of losses and norms: other processors and frameworks round otherwise."""
PLACES = {"pretrained_model_name_or_path": "model", "instance_data_dir": "photos", "class_data_dir": "classes"}


@pytest.fixture(scope="module", params=["full", "lora"])
def continued(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What was written, and a run of the same settings that has gone on from its checkpoint."""
    old, new = WRITTEN / request.param, tmp_path_factory.mktemp(request.param) / "run"
    settings = read_config_file(old / "config.yaml")
    settings |= {name: str(WRITTEN / place) for name, place in PLACES.items() if name in settings}
    settings |= {"backend": installed_backends()[0], "output_dir": str(new)}
    run = dreamcore.train(**settings, resume_from_checkpoint=str(old / "checkpoint-3"))
    assert run.updates == 6
    return old, new


def test_a_run_goes_on_as_it_would_have(continued: tuple[Path, Path]) -> None:
    old, new = (read_lines(folder / "metrics.jsonl") for folder in continued)
    assert [record["step"] for record in new] == [4, 5, 6]
    for then, now in zip(old[3:], new, strict=True):
        assert then.keys() == now.keys()
        for name in then.keys() - {"seconds"}:
            assert now[name] == pytest.approx(then[name], rel=TOLERANCE), (now["step"], name)


def tensors(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Name -> type and shape."""
    with safe_open(file, "np") as opened:
        return {n: (opened.get_slice(n).get_dtype(), opened.get_slice(n).get_shape()) for n in opened.keys()}  # noqa: SIM118


def test_files_have_the_form_that_they_had(continued: tuple[Path, Path]) -> None:
    old, new = continued
    then, now = old / "checkpoint-3", new / "checkpoint-6"
    names = [sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) for folder in (then, now)]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith(".safetensors"):
            assert tensors(then / name) == tensors(now / name), name
    states: list[dict[str, Any]] = [json.loads((folder / "state.json").read_text()) for folder in (then, now)]
    assert states[0].keys() == states[1].keys() - {"init_lora"}
    assert states[0]["settings"].keys() <= states[1]["settings"].keys()
    written = [read_config_file(folder / "config.yaml").keys() for folder in continued]
    assert written[0] <= written[1] | {"allow_tf32", "use_8bit_adam", "channels_last", "compile"}  # PyTorch's own
    reports = [json.loads((folder / "report_data.json").read_text()).keys() for folder in continued]
    assert reports[0] == reports[1] - {"lora", "pipeline", "subjects", "ended", "warnings"}


def test_a_lora_file_makes_the_image_that_it_made(tmp_path: Path) -> None:
    record = json.loads((WRITTEN / "lora" / "generated" / "pictures.json").read_text())
    settings = {name: value for name, value in record["settings"].items() if name not in ("backend", "allow_tf32")}
    settings |= {"pretrained_model_name_or_path": str(WRITTEN / "model"), "lora": str(WRITTEN / "lora")}
    (made,) = dreamcore.generate(**settings | {"backend": installed_backends()[0], "output_dir": str(tmp_path)})
    then, now = Image.open(WRITTEN / "lora" / "generated" / made.name), Image.open(made)
    assert np.abs(np.asarray(now, int) - np.asarray(then, int)).max() <= 2
    assert now.info.keys() == then.info.keys()
    again = json.loads((tmp_path / "pictures.json").read_text())
    assert again["pictures"] == record["pictures"]
