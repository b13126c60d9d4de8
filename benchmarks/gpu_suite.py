"""Whether everything that is written for a GPU runs on one: without nox and without a package index.

    python -m benchmarks.gpu_suite                  # the checks, then the contract tests and PyTorch's own
    python -m benchmarks.gpu_suite --checks         # the checks alone: some minutes
    python -m benchmarks.gpu_suite --device cpu --checks   # a machine without a GPU, to try the script

Each check trains the tests' tiny model for three updates on the device and in float32 on the CPU, and compares losses:
within 0.001 in float32, 0.02 in TensorFloat-32 and 16 bits.  The tests take the first GPU by themselves.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LORA: dict[str, Any] = {"use_lora": True, "rank": 4, "learning_rate": 1e-3}
EXACT, NEAR = 1e-3, 2e-2
CHECKS: dict[str, tuple[dict[str, Any], float]] = {
    "float32": ({}, EXACT),
    "float32, LoRA": (LORA, EXACT),
    "TensorFloat-32": ({"allow_tf32": True}, NEAR),
    "bf16": ({"mixed_precision": "bf16"}, NEAR),
    "bf16, LoRA": (LORA | {"mixed_precision": "bf16"}, NEAR),
    "bf16, DoRA": (LORA | {"mixed_precision": "bf16", "use_dora": True}, NEAR),
    "fp16 and its scale": ({"mixed_precision": "fp16"}, NEAR),
    "fp16, LoRA": (LORA | {"mixed_precision": "fp16"}, NEAR),
    "accumulation": ({"mixed_precision": "bf16", "gradient_accumulation_steps": 2}, NEAR),
    "text encoder, average": ({"train_text_encoder": True, "use_ema": True, "mixed_precision": "bf16"}, NEAR),
    "gradient checkpointing": ({"gradient_checkpointing": True, "train_text_encoder": True}, EXACT),
    "channels last": ({"channels_last": True}, EXACT),
    "compiled": ({"compile": True}, EXACT),
    "CUDA graphs": ({"cuda_graphs": True, "gradient_accumulation_steps": 2}, EXACT),
    "CUDA graphs, bf16": ({"cuda_graphs": True, "mixed_precision": "bf16"}, NEAR),
    "CUDA graphs, fp16": ({"cuda_graphs": True, "mixed_precision": "fp16"}, NEAR),
    "CUDA graphs, LoRA": (LORA | {"cuda_graphs": True, "mixed_precision": "bf16"}, NEAR),
    "CUDA graphs, LoRA, base in nf4": (LORA | {"cuda_graphs": True, "quantize_base": "nf4"}, 0.1),
    "CUDA graphs, checkpointing": ({"cuda_graphs": True, "gradient_checkpointing": True}, EXACT),
    "CUDA graphs of what is compiled": ({"cuda_graphs": True, "compile": True}, EXACT),
    "AdamW in 8 bits": ({"use_8bit_adam": True}, NEAR),
    "the optimizer on the host": ({"placement": "cpu", "mixed_precision": "bf16"}, NEAR),
    "updates in the backward pass": ({"fused_backward_pass": True, "max_grad_norm": 0}, EXACT),
    "blocks that wait": (LORA | {"blocks_to_swap": 3, "mixed_precision": "bf16"}, NEAR),
    "base in nf4": (LORA | {"quantize_base": "nf4", "mixed_precision": "bf16"}, 0.1),
    "encoded in bf16, four at once": ({"vae_precision": "bf16", "vae_batch_size": 4}, NEAR),
    "images": ({"validation_prompt": "a dog", "num_validation_images": 2, "validation_num_inference_steps": 2}, EXACT),
}
"""What is tried -> its settings, and how far its losses may lie from float32's on the CPU."""
NO_CPU = {
    *("TensorFloat-32", "fp16 and its scale", "fp16, LoRA", "AdamW in 8 bits", "compiled"),
    *(name for name in CHECKS if name.startswith("CUDA graphs")),
}
"""What a CPU has not, or takes minutes for."""
TESTS = ("tests/contract", "tests/torch")


