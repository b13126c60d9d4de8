"""`python -m dreambooth`, `torchrun -m dreambooth`, `accelerate launch -m dreambooth`: the `dreambooth` command."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python looks for modules in the working folder first, where a folder named `datasets`, of another trainer's clone
    # or of photographs, would be taken for the library of that name.
    here = Path.cwd()
    if not (here / "dreamcore").is_dir():
        sys.path[:] = [place for place in sys.path if place not in ("", str(here))]
    from dreamcore.cli.main import main

    sys.exit(main())
