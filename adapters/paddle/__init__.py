"""The Paddle backend, on PaddlePaddle, ppdiffusers and paddlenlp."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of missing compilers, on every import
    import paddle

paddle.disable_signal_handler()  # as paddlenlp's __init__ does: signals are Python's
