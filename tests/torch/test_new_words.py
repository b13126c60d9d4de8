"""Pivotal tuning and textual inversion against a plain loop in the way of diffusers' advanced scripts; and their files
in diffusers' own reader."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import dreamcore
from dreamcore.backends.lora import initial_down
from dreamcore.config import GenerateConfig
from dreamcore.diffusion.randomness import Purpose, generator
from dreamcore.models.embedding_files import open_embeddings
from dreamcore.models.folder import ModelFolder
from dreamcore.training.sample_plan import Plan

from ..support import needs
from ..support.runs import small_run
from .test_parity import ATTENTION, SEED, drawn, folders  # noqa: F401

pytestmark = needs.torch

UPDATES = 6
TOKENS = ["<s0>", "<s1>"]
LORA: dict[str, Any] = {"use_lora": True, "rank": 4, "learning_rate": 2e-3}
CASES: dict[str, dict[str, Any]] = {
    "pivotal tuning": LORA | {"text_encoder_lr": 5e-3, "adam_weight_decay_text_encoder": 0.3},
    "textual inversion": {"train_transformer_frac": 0.0, "train_text_encoder_ti_frac": 1.0, "learning_rate": 5e-3}
    | {"initializer_concept": "a dog"},
}


def first_rows(table: np.ndarray) -> np.ndarray:
    """At random, as widely spread as the table."""
    draws = [generator(SEED, Purpose.NEW_WORD, zlib.crc32(f"clip_l {k}".encode())) for k in range(2)]
    return np.stack([draw.standard_normal(table.shape[1]) for draw in draws]) * table.astype(np.float64).std(ddof=1)


def expected(model: Path, places: list[Path], settings: dict[str, Any]) -> tuple[list[float], np.ndarray]:
    """The losses and the last rows of the loop."""
    import torch

    from ..support.torch_reference import Options, Reference

    trains = settings.get("train_transformer_frac", 1.0) > 0
    options = Options(settings["learning_rate"], UPDATES, rank=settings.get("rank", 1), targets={"unet": ATTENTION})
    loop = Reference(model, options, partial(initial_down, SEED))
    options.train_text_encoder = True  # that gradients pass through it
    table: Any = loop.text_encoder.get_input_embeddings().weight.data.clone()
    loop.tokenizer.add_tokens(TOKENS, special_tokens=True)
    loop.text_encoder.resize_token_embeddings(len(loop.tokenizer))
    weight: Any = loop.text_encoder.get_input_embeddings().weight
    new = torch.tensor(loop.tokenizer.convert_tokens_to_ids(TOKENS))
    known = torch.arange(len(table))
    if like := settings.get("initializer_concept"):
        rows = table[loop.tokenizer(like, add_special_tokens=False).input_ids]
    else:
        rows = torch.from_numpy(first_rows(table.numpy())).float()
    weight.data[known], weight.data[new] = table, rows
    weight.requires_grad_(True)
    factors = loop.parameters if trains else []
    groups = [{"params": factors, "lr": settings["learning_rate"]}] if trains else []
    decay = settings.get("adam_weight_decay_text_encoder", 1e-2)
    rate = settings.get("text_encoder_lr", options.learning_rate)
    groups.append({"params": [weight], "lr": rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, foreach=False)
    plan, losses = Plan.single(SEED, instances=5, batch_size=2), []
    for update in range(UPDATES):
        batch = drawn(plan.micro_batches(update)[0], places, 0.0)
        batch.prompts = ["a photo of <s0><s1> dog"] * 2
        if update >= int(settings.get("train_text_encoder_ti_frac", 0.5) * UPDATES):
            optimizer.param_groups[-1]["lr"] = 0.0
        loss = loop._losses(batch).mean()
        loss.backward()
        weight.grad[known] = 0
        torch.nn.utils.clip_grad_norm_([*factors, weight], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        with torch.no_grad():
            weight[known] = table
            weight[new] *= (table.std() / weight[new].std()) ** 0.1
    return losses, weight[new].detach().numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_plain_loop(case: str, tiny_model: Path, folders: list[Path], tmp_path: Path) -> None:  # noqa: F811
    settings = {"train_text_encoder_ti": True, **CASES[case]}
    run = dreamcore.train(
        pretrained_model_name_or_path=str(tiny_model),
        instance_data_dir=str(folders[0]),
        instance_prompt="a photo of TOK dog",
        center_crop=True,
        output_dir=str(tmp_path / "run"),
        report_to="none",
        backend="torch",
        device="cpu",
        train_batch_size=2,
        max_train_steps=UPDATES,
        seed=SEED,
        **settings,
    )
    losses, rows = expected(tiny_model, folders, settings)
    np.testing.assert_allclose([record["loss"] for record in run.metrics], losses, rtol=1e-5)
    mine = load_file(run.folder / "run_emb.safetensors")["clip_l"]
    np.testing.assert_allclose(mine, rows, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(load_file(run.folder / "learned_embeds.safetensors")["TOK"], mine)
    assert (run.folder / "pytorch_lora_weights.safetensors").exists() == ("use_lora" in settings)
    assert not (run.folder / "model_index.json").exists()


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"])
def test_diffusers_reads_the_files(
    family: str, tiny_model: Path, family_models: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    """`load_textual_inversion`, with the spelling that the card tells: the same words to the denoiser, in every text
    encoder."""
    import diffusers
    import torch

    model = tiny_model if family == "sd" else family_models(family)
    words = {"train_text_encoder_ti": True, "num_new_tokens_per_abstraction": 3, "instance_prompt": "a TOK dog"}
    words |= {"token_abstraction": "TOK, MUG", "use_captions": True, "enable_t5_ti": True if family == "flux" else None}
    (captioned := tmp_path / "photos").mkdir()
    for number, file in enumerate(sorted(photos.iterdir())[:2]):
        (captioned / file.name).write_bytes(file.read_bytes())
        (captioned / file.name).with_suffix(".txt").write_text(["a TOK dog", "a MUG on grass"][number])
    run = small_run(model, captioned, tmp_path / "run", **words, max_train_steps=2, use_lora=True)
    backend: Any = dreamcore_backend(model, run.folder)
    said = backend.text.embeddings(["a MUG beside a TOK dog"])
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model)
    arrays = load_file(run.folder / "run_emb.safetensors")
    tokens = [f"<s{k}>" for k in range(6)]
    names = {"sd": ["clip_l"], "sdxl": ["clip_l", "clip_g"], "flux": ["clip_l", "t5"]}[family]
    assert [*arrays] == sorted(names)
    assert "`MUG` is a new word, and other programs know it as `<s3><s4><s5>`" in (run.folder / "README.md").read_text()
    for name, suffix in zip(names, ("", "_2"), strict=False):
        network, tokenizer = (getattr(pipeline, f"{part}{suffix}") for part in ("text_encoder", "tokenizer"))
        given = {"token": tokens, "text_encoder": network, "tokenizer": tokenizer}
        rows = torch.from_numpy(arrays[name])
        diffusers.loaders.TextualInversionLoaderMixin.load_textual_inversion(pipeline, rows, **given)
    with torch.no_grad():
        theirs = pipeline.encode_prompt("a <s3><s4><s5> beside a <s0><s1><s2> dog", **WITHOUT[family])
    embeds = [t for t in theirs if t is not None][: 2 if family != "sd" else 1]
    for one, other in zip(said.values(backend.family).values(), embeds, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


WITHOUT: dict[str, dict[str, Any]] = {
    "sd": {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False},
    "sdxl": {"do_classifier_free_guidance": False},
    "flux": {"prompt_2": None},
}


def dreamcore_backend(model: Path, run: Path) -> Any:
    """As `generate` has it, with a run's words and without its LoRA."""
    from dreamcore.backends.registry import load_backend

    given = {"pretrained_model_name_or_path": str(model), "prompt": "x", "device": "cpu"}
    folder = ModelFolder.open(str(model))
    backend = load_backend("torch", folder, GenerateConfig.from_mapping(given))
    backend.load_words(open_embeddings(str(run), folder))
    return backend
