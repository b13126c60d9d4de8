"""Thousands of damaged images: each is decoded or refused by name; no crash, no hang, no flood of memory.

Run as a program (`python test_fuzz.py START COUNT`), it feeds them to the decoder; the test runs it in a process of
its own, so that a decoder that crashes or hangs is seen as such.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dreamcore.data.decode import decode_bytes
from dreamcore.data.header import read_header
from dreamcore.errors import ConfigError

from ..support.paths import PHOTOGRAPHS, ROOT

MEMORY = 2 << 30
"""Bytes of address space the process may take: three images of the largest size, and Python itself."""
KINDS = ("jpeg", "progressive", "cmyk", "png", "palette", "grey16", "webp", "gif", "tiff", "bmp", "ppm", "jp2", "avif")


def photographs() -> list[Image.Image]:
    files = sorted(PHOTOGRAPHS.glob("*/0[01].jpg"))
    if files:
        return [Image.open(file).convert("RGB").resize((120, 90)) for file in files]
    y, x = np.mgrid[0:90, 0:120]
    noise = np.random.default_rng(0).integers(0, 60, (90, 120, 3))
    return [Image.fromarray((noise + np.stack([x, y, x + y // 2], -1)).astype(np.uint8))]


def encoded(image: Image.Image, kind: str) -> bytes:
    """A photograph as one of `KINDS`, with orientation and profile where the format has them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more: dict[str, object] = {"exif": exif, "icc_profile": profile}
    name = kind
    if kind in ("progressive", "cmyk"):
        more |= {"progressive": kind == "progressive"}
        image, name = (image.convert("CMYK") if kind == "cmyk" else image), "jpeg"
    elif kind == "palette":
        image, name, more = image.quantize(64), "png", {"transparency": 3}
    elif kind == "grey16":
        image, name = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "png"
    elif kind == "tiff":
        more = {"compression": "tiff_lzw"}
    elif kind == "gif":
        more = {"save_all": True, "append_images": [image.rotate(90)]}
    elif kind in ("bmp", "ppm", "jp2"):
        name, more = {"jp2": "jpeg2000"}.get(kind, kind), {}
    buffer = io.BytesIO()
    image.save(buffer, name, **more)
    return buffer.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, missing, doubled or zeroed; half of the time near the beginning, where the header is."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 600)
    out = bytearray(data)
    way = rng.integers(5)
    if way == 0:
        return data[: int(rng.integers(reach))]
    start = int(rng.integers(reach))
    end = start + int(rng.integers(1, 200))
    if way == 1:
        del out[start:end]
    elif way == 2:
        out[start:start] = out[start:end]
    elif way == 3:
        out[start:end] = bytes(len(out[start:end]))
    else:
        for place in rng.integers(reach, size=int(rng.integers(1, 12))):
            out[place] ^= 1 << int(rng.integers(8))
    return bytes(out)


def feed(start: int, count: int) -> Counter[str]:
    """Decode `count` damaged images and look at their headers; how many went which way.

    AssertionError at the first misbehaviour.
    """
    sources: list[bytes] = []
    for kind in KINDS:
        try:
            sources += [encoded(image, kind) for image in photographs()]
        except (KeyError, OSError) as error:  # an older Pillow without that format
            print(f"left out: {kind}: {error}")
    seen = Counter[str]()
    name = Path(tempfile.mkdtemp()) / "my photo.jpg"
    for number in range(start, start + count):
        data = damaged(sources[number % len(sources)], np.random.default_rng(number))
        try:
            image = decode_bytes(data, name).image
            assert image.mode == "RGB" and image.width * image.height > 0, number
            seen["decoded"] += 1
        except ConfigError as error:
            assert str(error).startswith(f"{name}: "), (number, error)
            seen["refused"] += 1
        name.write_bytes(data)
        try:
            seen["sure" if read_header(name).sure else "unsure"] += 1
        except ConfigError as error:
            assert str(error).startswith(f"{name}: "), (number, error)
    shutil.rmtree(name.parent)
    return seen


@pytest.mark.timeout(280)
def test_damaged_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", __name__, "0", "4000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines() if line.startswith(("decoded ", "refused ")))
    assert int(counts["decoded"]) > 400 and int(counts["refused"]) > 400  # both ways out are really taken


if __name__ == "__main__":
    import resource

    Image.init()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for word, number in feed(int(sys.argv[1]), int(sys.argv[2])).items():
        print(word, number)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MiB")
