"""ppdiffusers and paddlenlp.

Imported once the device is chosen, and not before: ppdiffusers tries an attention kernel on it while it is imported.
"""

from __future__ import annotations

import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of setuptools, on every import
    from ..imports import import_lazily

    import_lazily("paddlenlp")  # its task flows, datasets and metrics take 2 seconds of 5
    import paddlenlp.data  # noqa: F401  # first: it and paddlenlp.transformers import each other
    import ppdiffusers
    import ppdiffusers.transformers

from paddlenlp.utils.log import logger

from .cpu_shim import install

install()
np.bool = np.bool_  # type: ignore[misc]  # ppdiffusers puts Python's in its place, which NumPy 2's own comparisons stumble over
logger.set_level("ERROR")  # theirs are of keys and tokens, which are all checked here
ppdiffusers.utils.logging.set_verbosity_error()
ppdiffusers.utils.logging.disable_progress_bar()
