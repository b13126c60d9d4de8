"""What a LoRA run leaves for other programs, and the precision of what is written."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.errors import ConfigError, RunError
from dreamcore.formats.lora import read_lora
from dreamcore.formats.tensors import Tensors
from dreamcore.io.names import LORA_FILE, lora_name
from dreamcore.training import lora_export

from ..support.stub_backend import LORA_LAYER
from ..support.stub_runs import manifest, train

NAME = "my dog.safetensors"
LORA: dict[str, Any] = {"use_lora": True, "rank": 2, "lora_alpha": 4.0}
KOHYA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "my dog"


def test_a_file_that_bears_the_folders_name(stub_model: Path, drawn: Path, folder: Path) -> None:
    train(stub_model, drawn, folder, **LORA, metadata_author="me", training_comment="a mug")
    file = Tensors(folder / NAME)
    assert (file[f"{KOHYA}.lora_down.weight"] == 4).all() and file[f"{KOHYA}.lora_down.weight"].shape == (2, 4)
    assert (file[f"{KOHYA}.lora_up.weight"] == np.float32(1 / 3)).all() and file[f"{KOHYA}.alpha"] == 4
    key = tuple(LORA_LAYER.split(".", 1))
    ours, theirs = (read_lora(folder / name)[key] for name in (LORA_FILE, NAME))  # type: ignore[index]
    np.testing.assert_allclose(ours.scale * ours.up @ ours.down, theirs.scale * theirs.up @ theirs.down, rtol=1e-6)
    assert {LORA_FILE, NAME} <= set(manifest(folder)["files"])
    said = file.metadata
    assert (said["ss_network_dim"], said["ss_network_alpha"], said["ss_output_name"]) == ("2", "4", "my dog")
    assert (said["modelspec.author"], said["ss_training_comment"], said["ss_steps"]) == ("me", "a mug", "4")
    assert said["modelspec.trigger_phrase"] == "a photo of a sks mug" and said["ss_seed"] == "0"
    assert said["ss_num_train_images"] == "3" and said["ss_sd_model_name"] == "model"
    picture = said["modelspec.thumbnail"].partition("base64,")[2]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (64, 64)
    whole = b"".join((folder / name).read_bytes() for name in (LORA_FILE, NAME))
    assert str(folder.parent).encode() not in whole and b"photos" not in whole, "folders and captions are private"
    words = f"layers that are found in {NAME}, and by diffusers in {LORA_FILE}: "
    assert words in (folder / "log.txt").read_text()
    found = json.loads((folder / "report_data.json").read_text())["lora"]
    assert {"ComfyUI 1 of 1", "diffusers 1 of 1"} <= set(found.split(", "))


def test_what_it_says_of_itself_is_a_choice(stub_model: Path, drawn: Path, folder: Path) -> None:
    train(stub_model, drawn, folder, **LORA, lora_metadata="all", metadata_title="A mug", max_train_steps=1)
    said = Tensors(folder / NAME).metadata
    assert said["modelspec.title"] == "A mug" and said["ss_sd_model_name"] == str(stub_model)
    assert json.loads(said["ss_tag_frequency"]) == {drawn.name: {"a photo of a sks mug": 3}}
    train(stub_model, drawn, folder.with_name("b"), **LORA, lora_metadata="none", max_train_steps=1)
    said = Tensors(folder.with_name("b") / "b.safetensors").metadata
    assert not [name for name in said if name.startswith("ss_")] and "modelspec.title" not in said
    with pytest.raises(ConfigError, match="metadata_title='x': acts only without lora_metadata none"):
        train(stub_model, drawn, folder.with_name("c"), **LORA, lora_metadata="none", metadata_title="x")


def test_what_a_program_would_leave_out_is_an_error_once_all_is_safe(
    stub_model: Path, drawn: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_export, "layers_found", lambda *_: {"ComfyUI": (1, 1), "A1111": (0, 1)})
    with pytest.raises(RunError, match="A1111 0 of 1 would be found.*; the files are whole"):
        train(stub_model, drawn, folder, **LORA)
    assert read_lora(folder / NAME) and (folder / "checkpoint-4").is_dir()


def test_nothing_of_a_strangers_is_replaced(stub_model: Path, drawn: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match=f"holds {NAME}, where this run would write"):
        train(stub_model, drawn, folder, **LORA)
    (folder / NAME).unlink()
    train(stub_model, drawn, folder, **LORA, max_train_steps=2)
    other = folder.rename(folder.with_name("other"))
    (other / "other.safetensors").write_bytes(b"somebody's")
    train(stub_model, drawn, other, **LORA, resume_from_checkpoint="latest")
    assert (other / "other-2.safetensors").read_bytes() == b"somebody's", "it came while the run was at rest"
    assert read_lora(other / "other.safetensors") and not (other / NAME).exists(), "ours goes by the new name"


@pytest.mark.parametrize(("precision", "dtype", "third"), [("fp16", "F16", 0.33325195), ("bf16", "BF16", 0.33398438)])
def test_the_precision_of_what_is_written(
    precision: str, dtype: str, third: float, stub_model: Path, drawn: Path, folder: Path
) -> None:
    """A third, in half precision and in bfloat16 (IEEE 754, to the nearest); checkpoints stay in float32."""
    train(stub_model, drawn, folder, **LORA, save_precision=precision)
    up = read_lora(folder / NAME)[tuple(LORA_LAYER.split(".", 1))].up  # type: ignore[index]
    for name in (NAME, LORA_FILE):
        assert {kind for n, kind in Tensors(folder / name).dtypes.items() if not n.endswith(".alpha")} == {dtype}
    assert float(up[0, 0]) == pytest.approx(third, abs=1e-8)
    assert set(Tensors(folder / "checkpoint-4" / LORA_FILE).dtypes.values()) == {"F32"}
    full = folder.with_name("full")
    train(stub_model, drawn, full, save_precision=precision)
    files = sorted(full.glob("[!c]*/*.safetensors"))
    assert {file.parent.name for file in files} == {"unet", "vae", "text_encoder"}
    assert {kind for file in files for kind in Tensors(file).dtypes.values()} == {dtype}
    weights = Tensors(full / "checkpoint-4" / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(weights.dtypes.values()) == {"F32"}


def test_names_that_a_folder_gives() -> None:
    assert lora_name(Path("/")) == "lora.safetensors"
    assert lora_name(Path("/runs/pytorch_lora_weights")) == "pytorch_lora_weights-lora.safetensors"
    assert len(lora_name(Path("/runs") / ("狗" * 80)).encode()) <= 255


def test_a_run_goes_on_with_the_file_that_it_began_with(
    stub_model: Path, drawn: Path, folder: Path, tmp_path: Path
) -> None:
    """Its content is what counts, wherever it lies; `config.yaml` names it."""
    first = train(stub_model, drawn, tmp_path / "first", **LORA, max_train_steps=1).folder
    file = tmp_path / "begin.safetensors"
    shutil.copyfile(first / NAME.replace("my dog", "first"), file)
    given = {"use_lora": True, "max_train_steps": 2, "init_lora": str(file)}
    train(stub_model, drawn, folder, **given)
    assert f"init_lora: {file}\n" in (folder / "config.yaml").read_text()
    again = given | {"resume_from_checkpoint": "latest", "max_train_steps": 3}
    moved = file.rename(tmp_path / "moved.safetensors")
    assert train(stub_model, drawn, folder, **again | {"init_lora": str(moved)}).updates == 3
    train(stub_model, drawn, tmp_path / "second", **LORA, max_train_steps=2)
    for other in (str(tmp_path / "second"), None):
        with pytest.raises(
            ConfigError, match="init_lora: the LoRA file is not the one that the checkpoint's run began"
        ):
            train(stub_model, drawn, folder, **again | {"init_lora": other, "max_train_steps": 4, "rank": 2})


@pytest.mark.parametrize(("kind", "instead"), lora_export._INSTEAD.items())
def test_programs_that_do_not_read_a_kind_are_said(kind: str, instead: str, folder: Path) -> None:
    """Of plain LoRA that is an error; of other kinds it is known, and what to give them instead is said."""
    said: list[str] = []
    readers = [lora_export.Reader("ComfyUI", 4, 4), lora_export.Reader("diffusers", 0, 4)]
    lora_export.tell_readers(lora_export.WrittenLora(readers, kind=kind), folder, said.append)
    assert said[1] == f"diffusers 0 of 4: not all of {kind} is read there; {instead.format(folder)}"
    with pytest.raises(RunError, match="diffusers 0 of 4 would be found"):
        lora_export.tell_readers(lora_export.WrittenLora(readers), folder, said.append)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"use_dora": True, "export_format": "ppdiffusers"}, "use_dora: ppdiffusers reads plain LoRA alone"),
        ({"lora_method": "lokr", "export_format": "ppdiffusers"}, "lora_method: lokr: ppdiffusers reads plain LoRA"),
        ({"lora_method": "loha", "layout": "mindone-sd2"}, "lora_method: loha: the checkpoints of layout mindone-sd2"),
        ({"lora_method": "loha", "init_lora": "a.safetensors"}, "init_lora: given together with lora_method loha"),
        ({"lora_method": "lokr", "use_dora": True}, "use_dora=True: acts only with lora_method lora"),
    ],
    ids=str,
)
def test_what_has_no_place_for_other_factors(
    given: dict[str, Any], words: str, stub_model: Path, drawn: Path, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        train(stub_model, drawn, folder, **LORA, **given)
