"""One process that has imported a backend, and a fork of it for each command: so none waits for the imports again.

Run as a script by the interpreter that the package is installed for; `Forks` is the other end.  Every fork begins from
the same state, and ends as a process of its own does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

TIMEOUT = 240
"""Seconds that a command may take."""


class Forks:
    """Args:
    python: the interpreter.
    folder: where commands run.
    """

    def __init__(self, python: Path, folder: Path, environment: Mapping[str, str]):
        words = [str(python), "-P", __file__]  # neither this folder nor the working one is a place of packages
        self._process = subprocess.Popen(
            words, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, *, words: list[str] | None = None, code: str | None = None) -> tuple[int, str]:
        """The exit code of `dreambooth WORDS`, or of a Python program, and what it has written."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"words": words, "code": code}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["exit"], answer["said"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    _preload()
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as said:
            code = _wait(os.fork() or _child(asked, said.fileno()))
            said.seek(0)
            text = said.read().decode(errors="replace")
        answers.write(json.dumps({"exit": code, "said": text}) + "\n")
        answers.flush()


def _preload() -> None:
    """Import what commands would; nothing here computes yet, so that no thread is lost in a fork."""
    import diffusers
    import peft
    import transformers

    for name in ("dreamcore.adapters.torch.backend", "dreamcore.training.loop", "dreamcore.cli.flags"):
        import_module(name)
    _ = (diffusers.StableDiffusionPipeline, peft.LoraConfig, transformers.CLIPTextModel, transformers.CLIPTokenizer)


def _child(asked: Mapping[str, object], said: int) -> int:
    for stream in (1, 2):
        os.dup2(said, stream)
    os.fsync = lambda file: None  # as in conftest.py
    code = 1
    try:
        if isinstance(asked["code"], str):
            exec(compile(asked["code"], "<document>", "exec"), {"__name__": "__main__"})
            code = 0
        else:
            from dreamcore.cli.main import main

            sys.argv = ["dreambooth", *map(str, asked["words"] or [])]  # type: ignore[call-overload]
            code = main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    watched = os.pidfd_open(child)
    try:
        if not select.select([watched], [], [], TIMEOUT)[0]:
            os.kill(child, 9)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(watched)


if __name__ == "__main__":
    serve()
