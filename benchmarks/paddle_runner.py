"""Runs a training program on Paddle in this process and writes down what its updates took.

`python -m benchmarks.paddle_runner RESULT PROGRAM ARGUMENTS ...`; PROGRAM is a script's path, or `dreambooth`.  An
update ends where the optimizer's step returns, which both call once an update.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    result, program, *arguments = sys.argv[1:]
    ends: list[tuple[float, float]] = []
    if program != "dreambooth":
        sys.path.insert(0, str(Path(program).parent))
    import paddle

    step = paddle.optimizer.AdamW.step

    def timed(self: Any) -> Any:
        done = step(self)
        ends.append((time.perf_counter(), time.process_time()))  # of the process: its threads' too
        return done

    paddle.optimizer.AdamW.step = timed
    sys.argv = [program, *arguments]
    code: Any = 0
    if program == "dreambooth":
        from dreamcore.cli.main import main as dreambooth

        code = dreambooth()
    else:
        runpy.run_path(program, run_name="__main__")
    Path(result).write_text(json.dumps(ends), encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
