"""Networks that are built without weights and filled are those that diffusers and transformers load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamcore.models.folder import ModelFolder

from ..support import needs
from ..support.tiny_families import WRITERS

pytestmark = needs.torch


def compare(model: ModelFolder, name: str, **more: Any) -> None:
    """Weights, their layout, buffers, configuration."""
    import torch

    from dreamcore.adapters.torch import models

    component = models.load_component(model, name, torch.device("cpu"), torch.float32)
    assert component.fill() == sum(
        t.nbytes for t in {id(t): t for t in component.network.state_dict(keep_vars=True).values()}.values()
    )
    library, class_name = model.index[name]
    cls = getattr(models.LIBRARIES[library], class_name)
    network, theirs = component.network, cls.from_pretrained(model.folder(name), **model.built_with(name), **more)
    for ours, wanted in ((network.state_dict(), theirs.state_dict()), (named(network), named(theirs))):
        assert ours.keys() == wanted.keys()
        for key, tensor in ours.items():
            other = wanted[key].float() if wanted[key].is_floating_point() else wanted[key]
            assert torch.equal(tensor, other), key
            assert (tensor.dtype, tensor.stride()) == (other.dtype, other.stride()), key
    said, wanted = (dict(vars(n.config)) if hasattr(n.config, "to_dict") else dict(n.config) for n in (network, theirs))
    ignored = {"_name_or_path", "dtype"}
    assert {k: v for k, v in said.items() if k not in ignored} == {k: v for k, v in wanted.items() if k not in ignored}


def named(network: Any) -> dict[str, Any]:
    return dict(network.named_buffers())


@pytest.mark.parametrize("family", WRITERS)
def test_every_component_of_every_family(family: str, family_models: Callable[[str], Path]) -> None:
    model = ModelFolder.open(str(family_models(family)))
    for name in model.networks:
        compare(model, name)


@pytest.mark.parametrize("form", ["bf16", "unaligned", "bin", "old bin"])
def test_other_files(form: str, tiny_model: Path, tmp_path: Path) -> None:
    """In another type, with a header of an odd length, pickled, and pickled before files could be mapped."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    if form == "bf16":
        save_file({n: t.bfloat16() for n, t in tensors.items()}, file, metadata={"format": "pt"})
    elif form == "unaligned":
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        file.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    else:
        file.unlink()
        torch.save(tensors, file.with_suffix(".bin"), _use_new_zipfile_serialization=form == "bin")
    pickled = {"use_safetensors": False} if "bin" in form else {}
    compare(ModelFolder.open(str(folder)), "unet", **pickled)
