"""The plan of a run: what each stage holds, by hand; what is refused before anything is loaded, and what would fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.placement import held, machine, remedies
from dreamcore.placement.activations import Arithmetic, Costs, Pass, denoiser_pass
from dreamcore.placement.headers import stored_weights
from dreamcore.placement.machine import Machine
from dreamcore.placement.plan import CONTEXT, Plan, Stage
from dreamcore.placement.stages import make_plan
from dreamcore.placement.workload import WAYS, Workload
from dreamcore.training import memory_plan, setup

from ..support import needs
from ..support.runs import PRIOR, configuration, small_run
from ..support.tiny_families import WRITERS

CARD = Machine("cuda:0", 24 * 2**30, 24 * 2**30, 64 * 2**30)
CPU = Machine("cpu", host_free=64 * 2**30)
WORK = Workload(32, 32, prompts=3, variants=5, class_images=True)


def settings(model: Path, **more: Any) -> TrainConfig:
    return configuration(model, Path("photos"), Path("out"), **more)


def planned(model: Path, where: Machine = CARD, backend: str = "torch", **more: Any) -> Plan:
    return make_plan(settings(model, **more), ModelFolder.open(str(model)), WORK, where, backend)


def stage(plan: Plan, name: str) -> Stage:
    return next(stage for stage in plan.stages if stage.name == name)


def item(plan: Plan, name: str, what: str, place: str = "device") -> int | None:
    """Bytes of what is called so in a stage; None where nothing is."""
    found = [i.bytes for i in stage(plan, name).items if i.what.startswith(what) and i.place == place]
    return sum(found) if found else None


def count(model: Path, component: str) -> int:
    return stored_weights(ModelFolder.open(str(model)).weight_files(component)).count


def test_full_training_on_a_card(tiny_model: Path) -> None:
    """Weights, gradients, two moments and an average in float32 there; what is frozen has gone."""
    plan, n = planned(tiny_model, use_ema=True), count(tiny_model, "unet")
    assert item(plan, "training", "unet: weights, 32 bits") == 4 * n
    assert item(plan, "training", "AdamW's state") == 8 * n
    assert item(plan, "training", "moving average") == 4 * n
    for name in ("vae", "text_encoder"):
        assert item(plan, "training", f"{name}: weights") is None
        assert item(plan, "training", f"{name}: weights", "host") is None
    assert item(plan, "loading the model", "unet: weights, 32 bits") == 4 * n
    assert item(plan, "encoding images", "vae: weights, 32 bits") == 4 * count(tiny_model, "vae")
    assert item(plan, "saving", "arrays on their way", "host") == 8 * n
    assert item(plan, "saving", "weights laid aside") is None, "the average and the weights change places"
    assert item(planned(tiny_model, use_8bit_adam=True), "training", "AdamW8bit's state") == 2 * n
    latents = 5 * 2 * 4 * 8 * 8 * 4
    assert item(plan, "training", "latents", "host") == latents
    encoding = planned(tiny_model, cache_latents=False)
    assert item(encoding, "training", "vae: weights") is not None, "every update encodes its images"
    assert all(one.name != "encoding images" for one in encoding.stages)


def test_lora_in_bf16(tiny_model: Path) -> None:
    """What is frozen has 16 bits but for the autoencoder; factors are counted layer by layer."""
    plan = planned(tiny_model, use_lora=True, rank=3, mixed_precision="bf16")
    assert item(plan, "training", "unet: weights, 16 bits") == 2 * count(tiny_model, "unet")
    assert item(plan, "encoding prompts", "text_encoder: weights, 16 bits") == 2 * count(tiny_model, "text_encoder")
    assert item(plan, "encoding images", "vae: weights, 32 bits") == 4 * count(tiny_model, "vae")
    for name in ("text_encoder", "vae"):
        assert item(plan, "training", f"{name}: weights") is None
    shapes = stored_weights(ModelFolder.open(str(tiny_model)).weight_files("unet")).shapes
    layers = [s for n, s in shapes.items() if n.endswith(tuple(f".to_{p}.weight" for p in ("q", "k", "v", "out.0")))]
    factors = sum(3 * (out + math.prod(rest)) for out, *rest in layers)
    assert layers
    assert item(plan, "training", "LoRA factors") == 4 * factors
    assert item(plan, "training", "AdamW's state") == 8 * factors
    for name in ("loading the model", "encoding prompts", "encoding images"):
        assert item(plan, name, "unet: weights") is None, "it comes when the others have gone"
        assert item(plan, name, "unet: weights", "host") is None


@needs.torch
def test_factors_are_as_many_as_the_backend_has(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    small_run(tiny_model, photos, tmp_path, use_lora=True, rank=3, max_train_steps=1)
    with safe_open(tmp_path / "checkpoint-1" / "lora_factors.safetensors", "np") as opened:
        there = sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    assert item(planned(tiny_model, use_lora=True, rank=3), "training", "LoRA factors") == 4 * there


def test_words_have_the_device_while_the_denoiser_waits(tiny_model: Path) -> None:
    plan = planned(tiny_model, **PRIOR)
    assert item(plan, "encoding prompts", "unet: weights", "host") == 4 * count(tiny_model, "unet")
    assert item(plan, "encoding prompts", "text_encoder: weights") == 4 * count(tiny_model, "text_encoder")
    assert item(plan, "encoding prompts", "prompt embeddings") == 3 * 77 * 32 * 4
    assert item(plan, "generating class images", "unet: weights") == 4 * count(tiny_model, "unet")
    trained = planned(tiny_model, train_text_encoder=True)
    assert item(trained, "encoding prompts", "unet: weights") is not None
    assert item(trained, "training", "prompt embeddings") is None, "they are made anew in every update"


def test_a_cpu_holds_one_component_after_the_other(tiny_model: Path) -> None:
    """Of a LoRA run; full training has its denoiser from the beginning."""

    def held(plan: Plan) -> dict[str, set[str]]:
        words = ": weights"
        return {s.name: {i.what.partition(words)[0] for i in s.items if words in i.what} for s in plan.stages}

    lora, full = planned(tiny_model, CPU, use_lora=True, rank=1), planned(tiny_model, CPU)
    ends = {"training": {"unet"}, "saving": {"unet"}}
    assert held(lora) == {
        "loading the model": set(),
        "encoding prompts": {"text_encoder"},
        "encoding images": {"vae"},
        **ends,
    }
    assert held(full) == {
        "loading the model": {"unet"},
        "encoding prompts": {"text_encoder", "unet"},
        "encoding images": {"vae", "unet"},
        **ends,
    }
    for plan in (lora, full):
        assert all(one.bytes("device") == 0 for one in plan.stages)
        assert plan.predictions()["training"] == max(stage(plan, n).bytes("host") for n in ("training", "saving"))


def test_embeddings_have_a_budget_on_the_device(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "ON_DEVICE", 77 * 32 * 4)
    plan = planned(tiny_model)
    for name in ("encoding prompts", "encoding images", "training"):
        assert item(plan, name, "prompt embeddings") == 77 * 32 * 4
        assert item(plan, name, "prompt embeddings beyond", "host") == 2 * 77 * 32 * 4


def test_each_backend_has_its_ways(tiny_model: Path) -> None:
    """MindSpore parks nothing and gathers gradients; Paddle's O1 keeps frozen weights in float32."""
    n = count(tiny_model, "unet")
    mindspore = planned(tiny_model, Machine("ascend"), "mindspore")
    assert item(mindspore, "encoding prompts", "unet: weights, 32 bits") == 4 * n
    assert item(mindspore, "training", "gradients") == 2 * 4 * n
    paddle = planned(tiny_model, Machine("gpu:0"), "paddle", mixed_precision="bf16", use_lora=True)
    assert item(paddle, "training", "unet: weights, 32 bits") == 4 * n
    halved = planned(tiny_model, Machine("gpu:0"), "paddle", mixed_precision="bf16", use_lora=True, amp_level="O2")
    assert item(halved, "training", "unet: weights, 16 bits") == 2 * n


