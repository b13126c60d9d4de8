"""ppdiffusers and paddlenlp.

Imported once the device is chosen, and not before: ppdiffusers tries an attention kernel on it while it is imported.
"""

from __future__ import annotations

import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of setuptools, on every import
    from ..imports import import_lazily

    # Its task flows, datasets and metrics take 2.3 s of 4.4 (processor time of these imports, AMD EPYC) and 136 MiB of
    # 554, at every command that loads a model.
    import_lazily("paddlenlp")
    import paddlenlp.data  # noqa: F401  # first: it and paddlenlp.transformers import each other
    import ppdiffusers
    import ppdiffusers.transformers

from paddlenlp.utils.log import logger

from .cpu_shim import install

install()
# ppdiffusers puts Python's bool in the place of NumPy's.  Under NumPy 2, np.quantile, np.ma.masked_invalid and
# np.testing's comparison of two numbers then fail in the whole process ('bool' object has no attribute 'view').
np.bool = np.bool_  # type: ignore[misc]
logger.set_level("ERROR")  # theirs are of keys and tokens, which are all checked here
ppdiffusers.utils.logging.set_verbosity_error()
ppdiffusers.utils.logging.disable_progress_bar()
