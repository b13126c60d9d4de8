"""What a plan says of a base in fewer bits, by hand from the files' headers, and when it names it as a remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamcore.backends.quantization import quantised
from dreamcore.models.folder import ModelFolder
from dreamcore.placement import remedies
from dreamcore.placement.headers import stored_weights
from dreamcore.placement.machine import Machine
from dreamcore.placement.plan import CONTEXT, Plan
from dreamcore.placement.stages import make_plan
from dreamcore.placement.workload import Workload

from ..support.runs import configuration

LORA = {"use_lora": True, "rank": 1, "mixed_precision": "bf16", "train_batch_size": 1, "gradient_checkpointing": True}


def planned(model: Path, free: int, **more: Any) -> Plan:
    config = configuration(model, Path("photos"), Path("out"), **{**LORA, **more})
    machine = Machine("cuda:0", free, free, 64 * 2**30)
    return make_plan(config, ModelFolder.open(str(model)), Workload(32, 32), machine, "torch")


def weights(plan: Plan, stage: str, component: str) -> tuple[str, int]:
    (found,) = (
        (item.what, item.bytes)
        for one in plan.stages
        if one.name == stage
        for item in one.items
        if item.what.startswith(component) and ": weights" in item.what
    )
    return found


@pytest.mark.parametrize(("method", "bits"), [("int8", 8), ("fp8", 8), ("nf4", 4 + 1 / 8 + 1 / 512)])
def test_weights_have_their_few_bits(method: str, bits: float, family_models: Callable[[str], Path]) -> None:
    """All but what stays in 16; a block or row that is not whole, and the factors of rows, are what is beyond."""
    model = family_models("flux")
    shapes = stored_weights(ModelFolder.open(str(model)).weight_files("transformer")).shapes
    fewer = sum(math.prod(s) for n, s in shapes.items() if quantised(n, s))
    rest = sum(math.prod(s) for n, s in shapes.items() if not quantised(n, s))
    assert fewer > rest
    what, size = weights(planned(model, 2**34, quantize_base=method), "training", "transformer")
    assert what == f"transformer: weights, {method} in their blocks"
    rows = sum(s[0] for n, s in shapes.items() if quantised(n, s))
    least = fewer * bits / 8 + 2 * rest
    assert least <= size <= least + rows * 5 + 512 * len(shapes)
    plan = planned(model, 2**34, quantize_text_encoders=method)
    whole = weights(planned(model, 2**34), "encoding prompts", "text_encoder")[1]
    assert weights(plan, "encoding prompts", "text_encoder")[1] < whole
    assert weights(plan, "training", "transformer")[0] == "transformer: weights, 16 bits"


def test_remedies_in_order(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 bits before 4, each with what it saves; neither for a model that trains whole."""
    monkeypatch.setattr(remedies, "LEAST", 1)
    at_most = {m: planned(tiny_model, 2**34, quantize_base=m).worst("device").bytes("device") for m in (None, "int8")}
    assert at_most["int8"] < at_most[None]
    config = configuration(tiny_model, Path("photos"), Path("out"), **LORA)

    def again(changed: Any, shrunk: float) -> Plan:
        free = plan.machine.free
        return replace(planned(tiny_model, free or 0, quantize_base=changed.quantize_base), machine=plan.machine)

    plan = planned(tiny_model, CONTEXT + at_most["int8"])
    steps, _ = remedies.steps(plan, config, "device", again)
    assert [step.words for step in steps] == ["--quantize_base int8"]
    assert steps[0].saves == at_most[None] - at_most["int8"]
    plan = planned(tiny_model, CONTEXT + at_most["int8"] - 1)
    steps, _ = remedies.steps(plan, config, "device", again)
    assert [step.words for step in steps[:2]] == ["--quantize_base int8", "--quantize_base nf4"]
    full = config.model_copy(update={"use_lora": False})
    found = [words for _, (words, _) in remedies._open(remedies.Case(full, "torch", "training", "device"))]
    assert not any("quantize" in words for words in found)
    assert "--use_lora" in found
