"""EDM-style training: the error in the clean latent, weighed by 1/σ² (2206.00364, section 5), worked out by hand."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamcore.backends import installed
from dreamcore.backends.protocol import Batch

from ..support import stub_backend
from ..support.runs import prepared
from ..support.tiny import draw_photos

Array = NDArray[np.float64]
ROWS = 64
"""Enough for timesteps from everywhere."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of weights of a few bytes, and beside it photographs."""
    folder = tmp_path_factory.mktemp("edm")
    draw_photos(folder / "photos", count=4, size=64)
    return stub_backend.write_model(folder / "model")


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "entry_points", lambda: {stub_backend.NAME: f"{stub_backend.__name__}:load"})


def batch(base: Path, folder: Path, scheduler: dict[str, Any], **settings: Any) -> Batch:
    """The first update's rows of a model with this scheduler."""
    model = Path(shutil.copytree(base, folder / "model", dirs_exist_ok=True))
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | scheduler))
    with ExitStack() as stack:
        given = {"resolution": None, "train_batch_size": ROWS, "do_edm_style_training": True} | settings
        (rows,), _ = prepared(model, base.parent / "photos", folder / "out", stack, **given).batcher.update(0)
    return rows


def alpha_bar(rows: Batch) -> Array:
    """[B, 1, 1, 1] of the linear betas below, at the rows' timesteps."""
    table = np.cumprod([1 - (0.001 + (0.02 - 0.001) * t / 999) for t in range(1000)])
    return table[rows.t.astype(int)].reshape(-1, 1, 1, 1)


LINEAR = {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": 1000}


def clean(prediction: str, x: Array, answer: Array, bar: Array) -> Array:
    """The clean latent that an answer stands for."""
    if prediction == "epsilon":
        return (x - np.sqrt(1 - bar) * answer) / np.sqrt(bar)
    if prediction == "v_prediction":
        return np.sqrt(bar) * x - np.sqrt(1 - bar) * answer
    return answer


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_an_error_counts_as_in_the_clean_latent(prediction: str, base: Path, tmp_path: Path) -> None:
    """Whatever the network answers, its loss is |ẑ − z|² / σ², where x = √ᾱ·z + √(1 − ᾱ)·ε and σ² = (1 − ᾱ)/ᾱ."""
    rows = batch(base, tmp_path, LINEAR | {"prediction_type": prediction})
    bar = alpha_bar(rows)
    assert rows.t.min() < 50 and rows.t.max() > 900
    answer = rows.target + np.random.default_rng(0).standard_normal(rows.target.shape)
    counted = ROWS * rows.weight.reshape(-1, 1, 1, 1) * (answer - rows.target) ** 2  # a batch's rows are a mean
    x = rows.x.astype(np.float64)
    error = clean(prediction, x, answer, bar) - clean(prediction, x, rows.target.astype(np.float64), bar)
    np.testing.assert_allclose(counted, error**2 / ((1 - bar) / bar), rtol=1e-4)


def test_it_weighs_otherwise_than_plain_training(base: Path, tmp_path: Path) -> None:
    """A v-prediction's rows by ᾱ; those of models that predict noise are what they are without it."""
    for prediction in ("v_prediction", "epsilon"):
        scheduler = LINEAR | {"prediction_type": prediction}
        edm = batch(base, tmp_path / prediction / "a", scheduler)
        plain = batch(base, tmp_path / prediction / "b", scheduler, do_edm_style_training=None)
        np.testing.assert_array_equal(edm.x, plain.x)
        np.testing.assert_array_equal(plain.weight, np.float32(1 / ROWS))
        wanted = alpha_bar(edm).reshape(-1) / ROWS if prediction == "v_prediction" else plain.weight
        np.testing.assert_allclose(edm.weight, wanted, rtol=1e-6)


def test_a_model_that_predicts_noise_down_to_none(base: Path, tmp_path: Path) -> None:
    """At zero terminal SNR its answer says nothing of the clean latent, and the loss is the plain one all the same."""
    rows = batch(base, tmp_path, LINEAR | {"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
    np.testing.assert_array_equal(rows.weight, np.float32(1 / ROWS))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edms_own_models_keep_their_loss(prediction: str, base: Path, tmp_path: Path) -> None:
    """The squared error of the clean latent, which is c_out times the network's (table 1), with it and without."""
    scheduler = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_min": 0.002, "sigma_max": 80.0}
    scheduler |= {"sigma_data": 0.5, "prediction_type": prediction, "num_train_timesteps": 1000}
    edm, plain = (batch(base, tmp_path / f"{on}", scheduler, do_edm_style_training=on) for on in (True, None))
    for name in ("x", "target", "t", "weight"):
        np.testing.assert_array_equal(getattr(edm, name), getattr(plain, name), err_msg=name)
    sigma = np.exp(4 * edm.t.astype(np.float64))  # c_noise is ln(σ)/4
    np.testing.assert_allclose(ROWS * edm.weight, sigma**2 * 0.5**2 / (sigma**2 + 0.5**2), rtol=1e-4)
