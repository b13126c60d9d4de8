"""`dreambooth evaluate` of a model, on every backend: its pictures are `generate`'s own of these seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.io.images import png_bytes
from dreamcore.tinyworld import QUICKSTART, SUBJECTS
from dreamcore.tinyworld.judge import subject_scores

from ..support import needs

pytestmark = needs.backend


def test_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subject = SUBJECTS[QUICKSTART]
    photos = [np.asarray(picture) for picture in subject.pictures(2)]
    Path("photos").mkdir()
    for number, photo in enumerate(photos):
        Path("photos", f"{number}.png").write_bytes(png_bytes(photo))
    Path("prompts.txt").write_text("a photo of a {identifier} {class} on sand\n")
    how = {"num_images": 2, "seed": 3, "num_inference_steps": 2, "guidance_scale": 2.0}
    found = dreamcore.evaluate(
        source="tinyworld", instance_data_dir="photos", identifier="sks", class_word="mug", prompt_file="prompts.txt",
        num_class_images=1, device="cpu", **how,
    )  # fmt: skip
    files = dreamcore.generate(
        pretrained_model_name_or_path="tinyworld", prompt="a photo of a sks mug on sand", contact_sheet=False,
        device="cpu", **how,
    )  # fmt: skip
    listed = found.content["subjects"][0]["pictures"]
    made, expected = (
        np.stack([np.asarray(Image.open(file)) for file in some])
        for some in ([found.folder / one["file"] for one in listed], files)
    )
    assert [one["seed"] for one in listed] == [3, 4]
    assert np.abs(made.astype(int) - expected).max() <= 1
    mean = subject_scores(np.stack(photos), made).mean()
    assert found.measures["sks mug"]["likeness"] == pytest.approx(mean, abs=1e-5)
