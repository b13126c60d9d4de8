"""Weights are there while their component's turn lasts, in the type that they are used in."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from dreamcore.backends.base import BaseBackend
from dreamcore.backends.installed import installed_backends
from dreamcore.backends.loading import Residence
from dreamcore.backends.registry import load_backend
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.models.folder import ModelFolder
from dreamcore.placement.headers import stored_weights
from dreamcore.training.setup import prepare

from ..support import needs
from ..support.runs import PRIOR, configuration, numbers, small_run

BACKEND = installed_backends()[0]
LORA = {"use_lora": True, "rank": 2}
LEFT = 4
"""Bytes of a weight that may be left where it has gone."""


def count(model: Path, component: str) -> int:
    return stored_weights(ModelFolder.open(str(model)).weight_files(component)).count


def held(component: Any) -> int:
    """Bytes that the framework has for a network's own weights, where they are there; 0 where they have gone."""
    network = component.network
    if BACKEND == "torch":
        own = [p for n, p in network.named_parameters() if "lora_" not in n]
        sizes = [p.untyped_storage().nbytes() for p in own]
    elif BACKEND == "paddle":
        own = [p for n, p in network.named_parameters() if ".lora" not in n]
        sizes = [int(p.size) * p.element_size() if p._is_initialized() else 0 for p in own]
    else:
        own = list(component.weights.values())
        there = [p for p in own if not p.has_init]
        if not any(p.ndim > 1 for p in there):  # vectors are made with the network, or one number is left of each
            return 0
        sizes = [4 * int(p.size) for p in there]
    size = sum(sizes)
    return size if size > LEFT * len(own) else 0


class Store:
    """What is there, asked of the framework whenever a component has come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.seen: list[frozenset[str]] = []
        self.most = 0
        come = Residence.come

        def looked(residence: Residence, name: str) -> None:
            come(residence, name)
            sizes = {n: held(component) for n, component in residence.components.items()}
            there = frozenset(n for n, size in sizes.items() if size)
            assert there == residence.bytes.keys(), "a component outlives its turn"
            self.most = max(self.most, sum(sizes[n] for n in there))
            if not self.seen or self.seen[-1] != there:
                self.seen.append(there)

        monkeypatch.setattr(Residence, "come", looked)

    def order(self) -> list[set[str]]:
        return [set(there) for there in self.seen]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


@needs.backend
def test_a_lora_run_has_one_component_at_a_time(store: Store, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path, **LORA, max_train_steps=1)
    assert store.order() == [{"text_encoder"}, {"vae"}, {"unet"}]
    assert store.most == 4 * max(count(tiny_model, name) for name in ("text_encoder", "vae", "unet"))


@needs.backend
def test_class_images_and_validation_bring_what_they_need(
    store: Store, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    looking = {"validation_prompt": "a cat", "num_validation_images": 1, "validation_num_inference_steps": 1}
    more = {"max_train_steps": 1, **looking} if BACKEND != "mindspore" else {"max_train_steps": 1}
    small_run(tiny_model, photos, tmp_path, **LORA, **PRIOR, **more)
    both = {"unet", "vae"}
    looked = [both, {"unet"}] * 2 if BACKEND != "mindspore" else []  # before the update and after it
    wanted = [{"text_encoder"}, {"unet"}, both, {"unet"}, *looked]
    assert store.order() == wanted[: len(store.order())]
    assert len(store.order()) >= len(wanted) - 1, "the last look ends the run"


@needs.backend
@pytest.mark.skipif(BACKEND == "mindspore", reason="the same order as of LoRA, and slow")
def test_what_trains_stays(store: Store, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    run = small_run(tiny_model, photos, tmp_path, train_text_encoder=True, max_train_steps=1)
    assert all({"unet", "text_encoder"} <= there for there in store.seen[1:])
    assert run.updates == 1


@needs.backend
def test_generate_lets_the_text_encoder_go_first(store: Store, tiny_model: Path, tmp_path: Path) -> None:
    given = {"pretrained_model_name_or_path": str(tiny_model), "output_dir": str(tmp_path), "num_inference_steps": 1}
    generate(GenerateConfig.from_mapping(given | {"prompt": "a dog", "num_images": 2, "batch_size": 1}))
    assert store.order() == [{"text_encoder"}, {"unet"}, {"unet", "vae"}]


class Made:
    """The types of tensors that are made."""

    def __init__(self, empty: Any):
        self.empty, self.types = empty, set[Any]()

    def __call__(self, *given: Any, **more: Any) -> Any:
        self.types.add(more.get("dtype"))
        return self.empty(*given, **more)

    def __enter__(self) -> Made:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("torch.empty", self)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@needs.torch
@pytest.mark.parametrize("command", ["train", "generate"])
def test_frozen_weights_come_in_half(command: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """And are never there in float32; but the autoencoder, which has to."""
    import torch

    if command == "train":
        config: Any = configuration(tiny_model, photos, tmp_path, **LORA, mixed_precision="bf16")
    else:
        given = {"pretrained_model_name_or_path": str(tiny_model), "mixed_precision": "bf16", "prompt": "a dog"}
        config = GenerateConfig.from_mapping(given)
    backend: Any = load_backend("torch", ModelFolder.open(str(tiny_model)), config)
    if command == "train":
        backend.prepare_training(config)
    for name, component in backend.residence.components.items():
        each = 4 if name == "vae" else 2
        with Made(torch.empty) as made:
            backend.residence.come(name)
        assert backend.residence.bytes[name] == each * count(tiny_model, name) == held(component)
        assert made.types == {torch.float32 if each == 4 else torch.bfloat16}


@needs.torch
def test_what_is_cast_once_is_what_autocasting_makes_of_it(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products and convolutions have the same inputs.  Normalisations have other weights, rounded to bfloat16: a loss
    differs by less than one in a thousand."""
    import torch

    from dreamcore.adapters.torch.backend import TorchBackend

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for file in model.glob("*/*.safetensors"):
        draw = np.random.default_rng(0)
        arrays = load_file(file)
        norms = {n: a + draw.normal(0, 0.1, a.shape).astype(np.float32) for n, a in arrays.items() if "norm" in n}
        save_file(arrays | norms, file, metadata={"format": "pt"})

    def losses(folder: str) -> list[float]:
        run = small_run(model, photos, tmp_path / folder, **LORA, mixed_precision="bf16", max_train_steps=3)
        return [record["loss"] for record in numbers(run)]

    once = losses("once")
    monkeypatch.setattr(TorchBackend, "type_of", lambda *_: torch.float32)
    np.testing.assert_allclose(once, losses("each time"), rtol=1e-3)