def main() -> None:
    asked = _arguments()
    import torch

    if asked.device != "cpu" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} finds no GPU here: nothing was tried (--device cpu --checks tries the script)"
        )
        sys.exit(2)
    print(", ".join(f"{name} {_version(name)}" for name in ("torch", "diffusers", "transformers", "peft", "numpy")))
    if asked.device != "cpu":
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    failed = _checks(asked.device)
    if not asked.checks:
        command = [sys.executable, "-m", "pytest", *TESTS, "-q", "-p", "no:cacheprovider", "-m", "not slow", "-rf"]
        print(f"$ {' '.join(command[1:])}", flush=True)
        failed += ["tests"] if subprocess.run([*command, *asked.pytest], cwd=ROOT, check=False).returncode else []
    print(f"did not hold: {', '.join(failed)}" if failed else "all of it holds")
    sys.exit(bool(failed))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not there"


def _checks(device: str) -> list[str]:
    """Names of the checks that did not hold."""
    from tests.support.tiny import draw_photos, write_tiny_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = write_tiny_model(folder / "model"), draw_photos(folder / "photos"), folder, device
        checks = [
            (check, rtol, partial(_apart, *where, settings))
            for check, (settings, rtol) in CHECKS.items()
            if _can_be_tried(check, device)
        ]
        checks.append(("a checkpoint of this device, gone on with", NEAR, partial(_gone_on, *where)))
        return [check for check, rtol, apart in checks if not _holds(check, rtol, apart)]


def _can_be_tried(check: str, device: str) -> bool:
    if check == "AdamW in 8 bits" and device != "cpu" and _version("bitsandbytes") == "is not there":
        print(f"{check}: not tried, bitsandbytes is not there")
        return False
    return device != "cpu" or check not in NO_CPU


def _holds(check: str, rtol: float, apart: Callable[[], float]) -> bool:
    try:
        found = apart()
    except Exception as error:  # the others are tried all the same
        traceback.print_exc()
        print(f"{check}: FAILED: {error}", flush=True)
        return False
    print(f"{check}: {'holds' if found <= rtol else 'DOES NOT HOLD'}, losses within {found:.1e}", flush=True)
    return found <= rtol


def _apart(model: Path, photos: Path, folder: Path, device: str, settings: dict[str, Any]) -> float:
    """How far losses lie apart at most, relatively, from those in float32 on the CPU."""
    same = ("use_lora", "rank", "learning_rate", "use_dora", "train_text_encoder", "gradient_accumulation_steps")
    plain = {name: value for name, value in settings.items() if name in same or name == "max_grad_norm"}
    return _most(_losses(model, photos, folder, device, settings), _losses(model, photos, folder, "cpu", plain))


def _most(own: list[float], theirs: list[float]) -> float:
    return max(abs(one / other - 1) for one, other in zip(own, theirs, strict=True))


def _losses(model: Path, photos: Path, folder: Path, device: str, settings: dict[str, Any], **more: Any) -> list[float]:
    from tests.support.runs import small_run

    if "resume_from_checkpoint" not in more:
        shutil.rmtree(folder / "run", ignore_errors=True)
    given = {"device": device, "max_train_steps": 3, "train_batch_size": 2} | settings | more
    return [record["loss"] for record in small_run(model, photos, folder / "run", **given).metrics]


def _gone_on(model: Path, photos: Path, folder: Path, device: str) -> float:
    """On a GPU not to the bit: some kernels add up in whatever order their threads come."""
    settings: dict[str, Any] = {"checkpointing_steps": 2, "mixed_precision": "bf16"}
    whole = _losses(model, photos, folder, device, settings, max_train_steps=4)
    shutil.rmtree(folder / "run" / "checkpoint-4")
    (folder / "run" / "model_index.json").unlink()
    again = _losses(model, photos, folder, device, settings, max_train_steps=4, resume_from_checkpoint="latest")
    return _most(whole, again)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="of the checks")
    parser.add_argument("--checks", action="store_true", help="without the tests")
    parser.add_argument("pytest", nargs="*", help="more arguments of pytest, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
