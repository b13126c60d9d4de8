"""What is fetched from the Hub goes into the folder that is named for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support import needs
from ..support.hub_server import Hub, run_with

pytestmark = needs.torch

OPEN = """
import sys
from dreamcore.config import TrainConfig
from dreamcore.models.folder import ModelFolder
cache, *models = sys.argv[1:]
for name in models:
    given = {"instance_data_dir": "d", "instance_prompt": "p", "cache_dir": cache}
    given["pretrained_model_name_or_path"] = name
    if name != "someone/tiny":
        given |= {"pretrained_unet_name_or_path": "someone/tiny", "tokenizer_name": "someone/tiny"}
    model = ModelFolder.of(TrainConfig.from_mapping(given))
    print(*(model.folder(component) for component in ("vae", "unet", "tokenizer")), sep="\\n")
"""
"""Where the components of models lie; of a folder's, with the Hub's denoiser and tokenizer in place of its own."""


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[Hub]:
    hub = Hub(tiny_model)
    yield hub
    hub.close()


def test_what_is_fetched_goes_where_it_is_asked_to(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    """And to no other folder; from there it comes without a network."""
    cache, home = tmp_path / "cache", tmp_path / "home"
    for endpoint in (hub.endpoint, "http://127.0.0.1:9"):
        lines = run_with(endpoint, home, OPEN, str(cache), "someone/tiny", str(tiny_model)).splitlines()
        places = [Path(line) for line in lines]
        assert all(place.is_relative_to(cache) and place.is_dir() for place in places[:3])
        assert places[3:] == [tiny_model / "vae", *places[1:3]]
    assert len(hub.asked) == len(set(hub.asked)), "once"
    assert [f for f in home.rglob("*") if f.is_file() and f.stat().st_size > 1000] == []
