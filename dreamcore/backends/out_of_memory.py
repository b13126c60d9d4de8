"""Running out of memory, of the device or of the host, ends in one message: at what stage, and what would need less.

A stage is named by `during` at the function that does its work.  Which exceptions mean it, a backend says: a function
`out_of_memory` in its module (`adapters/NAME/memory.py`), which `load_backend` hands to `recognise`.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CallbackError, RunError
from .installed import launched_processes

if TYPE_CHECKING:
    from ..config.common import ModelSettings

Kind = Literal["device", "host"]
Recogniser = Callable[[BaseException], Kind | None]
"""Whose memory an exception says is used up; None where it says something else."""

PREPARING, LOADING = "preparing the run", "loading the model"
CLASSES, PROMPTS, IMAGES = "generating class images", "encoding prompts", "encoding images"
TRAINING, VALIDATION, SAVING, SAMPLING = "training", "validating", "saving", "generating images"
LONGEST = 200
"""Letters of the framework's own words that are repeated."""

_recognisers: list[Recogniser] = []


class OutOfMemory(RunError):
    """Memory was used up.

    Args:
        stage: what was being done.
        kind: whose memory.
        said: the framework's own words.
    """

    def __init__(self, stage: str, kind: Kind, said: str, advice: str = ""):
        super().__init__(f"out of memory of the {kind} while {stage} ({said}){advice}")
        self.stage, self.kind, self.said = stage, kind, said


def recognise(recogniser: Recogniser) -> None:
    """From now on heed what a backend knows of its framework's exceptions."""
    if recogniser not in _recognisers:
        _recognisers.append(recogniser)


