"""The card of a published model: what it says, and what it must not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dreamcore.config import TrainConfig
from dreamcore.families import FAMILIES
from dreamcore.hub.card import FAMILY_TAGS, LICENSES, Local, model_card
from dreamcore.hub.client import is_repo_id
from dreamcore.hub.models import SUCCESSORS
from dreamcore.hub.seal import is_card, is_untouched, sealed
from dreamcore.version import __version__

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SETTINGS: dict[str, Any] = {
    "pretrained_model_name_or_path": SDXL,
    "backend": "mindspore",
    "instance_data_dir": "/home/somebody/photographs",
    "instance_prompt": "a photo of {identifier} {class}",
    "identifier": "sks",
    "class_word": "dog",
    "validation_prompt": "{instance_prompt} in snow",
    "use_lora": True,
    "rank": 8,
    "learning_rate": 1e-4,
    "lr_scheduler": "cosine",
    "mixed_precision": "bf16",
    "output_dir": "/home/somebody/runs/dog",
}
IMAGES = ["samples/step-000400-0.png", "samples/step-000400-1.png"]


def parts(card: str) -> tuple[dict[str, Any], str]:
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def code(body: str) -> str:
    found = re.search(r"^(`{3,})python\n(.*?)^\1$", body, re.DOTALL | re.MULTILINE)
    assert found
    ast.parse(found[2])
    return found[2]


def test_a_lora_card() -> None:
    header, body = parts(model_card("me/dog", "StableDiffusionXLPipeline", SETTINGS, IMAGES, 400))
    tags = ["text-to-image", "diffusers", "diffusers-training", "dreambooth", "lora", "template:sd-lora"]
    assert header == {
        "base_model": SDXL,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "license": "openrail++",
        "tags": [*tags, "stable-diffusion-xl", "stable-diffusion-xl-diffusers"],
        "instance_prompt": "a photo of sks dog",
        "widget": [{"text": "a photo of sks dog in snow", "output": {"url": name}} for name in IMAGES],
    }
    assert "- `a photo of sks dog`" in body
    assert all(f"]({name})" in body for name in IMAGES)
    assert f'from_pretrained("{SDXL}"' in code(body)
    assert 'load_lora_weights("me/dog", weight_name="pytorch_lora_weights.safetensors")' in code(body)
    assert "pipeline('a photo of sks dog in snow')" in code(body)
    assert f"dreambooth {__version__} on MindSpore" in body
    for row in ("updates | 400", "rank | 8", "lr_scheduler | cosine", "mixed_precision | bf16", "use_lora | yes"):
        assert f"| {row} |" in body


def test_a_card_says_how_other_programs_use_it() -> None:
    card = model_card("me/dog", "StableDiffusionXLPipeline", SETTINGS, IMAGES, 400, "my-dog.safetensors")
    assert "`my-dog.safetensors` is the same for ComfyUI" in card and "`<lora:my-dog:1>`" in card
    assert card.index("load_lora_weights") < card.index("<lora:") < card.index("## Training")
    assert "ComfyUI" not in model_card("me/dog", "StableDiffusionXLPipeline", SETTINGS, IMAGES, 400)


def test_a_card_of_a_whole_model() -> None:
    settings = SETTINGS | {"use_lora": False, "pretrained_model_name_or_path": "/home/somebody/sd"}
    header, body = parts(model_card("me/dog", "StableDiffusionPipeline", settings, []))
    assert "base_model" not in header and "license" not in header and "widget" not in header
    assert "lora" not in header["tags"] and header["tags"][-1] == "stable-diffusion-diffusers"
    assert 'from_pretrained("me/dog"' in code(body) and "lora" not in code(body)
    assert "Sample images" not in body


def test_a_card_in_paddles_layout() -> None:
    paddle = {"export_format": "ppdiffusers", "backend": "paddle"}
    header, body = parts(model_card("me/dog", "StableDiffusionPipeline", SETTINGS | paddle | {"use_lora": False}, []))
    assert header["library_name"] == "ppdiffusers"
    assert "from ppdiffusers import" in code(body)
    header, body = parts(model_card("me/dog", "StableDiffusionPipeline", SETTINGS | paddle, []))
    assert header["library_name"] == "diffusers"
    assert "`paddle_lora_weights.safetensors`" in body and "from diffusers import" in code(body)


def test_several_subjects_and_words_that_come_from_captions() -> None:
    concepts = [
        {"instance_data_dir": "/a", "instance_prompt": "a photo of {identifier} cat", "identifier": "zwx"},
        {"instance_data_dir": "/b", "instance_prompt": "a photo of sks dog"},
        {"instance_data_dir": "/c", "instance_prompt": None},
    ]
    settings = {"concepts": concepts, "validation_prompt": "{instance_prompt} in snow"}
    header, body = parts(model_card("me/pets", "FluxPipeline", settings, IMAGES))
    assert "- `a photo of zwx cat`\n- `a photo of sks dog`\n" in body
    assert header["instance_prompt"] == "a photo of zwx cat"
    header, body = parts(model_card("me/pets", "FluxPipeline", {"validation_prompt": "{instance_prompt}, red"}, IMAGES))
    assert "instance_prompt" not in header and "Trigger words" not in body and "red" not in body
    assert [entry["text"] for entry in header["widget"]] == [" ", " "]


@pytest.mark.parametrize(
    "prompt", ["a `sks` dog", "```", "`", 'a "dog\'s" \\ bowl', "dog\n---\nlicense: mit", "犬 | λ: #"]
)
def test_prompts_break_no_markup(prompt: str) -> None:
    settings = SETTINGS | {"instance_prompt": prompt, "validation_prompt": prompt}
    header, body = parts(model_card("me/dog", "FluxPipeline", settings, IMAGES))
    assert header["instance_prompt"] == " ".join(prompt.split()) and header["license"] == "openrail++"
    assert repr(header["instance_prompt"]) in code(body)


def test_every_family_has_its_tag_and_every_known_model_an_id() -> None:
    assert FAMILY_TAGS.keys() == FAMILIES.keys()
    assert all(is_repo_id(name) and name not in SUCCESSORS for name in LICENSES)
    assert all(("license_link" in said) == (said["license"] == "other") for said in LICENSES.values())


HOME = "somebodyshome"
PLACES = st.sampled_from(["/home/{}/x", "C:\\Users\\{}\\x", "~{}/x", "/{}", "\\\\{}\\x", "/mnt/{}/my dog.jpg"])
SAID = {"instance_prompt", "validation_prompt", "identifier", "class_word"}
"""What a user says for everyone: the rest must not get out."""


@given(st.dictionaries(st.sampled_from(sorted(TrainConfig.model_fields.keys() - SAID)), PLACES), st.booleans(), PLACES)
def test_no_place_on_this_machine_gets_into_a_card(values: dict[str, str], concepts: bool, place: str) -> None:
    settings: dict[str, Any] = {name: value.format(HOME) for name, value in values.items()}
    settings.pop("concepts", None)
    if concepts:
        place = place.format(HOME)
        named = {
            "instance_data_dir": place,
            "class_data_dir": place,
            "validation_data_dir": place,
            "class_prompt": place,
        }
        settings["concepts"] = [named | {"instance_prompt": "a photo of sks dog"}]
    settings |= {"instance_prompt": "a photo of sks dog", "validation_prompt": "{instance_prompt} in snow"}
    assert HOME not in model_card("me/dog", "FluxPipeline", settings, IMAGES, 10)


def test_the_card_in_a_runs_folder_says_what_can_be_typed_beside_it() -> None:
    local = Local('dreambooth generate --lora dog --prompt "a photo of sks dog"', "")
    card = model_card("dog", "StableDiffusionXLPipeline", SETTINGS, IMAGES, 400, "dog.safetensors", local)
    header, body = parts(card)
    assert header["base_model"] == SDXL and "`dog` is this folder." in body
    assert 'load_lora_weights("dog", weight_name="pytorch_lora_weights.safetensors")' in code(body)
    assert f"    {local.generate}\n" in body and "models/checkpoints" not in body
    assert "/home/somebody" not in card


@pytest.mark.parametrize(("pipeline", "a1111"), [("StableDiffusionPipeline", True), ("FluxPipeline", False)])
def test_the_card_of_a_whole_model_in_a_runs_folder(pipeline: str, a1111: bool) -> None:
    local = Local("dreambooth generate --model dog --prompt x", "dreambooth convert dog dog.safetensors")
    settings = SETTINGS | {"use_lora": False, "pretrained_model_name_or_path": "/home/somebody/sd"}
    _, body = parts(model_card("dog", pipeline, settings, [], local=local))
    assert 'from_pretrained("dog"' in code(body) and f"    {local.convert}\n\n" in body
    assert "ComfyUI's `models/checkpoints`" in body and ("models/Stable-diffusion" in body) == a1111
    assert "/home/somebody" not in body
    paddle = settings | {"export_format": "ppdiffusers"}
    _, body = parts(model_card("dog", pipeline, paddle, [], local=local))
    assert 'from_pretrained("dog")' in code(body) and "from_hf_hub" not in body


def test_a_folders_name_breaks_no_code() -> None:
    name = 'my "dog"\\ ```'
    _, body = parts(model_card(name, "StableDiffusionPipeline", SETTINGS, [], local=Local("", "")))
    (call,) = (n for n in ast.walk(ast.parse(code(body))) if isinstance(n, ast.Attribute) and "lora" in n.attr)
    assert name in {n.value for n in ast.walk(ast.parse(code(body))) if isinstance(n, ast.Constant)}, call


def test_a_card_knows_whether_it_was_edited(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    assert not is_card(file) and not is_untouched(file)
    file.write_text(sealed("# dog\n"), encoding="utf-8")
    assert is_card(file) and is_untouched(file)
    file.write_text(sealed("# dog\n") + "\n", encoding="utf-8")
    assert is_card(file) and not is_untouched(file)
    file.write_text(sealed("# dog\n").replace("dog", "cat"), encoding="utf-8")
    assert is_card(file) and not is_untouched(file)
    file.write_text("# mine", encoding="utf-8")
    assert not is_card(file)
