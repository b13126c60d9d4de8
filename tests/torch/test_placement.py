"""Where weights, gradients and the optimizer's state lie: the same updates whatever lies where, and nothing longer on
the device than its turn lasts, as the store has counted it, for which the CPU is device and host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..support import needs
from ..support.benches import LR, Values, adamw_by_hand, numbers
from ..support.runs import PRIOR, configuration, prepared

pytestmark = needs.torch

HOST: dict[str, Any] = {"placement": "cpu"}
PARTLY = HOST | {"offload_optim_frac": 0.4}
FUSED = {"fused_backward_pass": True}
LORA = {"use_lora": True, "rank": 2, "learning_rate": 2e-3}
FULL = {
    **PRIOR,
    "num_class_images": 1,
    "prior_num_inference_steps": 1,
    "max_grad_norm": 0.5,
    "use_ema": True,
    "gradient_accumulation_steps": 2,
    "train_batch_size": 1,
    "train_text_encoder": True,
}
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    # the settings of a plain run -> placements of it
    "prior, accumulation, clipping, average, text encoder": (FULL, [HOST, PARTLY]),
    "while gradients arrive": ({"max_grad_norm": 0}, [HOST, FUSED, HOST | FUSED, PARTLY | FUSED]),
    "lora": (LORA | {"max_grad_norm": 0.1}, [HOST, {"blocks_to_swap": 3}, HOST | {"blocks_to_swap": 9}]),
    "lora, recomputed": (LORA | {"gradient_checkpointing": True}, [{"blocks_to_swap": 9}]),
    "an optimizer of all weights together": ({"optimizer": "prodigy", "learning_rate": 1.0}, [HOST]),
    "PiSSA": (LORA | {"lora_method": "pissa"}, [HOST | {"blocks_to_swap": 9}]),
    "bf16": ({"mixed_precision": "bf16"}, [HOST, PARTLY]),
}
UPDATES = 3


@contextmanager
def begun(model: Path, photos: Path, folder: Path, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """A run before its first update, and its backend."""
    with ExitStack() as stack:
        found = prepared(model, photos, folder, stack, **{"learning_rate": 2e-4, "train_batch_size": 2} | settings)
        yield found, found.backend


def updated(found: Any, first: int = 0, updates: int = UPDATES) -> np.ndarray:
    """Each row's error and the gradient's norm, [updates, rows + 1]."""
    for update in range(first, first + updates):
        found.backend.train_step(found.batcher.micro_batches(update), found.resolved.rates.at(update))
    return np.array([[*result.errors, result.grad_norm] for result in found.backend.metrics()])


def write(backend: Any, weights: Path, state: Path, *, averaged: bool) -> None:
    for folder in (weights, state):
        folder.mkdir(parents=True, exist_ok=True)
    backend.export(weights, averaged=averaged)
    backend.save_state(state)


def trained(backend: Any, folder: Path) -> Values:
    """What a checkpoint keeps, the optimizer's state too, and what an export holds of the average."""
    from safetensors.numpy import load_file

    write(backend, folder / "weights", folder / "state", averaged=True)
    return {f"{f.parent.name}/{f.name}/{n}": a for f in folder.rglob("*.safetensors") for n, a in load_file(f).items()}


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamcore.adapters.torch import offload

    monkeypatch.setattr(offload, "BUCKET_BYTES", 2**16)


