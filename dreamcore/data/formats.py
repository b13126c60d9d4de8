"""What a file is, told from its first bytes: names lie, and a foreign file must never reach a decoder by chance."""

from __future__ import annotations

import importlib
import re

from PIL import Image

from ..errors import ConfigError, to_install

HEAD_BYTES = 64
"""Bytes of a file that `sniff` looks at."""

EXTRA = "photos"
"""This library's extra that brings the plug-ins."""
# Format -> (package on PyPI, module, function that registers it, or "" where the import does)
_PLUGINS = {
    "HEIF": ("pillow-heif", "pillow_heif", "register_heif_opener"),
    "AVIF": ("pillow-avif-plugin", "pillow_avif", ""),
    "JXL": ("pillow-jxl-plugin", "pillow_jxl", ""),
}

_IMAGE_NAMES = re.compile(
    r"\.(jpe?g|jpe|jfif|png|apng|gif|bmp|dib|webp|tiff?|p[pgbn]m|jp2|j2k|jpx|hei[cf]|hif|avifs?|jxl|qoi)$",
    re.IGNORECASE,
)
# Raw camera files are TIFF inside: a decoder would find their thumbnail and take it for the photograph.
_RAW_NAMES = re.compile(r"\.(dng|cr2|nef|nrw|arw|sr2|pef|orf|rw2|3fr|iiq|srw|erf|mef|kdc|dcr)$", re.IGNORECASE)
_HIDDEN_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")

_MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF"),
    (re.compile(rb"P[1-6][ \t\r\n]+[#0-9]"), "PPM"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), "JPEG2000"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"), "JXL"),
    (re.compile(rb"qoif"), "QOI"),
)
_ARTICLED = {"AVIF": "an"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def sniff(head: bytes) -> str | None:
    """Pillow's name of an image format ("JPEG", "HEIF" ...) from a file's first bytes; None for anything else."""
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIF" if brands & _HEIF_BRANDS else None
    return next((name for pattern, name in _MAGIC if pattern.match(head)), None)


def image_name(name: str) -> bool:
    """Whether a file's name promises an image (one that holds none is then an error, not a foreign file)."""
    return bool(_IMAGE_NAMES.search(name))


def raw_name(name: str) -> bool:
    """Whether a file's name is that of a camera's raw format, which Pillow cannot develop."""
    return bool(_RAW_NAMES.search(name))


def hidden_name(name: str) -> bool:
    """Whether a file or folder belongs to the system and not to the person: .DS_Store, Thumbs.db, ._photo.jpg."""
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def require_decoder(kind: str, what: object) -> None:
    """Make sure that Pillow can open `kind`, a name that `sniff` gave; loads a plug-in if one is installed.

    Raises:
        ConfigError: no plug-in is installed; names the package that has it, and how to get it.
    """
    Image.init()
    if kind in Image.OPEN:
        return
    package, module, register = _PLUGINS.get(kind, ("", "", ""))
    try:
        plugin = importlib.import_module(module) if module else None
        if register:
            getattr(plugin, register)()
    except ImportError:
        pass
    if kind not in Image.OPEN:
        needs = (
            f"which needs {package}: {to_install(EXTRA)}, or" if package else "which the installed Pillow cannot read;"
        )
        raise ConfigError(f"{what}: {_ARTICLED.get(kind, 'a')} {kind} image, {needs} save it as JPEG or PNG")
