"""A small Hub: Hugging Face's own client talks to it where HF_ENDPOINT names it."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
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

            do_HEAD = do_POST = do_PUT = do_GET

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


@dataclass
class Repository:
    """What has been uploaded."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Their summaries."""


@dataclass
class Refusal(Exception):
    """An answer that is no success."""

    status: int
    code: str = ""


class UploadHub(Hub):
    """Takes uploads as the Hub does: plain files inside a commit, large ones before it, by git LFS.

    Args:
        token: the one that it knows.
        account: whose that is.
    """

    def __init__(self, token: str, account: str = "me", organisations: tuple[str, ...] = ()):
        self.token, self.account, self.organisations = token, account, organisations
        self.repositories = dict[str, Repository]()
        self.objects, self.puts = dict[str, bytes](), list[str]()
        """Large files by their hashes; and these, in the order in which they came."""
        self.breaks_at: int | None = None
        """The large file, from 1, from which on the server hangs up in the middle."""
        self.begun = 0
        """Large files whose sending has begun."""
        self.loses_commit = False
        """Hang up once the next commit has been made, before it is said."""
        self.read_only = False
        self.lock = threading.Lock()
        super().__init__(Path())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.split("?")[0])
        if request.command == "PUT" and self.hangs_up():
            request.rfile.read(8)
            return self.hang_up(request)
        body = read_body(request)
        try:
            with self.lock:
                reply = self.reply(request, path, body)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            headers |= (
                {"X-Error-Message": "Invalid credentials in Authorization header"} if refusal.status == 401 else {}
            )
            return self.send(request, refusal.status, b'{"error": "refused"}', headers)
        if reply is None:
            return self.hang_up(request)
        return self.send(request, 200, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def hangs_up(self) -> bool:
        with self.lock:
            self.begun += 1
            return self.breaks_at is not None and self.begun >= self.breaks_at

    @staticmethod
    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    def reply(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> Any:
        """What is answered; None where the line goes dead."""
        if request.command == "PUT":  # to a place of its own, without the token
            return self.put(path.removeprefix("/objects/"), body)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refusal(401)
        if path == "/api/whoami-v2":
            return {"type": "user", "name": self.account, "orgs": [{"name": name} for name in self.organisations]}
        asked = {} if path.endswith("/commit/main") or not body else json.loads(body)
        if path == "/api/repos/create":
            return self.create(asked)
        if path == "/api/validate-yaml":
            assert asked["content"].startswith("---\n")
            return {"errors": [], "warnings": []}
        if path.startswith("/api/models/"):
            owner, name, *what = path.removeprefix("/api/models/").split("/")
            return self.of_repository(f"{owner}/{name}", what, asked, body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return {"objects": [self.object_place(o) for o in asked["objects"]]}
        raise Refusal(404, "RepoNotFound")

    def may_write(self, name: str) -> bool:
        return name.partition("/")[0] in (self.account, *self.organisations) and not self.read_only

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"{asked['organization'] or self.account}/{asked['name']}"
        if not self.may_write(name):
            raise Refusal(403)
        if name in self.repositories:
            raise Refusal(409)
        self.repositories[name] = Repository(bool(asked.get("private")) or asked.get("visibility") == "private")
        return {"url": f"{self.endpoint}/{name}"}

    def of_repository(self, name: str, what: list[str], asked: dict[str, Any], body: bytes) -> Any:
        there = self.repositories.get(name)
        if there is None:
            raise Refusal(404, "RepoNotFound")
        if not what or what[0] == "revision":
            siblings = [{"rfilename": file} for file in there.files]
            return {"id": name, "sha": COMMIT, "private": there.private, "siblings": siblings}
        if not self.may_write(name):
            raise Refusal(403)
        if what == ["preupload", "main"]:
            return {"files": [self.upload_mode(there, file["path"]) for file in asked["files"]]}
        assert what == ["commit", "main"], what
        self.commit(there, [json.loads(line) for line in body.splitlines()])
        if self.loses_commit:
            self.loses_commit = False
            return None
        return {"commitUrl": f"{self.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT}

    @staticmethod
    def upload_mode(there: Repository, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith((".safetensors", ".pdparams", ".model", ".png")) else "regular"
        said = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if (data := there.files.get(path)) is not None:
            as_git = hashlib.sha1(b"blob %d\0" % len(data) + data)
            said["oid"] = (hashlib.sha256(data) if mode == "lfs" else as_git).hexdigest()
        return said

    def object_place(self, asked: dict[str, Any]) -> dict[str, Any]:
        place = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] in self.objects:
            return place
        return place | {"actions": {"upload": {"href": f"{self.endpoint}/objects/{asked['oid']}"}}}

    def put(self, oid: str, data: bytes) -> dict[str, Any]:
        assert hashlib.sha256(data).hexdigest() == oid
        self.objects[oid] = data
        self.puts.append(oid)
        return {}

    def commit(self, there: Repository, lines: list[dict[str, Any]]) -> None:
        files = dict(there.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                summary = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                del files[value["path"]]
        there.files = files
        there.commits.append(summary)


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    """A request's body, of a length that it tells, or in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    parts = []
    while size := int(request.rfile.readline(), 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


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
