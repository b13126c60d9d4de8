"""A run killed with SIGKILL goes on to what one run alone writes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from .. import needs
from ..contract.runs import SMALL, numbers, small_run
from ..crossing.cases import reference

pytestmark = [needs.mindspore, pytest.mark.timeout(900)]


@pytest.mark.parametrize("moment", ["checkpoint-2", ".checkpoint-3*"])
def test_a_killed_run_goes_on(moment: str, photos: Path, tmp_path: Path) -> None:
    """Killed after its second checkpoint, and while it writes its third."""
    model = reference("models") / "sd1"
    settings = {"max_train_steps": 5, "checkpointing_steps": 1, "use_ema": True}
    whole = small_run(model, photos, tmp_path / "whole", **settings)
    flags = SMALL | settings | {"output_dir": tmp_path / "killed", "instance_data_dir": photos}
    flags |= {"pretrained_model_name_or_path": model}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = subprocess.Popen([sys.executable, "-m", "dreamcore.cli", "train", *words], stderr=subprocess.PIPE)
    while command.poll() is None and not list((tmp_path / "killed").glob(moment)):
        time.sleep(0.002)
    command.kill()
    assert command.wait() == -9, command.communicate()[1].decode()
    assert not (tmp_path / "killed" / "model_index.json").exists()
    resumed = small_run(model, photos, tmp_path / "killed", **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    for file in ("unet/diffusion_pytorch_model.safetensors", "checkpoint-5/optimizer.safetensors"):
        mine, theirs = load_file(tmp_path / "killed" / file), load_file(whole.folder / file)
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
