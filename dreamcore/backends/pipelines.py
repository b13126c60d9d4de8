"""Images through a library's own pipeline.

ppdiffusers and mindone are ports of diffusers: classes, their options and arguments bear the same names in all three.
So which sampler, which parts and which arguments are decided here; a backend brings its library and moves tensors.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..diffusion.randomness import upscaling_noise
from ..diffusion.samplers import READ_VARIANCE, samplers
from ..diffusion.schedule import FIXED_VARIANCE, learns_variance
from ..errors import RunError
from ..families import FamilyInputs
from ..families.packing import pack, stacked, unpack

if TYPE_CHECKING:
    from ..models.folder import ModelFolder
    from ..text.conditions import Conditioning
    from .protocol import SampleRequest

Tensor = TypeVar("Tensor")
NOISING = "image_noising_scheduler"
"""Of pipelines that upscale: the noise levels of the image that they start from."""


def make_pipeline(
    library: Any, model: ModelFolder, parts: Mapping[str, Any], request: SampleRequest | None = None
) -> Any:
    """The library's pipeline of the model's class over these parts, with the samplers that a request needs, over the
    model's own noise schedules; it does without everything else."""
    cls = getattr(library, model.index["_class_name"])
    accepted = inspect.signature(cls.__init__).parameters
    given: dict[str, Any] = {n: None for n, p in accepted.items() if p.default is p.empty and n != "self"}
    given |= {n: value for n, value in model.index.items() if n in accepted and not isinstance(value, list)}
    given |= {n: False for n in ("requires_safety_checker", "add_watermarker") if n in accepted}
    if request is not None:
        class_name, options = samplers(model.schedule.prediction, model.schedule.solver)[request.scheduler]
        config = model.config("scheduler")
        if learns_variance(config) and not (request.learned_variance and class_name in READ_VARIANCE):
            config["variance_type"] = FIXED_VARIANCE
        given["scheduler"] = getattr(library, class_name).from_config(config, **options)
        if NOISING in accepted:
            class_name = model.class_name(NOISING)
            given[NOISING] = getattr(library, class_name).from_config(model.config(NOISING))
    pipeline = cls(**(given | dict(parts)))
    pipeline.vae_scale_factor = model.latent_factor
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_latents(
    pipeline: Any,
    model: ModelFolder,
    request: SampleRequest,
    words: tuple[Conditioning[Tensor], Conditioning[Tensor]],
    to_tensor: Callable[[NDArray[np.float32]], Tensor],
    to_array: Callable[[Tensor], NDArray[np.float32]],
    raw: str,
    **more: Any,
) -> NDArray[np.float32]:
    """Latents [N, C, h, w] of the images, as the autoencoder decodes them; of models of pixels the images themselves.

    Args:
        request: with latents for images where those are references.
        words: of the prompts and of the negative prompt, N rows each.
        raw: what the library calls images as its tensors.
        more: what only this library's pipelines are given.
    """
    (positive, negative), patch = words, model.family.patch
    height, width = request.noise.shape[2:4]
    pipeline.default_sample_size = math.sqrt(height * width) * (1 + 1e-9)  # to which HiDream's brings other areas
    given, strength = _words(model, positive, to_tensor), request.guidance_scale
    if model.family.classifier_free and not model.classifier_free:
        strength = model.family.unguided
    if model.classifier_free and strength > model.family.unguided:
        given |= {f"negative_{name}": value for name, value in _words(model, negative, to_tensor).items()}
    squares = stacked(request.noise, patch) if model.family.stacks_squares else pack(request.noise, patch)
    noise, accepted = to_tensor(squares), inspect.signature(type(pipeline).__call__).parameters
    if "max_area" in accepted:  # to which it would enlarge images
        given["max_area"] = height * width * model.latent_factor**2
    if model.family.stacks_squares:
        _lend_statistics(pipeline, squares.shape[1], to_tensor)
    if "latents" in accepted:
        given |= {"latents": noise, "output_type": "latent"}
    else:
        _lend_noise(pipeline, noise, to_tensor(upscaling_noise(request.seeds, request.noise.shape[1:])))
        given |= {"output_type": raw}
    if request.images is not None and model.family.reference_time is None:
        given |= {"image": to_tensor(request.images), "noise_level": request.noise_level}
    elif request.images is not None:
        given |= _reference(pipeline, model, request.images, to_tensor)
    made, *_ = pipeline(
        **given,
        num_inference_steps=request.steps,
        **{model.family.guidance_argument: strength},
        **model.family.pipeline_options,
        height=height * model.latent_factor,
        width=width * model.latent_factor,
        return_dict=False,
        **more,
    )
    latents: NDArray[np.float32] = unpack(to_array(made), patch, (height, width))
    if not np.isfinite(latents).all():
        raise RunError(
            f"images: the {model.family.denoiser} answers with numbers that are not finite; its weights are damaged, "
            "or too large for this precision (--mixed_precision no)"
        )
    return model.latents.unscaled(latents)


