"""`dreambooth convert` and its merge, resize and extract: every form there and back, and what is never left behind."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dreamcore
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import read_lora
from dreamcore.formats.tensors import Tensors
from dreamcore.formats.torch_bin import write_bin
from dreamcore.formats.weights import read_safetensors, write_safetensors
from dreamcore.io.names import LORA_FILE, PADDLE_LORA_FILE

from ..support import needs
from ..support.fork_server import ForkServer
from ..support.lora import ENCODER, UNET, folded, write_lora

LAYERS = [f"{UNET}.to_q", f"{UNET}.to_out.0", f"{ENCODER}.q_proj"]


def run(*words: object) -> int:
    return main(["convert", *map(str, words)])


def same_folders(one: Path, other: Path) -> list[str]:
    """The files in which two folders differ, or that only one has."""
    files = {str(f.relative_to(folder)) for folder in (one, other) for f in folder.rglob("*") if f.is_file()}
    _, different, missing = filecmp.cmpfiles(one, other, files, shallow=False)
    return sorted([*different, *missing])


def digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


@pytest.fixture(scope="module")
def clean_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, without what Paddle's reader may have left beside its weights."""
    clean = shutil.ignore_patterns("*.pdparams")
    return shutil.copytree(tiny_model, tmp_path_factory.mktemp("clean") / "model", ignore=clean)


