"""Latents that are kept from run to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.errors import ConfigError

from ..support.runs import numbers, small_run
from ..support.tiny import draw_photos


def test_kept_latents_are_used_again_and_never_wrongly(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.training.latents import Latents

    encoded = []
    whole = Latents._planes
    monkeypatch.setattr(Latents, "_planes", lambda self, s: encoded.extend(s) or whole(self, s))
    photos = draw_photos(tmp_path / "photos", count=3)
    keep: dict[str, Any] = {"latent_cache_dir": str(tmp_path / "kept"), "max_train_steps": 3}

    def images_encoded(name: str, folder: Path = photos, model: Path = tiny_model, **more: Any) -> int:
        encoded.clear()
        runs.append(small_run(model, folder, tmp_path / name, **{**keep, **more}))
        return len(encoded)

    runs: list[Any] = []
    assert [images_encoded("a"), images_encoded("b")] == [3, 0]
    assert numbers(runs[0]) == numbers(runs[1])
    renamed = Path(shutil.copytree(photos, tmp_path / "renamed"))
    for file in sorted(renamed.iterdir()):
        file.rename(file.with_name(f"other{file.name}"))
    assert images_encoded("c", renamed) == 0, "names do not matter, contents do"
    Image.open(photos / "01.png").rotate(90).save(photos / "01.png")
    assert images_encoded("d") == 1
    assert images_encoded("e", resolution=16) == 3
    assert images_encoded("f", random_flip=True, instance_variants=1, seed=5) <= 3
    other = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    _nudge(other / "vae" / "diffusion_pytorch_model.safetensors")
    assert images_encoded("g", model=other) == 3
    for file in (tmp_path / "kept").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    assert images_encoded("h") == 3, "what is damaged is made anew"
    assert numbers(runs[-1]) == numbers(runs[3])


@pytest.mark.parametrize("kept", [{}, {"latent_cache_dir": "kept"}, {"masked_loss": True}], ids=["", "kept", "masked"])
def test_several_encoded_at_once_are_what_each_is(
    kept: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamcore.training.latents import Latents

    at_once: list[int] = []
    whole = Latents._planes
    monkeypatch.setattr(Latents, "_planes", lambda self, s: at_once.append(len(s)) or whole(self, s))
    photos = draw_photos(tmp_path / "photos", count=5)
    if kept.get("masked_loss"):
        for number, file in enumerate(sorted(photos.iterdir())):
            shape = np.zeros((48, 48), np.uint8)
            shape[:, : 8 * (number + 1)] = 255
            Image.fromarray(shape).resize(Image.open(file).size).save(file.with_name(f"{file.stem}-mask.png"))
    given = {n: str(tmp_path / v) if isinstance(v, str) else v for n, v in kept.items()} | {"max_train_steps": 5}
    alone = small_run(tiny_model, photos, tmp_path / "alone", **given)
    assert set(at_once) == {1}
    shutil.rmtree(tmp_path / "kept", ignore_errors=True)
    at_once.clear()
    together = small_run(tiny_model, photos, tmp_path / "together", vae_batch_size=2, **given)
    assert sorted(at_once) == [1, 2, 2]
    losses = [[record["loss"] for record in run.metrics] for run in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_folder_that_cannot_be_used_leaves_an_earlier_run_alone(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    small_run(tiny_model, photos, tmp_path / "run", max_train_steps=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[!.]*")}
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="latent_cache_dir: .*file: is a file"):
        small_run(
            tiny_model, photos, tmp_path / "run", overwrite_output_dir=True, latent_cache_dir=str(tmp_path / "file")
        )
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[!.]*")}


def _nudge(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    tensors["encoder.conv_in.bias"] = tensors["encoder.conv_in.bias"] + np.float32(0.01)
    save_file(tensors, file, metadata={"format": "pt"})


def test_two_runs_share_kept_latents(tmp_path: Path) -> None:
    """Processes that write and read the same entries at once see each whole or not at all."""
    code = """
import sys
from pathlib import Path
import numpy as np
from dreamcore.training.latent_cache import LatentCache

cache = LatentCache(Path(sys.argv[1]), "encoder")
for turn in range(40):
    key = f"{turn % 4:064x}"
    wanted = np.full((9, 16, 16), turn % 4, np.float32)
    found = cache.get(key)
    assert found is None or np.array_equal(found, wanted)
    cache.put(key, wanted)
    assert np.array_equal(cache.get(key), wanted)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "kept")]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [(b"", 0)] * 3
    names = [file.name for file in (tmp_path / "kept").rglob("*") if file.is_file()]
    assert sorted(names) == [f"{n:064x}.safetensors" for n in range(4)]