@needs.backend
def test_files_in_half_are_read_as_they_are(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """A run in float32 computes with the numbers that a file in fp16 holds."""
    half, whole = (Path(shutil.copytree(tiny_model, tmp_path / name)) for name in ("half", "whole"))
    for file in half.glob("*/*.safetensors"):
        arrays = {name: array.astype(np.float16) for name, array in load_file(file).items()}
        save_file(arrays, file, metadata={"format": "pt"})
        other = whole / file.parent.name / file.name
        save_file({n: a.astype(np.float32) for n, a in arrays.items()}, other, metadata={"format": "pt"})
    runs = [small_run(m, photos, tmp_path / f"{m.name} run", **LORA, max_train_steps=1) for m in (half, whole)]
    assert numbers(runs[0]) == numbers(runs[1])


@needs.backend
def test_the_model_may_go_while_a_run_is_at_work(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Its files are open: what comes later comes from them."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with ExitStack() as stack:
        made = prepare(configuration(model, photos, tmp_path / "out", **LORA), stack)
        shutil.rmtree(model)
        backend: Any = made.backend
        backend.encode_images(np.zeros((1, 3, 32, 32), np.float32))
        backend.train_step(made.batcher.micro_batches(0), made.resolved.rates.at(0))
        assert len(backend.metrics()) == 1


@needs.backend
def test_images_are_decoded_one_by_one_and_in_tiles(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slices they are the same; the library makes tiles of an image of twice the autoencoder's own size."""
    calls: list[tuple[int, bool]] = []
    decoded = BaseBackend._decoded

    def watched(backend: Any, latents: Any) -> Any:
        real = backend.decode_latents
        with pytest.MonkeyPatch.context() as patch:
            look = lambda part: (calls.append((len(part), backend.vae.use_tiling)), real(part))[1]  # noqa: E731
            patch.setattr(backend, "decode_latents", look)
            return decoded(backend, latents)

    monkeypatch.setattr(BaseBackend, "_decoded", watched)

    def images(name: str, **more: Any) -> np.ndarray:
        calls.clear()
        given = {
            "pretrained_model_name_or_path": str(tiny_model),
            "output_dir": str(tmp_path / name),
            "prompt": "a dog",
        }
        given |= {"num_inference_steps": 1, "height": 64, "width": 64, "num_images": 2, "contact_sheet": False}
        files = generate(GenerateConfig.from_mapping(given | more))
        return np.stack([np.asarray(Image.open(file), np.int16) for file in files])

    plain = images("plain")
    assert calls == [(2, False)]
    sliced = images("sliced", enable_vae_slicing=True)
    assert calls == [(1, False)] * 2
    assert np.abs(plain - sliced).max() <= 1
    tiled = images("tiled", enable_vae_tiling=True)
    assert calls == [(2, True)]
    assert (plain != tiled).any()