@pytest.fixture(scope="module")
def lora(clean_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of alpha 1 and rank 2, so that a strength is to be counted, once."""
    return write_lora(clean_model, tmp_path_factory.mktemp("lora") / "lora.safetensors", LAYERS, alpha=1.0)


def differences(file: Path) -> dict[str, np.ndarray]:
    """What a LoRA file adds to each layer."""
    found = {}
    for (component, layer), pair in read_lora(file).items():
        up, down = pair.up.astype("f8"), pair.down.astype("f8")
        found[f"{component}.{layer}"] = pair.scale * up.reshape(len(up), -1) @ down.reshape(len(down), -1)
    return {name: value for name, value in found.items() if value.any()}


def assert_same_lora(one: Path, other: Path, tolerance: float = 1e-6) -> None:
    left, right = differences(one), differences(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(right[name], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=name)


def test_a_model_in_every_form_and_back(clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms = {"file.safetensors": [], "paddle": ["--to", "paddle"], "copy": []}
    for name, words in forms.items():
        for number in (1, 2):
            assert run(clean_model, tmp_path / str(number) / name, *words) == 0
        assert digest(tmp_path / "1" / name) == digest(tmp_path / "2" / name), "the same bytes every time"
    assert not same_folders(clean_model, tmp_path / "1" / "copy")
    assert run(tmp_path / "1" / "paddle", tmp_path / "from paddle") == 0
    assert not same_folders(clean_model, tmp_path / "from paddle")
    assert (tmp_path / "1" / "paddle" / "unet" / "model_state.pdparams").is_file()
    described = ["--original_config", clean_model]
    assert run(tmp_path / "1" / "file.safetensors", tmp_path / "back", *described) == 0
    assert [name for name in same_folders(clean_model, tmp_path / "back") if name.endswith(".safetensors")] == []
    said = capsys.readouterr().out
    assert f"{tmp_path / 'back'}: a folder in diffusers' layout\n" in said
    assert "left out" not in said


def test_what_has_no_place_is_said(clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Averages, as files of training have them, and what the loop noted; all else is in the folder."""
    assert run(clean_model, tmp_path / "a.safetensors") == 0
    arrays = read_safetensors(tmp_path / "a.safetensors")
    more = {f"model_ema.x{number}": np.zeros(1, np.float32) for number in range(9)} | {"model_ema.decay": np.ones(1)}
    write_safetensors(tmp_path / "b.safetensors", {**arrays, **more})
    write_bin(tmp_path / "b.ckpt", {**arrays, **more})
    capsys.readouterr()
    described = ["--original_config", clean_model]
    assert run(tmp_path / "b.safetensors", tmp_path / "b", *described) == 0
    assert capsys.readouterr().out.endswith("left out: model_ema.* (10)\n")
    assert run(tmp_path / "b.ckpt", tmp_path / "c.safetensors", *described) == 2
    assert "--allow_pickle" in capsys.readouterr().err
    assert run(tmp_path / "b.ckpt", tmp_path / "c.safetensors", *described, "--allow_pickle") == 0
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_precision_and_variant(clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(clean_model, tmp_path / "half", "--save_precision", "fp16") == 0
    wanted = read_safetensors(clean_model / "vae" / "diffusion_pytorch_model.safetensors")
    found = Tensors(tmp_path / "half" / "vae" / "diffusion_pytorch_model.safetensors")
    assert set(found.dtypes.values()) == {"F16"}
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value.astype(np.float16))
    for file in (tmp_path / "half").glob("*/*.safetensors"):
        shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    assert run(tmp_path / "half", tmp_path / "plain", "--variant", "fp16") == 0
    said = capsys.readouterr().out
    assert "left out: " in said and "vae/diffusion_pytorch_model.safetensors" in said
    assert digest(tmp_path / "plain" / "unet" / "diffusion_pytorch_model.safetensors") == digest(
        tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors"
    )


def test_pickled_weights_only_with_leave(clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = shutil.copytree(clean_model, tmp_path / "old")
    for file in list(old.glob("*/*.safetensors")):
        write_bin(
            file.with_name(file.stem.replace("model", "pytorch_model", file.stem == "model") + ".bin"),
            read_safetensors(file),
        )
        file.unlink()
    assert run(old, tmp_path / "new") == 2
    assert "holds pickled weights; --allow_pickle reads them" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert run(old, tmp_path / "new", "--allow_pickle") == 0
    assert not same_folders(clean_model, tmp_path / "new")


@pytest.mark.parametrize("form", ["diffusers", "peft", "kohya", "paddle", "mindone"])
def test_a_lora_in_every_form_and_back(
    form: str, lora: Path, clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = ".ckpt" if form == "mindone" else ".safetensors"
    words = [] if form == "mindone" else ["--to", form]
    model = ["--model", clean_model]
    for number in (1, 2):
        assert run(lora, tmp_path / f"{number}{ending}", *words, *model) == 0
    assert (tmp_path / f"1{ending}").read_bytes() == (tmp_path / f"2{ending}").read_bytes()
    assert run(tmp_path / f"1{ending}", tmp_path / "back.safetensors", "--to", "diffusers", *model) == 0
    assert_same_lora(lora, tmp_path / "back.safetensors")
    if form in ("kohya", "diffusers", "peft"):
        assert_same_lora(lora, tmp_path / f"1{ending}")
    said = capsys.readouterr().out
    assert f"a LoRA of 3 layers in the form of {form}" in said
    assert ("layers found: ComfyUI 3 of 3, Forge 3 of 3, diffusers 3 of 3" in said) == (form == "kohya")
    assert "diffusers 3 of 3" in said


def test_a_pickled_lora(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = read_safetensors(lora)
    write_bin(tmp_path / "old.bin", arrays)
    assert run(tmp_path / "old.bin", tmp_path / "new.safetensors", "--to", "peft") == 2
    assert "--allow_pickle" in capsys.readouterr().err
    assert run(tmp_path / "old.bin", tmp_path / "new.safetensors", "--to", "peft", "--allow_pickle") == 0
    assert_same_lora(lora, tmp_path / "new.safetensors")
    first = next(name for name in arrays if "lora_A" in name)
    write_bin(tmp_path / "nan.bin", {**arrays, first: arrays[first] * np.float32(np.nan)})
    assert run(tmp_path / "nan.bin", tmp_path / "x.safetensors", "--to", "peft", "--allow_pickle") == 2
    assert f"lora: {tmp_path / 'nan.bin'}: " in (said := capsys.readouterr().err) and "holds what is no number" in said


def test_a_lora_in_a_folder(lora: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(lora, tmp_path / "empty") == 0
    assert [f.name for f in (tmp_path / "empty").iterdir()] == [LORA_FILE]
    assert run(tmp_path / "empty", tmp_path / "paddles", "--to", "paddle") == 0
    assert run(tmp_path / "paddles", tmp_path / "back.safetensors", "--to", "peft") == 0
    assert (tmp_path / "paddles" / PADDLE_LORA_FILE).is_file()
    assert_same_lora(lora, tmp_path / "back.safetensors")


def test_numbers_that_do_not_change_keep_their_type(lora: Path, clean_model: Path, tmp_path: Path) -> None:
    model = ["--model", clean_model]
    assert run(lora, tmp_path / "half.safetensors", "--to", "kohya", "--save_precision", "fp16", *model) == 0
    assert run(tmp_path / "half.safetensors", tmp_path / "same.safetensors", "--to", "kohya", *model) == 0
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "same.safetensors").read_bytes()
    assert run(tmp_path / "half.safetensors", tmp_path / "folded.safetensors", "--to", "peft", *model) == 0
    assert_same_lora(tmp_path / "half.safetensors", tmp_path / "folded.safetensors")


def test_several_in_one(lora: Path, clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_lora(clean_model, tmp_path / "other.safetensors", [LAYERS[0], f"{UNET}.to_v"], alpha=4.0, seed=1)
    given = ["--lora", lora, other, "--lora_scale", "0.8", "-0.5", "--to", "peft"]
    assert run("merge", tmp_path / "exact.safetensors", *given) == 0
    assert "a LoRA of 4 layers in the form of peft, ranks 2 to 4, fp32" in capsys.readouterr().out
    wanted = {name: 0.8 * value for name, value in differences(lora).items()}
    for name, value in differences(other).items():
        wanted[name] = wanted.get(name, 0) - 0.5 * value
    found = differences(tmp_path / "exact.safetensors")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    made = dreamcore.merge(
        target=str(tmp_path / "two.safetensors"),
        lora=[str(lora), str(other)],
        lora_scale=[0.8, -0.5],
        to="peft",
        rank=2,
    )
    low = differences(tmp_path / "two.safetensors")
    for name, value in wanted.items():
        values = np.linalg.svd(value, compute_uv=False)
        assert made.errors[name] == pytest.approx(np.linalg.norm(values[2:]) / np.linalg.norm(values), abs=1e-5)
        assert np.linalg.norm(low[name] - value) / np.linalg.norm(value) == pytest.approx(made.errors[name], abs=1e-5)


def test_into_a_model_and_out_of_it(
    lora: Path, clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The merged weights are NumPy's; what was merged is found again; the file holds what the folder holds."""
    given = ["--model", clean_model, "--lora", lora, "--lora_scale", "0.5"]
    assert run("merge", tmp_path / "merged", *given) == 0
    assert run("merge", tmp_path / "again", *given) == 0
    assert not same_folders(tmp_path / "merged", tmp_path / "again")
    wanted = folded(clean_model, tmp_path / "wanted", {lora: 0.5})
    changed = same_folders(clean_model, tmp_path / "merged")
    assert changed == ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"]
    for name in changed:
        theirs, ours = read_safetensors(wanted / name), read_safetensors(tmp_path / "merged" / name)
        assert theirs.keys() == ours.keys()
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-6, err_msg=key)
    assert run("merge", tmp_path / "merged.safetensors", *given) == 0
    assert run(tmp_path / "merged", tmp_path / "folder.safetensors") == 0
    assert (tmp_path / "merged.safetensors").read_bytes() == (tmp_path / "folder.safetensors").read_bytes()
    capsys.readouterr()
    out = ["--model", tmp_path / "merged", "--base", clean_model, "--rank", "2"]
    assert run("extract", tmp_path / "out.safetensors", *out) == 0
    said = capsys.readouterr().out
    assert "a LoRA of 3 layers in the form of kohya, rank 2, fp32" in said
    assert "relative error of a layer's weights (Frobenius): mean 0.00%" in said and "0.00% is not in it" in said
    half = {name: 0.5 * value for name, value in differences(lora).items()}
    found = differences(tmp_path / "out.safetensors")
    assert found.keys() == half.keys()
    for name, value in half.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    assert Tensors(tmp_path / "out.safetensors").metadata["ss_base_model_version"] == "sd_v1"


def test_what_lora_does_not_reach_is_named(clean_model: Path, tmp_path: Path) -> None:
    tuned = shutil.copytree(clean_model, tmp_path / "tuned")
    file = tuned / "unet" / "diffusion_pytorch_model.safetensors"
    arrays = read_safetensors(file)
    query, bias = f"{UNET.removeprefix('unet.')}.to_q.weight", "conv_in.bias"
    arrays |= {name: arrays[name] + np.float32(1) for name in (query, bias)}
    write_safetensors(file, arrays)
    made = dreamcore.extract(
        target=str(tmp_path / "x"), pretrained_model_name_or_path=str(tuned), base=str(clean_model), rank=1
    )
    assert list(made.errors) == [f"unet.{query.removesuffix('.weight')}"]
    share = (arrays[bias].size / (arrays[bias].size + arrays[query].size)) ** 0.5
    assert made.notes[0] == f"of the whole change of the networks (Frobenius), {share:.2%} is not in it"
    assert made.notes[1] == "not in it, as LoRA does not reach them: unet/conv_in.bias"
    with pytest.raises(ConfigError, match="base: the models do not differ in any layer that gets LoRA"):
        dreamcore.extract(
            target=str(tmp_path / "y"), pretrained_model_name_or_path=str(clean_model), base=str(clean_model)
        )
    assert not (tmp_path / "y").exists()


def test_another_rank(lora: Path, clean_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", clean_model]
    assert run("resize", lora, tmp_path / "one.safetensors", "--rank", "1", "--save_precision", "fp16", *model) == 0
    said = capsys.readouterr().out
    assert "a LoRA of 3 layers in the form of diffusers, rank 1, fp16" in said and "worst " in said
    assert run("resize", lora, tmp_path / "two.safetensors", "--rank", "7", "--to", "kohya", *model) == 0
    assert "rank 2, fp32\nrelative error of a layer's weights (Frobenius): mean 0.00%" in capsys.readouterr().out
    assert_same_lora(lora, tmp_path / "two.safetensors")


REFUSED: dict[str, tuple[list[str], str]] = {
    "no source": (["NOPE", "OUT"], "source: NOPE: no such file or folder"),
    "nothing in it": (["EMPTY", "OUT"], "source: EMPTY: no model (model_index.json) and no LoRA file"),
    "no form": (["LORA", "OUT.safetensors"], "to: give the form of OUT.safetensors: diffusers, peft, kohya"),
    "a form of models": (["LORA", "OUT.safetensors", "--to", "original"], "to: original is a form of models"),
    "a form of LoRA": (["MODEL", "OUT", "--to", "peft"], "to: peft is a form of LoRA"),
    "an ending": (["MODEL", "OUT.safetensors", "--to", "paddle"], "is a folder; its name ends in .safetensors"),
    "another ending": (["MODEL", "OUT.bin"], "is a folder; its name ends in .bin"),
    "a lora's ending": (["LORA", "OUT.safetensors", "--to", "mindone"], "is a file that ends in .ckpt"),
    "it exists": (["LORA", "LORA", "--to", "peft"], "target: LORA: is there already, and nothing is overwritten"),
    "it is full": (["MODEL", "MODEL"], "target: MODEL: is there already, and nothing is overwritten"),
    "it exists, merging": (["merge", "LORA", "--lora", "LORA", "--to", "peft"], "is there already"),
    "it exists, resizing": (["resize", "LORA", "LORA", "--rank", "1"], "is there already"),
    "it exists, extracting": (["extract", "LORA", "--model", "MODEL", "--base", "MODEL"], "is there already"),
    "a folder that is none": (["LORA", "LORA/OUT", "--to", "diffusers"], "target: LORA: is a file"),
    "no family": (["LORA", "OUT.safetensors", "--to", "kohya"], "its layers do not tell what model they are for"),
    "of a folder": (["MODEL", "OUT", "--sd_version", "1.5"], "sd_version=1.5: acts only on a model in one file"),
    "of a model": (["LORA", "OUT", "--variant", "fp16"], "variant=fp16: acts only on a model's folder"),
    "of a LoRA": (["MODEL", "OUT", "--model", "MODEL"], "pretrained_model_name_or_path=MODEL: acts only on a LoRA"),
    "stray": (["resize", "--rank", "1", "LORA", "OUT"], "SOURCE TARGET come before flags"),
    "a rank of a model": (["merge", "OUT", "--lora", "LORA", "--model", "MODEL", "--rank", "1"], "rank: is of a "),
    "strengths": (["merge", "OUT", "--lora", "LORA", "--lora_scale", "1", "2"], "lora_scale: 2 numbers for 1 LoRA"),
    "another model": (["merge", "OUT", "--lora", "OTHER", "--model", "MODEL"], "this model has no such layer"),
    "no LoRA": (["merge", "OUT", "--lora", "EMPTY"], "lora: EMPTY: no LoRA there"),
    "LoKr": (["LOKR", "OUT", "--to", "diffusers"], "lokr_w1 are not the factors of a LoHa or LoKr layer"),
    "another's flag": (["LORA", "OUT", "--learning_rate", "1"], "learning_rate: unknown setting"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_and_nothing_is_written(
    kind: str,
    lora: Path,
    clean_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = REFUSED[kind]
    Path("EMPTY").mkdir()
    shutil.copy(lora, "LORA.safetensors")
    other = {f"unet.mid_block.nowhere.lora_{side}.weight": np.ones((2, 2), np.float32) for side in "AB"}
    write_safetensors(Path("OTHER.safetensors"), other)
    other = {"lora_unet_mid_block_x.lokr_w1": np.ones((2, 2), np.float32)}
    write_safetensors(Path("LOKR.safetensors"), other)
    Path("MODEL").symlink_to(clean_model)
    there = {path: digest(path) for path in sorted(tmp_path.iterdir())}
    names = {"LORA": "LORA.safetensors", "OTHER": "OTHER.safetensors", "LOKR": "LOKR.safetensors"}
    given = [names.get(word, word).replace("LORA/", "LORA.safetensors/") for word in words]
    assert run(*given) == 2
    said = capsys.readouterr().err.replace("LORA.safetensors", "LORA")
    assert message in said, said
    assert {path: digest(path) for path in sorted(tmp_path.iterdir())} == there


@pytest.fixture(scope="module")
def commands() -> Iterator[ForkServer]:
    with ForkServer(stub=True) as server:
        yield server


def rest(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(("kind", "step"), [("file", 4), ("folder", 9)])
def test_a_killed_conversion_leaves_nothing_under_the_name(
    kind: str, step: int, lora: Path, clean_model: Path, tmp_path: Path, commands: ForkServer
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    out.mkdir()
    words = [clean_model, out / "model"] if kind == "folder" else [lora, out / "l.safetensors", "--to=peft"]
    deaths = 0
    for change in range(1, 200, step):
        code = commands.start(["convert", *map(str, words)], log, die_at=change).wait()
        if rest(out):  # its name is the last of what it needs, whatever is cleared away afterwards
            break
        assert code == -9
        deaths += 1
    assert deaths > 2
    whole = {path.name: digest(path) for path in out.iterdir() if not path.name.startswith(".")}
    shutil.rmtree(words[1]) if kind == "folder" else words[1].unlink()
    assert commands.start(["convert", *map(str, words)], log, die_at=step + 1).wait() == -9
    assert run(*words) == 0
    assert {path.name: digest(path) for path in out.iterdir()} == whole, "what the killed ones began is cleared away"


def test_a_full_disk_says_so_and_leaves_nothing(
    lora: Path, clean_model: Path, tmp_path: Path, commands: ForkServer
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    needs.mount_disk(disk, mebibytes=8)
    try:
        for words in ([str(clean_model), f"{disk}/model"], [str(clean_model), f"{disk}/m.safetensors"]):
            log = tmp_path / "log"
            code = commands.start(["convert", *words], log, fill=[r"open .*/disk/.*safetensors", f"{disk}/b", 0]).wait()
            said = log.read_text()
            assert code == 1 and "no space left on the disk" in said and "give the command again" in said, said
            assert [path.name for path in disk.iterdir()] == ["b"]
            (disk / "b").unlink()
            log.unlink()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
