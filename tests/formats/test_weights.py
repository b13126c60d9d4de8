"""Weights are read from every form of file, completely, and nothing in a file is ever run."""

from __future__ import annotations

import json
import pickle  # noqa: TID251  # to write what the reader must refuse
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.backends.lora import Lora
from dreamcore.errors import ConfigError
from dreamcore.formats.lora import factors_for, read_lora
from dreamcore.formats.pdparams import NAMES, read_pdparams, write_pdparams
from dreamcore.formats.weights import known_names, misfit, open_weights, read_weights, swap_layout, write_safetensors

ARRAYS = {
    "a.linear.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.norm.weight": np.arange(3, dtype=np.float16),
    "steps": np.array([7], np.int64),
}


class Hostile:
    """Runs a command when it is unpickled by anyone who lets it."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_arrays_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "many.safetensors", {f"{n:02}": np.zeros(n % 3 + 1, np.float32) for n in range(40)})
    assert list(read_weights([tmp_path / "many.safetensors"])) == [f"{n:02}" for n in range(40)]


def test_both_names_of_t5s_table_are_known() -> None:
    table = np.ones((2, 3), np.float32)
    for names in (["shared.weight"], ["encoder.embed_tokens.weight"], ["shared.weight", "encoder.embed_tokens.weight"]):
        assert known_names(dict.fromkeys(names, table), ["shared.weight"]).keys() == {"shared.weight"}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickled_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(pickle.dumps({**ARRAYS, NAMES: dict.fromkeys(ARRAYS, "linear_0.w_0")}, protocol))
    found = read_pdparams(file)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("function", [subprocess.call, Path.write_text, eval, np.load, np.fromfile])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_file_runs_nothing(function: Any, protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    arguments = {
        subprocess.call: (["touch", str(victim)],),
        Path.write_text: (victim, "x"),
        eval: (f"open({str(victim)!r}, 'w')",),
    }.get(function, (str(victim),))
    for content in (Hostile(function, *arguments), {**ARRAYS, "b": Hostile(function, *arguments)}):
        file = tmp_path / "model_state.pdparams"
        file.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(ConfigError, match=r"model_state\.pdparams: holds .*only arrays are read"):
            read_pdparams(file)
        assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",  # an array of a terabyte
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntVb\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        pickle.dumps({"a": np.array([{}], object)}),
        pickle.dumps({"a": np.array(["x"])}),
        pickle.dumps({"a": "no array"}),
        pickle.dumps({1: ARRAYS["steps"]}),
        pickle.dumps([1, 2]),
        pickle.dumps(ARRAYS)[:-40],
    ],
)
def test_what_is_no_named_array_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model_state\.pdparams: "):
        read_pdparams(file)


def test_pdparams_are_written_as_they_are_read(tmp_path: Path) -> None:
    write_pdparams(tmp_path / "m.pdparams", ARRAYS)
    for name, array in read_pdparams(tmp_path / "m.pdparams").items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_both_libraries_layouts_read_alike(tmp_path: Path) -> None:
    """PyTorch has a Linear weight as [out, in], Paddle as [in, out]; nothing else differs."""
    names = ("ff.net.0.proj", "text_model.embeddings.token_embedding", "conv", "norm")
    shapes = ((2, 3), (5, 4), (2, 3, 1, 1), (3,))
    published = {f"{n}.weight": np.random.rand(*s).astype("f4") for n, s in zip(names, shapes, strict=True)}
    write_safetensors(tmp_path / "model.safetensors", published)
    swapped = {n: v.T if n.startswith("ff") else v for n, v in published.items()}
    write_pdparams(tmp_path / "model_state.pdparams", swapped)
    write_safetensors(tmp_path / "pd.safetensors", swapped, {"format": "pd"})
    for file in ("model.safetensors", "model_state.pdparams", "pd.safetensors"):
        found = read_weights([tmp_path / file])
        entries = open_weights([tmp_path / file])
        for _ in range(2):  # they come and go
            for name, entry in entries.read():
                assert entry.shape == found[name].shape
                np.testing.assert_array_equal(entry.read(), found[name])
        for name, array in published.items():
            np.testing.assert_array_equal(found[name], array)
            np.testing.assert_array_equal(swap_layout(name, swap_layout(name, array)), array)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    """Written by hand: NumPy has no bfloat16, which is the upper half of a float32."""
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    np.testing.assert_array_equal(read_weights([file])["x"], values)
    write_pdparams(tmp_path / "m.pdparams", {"x": halves})
    np.testing.assert_array_equal(read_weights([tmp_path / "m.pdparams"])["x"], values)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"12345678 and more")
    with pytest.raises(ConfigError, match=r"model\.safetensors: cannot be read"):
        read_weights([file])
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin: pickled weights"):
        read_weights([tmp_path / "pytorch_model.bin"])


def test_old_names_are_understood_and_others_are_not() -> None:
    x = np.zeros(1)
    wanted = {"text_model.a.weight": (1,), "mid.attentions.0.to_q.weight": (1,), "mid.attentions.0.to_out.0.bias": (1,)}
    old = {"a.weight": x, "mid.attentions.0.query.weight": x, "mid.attentions.0.proj_attn.bias": x, "position_ids": x}
    assert misfit(known_names(old, wanted), wanted) is None
    assert misfit(known_names({**old, "b.weight": x}, wanted), wanted) == "unexpected keys: b.weight"
    del old["a.weight"]
    assert misfit(known_names(old, wanted), wanted) == "missing keys: text_model.a.weight"
    assert misfit({"a": x}, {"a": (2,)}) == "mismatched keys: a"


def test_lora_files_of_several_dialects(tmp_path: Path) -> None:
    down, up = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
    dialects = (("lora.down.weight", "lora.up.weight"), ("lora_A.weight", "lora_B.weight"))
    for number, (first, second) in enumerate(dialects):
        file = tmp_path / f"{number}.safetensors"
        write_safetensors(file, {f"unet.mid.to_q.{first}": down, f"unet.mid.to_q.{second}": up})
        ((key, pair),) = read_lora(file).items()
        assert (key, pair.scale, pair.down.shape, pair.up.shape) == (("unet", "mid.to_q"), 1.0, (2, 3), (4, 2))
    write_safetensors(file, {**load_file(file), "unet.mid.to_q.alpha": np.array(4.0, np.float32)})
    assert read_lora(file)["unet", "mid.to_q"].scale == 2.0
    write_safetensors(file, {"lora_unet_mid_to_q.lora_down.weight": down})
    with pytest.raises(ConfigError, match=r"lora_unet_mid_to_q\.lora_down\.weight: a name of no layer"):
        read_lora(file)
    write_safetensors(file, {"unet.mid.to_q.lora.down.weight": down})
    with pytest.raises(ConfigError, match=r"unet\.mid\.to_q: has only down"):
        read_lora(file)


def test_old_names_of_layers_are_found(tmp_path: Path) -> None:
    down, up = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
    names = {  # as they stand in files -> as the model names them
        "unet.mid.attn1.processor.to_q_lora.{}.weight": ("unet", "mid.attn1.to_q"),
        "unet.mid.attn1.processor.to_out_lora.{}.weight": ("unet", "mid.attn1.to_out.0"),
        "text_encoder.encoder.layers.0.q_proj.lora_linear_layer.{}.weight": (
            "text_encoder",
            "text_model.encoder.layers.0.q_proj",
        ),
    }
    file = tmp_path / "old.safetensors"
    write_safetensors(file, {n.format(kind): a for n in names for kind, a in (("down", down), ("up", up))})
    shapes: dict[str, dict[str, tuple[int, ...]]] = {"unet": {}, "text_encoder": {}}
    for component, layer in names.values():
        shapes[component][layer] = (4, 3)
    assert set(factors_for(file, shapes)) == set(names.values())
    shapes["unet"]["mid.attn1.to_q"] = (4, 4)
    with pytest.raises(ConfigError, match=r"lora: .*unet\.mid\.attn1\.to_q: factors \(2, 3\) and \(4, 2\) do not fit"):
        factors_for(file, shapes)
    del shapes["unet"]["mid.attn1.to_q"]
    with pytest.raises(ConfigError, match=r"lora: .*unet\.mid\.attn1\.to_q: this model has no such layer"):
        factors_for(file, shapes)


def test_which_layers_get_factors() -> None:
    lora = Lora(4, 8.0, 0.0, 0, {"unet": ("to_q", "to_out.0")}, {"unet": ("down.1.",)})
    names = ["down.0.to_q", "down.1.to_q", "mid.to_out.0", "mid.to_out", "mid.into_q", "to_q"]
    assert lora.chosen("unet", names) == {"down.0.to_q", "mid.to_out.0", "to_q"}
    assert lora.scale == 2.0
    with pytest.raises(ConfigError, match=r"lora_layers: to_q, to_out\.0: no layer of the unet has such a name"):
        lora.chosen("unet", ["mid.to_k"])


def test_published_names_of_a_model_of_words_and_images() -> None:
    """Qwen 2.5 VL's, which transformers 4.52 renamed; and those that are the same today stay."""
    x = np.zeros(1, np.float32)
    wanted = ["model.language_model.norm.weight", "model.visual.norm.weight", "lm_head.weight"]
    published = {"model.norm.weight": x, "visual.norm.weight": x, "lm_head.weight": x}
    assert [*known_names(published, wanted)] == wanted
    assert [*known_names(dict.fromkeys(wanted, x), wanted)] == wanted
    assert [*known_names(published, published)] == [*published], "as older libraries have them"
    assert "model.else.weight" in known_names({"model.else.weight": x}, wanted), "and is refused by name"
