"""Models from a Hub: Hugging Face's own client against a small server that HF_ENDPOINT names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import needs
from ..support.hub_server import Hub, run_with

pytestmark = needs.torch

OPEN = """
import sys
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
try:
    model = ModelFolder.open(sys.argv[1], *(a or None for a in sys.argv[2:]))
    print(*sorted(str(f.relative_to(model.path)) for f in model.path.rglob("*") if f.is_file()))
except ConfigError as error:
    print("refused:", error)
"""


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "repo"))
    for name in ("unet/diffusion_pytorch_model.bin", "unet/flax_model.msgpack", "v1-5.ckpt", "README.md"):
        (folder / name).write_bytes(b"not needed")
    hub = Hub(folder)
    yield hub
    hub.close()


def opened(name: str, endpoint: str, home: Path, revision: str = "", **environment: str) -> str:
    return run_with(endpoint, home, OPEN, name, revision, **environment)


def test_what_is_needed_is_fetched_once(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    endpoint = hub.endpoint
    wanted = " ".join(sorted(str(f.relative_to(tiny_model)) for f in tiny_model.rglob("*") if f.is_file()))
    assert opened("someone/tiny", endpoint, tmp_path / "home") == wanted
    assert sorted(hub.asked) == wanted.split()
    opened("someone/tiny", endpoint, tmp_path / "home")
    assert sorted(hub.asked) == wanted.split(), "from the cache, the second time"
    gone = "http://127.0.0.1:9"
    assert opened("someone/tiny", gone, tmp_path / "home") == wanted, "the cache serves without a network"
    assert "Hub cannot be reached" in opened("someone/tiny", gone, tmp_path / "empty")
    assert "Hub cannot be reached" in opened("someone/tiny", endpoint, tmp_path / "empty", HF_HUB_OFFLINE="1")


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    endpoint = hub.endpoint
    said = opened("runwayml/stable-diffusion-v1-5", endpoint, tmp_path / "home")
    assert said.startswith("refused: pretrained_model_name_or_path: runwayml/stable-diffusion-v1-5: no such model")
    assert said.endswith("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert "revision: 'v9' does not exist" in opened("someone/tiny", endpoint, tmp_path / "home", "v9")
