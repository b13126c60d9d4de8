"""What a run would take, before it: the substance of `dreambooth plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

from ..backends.installed import choose_backend
from ..config import TrainConfig, read_config_file
from ..config.used import Context, refuse_idle
from ..errors import ConfigError
from ..io.names import CONFIG, METRICS
from ..models.folder import ModelFolder
from ..models.settings import model_facts
from ..placement.plan import Plan
from ..placement.times import expect
from ..placement.workload import WAYS
from ..runs.layout import output_folder
from ..text.prompts import places
from ..track import read_lines, shows_progress
from ..training.memory_plan import advice, plan_memory
from ..training.settings import settle_defaults, settle_length
from ..training.training_data import open_training_data

ALIKE = (
    *("pretrained_model_name_or_path", "resolution", "height", "width", "train_batch_size", "mixed_precision"),
    *("gradient_accumulation_steps", "gradient_checkpointing", "use_lora", "rank", "train_text_encoder", "compile"),
    "cuda_graphs",
    *("with_prior_preservation", "diff_output_preservation", "cache_latents", "backend", "device", "use_ema"),
    *("placement", "offload_optim_frac", "blocks_to_swap", "fused_backward_pass", "shard"),
)
"""Settings of which an update's time is a matter: a run in which they are the same tells it."""


@shows_progress
def plan(config: TrainConfig) -> Plan:
    """What a run with these settings takes of the device's memory and of the host's, stage by stage.

    The photographs are opened as a run opens them; of the model's files the headers alone are read, and no framework
    is imported.  What does not fit is said among the notes.

    Raises:
        ConfigError: as `train` does before it loads a framework; or a backend of which no plan is known.
    """
    backend = choose_backend(config.backend)
    if backend not in WAYS:
        raise ConfigError(f"backend: {backend}: how it places a model is not known here; known are {', '.join(WAYS)}")
    model = ModelFolder.of(config)
    config, _ = settle_defaults(config, model.family)
    data = open_training_data(config, model, lambda text: None)
    asked = places(config, [(subject.concept, subject.images) for subject in data.subjects])
    refuse_idle(config, Context(backend, model_facts(model), asked))
    config, _ = settle_length(config, model.family, None)
    folder = output_folder(config.output_dir, config.layout, None)
    found = plan_memory(config, data, folder, backend)
    assert found is not None
    said = advice(config, data, folder, found)
    return replace(
        found,
        seconds=seconds_per_update(config, folder),
        updates=config.max_train_steps,
        expected=expect(found.operations, found.machine, config),
        notes=[*found.notes, *([said] if said else [])],
    )


def seconds_per_update(config: TrainConfig, folder: Path) -> float | None:
    """Of the run in a folder, where it was one of such settings: the only measurement that there is."""
    try:
        earlier = read_config_file(folder / CONFIG)
    except ConfigError:
        return None
    now = config.model_dump(mode="json")
    known = [name for name in ALIKE if name in earlier or now[name] != type(config).model_fields[name].default]
    if any(str(earlier.get(name)) != _written(now[name]) for name in known):
        return None
    times = [float(record["seconds"]) for record in read_lines(folder / METRICS) if "seconds" in record]
    return median(times[len(times) // 2 :]) if times else None


def _written(value: object) -> str:
    """As a run's configuration has it, which names a folder by its absolute path."""
    text = str(value)
    return (
        str(Path(text).expanduser().resolve()) if isinstance(value, str) and Path(text).expanduser().exists() else text
    )
