"""What is shown of a download, whatever the version of the Hub's client: all bytes of all files, and no other bar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.hub_server import Hub, run_with

FETCH = """
import sys
from contextlib import redirect_stderr
from io import StringIO
from dreamcore.hub.models import download
from dreamcore.io.progress import told

class Account:
    def began(self, work): print("began", work.what, work.total, work.unit)
    def changed(self, work): pass
    def finished(self, work, *, failed): print("finished", work.done, failed)

def fetch():
    with redirect_stderr(StringIO()) as said, told(Account()):
        folder = download("someone/tiny", None, None)
    print(len(list(folder.rglob("*.safetensors"))), "files", repr(said.getvalue()))
    return folder

fetch()
kept = fetch() / "vae" / "model.safetensors"
kept.resolve().unlink()
kept.unlink(missing_ok=True)
fetch()
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for name, size in (("unet/diffusion_pytorch_model.safetensors", 3_000_000), ("vae/model.safetensors", 70_000)):
        (tmp_path / "repo" / name).parent.mkdir(parents=True)
        (tmp_path / "repo" / name).write_bytes(bytes([len(name)]) * size)
    (tmp_path / "repo" / "model_index.json").write_text("{}")
    (tmp_path / "repo" / "unet" / "flax_model.msgpack").write_bytes(b"not needed")
    hub = Hub(tmp_path / "repo")
    yield hub
    hub.close()


def test_one_bar_for_all_that_is_missing(hub: Hub, tmp_path: Path) -> None:
    assert run_with(hub.endpoint, tmp_path / "home", FETCH).splitlines() == [
        *("began downloading someone/tiny 3070002 bytes", "finished 3070002 False", "2 files ''"),
        "2 files ''",  # all of it is there
        *("began downloading someone/tiny 70000 bytes", "finished 70000 False", "2 files ''"),
    ]
