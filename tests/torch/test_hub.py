"""Models from a Hub: Hugging Face's own client against a small server that HF_ENDPOINT names."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .. import needs

pytestmark = needs.torch

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPEN = """
import sys
import conftest
from dreamcore.errors import ConfigError
from dreamcore.modelfolder import ModelFolder
try:
    model = ModelFolder.open(sys.argv[1], *(a or None for a in sys.argv[2:]))
    print(*sorted(str(f.relative_to(model.path)) for f in model.path.rglob("*") if f.is_file()))
except ConfigError as error:
    print("refused:", error)
"""


class Hub:
    """Serves one folder as the repository someone/tiny, and counts what is asked for."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder, list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def files(self) -> list[str]:
        return sorted(str(f.relative_to(self.folder)) for f in self.folder.rglob("*") if f.is_file())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, kept = request.path.split("?")[0], f"/someone/tiny/resolve/{COMMIT}/"
        if path.startswith(f"/api/models/someone/tiny/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": "0"} for n in self.files()
            ]
            self.send(request, 200, json.dumps(tree).encode())
        elif path.startswith("/api/models/someone/tiny"):
            if "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", COMMIT):
                self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                about = {"id": "someone/tiny", "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files()]}
                self.send(request, 200, json.dumps(about).encode())
        elif path.startswith(kept) and (self.folder / path.removeprefix(kept)).is_file():
            if request.command == "GET":
                self.asked.append(path.removeprefix(kept))
            data = (self.folder / path.removeprefix(kept)).read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.send(request, 200, data, {"ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "repo"))
    for name in ("unet/diffusion_pytorch_model.bin", "unet/flax_model.msgpack", "v1-5.ckpt", "README.md"):
        (folder / name).write_bytes(b"not needed")
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def opened(name: str, endpoint: str, home: Path, revision: str = "", **environment: str) -> str:
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "3"}
    plain = {"PATH": "/usr/bin:/bin", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = subprocess.run(
        [sys.executable, "-c", OPEN, name, revision],
        cwd=ROOT,
        env=plain | settings | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_what_is_needed_is_fetched_once(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    endpoint = "http://{}:{}".format(*hub.server.server_address)
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
    endpoint = "http://{}:{}".format(*hub.server.server_address)
    said = opened("runwayml/stable-diffusion-v1-5", endpoint, tmp_path / "home")
    assert said.startswith("refused: pretrained_model_name_or_path: runwayml/stable-diffusion-v1-5: no such model")
    assert said.endswith("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert "revision: 'v9' does not exist" in opened("someone/tiny", endpoint, tmp_path / "home", "v9")
