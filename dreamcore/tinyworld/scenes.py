"""Scenes drawn by code: one thing in one place, with its words and the truth about it.

Images are a function of (seed, index) alone.  They are drawn four times too large and reduced, so that edges are
smooth; all chance comes from `Draws`, so NumPy's version and the platform do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image, ImageChops

from .draws import Draws
from .figures import FIGURES, Figure
from .patterns import KINDS, mask
from .placement import SUPERSAMPLING, Placement, ellipse, mixed
from .places import PLACES, draw_place
from .vocabulary import CLASSES, COLOURS, PATTERNS, RGB, TEMPLATES, caption, held_out

SIZE = 64
WIDE = 76
"""Width of a photograph, which is a little wider than high: of each sample another part is taken."""


@dataclass(frozen=True)
class Scene:
    """The truth about an image."""

    kind: str
    """One of `words.CLASSES`."""
    body: RGB
    pattern: str
    """One of `patterns.KINDS`."""
    second: RGB
    """The pattern's colour."""
    place: str
    """One of `words.PLACES`."""
    colour: str | None = None
    """The body colour's name in `words.COLOURS`, if it has one."""
    second_colour: str | None = None

    def caption(self, template: str = TEMPLATES[0]) -> str:
        """The whole truth in words.  Colours without a name stay unsaid."""
        return caption(self.kind, self.colour, self.pattern, self.second_colour, self.place, template)


def named_scene(draws: Draws, allow_held_out: bool = False) -> Scene:
    """A scene that words can describe; 4 in 10 wear a pattern."""
    while True:
        kind, colour, place = draws.choice(CLASSES), draws.choice(tuple(COLOURS)), draws.choice(tuple(PLACES))
        if allow_held_out or not held_out(kind, colour, place):
            break
    pattern = draws.choice(PATTERNS[1:]) if draws.chance(0.4) else "plain"
    second = draws.choice([name for name in COLOURS if name != colour])
    return Scene(kind, COLOURS[colour], pattern, COLOURS[second], place, colour, second)


def wild_scene(draws: Draws) -> Scene:
    """A scene of any pattern and of colours that words cannot say, but an autoencoder must be able to show."""
    body, second = _any_colour(draws), _any_colour(draws)
    while sum(abs(a - b) for a, b in zip(body, second, strict=True)) < 120:
        second = _any_colour(draws)
    return Scene(draws.choice(CLASSES), body, draws.choice(KINDS), second, draws.choice(tuple(PLACES)))


def _any_colour(draws: Draws) -> RGB:
    return draws.whole(20, 250), draws.whole(20, 250), draws.whole(20, 250)


def partial_caption(scene: Scene, draws: Draws) -> str:
    """The scene's words with some left out, as people leave them out; the class is always named."""
    said = replace(
        scene,
        colour=scene.colour if draws.chance(0.8) else None,
        second_colour=scene.second_colour if draws.chance(0.9) else None,
        pattern=scene.pattern if draws.chance(0.85) else "plain",
    )
    template = TEMPLATES[0] if draws.chance(0.8) else draws.choice(TEMPLATES[1:])
    place = scene.place if draws.chance(0.8) else None
    return caption(said.kind, said.colour, said.pattern, said.second_colour, place, template)


def draw(scene: Scene, draws: Draws, width: int = SIZE) -> Image.Image:
    """The scene as RGB, 64 pixels high; position, size, tilt, facing and light are drawn, and lie in the middle 64 of
    the width as they do in a square."""
    side, wide = SIZE * SUPERSAMPLING, width * SUPERSAMPLING
    edge = (wide - side) // 2
    horizon = edge + round(side * draws.uniform(0.46, 0.62))
    canvas = draw_place(scene.place, wide, horizon, draws)
    scale = side * draws.uniform(0.27, 0.36)
    placement = Placement(
        x=edge + side * draws.uniform(0.42, 0.58),
        y=edge + side * draws.uniform(0.5, 0.58),
        scale=scale,
        tilt=draws.uniform(-0.09, 0.09),
        mirrored=draws.chance(0.5),
    )
    figure = FIGURES[scene.kind]()
    _shadow(canvas, figure, placement)
    _thing(canvas, figure, scene, placement, draws)
    brightness = draws.uniform(0.93, 1.05)
    canvas = canvas.crop((0, edge, wide, edge + side))
    return canvas.reduce(SUPERSAMPLING).point([min(255, round(v * brightness)) for v in range(256)] * 3)


def _shadow(canvas: Image.Image, figure: Figure, placement: Placement) -> None:
    alpha = Image.new("L", canvas.size)
    low, strength = (1.0, 70) if figure.stands else (1.18, 45)
    placement.fill(alpha, ellipse(0.05, low, 0.92, 0.13), strength)
    canvas.paste((10, 14, 24), (0, 0), alpha)


def _thing(canvas: Image.Image, figure: Figure, scene: Scene, placement: Placement, draws: Draws) -> None:
    place = PLACES[scene.place]

    def lit(colour: RGB) -> RGB:
        return mixed(colour, place.light, place.strength)

    body, second = (_varied(colour, draws) for colour in (scene.body, scene.second))
    shades = {"body": lit(body), "dark": lit(_darker(body)), "pale": lit(mixed(body, (255, 255, 255), 0.35))}
    edge = lit(mixed(body, (96, 100, 112), 0.75) if sum(body) < 200 else mixed(body, (16, 12, 24), 0.62))
    pattern = mask(canvas.size, scene.pattern, figure.stripe, placement)
    shading = _shading(canvas.size, placement, from_left=draws.chance(0.5))
    for part in figure.parts:
        if not isinstance(part.paint, str):
            placement.fill(canvas, part.points, lit(part.paint))
            continue
        placement.outline(canvas, part.points, edge, 0.07)
        placement.fill(canvas, part.points, shades[part.paint])
        if part.paint == "body":
            body_mask = Image.new("L", canvas.size)
            placement.fill(body_mask, part.points, 255)
            canvas.paste(lit(second), (0, 0), ImageChops.multiply(body_mask, pattern))
            for shade, ramp in shading:
                canvas.paste(shade, (0, 0), ImageChops.multiply(body_mask, ramp))


def _shading(size: tuple[int, int], placement: Placement, from_left: bool) -> list[tuple[RGB, Image.Image]]:
    """Light on one side, shadow on the other: the colours and how much of each, over the canvas."""
    ramp = Image.linear_gradient("L").rotate(90 if from_left else -90)
    width = round(2 * placement.scale)
    strip = Image.new("L", size)
    strip.paste(ramp.resize((width, size[1])), (round(placement.x - placement.scale), 0))
    light = strip.point([max(0, v - 160) // 2 for v in range(256)])
    dark = strip.point([max(0, 110 - v) // 2 for v in range(256)])
    return [((255, 255, 250), light), ((10, 8, 30), dark)]


def _varied(colour: RGB, draws: Draws) -> RGB:
    r, g, b = (min(255, max(0, c + draws.whole(-9, 9))) for c in colour)
    return r, g, b


def _darker(colour: RGB) -> RGB:
    return mixed(colour, (14, 10, 26), 0.36) if sum(colour) >= 200 else mixed(colour, (130, 134, 150), 0.22)


def scene_at(seed: int, index: int, wild: bool = False, allow_held_out: bool = False) -> tuple[Scene, Image.Image, str]:
    """Scene number `index` of a seed: the truth, the image, and words for it with some left out."""
    draws = Draws(seed, index)
    scene = wild_scene(draws) if wild else named_scene(draws, allow_held_out)
    words = partial_caption(scene, draws)
    return scene, draw(scene, draws), words
