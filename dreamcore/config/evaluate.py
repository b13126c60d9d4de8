"""Settings of `dreambooth evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from .base import setting
from .common import ModelSettings, Scheduler

Protocol = Literal["objects", "live", "tinyworld"]


class EvaluateConfig(ModelSettings):
    """What was learned of a subject, measured on pictures of it."""

    WORDS: ClassVar[tuple[str, ...]] = ("source",)
    COMMAND = "generate"
    GROUP = "evaluation"
    ESSENTIAL = (
        *("source", "judge", "instance_data_dir", "identifier", "class_word", "protocol", "num_images", "seed"),
        *("num_inference_steps", "guidance_scale", "output_dir"),
    )

    source: str = setting(example="my-dog")
    """What is judged: a run's folder, or a checkpoint of its LoRA, which knows its subject; a model or a LoRA; or a
    folder of pictures, an earlier evaluation's among them."""
    pretrained_model_name_or_path: str | None = setting(None, example="my-model")  # type: ignore[assignment]
    """Model that a LoRA is for, where it is no run's."""
    judge: list[str] | None = setting(None, example=["dino", "clip"])
    """Who judges: encoders, each dino (ViT-S/16), clip (ViT-B/32), dinov2 (ViT-B/14), a folder or an id on the Hub; or
    tinyworld, the miniature's own, which is its default.  Of others it is dino and clip, as in the paper."""
    instance_data_dir: str | None = setting(None, example="photos/dog")
    """Photographs of the subject, which pictures are to be like; a run's own by default."""
    validation_data_dir: str | None = setting(None, example="photos/dog-kept-back")
    """Photographs that were held out of training: likeness is measured to these, where there are any; a run's own by
    default."""
    identifier: str | None = setting(None, example="sks")
    """The rare word for the subject; as the run was taught by default."""
    class_word: str | None = setting(None, example="dog")
    """What the subject is one of; as the run was taught by default."""
    class_prompt: str | None = setting(None, example="a photo of a dog")
    """Words for the class without the subject; the run's by default, else "a photo of a" and the class."""
    protocol: Protocol | None = setting(None, example="live")
    """The paper's 25 prompts for objects, its 25 for live subjects, or five that tinyworld's words can say; live
    where the class is a living being that the list knows, else objects."""
    prompt_file: str | None = setting(None, example="prompts.txt")
    """Text file with prompts of your own in place of the protocol's, one a line, with places for {identifier} and
    {class}."""
    num_images: int = setting(4, ge=1)
    """Pictures of each prompt; the k-th is made from seed + k."""
    num_class_images: int = setting(16, ge=0)
    """Pictures of the class, by which PRES is measured; 0 measures none."""
    seed: int = setting(0, ge=0, lt=2**63, example=7)
    """Seed of each prompt's first picture."""
    num_inference_steps: int = setting(30, ge=1, example=50)
    """Denoising steps."""
    guidance_scale: float | None = setting(None, ge=0, example=7.5)
    """Classifier-free guidance (arXiv 2207.12598); the family's by default."""
    scheduler: Scheduler | None = setting(None)
    """Sampler; as for `generate` by default."""
    height: int | None = setting(None, gt=0, example=512)
    """Height in pixels; a LoRA run's, or the model's own, by default."""
    width: int | None = setting(None, gt=0, example=512)
    """Width in pixels; likewise."""
    batch_size: int = setting(4, ge=1)
    """Pictures made at a time."""
    output_dir: str = setting("evaluation", example="my-dog-evaluated")
    """New folder for the pictures, the table and the figure; where there is one already, the new one's name gets a
    number."""

    def contradictions(self) -> Iterator[str]:
        if self.protocol is not None and self.prompt_file is not None:
            yield "protocol: given together with prompt_file; give one or the other"


SAMPLING = (
    *("num_images", "seed", "num_inference_steps", "guidance_scale", "scheduler", "height", "width", "batch_size"),
)
"""Settings that `generate` has under the same names."""
MAKING = frozenset(
    (*SAMPLING, "protocol", "prompt_file", "num_class_images", "class_prompt", "backend", "device", "mixed_precision")
)
"""Settings about how pictures are made, which act on none that are there."""
