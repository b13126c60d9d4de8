"""What the C library does with large blocks, as it counts them itself."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from ..support.paths import ROOT

BLOCKS = """
import ctypes
from dreamcore.io.system import keep_blocks_apart

class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]  # the fifth is hblkhd: bytes in pages of their own

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]

def apart(size):
    before = libc.mallinfo2().field4
    block = libc.malloc(ctypes.c_size_t(size))
    found = libc.mallinfo2().field4 - before
    libc.free(block)
    return found >= size

apart(24 * 2**20)  # after which glibc keeps blocks up to this size together
print(apart(8 * 2**20))
keep_blocks_apart()
print(apart(16 * 2**20))  # for which the heap's end, which is used first, has no room
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_large_blocks_have_pages_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
