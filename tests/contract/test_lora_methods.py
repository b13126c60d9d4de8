"""Every method's layers on every backend: answers and gradients against the published formulas, in NumPy's float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.lora import Lora, layer_shapes
from dreamcore.formats.lora import factors_for
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import EMA_FILE, LORA_FILE
from dreamcore.training.lora_export import write_lora_files
from dreamcore.training.setup import Prepared

from ..support import needs
from ..support.layer_benches import applied, arrays, bench, own
from ..support.runs import prepared

pytestmark = needs.backend

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"method": "pissa"},
    "loha": {"method": "loha"},
    "lokr": {"method": "lokr", "rank": 1, "factor": 2},
    "lokr, whole": {"method": "lokr", "rank": 6},
}


def lora_of(rank: int = 3, alpha: float = 4.5, **given: Any) -> Lora:
    return Lora(rank, alpha, 0.0, 7, {"unet": ("linear", "conv")}, {"unet": ()}, **given)


def changed(lora: Lora, weight: np.ndarray, factors: dict[str, np.ndarray], lengths: np.ndarray | None) -> np.ndarray:
    """The weight that a method makes, as its paper has it.

    Args:
        lengths: ‖W + ΔW‖ of each row, which DoRA's gradient takes for a constant; None: as they are.
    """
    scale = lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
    if lora.method == "loha":
        one, other = (factors[f".hada_w{n}_a"] @ factors[f".hada_w{n}_b"] for n in (1, 2))
        return weight + scale * (one * other).reshape(weight.shape)
    if lora.method == "lokr":
        whole = ".lokr_w2" in factors
        right = factors[".lokr_w2"] if whole else factors[".lokr_w2_a"] @ factors[".lokr_w2_b"]
        product = np.kron(factors[".lokr_w1"], right.reshape(len(right), -1)).reshape(weight.shape)
        return weight + (1.0 if whole else scale) * product

    def product_of(down: str, up: str) -> np.ndarray:
        return (factors[up].reshape(len(weight), -1) @ factors[down].reshape(lora.rank, -1)).reshape(weight.shape)

    total = weight + scale * product_of(".lora_A.weight", ".lora_B.weight")
    if lora.method == "pissa":
        return total - scale * product_of(".lora_A0", ".lora_B0")
    if lora.dora:
        ones = (1,) * (weight.ndim - 1)
        norms = np.linalg.norm(total.reshape(len(total), -1), axis=1) if lengths is None else lengths
        return factors[".lora_magnitude_vector"].reshape(-1, *ones) * total / norms.reshape(-1, *ones)
    return total


@pytest.mark.parametrize("method", METHODS)
def test_answers_and_gradients(method: str) -> None:
    lora, values = lora_of(**METHODS[method]), arrays()
    run = bench(lora, values)
    draw = np.random.default_rng(3)
    for layer in ("linear", "conv"):
        weight, bias = (values[f"{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        x = values[layer]
        plain = applied(weight, bias, x)
        np.testing.assert_allclose(run.answer(layer, x), plain, atol=2e-5, err_msg=f"{layer}: begins as the model is")
        moved = {
            name: (array + 0.3 * draw.standard_normal(array.shape)).astype(np.float32)
            for name, array in run.values().items()
            if f".{layer}." in name and not name.endswith(("A0", "B0"))
        }
        run.set(moved)
        factors = own(run.values(), layer)
        answer = applied(changed(lora, weight, factors, None), bias, x)
        assert np.abs(answer - plain).max() > 0.1, "the factors change the answer"
        np.testing.assert_allclose(run.answer(layer, x), answer, atol=1e-4, err_msg=layer)

        towards = draw.standard_normal(answer.shape).astype(np.float32)
        lengths = None
        if lora.dora:
            directions = {**factors, ".lora_magnitude_vector": np.ones(len(weight))}
            unit = changed(lora, weight, directions, np.ones(len(weight)))
            lengths = np.linalg.norm(unit.reshape(len(unit), -1), axis=1)
        for name, gradient in run.gradients(layer, x, towards).items():
            end = name.removeprefix(f"unet.{layer}")
            for place in [tuple(draw.integers(side) for side in gradient.shape) for _ in range(3)]:
                step = np.zeros_like(factors[end])
                step[place] = 1e-4
                more, less = (
                    (
                        applied(changed(lora, weight, {**factors, end: factors[end] + s}, lengths), bias, x) * towards
                    ).sum()
                    for s in (step, -step)
                )
                wanted = (more - less) / 2e-4
                assert gradient[place] == pytest.approx(wanted, rel=1e-3, abs=1e-3), (layer, end, place)


RUNS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, "use_rslora": True},
    "pissa": {"lora_method": "pissa", "lora_alpha": 1.0},
    "loha": {"lora_method": "loha"},
    "lokr": {"lora_method": "lokr", "lokr_factor": 2, "lora_layers": ["to_q", "to_out.0", "proj_in"]},
}
COMMON: dict[str, Any] = {"use_lora": True, "rank": 2, "train_text_encoder": True, "latent_cache_dir": None}
RATES = {"unet": 1e-2, "text_encoder": 1e-2}


@pytest.fixture(scope="module")
def plain(tiny_model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """A run whose factors change nothing."""
    with ExitStack() as stack:
        yield prepared(tiny_model, photos, tmp_path_factory.mktemp("plain"), stack, **COMMON)


@pytest.mark.parametrize("method", RUNS)
def test_its_files_are_what_it_has_trained_and_go_on(
    method: str, plain: Prepared, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    """Both of its LoRA files, added to the model's weights, and what a checkpoint brings back."""
    given = COMMON | RUNS[method]
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "a", stack, **given)
        batches = [run.batcher.update(number, 0)[0][0] for number in range(3)]
        begun = run.backend.loss(batches[2])
        np.testing.assert_allclose(begun, plain.backend.loss(batches[2]), rtol=1e-5, err_msg="begins as the model is")
        for batch in batches[:2]:
            run.backend.train_step([batch], RATES)
        run.backend.metrics()
        trained, loss = run.backend.trained_lora(averaged=False), run.backend.loss(batches[2])
        assert trained is not None and np.abs(loss / begun - 1).max() > 1e-3, "it has learned"
        (tmp_path / "files").mkdir()
        write_lora_files(trained, run.data.model, tmp_path / "files", "other.safetensors")
        for file in (LORA_FILE, "other.safetensors"):
            with in_the_weights(plain, tmp_path / "files" / file):
                np.testing.assert_allclose(plain.backend.loss(batches[2]), loss, rtol=1e-4, err_msg=file)
        (tmp_path / "state").mkdir()
        run.backend.save_state(tmp_path / "state")
        again = prepared(tiny_model, photos, tmp_path / "b", stack, **given)
        again.backend.load_state(tmp_path / "state")
        for one in (run, again):
            one.backend.train_step([batches[2]], RATES)
        (here,), (there,) = run.backend.metrics(), again.backend.metrics()
        assert np.array_equal(here.errors, there.errors) and here.grad_norm == there.grad_norm


def test_what_is_published_is_the_average_and_stays_it(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Also once the weights have their own values back, whose memory the arrays might share."""
    given = COMMON | {"train_text_encoder": False, "use_ema": True, "ema_decay": 0.5}
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "a", stack, **given)
        for number in range(3):
            run.backend.train_step(run.batcher.update(number, 0)[0], RATES)
        averaged, raw = (run.backend.trained_lora(averaged=which) for which in (True, False))
        assert averaged is not None and raw is not None
        (tmp_path / "state").mkdir()
        run.backend.save_state(tmp_path / "state")
        kept = read_safetensors(tmp_path / "state" / EMA_FILE)
    for name, array in averaged.factors.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.array_equal(array, raw.factors[name])


@contextmanager
def in_the_weights(run: Prepared, file: Path) -> Iterator[None]:
    """A file's changes in a run's weights, for a while."""
    backend: Any = run.backend
    shapes = {name: layer_shapes(backend.shapes(backend.weights(name))) for name in backend.networks}
    backend.fold_lora(factors_for(file, shapes), 1.0)
    try:
        yield
    finally:
        for name in backend.networks:
            backend.residence.components[name].fill()