def activations(plan: Plan) -> int:
    return stage(plan, "training").bytes("device")


def test_settings_that_save_do(tiny_model: Path) -> None:
    usual = {"use_lora": True, "rank": 1, "train_batch_size": 8}
    base = activations(planned(tiny_model, **usual))
    for change in ({"gradient_checkpointing": True}, {"train_batch_size": 1}, {"mixed_precision": "bf16"}):
        assert activations(planned(tiny_model, **(usual | change))) < base, change
    assert activations(planned(tiny_model, **usual, **PRIOR)) > base, "a prior brings as many rows again"


def test_what_comes_at_different_times_is_not_added_up(tiny_model: Path) -> None:
    """Activations are most when the backward pass begins, gradients when it ends; more images make no weight larger."""

    def backward(costs: Costs, rows: int = 1) -> Pass:
        model = ModelFolder.open(str(tiny_model))
        more = {"trains": True, "recomputes": True, "rows": rows, "costs": costs}
        return denoiser_pass(model, (8, 8), 77, Arithmetic(half=False), **more)

    early, late = backward(Costs()), backward(Costs(gradients=2**40))
    assert late.gradients == 2**40
    assert late.kept + late.backward < early.kept + early.backward
    one, two = (backward(Costs(reordered=2**20), rows) for rows in (1, 2))
    convolutions = [s for s in shapes_of(tiny_model, "unet").values() if len(s) == 4]
    assert one.reordered == two.reordered == 2**20 * max(map(math.prod, convolutions))
    assert two.kept + two.backward == 2 * (one.kept + one.backward)


def shapes_of(model: Path, name: str) -> Mapping[str, tuple[int, ...]]:
    return stored_weights(ModelFolder.open(str(model)).weight_files(name)).shapes


def test_a_weight_that_is_made_whole_is_not_copied_besides(tiny_model: Path) -> None:
    plan = planned(tiny_model, CPU, use_lora=True, rank=1, gradient_checkpointing=True, quantize_base="int8")
    assert item(plan, "training", "a weight in the order of a convolution", "host") is None
    assert item(plan, "training", "a weight made whole", "host")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("where", [CARD, CPU])