@pytest.mark.parametrize("case", CASES)
def test_updates_are_the_same(case: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """In float32 to the bit; in bf16, where the device has no original to round from, nearly."""
    settings, placements = CASES[case]
    with begun(tiny_model, photos, tmp_path / "plain", **settings) as (found, backend):
        measured, after = updated(found), trained(backend, tmp_path / "kept")
    for number, placement in enumerate(placements):
        with begun(tiny_model, photos, tmp_path / f"{number}", **settings | placement) as (found, backend):
            rtol = 2e-2 if case == "bf16" else 0
            np.testing.assert_allclose(updated(found), measured, rtol, err_msg=str(placement))
            other = trained(backend, tmp_path / f"kept {number}")
            assert other.keys() == after.keys()
            for name, array in after.items():
                if case != "bf16":
                    np.testing.assert_array_equal(other[name], array, f"{placement}: {name}")
            assert all(array.dtype == after[name].dtype for name, array in other.items())


def test_a_checkpoint_of_one_placement_goes_on_with_another(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{}, HOST, PARTLY]
    settings = {"use_ema": True}
    with begun(tiny_model, photos, tmp_path / "straight", **settings) as (found, backend):
        straight, wanted = updated(found), trained(backend, tmp_path / "kept")
    for update, way in enumerate(ways):
        with begun(tiny_model, photos, tmp_path / f"{update}", **settings | way) as (found, backend):
            if update:
                backend.load_state(tmp_path / f"state {update - 1}")
            np.testing.assert_array_equal(updated(found, update, 1), straight[[update]])
            write(backend, *[tmp_path / f"state {update}"] * 2, averaged=False)
            last = trained(backend, tmp_path / f"last {update}")
    for name, array in wanted.items():
        np.testing.assert_array_equal(last[name], array, name)


def test_the_device_has_weights_alone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """In 16 bits; their originals and the optimizer's state are the host's, and gradients leave one by one."""
    with begun(tiny_model, photos, tmp_path, mixed_precision="bf16", **HOST) as (found, backend):
        updated(found)
        store, weights = backend.store, backend.weights("unet")
        count, largest = (f([w.numel() for w in weights.values()]) for f in (sum, max))
        assert store.bytes["host", "unet"] == 4 * count
        assert store.bytes["host", "optimizer state"] == 8 * count + 4 * len(weights)
        assert store.bytes["device", "unet"] == 2 * count == store.on("device"), "and nothing else"
        assert 0 < store.peak["device", "gradients"] <= 3 * 2 * largest < 2 * count
        assert {w.dtype for w in backend.denoiser.parameters()} == {backend.dtype}


def test_a_share_is_on_the_device(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with begun(tiny_model, photos, tmp_path, **PARTLY) as (found, backend):
        updated(found)
        count = sum(w.numel() for w in backend.weights("unet").values())
        assert backend.store.bytes["host", "unet"] == pytest.approx(0.4 * 4 * count, rel=0.1)
        assert backend.store.bytes["host", "optimizer state"] == pytest.approx(0.4 * 8 * count, rel=0.1)


def test_gradients_wait_for_no_others_where_nothing_is_clipped(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with begun(tiny_model, photos, tmp_path, max_grad_norm=0, **FUSED) as (found, backend):
        updated(found)
        sizes = [4 * w.numel() for w in backend.weights("unet").values()]
        assert backend.store.peak["device", "gradients"] <= 2**16 + 3 * max(sizes) < sum(sizes)


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_block_leaves_after_its_turn(recomputes: bool, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = LORA | {"blocks_to_swap": 9, "gradient_checkpointing": recomputes}
    with begun(tiny_model, photos, tmp_path, **settings) as (found, backend):
        store, sizes = backend.store, block_bytes(backend)
        assert len(sizes) == 9
        updated(found)
        assert store.bytes["device", "blocks in turn"] == 0, "none is left between updates"
        assert store.bytes["host", "blocks"] == sum(sizes)
        assert 0 < store.peak["device", "blocks in turn"] <= sum(sorted(sizes)[-3:]) < sum(sizes)
        assert all(w.untyped_storage().nbytes() in sizes for w in backend._waiting.values()), "they lie on the host"


@pytest.mark.parametrize("notes", [True, False])
def test_a_block_that_outlives_its_turn_is_seen(
    notes: bool, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would where autograd kept a weight for the backward pass, and not a note of it."""
    from dreamcore.adapters.torch.streaming import Streaming

    if not notes:
        monkeypatch.setattr(Streaming, "_note", lambda self, tensor: tensor)
    with begun(tiny_model, photos, tmp_path, **LORA, blocks_to_swap=9) as (found, backend):
        updated(found, updates=1)
        errors = backend.errors(found.batcher.micro_batches(1)[0])
        assert errors.requires_grad
        assert (backend.store.bytes["device", "blocks in turn"] == 0) == notes


def block_bytes(backend: Any) -> list[int]:
    """Of each block that waits, as it lies together: every weight begins at a multiple of 64 bytes."""
    from dreamcore.placement.blocks import block_of

    sizes: dict[str, int] = {}
    for name, weight in backend._waiting.items():
        block = str(block_of(name))
        sizes[block] = sizes.get(block, 0) + -(-weight.numel() * weight.element_size() // 64) * 64
    return list(sizes.values())


def test_more_blocks_than_there_are(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    from dreamcore.errors import ConfigError

    message = "blocks_to_swap: 400: the denoiser has [0-9]+ blocks; give at most that"
    with pytest.raises(ConfigError, match=message), begun(tiny_model, photos, tmp_path, **LORA, blocks_to_swap=400):
        pass


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("max_norm", [1.0, 0.0])
def test_updates_by_hand(scale: float | None, max_norm: float) -> None:
    """Weights one by one, from gradients that come one by one, with fp16's loss scale and without."""
    torch: Any = pytest.importorskip("torch")
    from dreamcore.adapters.torch.offload import Manner, Offloaded
    from dreamcore.adapters.torch.optim import Optimizer
    from dreamcore.adapters.torch.store import Store
    from dreamcore.backends.protocol import Solo

    config = configuration(Path("model"), Path("photos"), Path("out"), max_grad_norm=max_norm)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    weights = {name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in numbers(0).items()}
    parts = {c: {n: w for n, w in weights.items() if n.startswith(c)} for c in LR}
    manner = Manner(0.5, None, from_host=False, accumulates=False, fused=False)
    made = Offloaded(parts, lambda own: Optimizer(own, config, scaler), Store(torch.device("cpu")), Solo(), manner)
    for k in range(1, 6):
        gradients = numbers(k)
        loss = sum((weights[name] * torch.from_numpy(g)).sum() for name, g in gradients.items())
        made.scaled(loss).backward()
        made.end_pass()
        assert all(weight.grad is None for weight in weights.values())
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        assert float(made.step(LR)) == pytest.approx(norm, rel=1e-5)
    for name, wanted in adamw_by_hand(5, max_norm).items():
        np.testing.assert_allclose(weights[name].detach().numpy(), wanted, 1e-5, 1e-6)
        np.testing.assert_array_equal(made.named[name].detach().numpy(), weights[name].detach().numpy())


def test_a_slab_holds_layouts_as_they_are() -> None:
    torch: Any = pytest.importorskip("torch")
    from dreamcore.adapters.torch.slabs import host_slab, size_of, views

    given = [
        torch.randn(3, 5),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(7).bfloat16(),
    ]
    slab = host_slab(size_of(given), torch.device("cpu"))
    for tensor, view in zip(given, views(slab, given), strict=True):
        view.copy_(tensor)
        assert (view.stride(), view.dtype) == (tensor.stride(), tensor.dtype)
    assert all(torch.equal(view, tensor) for tensor, view in zip(given, views(slab, given), strict=True))
