"""What README and CONTRIBUTING say of families is so; and every known defect of other trainers has its test."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from dreamcore.backends.installed import RANK_VARIABLES
from dreamcore.backends.optimizers import RULES
from dreamcore.config import TrainConfig
from dreamcore.config.used import idle
from dreamcore.config.when import Context
from dreamcore.families import FAMILIES

from ..support.paths import ROOT

TITLES = {"torch": "PyTorch", "paddle": "Paddle", "mindspore": "MindSpore"}
WHAT = {True: "full, LoRA; text encoders too", False: "full, LoRA; CLIP text encoders too"}
METHODS: dict[str, list[dict[str, Any]]] = {
    "DoRA, rsLoRA, PiSSA, LoHa, LoKr; blocks of layers": [
        {"use_dora": True},
        {"use_rslora": True},
        *({"lora_method": method} for method in ("pissa", "loha", "lokr")),
        {"lora_blocks": ["unet.up_blocks.0.attentions.0"]},
    ],
    "new words, of a CLIP, BERT or T5: textual inversion, pivotal tuning": [
        {"train_text_encoder_ti": True, "token_abstraction": "TOK", "instance_prompt": "a photo of TOK dog"}
    ],
    "class images; output preservation": [
        {"with_prior_preservation": True, "class_prompt": "a dog"},
        {"diff_output_preservation": True, "class_prompt": "a dog"},
    ],
    "AdamW, Adafactor, CAME, Lion, Muon, Prodigy, schedule-free AdamW, SGD": [
        {"optimizer": name, "learning_rate": 1.0} for name in sorted({*RULES} - {"adamw8bit"})
    ],
    "AdamW in 8 bits": [{"use_8bit_adam": True}],
    "a base in 4 or 8 bits; weights on the host": [
        {"quantize_base": "nf4"},
        {"quantize_text_encoders": "int8"},
        {"blocks_to_swap": 1},
        {"fused_backward_pass": True, "max_grad_norm": 0.0},
    ],
}
"""Words -> settings beside `use_lora`."""
PITFALLS: dict[str, list[str]] = {
    "prior prompts in another order than their latents": [
        "tests/torch/test_parity.py::test_losses_and_gradient_norms",
        "tests/torch/test_family_parity.py::test_losses_and_gradient_norms",
    ],
    "min-SNR weights of all rows applied to the instances": ["tests/training/test_batches.py::test_a_row_by_hand"],
    "min-SNR wrong for v-prediction, and for flow matching": [
        "tests/diffusion/test_coefficients.py::test_min_snr_means_the_same_in_every_parameterisation",
        "tests/diffusion/test_flow.py::test_a_flow_row_by_hand",
    ],
    "the first row's min-SNR weight for all": ["tests/training/test_batches.py::test_a_row_by_hand"],
    "latents of another image than the caption's": [
        "tests/training/test_batches.py::test_each_row_has_its_own_image_and_words",
    ],
    "flow matching's weights mixed between instances and class images": [
        "tests/torch/test_family_parity.py::test_losses_and_gradient_norms",
    ],
    "class images told the photographs' size and crop": [
        "tests/contract/test_families.py::test_every_sample_brings_its_own_size_and_crop",
        "tests/data/test_records.py::test_a_record_finds_the_crop_again",
    ],
    "random crops drawn once": ["tests/contract/test_families.py::test_every_sample_brings_its_own_size_and_crop"],
    "the same noise on every device": [
        "tests/training/test_batches.py::test_no_two_rows_share_noise_timesteps_or_posterior",
        "tests/torch/test_ranks.py::test_class_images_are_shared_out_and_each_is_different",
    ],
    "offset noise unless it is turned off": ["tests/config/test_config.py::test_what_changes_the_objective_is_off"],
    "two optimizer updates a batch with a loss scale": [
        "tests/torch/test_precision.py::test_a_loss_scale_leaves_one_update_a_batch_accumulated_and_clipped",
        "tests/contract/test_update.py::test_an_overflow_is_skipped_and_halves_the_scale",
    ],
    "a schedule counted in something other than updates": [
        "tests/training/test_learning_rate.py::test_as_in_diffusers",
        "tests/torch/test_parity.py::test_losses_and_gradient_norms",
    ],
    "an overflow applied": ["tests/torch/test_optimizer.py::test_an_overflow_leaves_everything_but_the_scale"],
    "micro-batches left over": [
        "tests/training/test_sample_plan.py::test_updates_per_epoch_by_hand",
        "tests/contract/test_run.py::test_epochs_count_the_longer_list",
    ],
    "padding with zeros": [
        "tests/torch/test_parity.py::test_losses_and_gradient_norms",
        "tests/paddle/test_answers.py::test_networks",
    ],
    "validation disturbing training": ["tests/contract/test_run.py::test_looking_does_not_disturb"],
}
"""Defects of the scripts of other libraries -> what would notice them here."""


def family_rows(*, reasons: bool) -> list[str]:
    """The table of what runs where, in README.md and, with the reasons why not, docs/how-it-works.md."""
    head = ["| family | " + " | ".join(TITLES[name] for name in RANK_VARIABLES) + " |", "|---" * 4 + "|"]
    seen = {id(family): family for family in FAMILIES.values()}
    rows = []
    for family in seen.values():
        trains = [bool(encoder.lora_layers) for encoder in family.text_encoders]
        what = WHAT[all(trains)] if any(trains) else "full, LoRA"
        refers = "; reference images" if family.reference_time is not None else ""
        why = {name: f"no: {reason}" if reasons else "no" for name, reason in family.absent.items()}
        cells = [
            what + (refers if name == "torch" else "") if name in family.backends else why[name]
            for name in RANK_VARIABLES
        ]
        rows.append(f"| {family.name} | {' | '.join(cells)} |")
    return head + rows


def method_rows() -> list[str]:
    """The table of methods in README.md, from when settings act."""

    def acts(settings: dict[str, Any], backend: str) -> bool:
        given = {"pretrained_model_name_or_path": "x", "instance_data_dir": "x", "instance_prompt": "x"}
        config = TrainConfig.from_mapping(given | {"use_lora": True} | settings)
        return not settings.keys() & idle(config, Context(backend)).keys()

    rows = []
    for words, every in METHODS.items():
        found = {name: {acts(settings, name) for settings in every} for name in RANK_VARIABLES}
        assert all(len(answers) == 1 for answers in found.values()), words
        rows.append(f"| {words} | {' | '.join('yes' if True in found[name] else 'no' for name in RANK_VARIABLES)} |")
    return ["| method | " + " | ".join(TITLES[name] for name in RANK_VARIABLES) + " |", "|---" * 4 + "|", *rows]


def test_the_readme_says_which_methods_run_where() -> None:
    table = "\n".join(method_rows())
    assert table in (ROOT / "README.md").read_text(encoding="utf-8"), f"README.md should hold:\n{table}"


@pytest.mark.parametrize(("document", "reasons"), [("README.md", False), ("docs/how-it-works.md", True)])
def test_the_documents_say_what_runs_where(document: str, reasons: bool) -> None:
    table = "\n".join(family_rows(reasons=reasons))
    assert table in (ROOT / document).read_text(encoding="utf-8"), f"{document} should hold:\n{table}"


@pytest.mark.parametrize("defect", PITFALLS)
def test_every_defect_of_others_has_its_test(defect: str) -> None:
    for name in PITFALLS[defect]:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_the_size_of_a_family_is_as_said() -> None:
    """CONTRIBUTING says how many lines each family's file has, and each pass through a transformer."""
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^ +(dreamcore/(?:families|placement)/\w+\.py) +(\d+)", said, re.MULTILINE))
    shared = {"__init__", "base", "encoders", "autoencoders", "packing"}
    files = {f"dreamcore/families/{f.name}" for f in (ROOT / "dreamcore/families").glob("*.py") if f.stem not in shared}
    assert files <= rows.keys()
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in rows}
    assert lines == {name: int(count) for name, count in rows.items()}
    assert max(lines[name] for name in files) <= 80, "a family is a short description"