def test_every_family_has_a_plan(name: str, where: Machine, family_models: Callable[[str], Path]) -> None:
    model = family_models(name)
    for backend in WAYS if where is CARD else ("torch",):
        plan = planned(model, where, backend, validation_prompt="a dog" if name != "if2" else None)
        place = plan.places()[0]
        assert item(plan, "training", "activations", place)
        assert plan.as_dict()["stages"][0]["stage"] == "loading the model"
        assert plan.in_words().count("\n") > 20


def scarce(monkeypatch: pytest.MonkeyPatch, free: int | None, host: int = 2**40, device: str = "cuda:0") -> None:
    """A machine with so many bytes for a run."""
    free = free if free is None else free + CONTEXT
    found = Machine(device, free, free, host)
    monkeypatch.setattr(memory_plan, "find_machine", lambda backend, device: found)
    monkeypatch.setattr(remedies, "LEAST", 1)


def loading(*_: Any) -> NoReturn:
    raise AssertionError("loaded")


@needs.backend
def test_what_cannot_fit_is_refused_before_it_is_loaded(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that would make it fit are named in the order of the table, each with what it saves; with them it
    does."""
    given = {"train_batch_size": 2, "gradient_accumulation_steps": 2}
    monkeypatch.setattr(setup, "load_suggested", loading)
    full, lora = (make_plan_of(tiny_model, installed_backends()[0], **(given | m)) for m in ({}, LORA_AND_LESS))
    scarce(monkeypatch, max(worst(lora), 1) + 1)
    with pytest.raises(ConfigError) as error:
        small_run(tiny_model, photos, tmp_path, **given)
    said = str(error.value)
    order = ["--train_batch_size 1 --gradient_accumulation_steps 4", "--use_lora", "--ignore_memory_plan"]
    assert [said.index(words) for words in order] == sorted(said.index(words) for words in order), said
    assert said.startswith("memory: ") and " saves " in said and "would make it fit" in said
    assert worst(full) > worst(lora)
    assert not (tmp_path / "config.yaml").exists()
    with pytest.raises(AssertionError, match="loaded"):
        small_run(tiny_model, photos, tmp_path, **given, ignore_memory_plan=True)


LORA_AND_LESS = {
    "use_lora": True,
    "gradient_checkpointing": True,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 4,
}


def worst(plan: Plan) -> int:
    return plan.worst("device").bytes("device")


def make_plan_of(model: Path, backend: str, **more: Any) -> Plan:
    work = replace(WORK, prompts=1, variants=0, class_images=False)
    return make_plan(settings(model, **more), ModelFolder.open(str(model)), work, CARD, backend)


@needs.backend
def test_the_host_is_warned_of_and_refused_where_it_cannot_hold_the_weights(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "load_suggested", loading)
    whole = 4 * (count(tiny_model, "unet") + max(count(tiny_model, name) for name in ("vae", "text_encoder")))
    scarce(monkeypatch, None, whole - 1, "cpu")
    with pytest.raises(ConfigError, match=r"memory: .* of the host, which has .* GiB free"):
        small_run(tiny_model, photos, tmp_path)
    scarce(monkeypatch, None, whole + 1, "cpu")
    with pytest.raises(AssertionError, match="loaded"):
        small_run(tiny_model, photos, tmp_path)
    assert "warning: memory: " in capsys.readouterr().err


@needs.backend
def test_prediction_and_peak_stand_side_by_side(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    small_run(tiny_model, photos, tmp_path, max_train_steps=1)
    log, report = ((tmp_path / name).read_text("utf-8") for name in ("log.txt", "report_data.json"))
    assert "memory, predicted at most: " in log
    for text in (log, report):
        assert "GiB, predicted " in text
    assert "peak memory while loading the model: " in log


def test_a_control_group_bounds_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit less what it has taken, but for the cache of files."""
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 1\ninactive_file 200\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.host_free() == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine.host_free() or 0) > 500


def test_a_device_is_found_without_a_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_card", lambda index: (10 + index, 20, f"card {index}"))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    found = machine.find_machine("torch", "cuda:1")
    assert (found.device, found.free, found.total, found.on_host, found.name) == ("cuda:1", 11, 20, False, "card 1")
    assert machine.find_machine("torch", "cpu").on_host
    assert machine.find_machine("mindspore", "ascend:0").free is None
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert machine.find_machine("torch", "cuda").device == "cuda:3"


@pytest.mark.parametrize("number", range(len(remedies.REMEDIES)))
def test_changes_of_the_table_are_settings(number: int, tiny_model: Path) -> None:
    """What a plan tries can be given."""
    change = remedies.REMEDIES[number][3]
    case = remedies.Case(settings(tiny_model, resolution=128), "torch", "training", "device")
    changed = change(case)
    assert changed.keys() <= TrainConfig.model_fields.keys()
    settings(tiny_model, **({"resolution": 128} | changed | ({"rank": 1} if "use_lora" in changed else {})))
