"""A small Hub: Hugging Face's own client talks to it where HF_ENDPOINT names it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from .paths import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves one folder as the repository `name` of `kind`, and counts what is asked for."""

    def __init__(self, folder: Path, kind: str = "models", name: str = "someone/tiny"):
        self.folder, self.asked, self.ranges = folder, list[str](), list[tuple[str, int]]()
        self.kind, self.name = kind, name
        """models or datasets."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return "http://{}:{}".format(*self.server.server_address)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self) -> list[str]:
        return sorted(str(f.relative_to(self.folder)) for f in self.folder.rglob("*") if f.is_file())

    def about(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": "0"}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.split("?")[0])
        api, kept = f"/api/{self.kind}/{self.name}", f"/{self.name}/resolve/{COMMIT}/"
        kept = kept if self.kind == "models" else f"/{self.kind}{kept}"
        path = path.replace("/resolve/main/", f"/resolve/{COMMIT}/")
        if path.startswith(f"{api}/tree/{COMMIT}"):
            self.send(request, 200, json.dumps([self.about(name) for name in self.files()]).encode())
        elif path.startswith(f"{api}/paths-info/{COMMIT}"):
            body = request.rfile.read(int(request.headers["Content-Length"])).decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            self.send(request, 200, json.dumps([self.about(n) for n in self.files() if n in wanted]).encode())
        elif path.startswith(api):
            if "/revision/" in path and path.rsplit("/", 1)[1] not in ("main", COMMIT):
                self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            else:
                files = [{"rfilename": n, "size": (self.folder / n).stat().st_size} for n in self.files()]
                about = {"id": self.name, "sha": COMMIT, "siblings": files}
                self.send(request, 200, json.dumps(about).encode())
        elif path.startswith(kept) and (self.folder / path.removeprefix(kept)).is_file():
            self.send_file(request, path.removeprefix(kept))
        else:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = (self.folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        part = request.headers.get("Range")
        if request.command == "GET" and part and part != "bytes=0-":
            first, last = part.removeprefix("bytes=").split("-")
            whole, data = len(data), data[int(first) : int(last) + 1 if last else None]
            self.ranges.append((name, len(data)))
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{whole}"
            self.send(request, 206, data, headers)
        else:
            if request.command == "GET":
                self.asked.append(name)
            self.send(request, 200, data, headers)

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def run_with(endpoint: str, home: Path, program: str, *words: str, **environment: str) -> str:
    """What a Python program prints that is run with the Hub at `endpoint` and its cache in `home`."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "3"}
    plain = {"PATH": "/usr/bin:/bin", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        env=plain | settings | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