def _reference(
    pipeline: Any, model: ModelFolder, latents: NDArray[np.float32], to_tensor: Callable[[NDArray[Any]], Any]
) -> dict[str, Any]:
    """The pipeline's arguments for reference images, of which these are the latents [N, C, h, w].

    Kontext's takes latents for images.  Flux.2's encodes pictures, one for all images: it is lent what that would give.
    """
    if not model.family.stacks_squares:
        return {"image": to_tensor(latents)}
    n, _, height, width = latents.shape
    ids = FamilyInputs(model.family).extra(list, (height, width), refers=True)["image_ids"]
    ids = np.repeat(np.asarray(ids)[None, len(ids) // 2 :], n, 0)
    tokens = to_tensor(pack(latents, model.family.patch)), to_tensor(ids)
    pipeline.prepare_image_latents = lambda *_, **__: tokens
    return {"image": [Image.new("RGB", (64, 64))]}  # which it looks at, and no more


def _words(
    model: ModelFolder, words: Conditioning[Tensor], to_tensor: Callable[[NDArray[Any]], Tensor]
) -> dict[str, Any]:
    """The pipeline's arguments, from what the denoiser sees of the prompts; masks leave out what only it sees."""
    family = model.family
    values = words.values(family) | {name: to_tensor(mask) for name, mask in words.masks(family, 0).items()}
    return {argument: values[name] for argument, name in family.pipeline.items() if name in values}


def _lend_statistics(pipeline: Any, channels: int, to_tensor: Callable[[NDArray[np.float32]], Any]) -> None:
    """Let a pipeline that unscales latents, as Flux.2's do by their autoencoders' statistics, leave them as they are.

    The statistics that it is lent are of mean 0 and variance 1: latents are unscaled here, for every pipeline alike.
    """
    ones = np.ones(channels, np.float32)
    statistics = SimpleNamespace(running_mean=to_tensor(0 * ones), running_var=to_tensor(ones))
    pipeline.vae = SimpleNamespace(bn=statistics, config=SimpleNamespace(batch_norm_eps=0.0), dtype=None)


def _lend_noise(pipeline: Any, first: Any, start: Any) -> None:
    """Let a pipeline of pixels begin with this noise, and one that upscales add that to the smaller image, which it
    would draw from its library's generators: so images are the same on every backend."""
    sigma = pipeline.scheduler.init_noise_sigma
    pipeline.prepare_intermediate_images = lambda *_, **__: first * sigma
    if hasattr(pipeline, NOISING):
        scheduler = getattr(pipeline, NOISING)
        add = scheduler.add_noise
        scheduler.add_noise = lambda images, _, timesteps: add(images, start, timesteps)


def scaled(
    mean: NDArray[np.float32], std: NDArray[np.float32], model: ModelFolder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the autoencoder answers, each [N, C, h, w], shifted and scaled to what the denoiser learns from.

    Raises:
        RunError: it is not finite.
    """
    check_autoencoder(mean, model)
    check_autoencoder(std, model)
    return model.latents.scaled(mean, std)


def to_pixels(decoded: NDArray[np.float32], model: ModelFolder) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [−1, 1], as the autoencoder answers, to images [N, H, W, 3].

    Raises:
        RunError: it is not finite.
    """
    check_autoencoder(decoded, model)
    levels = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    return np.ascontiguousarray(levels.round().astype(np.uint8).transpose(0, 2, 3, 1))


def check_autoencoder(answer: NDArray[np.float32], model: ModelFolder) -> None:
    """Raise RunError where the autoencoder's answer is not finite: an image of it would be black.

    It computes in float32 on every backend, so its weights are to blame: those of SDXL's first fp16 files, for example.
    """
    if not np.isfinite(answer).all():
        raise RunError(
            f"the autoencoder ({model.folder(str(model.family.vae))}) answers with numbers that are not finite, though "
            "it computes in float32: its weights are damaged, or were saved in fp16, which they exceed; fetch it anew, "
            "leave --variant out, or give another with --pretrained_vae_model_name_or_path"
        )
