"""The Paddle backend, on PaddlePaddle, ppdiffusers and paddlenlp."""

from __future__ import annotations

import os
import warnings

from dreamcore.track.verbosity import current

if current() != "verbose":
    os.environ.setdefault("GLOG_minloglevel", "1")  # of ports that it listens on, and flags that it sets itself
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of missing compilers, on every import
    import paddle

paddle.disable_signal_handler()  # as paddlenlp's __init__ does: signals are Python's
