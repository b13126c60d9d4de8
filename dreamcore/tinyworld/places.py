"""The places of tinyworld: sky, ground and what makes them recognisable."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from .draws import Draws
from .placement import mixed
from .vocabulary import RGB


@dataclass(frozen=True)
class Place:
    """Colours from top to horizon and from horizon to bottom, and the light that falls on things there."""

    sky: tuple[RGB, RGB]
    ground: tuple[RGB, RGB]
    light: RGB
    """Colour that things take on a little."""
    strength: float
    """How much."""


PLACES: dict[str, Place] = {
    "on grass": Place(((112, 180, 242), (206, 232, 250)), ((112, 186, 82), (66, 140, 58)), (255, 255, 240), 0.0),
    "on sand": Place(((84, 172, 232), (196, 230, 244)), ((240, 216, 160), (218, 184, 120)), (255, 244, 214), 0.04),
    "in snow": Place(((176, 194, 216), (220, 228, 238)), ((250, 252, 255), (222, 230, 242)), (232, 240, 255), 0.05),
    "at night": Place(((10, 14, 44), (36, 44, 96)), ((36, 58, 62), (20, 32, 42)), (24, 32, 80), 0.1),
    "at sunset": Place(((122, 66, 130), (252, 158, 84)), ((120, 74, 84), (66, 42, 66)), (240, 120, 70), 0.08),
}


def _gradient(canvas: Image.Image, box: tuple[int, int, int, int], top: RGB, bottom: RGB) -> None:
    size = (box[2] - box[0], box[3] - box[1])
    ramp = Image.linear_gradient("L").resize(size)
    canvas.paste(Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp), box[:2])


def _shifted(colour: RGB, draws: Draws, amount: int) -> RGB:
    r, g, b = (min(255, max(0, c + draws.whole(-amount, amount))) for c in colour)
    return r, g, b


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    draw.ellipse([round(x - r), round(y - r), round(x + r), round(y + r)], fill=colour)


def draw_place(name: str, side: int, horizon: int, draws: Draws) -> Image.Image:
    """A square RGB canvas of the place, `side` pixels wide, its horizon at row `horizon`."""
    place = PLACES[name]
    canvas = Image.new("RGB", (side, side))
    drift = [_shifted(c, draws, 7) for c in (*place.sky, *place.ground)]
    _gradient(canvas, (0, 0, side, horizon), drift[0], drift[1])
    draw = ImageDraw.Draw(canvas)
    unit = side / 64
    if name == "at sunset":
        _disc(draw, draws.uniform(0.1, 0.9) * side, horizon - draws.uniform(-1, 4) * unit, 7 * unit, (255, 226, 130))
    if name == "at night":
        for _ in range(draws.whole(7, 12)):
            _disc(draw, draws.uniform(0, side), draws.uniform(0, horizon), 0.5 * unit, (236, 238, 255))
        _moon(draw, draws, side, horizon, drift[0])
    if name in ("on grass", "on sand"):
        for _ in range(draws.whole(0, 2)):
            _cloud(draw, draws, side, horizon)
    _gradient(canvas, (0, horizon, side, side), drift[2], drift[3])
    _ground_details(draw, name, side, horizon, draws)
    return canvas


def _moon(draw: ImageDraw.ImageDraw, draws: Draws, side: int, horizon: int, sky: RGB) -> None:
    x, y, r = draws.choice((0.12, 0.86)) * side, draws.uniform(0.2, 0.4) * horizon, 5 * side / 64
    _disc(draw, x, y, r, (244, 240, 206))
    _disc(draw, x + 0.45 * r, y - 0.2 * r, 0.85 * r, sky)


def _cloud(draw: ImageDraw.ImageDraw, draws: Draws, side: int, horizon: int) -> None:
    x, y, unit = draws.uniform(0, side), draws.uniform(0.12, 0.55) * horizon, side / 64
    for dx, r in ((-5, 2.4), (-1.5, 3.6), (2.5, 3.0), (5.5, 2.0)):
        _disc(draw, x + dx * unit, y - 0.3 * r * unit, r * unit, (252, 253, 255))


def _ground_details(draw: ImageDraw.ImageDraw, name: str, side: int, horizon: int, draws: Draws) -> None:
    unit = side / 64
    ground = PLACES[name].ground
    if name == "on sand":
        draw.rectangle([0, horizon - round(4 * unit), side, horizon], fill=(58, 142, 190))
        draw.rectangle([0, horizon - round(0.8 * unit), side, horizon], fill=(238, 246, 246))
    if name == "in snow":
        x = draws.uniform(0.1, 0.9) * side
        draw.ellipse([round(x - 0.6 * side), horizon - round(5 * unit), round(x + 0.6 * side), side], fill=ground[0])
        for _ in range(draws.whole(16, 26)):
            _disc(draw, draws.uniform(0, side), draws.uniform(0, side), draws.uniform(0.5, 0.9) * unit, (255, 255, 255))
    if name == "on grass":
        for _ in range(draws.whole(10, 18)):
            x, y = draws.uniform(0, side), draws.uniform(horizon + 2 * unit, side)
            blade = mixed(ground[1], (20, 60, 20), 0.35)
            draw.line(
                [round(x), round(y), round(x + draws.uniform(-1, 1) * unit), round(y - 3 * unit)], blade, round(unit)
            )
    if name == "on sand":
        for _ in range(draws.whole(8, 14)):
            x, y = draws.uniform(0, side), draws.uniform(horizon + unit, side)
            _disc(draw, x, y, 0.6 * unit, mixed(ground[1], (120, 90, 50), 0.35))
    if name in ("at night", "at sunset"):
        x = draws.uniform(0.1, 0.9) * side
        hill = mixed(ground[1], ground[0], 0.5)
        draw.ellipse([round(x - 0.5 * side), horizon - round(4 * unit), round(x + 0.5 * side), side], fill=hill)