def memory_trouble(error: BaseException) -> tuple[Kind, str] | None:
    """Whose memory an error, or one that it comes from, says is used up, and in which words."""
    seen: BaseException | None = error
    while seen is not None:
        for recogniser in (*_recognisers, _host_trouble):
            if kind := recogniser(seen):
                return kind, _in_a_line(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def _host_trouble(error: BaseException) -> Kind | None:
    refused = getattr(error, "errno", None) == errno.ENOMEM or os.strerror(errno.ENOMEM) in str(error)
    return "host" if isinstance(error, MemoryError) or refused else None


def _in_a_line(error: BaseException) -> str:
    """The line that speaks of memory, among those of a C++ traceback for instance; the error's name where none does."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = next((line for line in lines if "memory" in line.lower() or "alloc" in line.lower()), type(error).__name__)
    return found if len(found) <= LONGEST else found[: LONGEST - 1] + "…"


@contextmanager
def during(stage: str) -> Iterator[None]:
    """Name the stage in which memory is used up; the innermost counts.

    Raises:
        OutOfMemory: it was.
    """
    try:
        yield
    except Exception as error:
        theirs = isinstance(error, OutOfMemory | CallbackError)  # what a callback uses up, no setting spares
        if theirs or (found := memory_trouble(error)) is None:
            raise
        raise OutOfMemory(stage, *found) from error


@contextmanager
def advise(config: ModelSettings, backend: str, stage: str, keep: Callable[[str], Path | None]) -> Iterator[None]:
    """Say what would need less memory where it is used up, and keep the traceback.

    Args:
        backend: its name.
        stage: where no `during` within names another.
        keep: adds the traceback to a log, and returns the file, if there is any.

    Raises:
        OutOfMemory: with the advice in it.
    """
    try:
        with during(stage):
            yield
    except OutOfMemory as error:
        traceback.clear_frames(error.__cause__.__traceback__ if error.__cause__ else None)  # what they hold is memory
        kept = "" if error.stage not in (TRAINING, VALIDATION, SAVING) else ".  Every checkpoint is whole"
        with suppress(OSError, MemoryError):
            if log := keep("".join(traceback.format_exception(error)).rstrip()):
                kept += f".  The traceback is in {log}"
        more = "a device with more memory free" if error.kind == "device" else "more memory for each process"
        helps = [*remedies(config, backend, error), more]
        advice = f".  What would need less, in this order: {'; '.join(helps)}{kept}"
        raise OutOfMemory(error.stage, error.kind, error.said, advice) from error


@dataclass(frozen=True)
class Case:
    """What ran out, in what run."""

    config: ModelSettings
    backend: str
    stage: str
    kind: Kind

    def __getitem__(self, setting: str) -> Any:
        """A setting's value, None where the command has no such setting; not to be counted as used."""
        return self.config.__dict__.get(setting)


def _smaller(case: Case) -> str:
    if case.stage == SAMPLING or case["height"]:
        return "smaller --height and --width"
    return f"a --resolution below {case['resolution'] or 'that of the model'}"


def _accumulated(case: Case) -> str:
    samples = case["train_batch_size"] * case["gradient_accumulation_steps"]
    return f"--train_batch_size 1 --gradient_accumulation_steps {samples}, which is the same run"


def _checkpointing(case: Case) -> bool:
    refused = case.backend == "mindspore" and case["lora_dropout"] > 0
    return not case["gradient_checkpointing"] and not refused


def _half_precision(case: Case) -> bool:
    """Whether half precision is there and off."""
    there = case.kind == "device" or case.backend == "torch"
    return there and case["mixed_precision"] == "no"


def _shorter(case: Case) -> str:
    return f"--mixed_precision bf16{' (or fp16)' if case.kind == 'device' else ''}"


def _eight_bits(case: Case) -> bool:
    there = case.backend == "torch" and case.kind == "device"
    adamw = case["optimizer"] == "adamw" and not case["use_8bit_adam"]
    return there and adamw and not case["use_lora"]


def _frozen(case: Case) -> bool:
    """Whether a denoiser's weights, which are computed with, do not train."""
    return case.backend == "torch" and case["use_lora"] is not False and case["grid"] is not False


def _in_8_bits(case: Case) -> bool:
    return _frozen(case) and case["quantize_base"] is None and not case["blocks_to_swap"]


def _in_4_bits(case: Case) -> bool:
    return _frozen(case) and case["quantize_base"] in ("int8", "fp8")


def _words_in_8_bits(case: Case) -> bool:
    """Whether some text encoder does not train."""
    from ..models.folder import ModelFolder

    if case.backend != "torch" or case["quantize_text_encoders"] is not None or case["train_text_encoder_ti"]:
        return False
    trains = case["train_text_encoder"]
    return any(not (trains and encoder.lora_layers) for encoder in ModelFolder.of(case.config).text_encoders)


def _words_in_4_bits(case: Case) -> bool:
    return case.backend == "torch" and case["quantize_text_encoders"] in ("int8", "fp8")


def _all_on_device(case: Case) -> bool:
    """Whether what trains, or frozen blocks, could wait on the host."""
    moves = not case["use_lora"] or not (case["quantize_base"] or case["blocks_to_swap"] or case["compile"])
    there = case.backend == "torch" and case.kind == "device" and case["optimizer"] != "adamw8bit"
    return there and case["placement"] == "cuda" and not (case["use_8bit_adam"] or case["cuda_graphs"]) and moves


def _whole_in_each(case: Case) -> bool:
    """Whether each of several processes keeps the optimizer's state that one could keep for all."""
    return case["shard"] == "none" and _divides(case)


def _divides(case: Case) -> bool:
    """Whether several processes could share the optimizer's state out."""
    from ..config.placing import ALL_AT_ONCE

    keeps = case["placement"] == "cuda" and not case["fused_backward_pass"]
    divided = case["optimizer"] not in ALL_AT_ONCE and not case["use_8bit_adam"]
    return case.backend in ("torch", "paddle") and launched_processes(case.backend) > 1 and keeps and divided


def _weights_in_each(case: Case) -> bool:
    """Whether each of several processes keeps weights that it could share out with the others."""
    elsewhere = case["compile"] or case["blocks_to_swap"] or case["quantize_base"] or case["train_text_encoder_ti"]
    keeps = case.backend == "torch" and case["shard"] in ("none", "optimizer")
    return keeps and _divides(case) and not elsewhere


def _placed_by_plan(case: Case) -> bool:
    """Whether the plan, which has left some of it on the device, was wrong."""
    return case["placement"] == "auto" and case.kind == "device" and not case["use_lora"]


def _without_t5(case: Case) -> bool:
    from ..models.folder import ModelFolder

    return any(encoder.optional for encoder in ModelFolder.of(case.config).text_encoders)


def _less(case: Case) -> dict[str, Any]:
    """Three quarters of each side, in steps that every family takes; nothing where that is no step."""
    sides = ("height", "width") if case["height"] else ("resolution",)
    return {n: s for n in sides if case[n] and (s := case[n] * 3 // 4 // SIDE_STEP * SIDE_STEP)}


def _slicing(case: Case) -> bool:
    return (case["sample_batch_size"] or case["batch_size"] or 1) > 1 and not case["enable_vae_slicing"]


EVERYWHERE = (LOADING, CLASSES, PROMPTS, IMAGES, TRAINING, VALIDATION, SAMPLING)
DENOISING = (LOADING, CLASSES, TRAINING, VALIDATION, SAVING, SAMPLING)
SIDE_STEP = 64
Change = Callable[[Case], dict[str, Any]]


def _set(**values: Any) -> Change:
    return lambda case: values


def _accumulating(case: Case) -> dict[str, Any]:
    samples = case["train_batch_size"] * case["gradient_accumulation_steps"]
    return {"train_batch_size": 1, "gradient_accumulation_steps": samples}


REMEDIES: list[tuple[str | Callable[[Case], str], tuple[str, ...], Callable[[Case], Any], Change]] = [
    ("--gradient_checkpointing", (TRAINING,), _checkpointing, _set(gradient_checkpointing=True)),
    (_accumulated, (TRAINING,), lambda c: c["train_batch_size"] > 1, _accumulating),
    ("--sample_batch_size 1", (CLASSES, VALIDATION), lambda c: c["sample_batch_size"] > 1, _set(sample_batch_size=1)),
    ("--no-cuda_graphs", (TRAINING,), lambda c: c["cuda_graphs"], _set(cuda_graphs=False)),
    ("--vae_batch_size 1", (IMAGES,), lambda c: c["vae_batch_size"] > 1, _set(vae_batch_size=1)),
    ("--enable_vae_slicing", (CLASSES, VALIDATION, SAMPLING), _slicing, _set(enable_vae_slicing=True)),
    ("--batch_size 1", (SAMPLING,), lambda c: c["batch_size"] > 1, _set()),
    ("--drop_t5", (LOADING, PROMPTS), _without_t5, _set(drop_t5=True)),
    (_shorter, EVERYWHERE, _half_precision, _set(mixed_precision="bf16")),
    ("--use_lora", (LOADING, TRAINING, SAVING), lambda c: c["use_lora"] is False, _set(use_lora=True)),
    ("--quantize_base int8", DENOISING, _in_8_bits, _set(quantize_base="int8")),
    ("--quantize_base nf4", DENOISING, _in_4_bits, _set(quantize_base="nf4")),
    ("--quantize_text_encoders int8", (LOADING, PROMPTS), _words_in_8_bits, _set(quantize_text_encoders="int8")),
    ("--quantize_text_encoders nf4", (LOADING, PROMPTS), _words_in_4_bits, _set(quantize_text_encoders="nf4")),
    ("--use_8bit_adam", (TRAINING,), _eight_bits, _set(use_8bit_adam=True)),
    ("--shard optimizer", (TRAINING, VALIDATION), _whole_in_each, _set(shard="optimizer")),
    ("--shard full", DENOISING, _weights_in_each, _set(shard="full")),
    ("--placement auto", (*DENOISING, PROMPTS), _all_on_device, _set(placement="auto")),
    ("--placement cpu", (TRAINING,), _placed_by_plan, _set(placement="cpu")),
    ("--no-use_ema", (LOADING, TRAINING), lambda c: c["use_ema"], _set(use_ema=False)),
    (
        "--no-train_text_encoder",
        (LOADING, TRAINING),
        lambda c: c["train_text_encoder"],
        _set(train_text_encoder=False),
    ),
    (_smaller, (CLASSES, IMAGES, TRAINING, VALIDATION, SAMPLING), lambda c: True, _less),
    ("--cache_latents", (TRAINING,), lambda c: not c["cache_latents"], _set(cache_latents=True)),
    ("a smaller --cache_memory_gb", (IMAGES, TRAINING), lambda c: c.kind == "host" and c["cache_latents"], _set()),
    (
        "--enable_vae_tiling",
        (CLASSES, VALIDATION, SAMPLING),
        lambda c: not c["enable_vae_tiling"],
        _set(enable_vae_tiling=True),
    ),
    ("class images of your own in --class_data_dir", (CLASSES,), lambda c: True, _set()),
    ("no --validation_prompt", (VALIDATION,), lambda c: c["validation_prompt"], _set(validation_prompt=None)),
]
"""What would need less memory: in which words, at which stages, whether it would in this run, and the settings that a
plan tries it with (none: no plan tells); in the order in which to try it."""


def remedies(config: ModelSettings, backend: str, error: OutOfMemory) -> list[str]:
    """The settings that would help, in the order in which to try them; none that is on already."""
    case = Case(config, backend, error.stage, error.kind)
    return [
        words if isinstance(words, str) else words(case)
        for words, stages, helps, _ in REMEDIES
        if case.stage in stages and helps(case)
    ]
