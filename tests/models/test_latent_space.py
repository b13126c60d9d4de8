"""How latents are scaled: by the configuration, by the weights of a batch normalisation, or not at all in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreamcore.errors import ConfigError
from dreamcore.families import STABLE_DIFFUSION, Family
from dreamcore.models.folder import ModelFolder
from dreamcore.models.latent_space import LatentSpace


def described(folder: Path, class_name: str, config: dict[str, Any], family: Family = STABLE_DIFFUSION) -> Any:
    """As much of a model as an autoencoder is asked for."""
    return SimpleNamespace(
        path=folder,
        family=family,
        class_name=lambda _: class_name,
        config=lambda _: config,
        needed=lambda _, field: config[field],
        weight_files=lambda _: [folder / "vae.safetensors"],
    )


def test_statistics_in_the_weights_as_flux_2s_pipeline_applies_them(tmp_path: Path) -> None:
    """It puts squares of 2 × 2 latents side by side as channels, and normalises each by a mean and a variance."""
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal(12).astype(np.float32), rng.uniform(0.5, 2, 12).astype(np.float32)
    save_file({"bn.running_mean": mean, "bn.running_var": variance}, tmp_path / "vae.safetensors")
    config = {"block_out_channels": [8, 8, 8], "latent_channels": 3, "batch_norm_eps": 1e-3}
    space = LatentSpace.of(described(tmp_path, "AutoencoderKLFlux2", config))
    assert (space.channels, space.factor) == (3, 4)
    z, std = rng.standard_normal((2, 2, 3, 4, 6)).astype(np.float32)
    scaled, deviations = space.scaled(z, std)
    for n, c, y, x in np.ndindex(z.shape):
        channel = 4 * c + 2 * (y % 2) + x % 2
        deviation = np.sqrt(variance[channel] + 1e-3)
        assert scaled[n, c, y, x] == pytest.approx((z[n, c, y, x] - mean[channel]) / deviation, rel=1e-5, abs=1e-6)
        assert deviations[n, c, y, x] == pytest.approx(std[n, c, y, x] / deviation, rel=1e-5)
    np.testing.assert_allclose(space.unscaled(scaled), z, atol=1e-5)


def test_statistics_that_are_missing_are_named(tmp_path: Path) -> None:
    save_file({"bn.running_mean": np.zeros(12, np.float32)}, tmp_path / "vae.safetensors")
    config = {"block_out_channels": [8, 8], "latent_channels": 3}
    with pytest.raises(ConfigError, match=r"vae.safetensors: has no weight bn.running_var"):
        LatentSpace.of(described(tmp_path, "AutoencoderKLFlux2", config))


@pytest.mark.parametrize(
    ("class_name", "config", "wanted"),
    [
        (
            "AutoencoderDC",
            {"encoder_block_out_channels": [8] * 6, "latent_channels": 5, "scaling_factor": 0.5},
            (5, 32),
        ),
        (
            "AutoencoderKLQwenImage",
            {"z_dim": 2, "temperal_downsample": [False, True, True], "latents_mean": [1, -1], "latents_std": [2, 4]},
            (2, 8),
        ),
    ],
)
def test_other_autoencoders(tmp_path: Path, class_name: str, config: dict[str, Any], wanted: tuple[int, int]) -> None:
    space = LatentSpace.of(described(tmp_path, class_name, config, Family("Any", (), (), "", {}, (), ())))
    assert (space.channels, space.factor) == wanted
    z = np.ones((1, wanted[0], 2, 2), np.float32)
    scaled, _ = space.scaled(z, z)
    by_hand = [0.5] * 5 if class_name == "AutoencoderDC" else [(1 - 1) / 2, (1 + 1) / 4]
    np.testing.assert_allclose(scaled[0, :, 0, 0], by_hand)


def test_a_scaling_that_nobody_said_is_asked_for(
    tiny_model: Path, family_models: Callable[[str], Path], tmp_path: Path
) -> None:
    """But for Stable Diffusion 1 and 2, whose configurations are older than the field."""
    for name, source in (("old", tiny_model), ("sd3", family_models("sd3"))):
        folder = Path(shutil.copytree(source, tmp_path / name))
        file = folder / "vae" / "config.json"
        said = json.loads(file.read_text("utf-8"))
        del said["scaling_factor"]
        file.write_text(json.dumps(said), "utf-8")
    assert ModelFolder.open(str(tmp_path / "old")).latents.scale == pytest.approx(0.18215)
    with pytest.raises(ConfigError, match=r"vae/config.json: scaling_factor: is missing"):
        ModelFolder.open(str(tmp_path / "sd3"))


def test_an_autoencoder_that_is_not_known_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["vae"] = ["diffusers", "AutoencoderTiny"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(ConfigError, match="vae is a AutoencoderTiny; expected an autoencoder of class AutoencoderKL,"):
        ModelFolder.open(str(folder))
