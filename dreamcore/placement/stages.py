"""What each stage of a run holds, as backends place it: `backends/base.py`, and each adapter's `place` and `move`."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from ..backends.bucketing import BUCKET_BYTES, IN_FLIGHT
from ..backends.lora import Lora
from ..backends.out_of_memory import CLASSES, IMAGES, LOADING, PROMPTS, SAVING, TRAINING, VALIDATION
from ..config import TrainConfig
from ..config.optimizers import name_of
from ..models.folder import ModelFolder
from .activations import Costs, Pass, denoiser_pass, encoder_kept
from .auto import Placing, choose_placement
from .blocks import blocks_by_size
from .headers import stored_weights
from .held import HELD_BACK, Held
from .machine import Machine
from .plan import Plan, Stage
from .times import operations
from .workload import Workload

ON_THEIR_WAY = 4
"""Buckets of gradients that leave for another process, at the most: one that fills and those that travel."""
REORDERED = 1
"""Copies of a weight that a convolution on a CPU makes in an order of its own: 1.02 as measured of 2,560 to 1,280
channels (PyTorch 2.13, oneDNN; AVX2 and AVX-512, float32 and bfloat16); a product with a matrix copies none."""


def make_plan(config: TrainConfig, model: ModelFolder, work: Workload, machine: Machine, backend: str) -> Plan:
    """The plan of a run with these settings; reads the headers of the model's files and nothing else of them.

    Raises:
        ConfigError: a damaged file.
    """
    optional = tuple(encoder.network for encoder in model.family.text_encoders if encoder.optional)
    if config.drop_t5 and optional:
        model = replace(model, without=optional)
    parts = {name: stored_weights(model.weight_files(name)) for name in model.networks}

    def planned(changes: Placing) -> Plan:
        return Stages(config.model_copy(update=changes), model, parts, work, machine, backend).plan()

    if config.placement != "auto" or backend != "torch":
        return planned({})
    blocks = len(blocks_by_size(parts[model.family.denoiser].shapes))
    return choose_placement(config, blocks, planned)


@dataclass(frozen=True)
class Stages(Held):
    """The stages of a run, in order."""

    def plan(self) -> Plan:
        stages = [self._loading(), self._words()]
        if self._makes_class_images:
            stages.append(self._classes())
        if self.config.cache_latents or self.work.held_out:
            stages.append(self._images())
        stages.append(self._training())
        if self.config.validation_prompt is not None:
            stages.append(self._validation())
        stages.append(self._saving())
        counted = self._operations({stage.name for stage in stages})
        return Plan(self.model.family.name, self.backend, self.machine, stages, self._notes(), operations=counted)

    def _operations(self, stages: Collection[str]) -> dict[str, int]:
        """Of an update and of images made, by stage (`times.operations`)."""
        config = self.config
        words = sum(
            2 * self.parts[e.network].count * self._length(e)
            for e in self.model.text_encoders
            if e.network in self.at_work
        )
        made = {
            CLASSES: (self.work.class_images, config.prior_num_inference_steps, config.prior_guidance_scale),
            VALIDATION: (
                config.num_validation_images,
                config.validation_num_inference_steps,
                config.validation_guidance_scale,
            ),
        }
        passes = {
            stage: n * steps * self._guided(scale) for stage, (n, steps, scale) in made.items() if stage in stages
        }
        return operations(config, self._pass_alone.operations, words, passes)

    def _notes(self) -> list[str]:
        notes = ["Beside what the idle process holds: Python, the framework, the driver's context."]
        notes.append("predicted: from the architecture, operator by operator; not measured on this machine.")
        if self.config.shard != "none" and self.machine.processes == 1:
            notes.append("shard: one process keeps the whole of what is shared out; `dreambooth launch` starts several")
        if rough := [name for name, part in self.parts.items() if not part.shapes]:
            notes.append(f"{', '.join(rough)}: a form without a header, judged by its files' size")
        return notes

    def _loading(self) -> Stage:
        """What trains itself; the others come, one after the other, when their turn comes."""
        stage = Stage(LOADING)
        self._networks(stage, self._stay)
        stage.add("what reading adds", "host", self._reading(self._stay) + HELD_BACK, "predicted")
        return stage

    def _words(self) -> Stage:
        """One text encoder after the other, but for those that train; the denoiser, where it is there, steps aside."""
        stage, trains = Stage(PROMPTS), len(self.at_work) > 1
        there = set(self.at_work) if trains else self._stay
        aside = there if self.ways.parks and not trains and not self.machine.on_host else set()
        asked = [e.network for e in self.model.text_encoders if e.network not in there]
        largest = max(asked, key=lambda name: self._weights(name)[0], default=None)
        self._networks(stage, (there - aside) | ({largest} if largest else set()), aside)
        self._embeddings(stage)
        self._made_whole(stage, asked)
        widest = max((self._length(e) * self._width(e) for e in self.model.text_encoders), default=0)
        stage.add("a text encoder's activations", self.here, widest * 4 * 16, "predicted")
        stage.add("what reading adds", "host", self._reading(asked) + HELD_BACK, "predicted")
        return stage

    def _classes(self) -> Stage:
        stage = Stage(CLASSES)
        self._networks(stage, set(self.at_work) | self._autoencoder)
        self._embeddings(stage)
        self._images_made(
            stage, min(self.config.sample_batch_size, self.config.num_class_images), self.config.prior_guidance_scale
        )
        self._average(stage)
        return stage

    def _images(self) -> Stage:
        """The autoencoder, and what is there already."""
        stage = Stage(IMAGES)
        there = set(self.at_work) if self._makes_class_images else self._stay
        self._networks(stage, there | self._autoencoder)
        self._embeddings(stage)
        stage.add("latents", "host", self.latents)
        images = max(1, min(self.config.vae_batch_size, self.work.variants)) if self.config.cache_latents else 1
        stage.add("images in the autoencoder", self.here, images * self._encoding, "predicted")
        stage.add("what reading adds", "host", self._reading(self._autoencoder) + HELD_BACK, "predicted")
        return stage

    def _training(self) -> Stage:
        stage, config = Stage(TRAINING), self.config
        self._resting(stage, vae=not config.cache_latents)
        self._gathered(stage)
        gradients = self._gradients(stage)
        gathers = config.gradient_accumulation_steps > 1 or self.ways.sums or config.cuda_graphs
        constant = gathers or (config.fused_backward_pass and self.backend == "torch")
        worst = self._backward(0 if constant else gradients)
        stage.add("gradients", self.here, gradients if constant else worst.gradients)
        if gathers and self._beside:
            stage.add("gradients of a micro-batch, 16 bits", self.here, self.parameters * 2)
        stage.add("activations", self.here, worst.kept + self._casts + worst.backward, "predicted")
        stage.add("a weight made whole to compute with", self.here, worst.whole, "predicted")
        stage.add("a weight in the order of a convolution", self.here, worst.reordered, "predicted")
        self._made_whole(stage, [name for name in self.at_work if name != self.model.family.denoiser])
        if not config.cache_latents:
            more = self._encoding - worst.kept - worst.backward
            stage.add("an image in the autoencoder", self.here, more, "predicted")
        return stage

    def _gradients(self, stage: Stage) -> int:
        """Bytes of those that gather where networks compute; others are noted where they lie."""
        config, every = self.config, self.parameters * 4 * (2 if self.ways.sums else 1)
        shapes = (s for name in self.trained for s in self.parts[name].shapes.values())
        largest = max((math.prod(shape) for shape in shapes), default=0) * self._leaf
        if config.fused_backward_pass and self.backend == "torch":
            return min(every, BUCKET_BYTES + largest)
        if self._kept < 1 and not config.use_lora:
            return min(every, round(every * self._kept) + ON_THEIR_WAY * BUCKET_BYTES)
        if not self._offloads:
            return every
        hosted = round(self.parameters * config.offload_optim_frac)
        at_once = name_of(config) == "adamw" and config.mixed_precision != "fp16"
        whole = config.gradient_accumulation_steps > 1 or not at_once
        stage.add("gradients in float32", "host", hosted * 4 if whole else min(hosted * 4, BUCKET_BYTES))
        leaving = 2 * largest + (0 if self.machine.on_host else IN_FLIGHT)
        stage.add("gradients that leave", self.here, min(hosted * self._leaf, leaving), "predicted")
        return (self.parameters - hosted) * 4

    def _backward(self, gradients: int) -> Pass:
        """The backward pass of a micro-batch when it takes most, while so many bytes of gradients gather."""
        config, factor = self.config, self.model.latent_factor
        rows = config.train_batch_size * (1 + config.with_prior_preservation + config.preserves_output)
        factors, lora = tuple[str, ...](), Lora.of(config, self.model) if config.use_lora else None
        if lora is not None:
            factors = self._factored(lora)
        one = denoiser_pass(
            self.model,
            (self.work.height // factor * (1 + self.work.references), self.work.width // factor),
            self.tokens,
            self.arithmetic,
            trains=not config.use_lora or config.words_alone,  # for these, more than it keeps
            factors=factors,
            rank=lora.between if lora is not None else 0,
            beside=lora.beside if lora is not None else 0,
            recomputes=config.gradient_checkpointing,
            rows=rows,
            costs=self._costs(gradients),
        )
        kept = one.kept
        for encoder in self.model.text_encoders:
            if encoder.network in self.at_work:
                layers = int(self.model.config(encoder.network).get("num_hidden_layers") or 12)
                each = encoder_kept(self._width(encoder), layers, self._length(encoder), self.arithmetic)
                kept += min(rows, self.work.prompts) * each
        return replace(one, kept=kept)

    def _costs(self, gradients: int) -> Costs:
        name = self.model.family.denoiser
        copied = self.machine.on_host and name not in self._quantised
        return Costs(gradients, self._remade(name), REORDERED * self._held(name) if copied else 0)

    def _validation(self) -> Stage:
        stage, config = Stage(VALIDATION), self.config
        self._resting(stage, vae=True)
        count = min(config.sample_batch_size, config.num_validation_images)
        self._images_made(stage, count, config.validation_guidance_scale)
        self._average(stage)
        return stage

    def _saving(self) -> Stage:
        stage = Stage(SAVING)
        self._resting(stage, vae=not self.config.cache_latents)
        self._average(stage)
        if not self.machine.on_host:  # a component's weights, or all moments, on their way to a file
            component = self.factors if self.config.use_lora else max(map(self._trainable, self.trained), default=0)
            arrays = max(component * 4, self._optimizer_state)
            if self._kept < 1:  # one tensor after the other
                shapes = (shape for name in self.trained for shape in self.parts[name].shapes.values())
                arrays = min(arrays, max((math.prod(shape) for shape in shapes), default=0) * 4)
            stage.add("arrays on their way to a file", "host", arrays)
        elif self.backend != "torch":
            stage.add("arrays on their way to a file", "host", self._optimizer_state)
        return stage
