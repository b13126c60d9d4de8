"""Images on the way out: PNG bytes, and the first noise that a seed stands for."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png_bytes(picture: NDArray[np.uint8], parameters: str | None = None) -> bytes:
    """An image [H, W, 3] as PNG, with the text from which other programs read how it was made."""
    buffer, text = io.BytesIO(), PngInfo()
    if parameters is not None:
        text.add_text("parameters", parameters)
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], columns: int | None = None, gap: int = 4) -> NDArray[np.uint8]:
    """Images of one size [H, W, 3] in a grid on white."""
    columns = columns or min(len(pictures), math.ceil(math.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    h, w, _ = pictures[0].shape
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[y : y + h, x : x + w] = picture
    return sheet
