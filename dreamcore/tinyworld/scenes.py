"""Scenes drawn by code: one thing in one place, with its words and the truth about it.

Pictures are a function of (seed, index) alone.  They are drawn four times too large and reduced, so that edges are
smooth; all chance comes from `Dice`, so NumPy's version and the platform do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image, ImageChops

from .dice import Dice
from .figures import FIGURES, Figure
from .patterns import KINDS, mask
from .pen import SUPERSAMPLING, Pen, ellipse, mixed
from .places import PLACES, draw_place
from .words import CLASSES, COLOURS, PATTERNS, RGB, TEMPLATES, caption, held_out

SIZE = 64


@dataclass(frozen=True)
class Scene:
    """The truth about a picture."""

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


def named_scene(dice: Dice, allow_held_out: bool = False) -> Scene:
    """A scene that words can describe; 4 in 10 wear a pattern."""
    while True:
        kind, colour, place = dice.choice(CLASSES), dice.choice(tuple(COLOURS)), dice.choice(tuple(PLACES))
        if allow_held_out or not held_out(kind, colour, place):
            break
    pattern = dice.choice(PATTERNS[1:]) if dice.chance(0.4) else "plain"
    second = dice.choice([name for name in COLOURS if name != colour])
    return Scene(kind, COLOURS[colour], pattern, COLOURS[second], place, colour, second)


def wild_scene(dice: Dice) -> Scene:
    """A scene of any pattern and of colours that words cannot say, but an autoencoder must be able to show."""
    body, second = _any_colour(dice), _any_colour(dice)
    while sum(abs(a - b) for a, b in zip(body, second, strict=True)) < 120:
        second = _any_colour(dice)
    return Scene(dice.choice(CLASSES), body, dice.choice(KINDS), second, dice.choice(tuple(PLACES)))


def _any_colour(dice: Dice) -> RGB:
    return dice.whole(20, 250), dice.whole(20, 250), dice.whole(20, 250)


def partial_caption(scene: Scene, dice: Dice) -> str:
    """The scene's words with some left out, as people leave them out; the class is always named."""
    said = replace(
        scene,
        colour=scene.colour if dice.chance(0.8) else None,
        second_colour=scene.second_colour if dice.chance(0.9) else None,
        pattern=scene.pattern if dice.chance(0.85) else "plain",
    )
    template = TEMPLATES[0] if dice.chance(0.8) else dice.choice(TEMPLATES[1:])
    place = scene.place if dice.chance(0.8) else None
    return caption(said.kind, said.colour, said.pattern, said.second_colour, place, template)


def draw(scene: Scene, dice: Dice) -> Image.Image:
    """The scene as RGB, 64 x 64; position, size, tilt, facing and light are the dice's."""
    side = SIZE * SUPERSAMPLING
    horizon = round(side * dice.uniform(0.46, 0.62))
    canvas = draw_place(scene.place, side, horizon, dice)
    scale = side * dice.uniform(0.27, 0.36)
    pen = Pen(
        x=side * dice.uniform(0.42, 0.58),
        y=side * dice.uniform(0.5, 0.58),
        scale=scale,
        tilt=dice.uniform(-0.09, 0.09),
        mirrored=dice.chance(0.5),
    )
    figure = FIGURES[scene.kind]()
    _shadow(canvas, figure, pen)
    _thing(canvas, figure, scene, pen, dice)
    brightness = dice.uniform(0.93, 1.05)
    return canvas.reduce(SUPERSAMPLING).point([min(255, round(v * brightness)) for v in range(256)] * 3)


def _shadow(canvas: Image.Image, figure: Figure, pen: Pen) -> None:
    alpha = Image.new("L", canvas.size)
    low, strength = (1.0, 70) if figure.stands else (1.18, 45)
    pen.fill(alpha, ellipse(0.05, low, 0.92, 0.13), strength)
    canvas.paste((10, 14, 24), (0, 0), alpha)


def _thing(canvas: Image.Image, figure: Figure, scene: Scene, pen: Pen, dice: Dice) -> None:
    place = PLACES[scene.place]

    def lit(colour: RGB) -> RGB:
        return mixed(colour, place.light, place.strength)

    body, second = (_varied(colour, dice) for colour in (scene.body, scene.second))
    shades = {"body": lit(body), "dark": lit(_darker(body)), "pale": lit(mixed(body, (255, 255, 255), 0.35))}
    edge = lit(mixed(body, (96, 100, 112), 0.75) if sum(body) < 200 else mixed(body, (16, 12, 24), 0.62))
    pattern = mask(canvas.size, scene.pattern, figure.stripe, pen)
    shading = _shading(canvas.size, pen, from_left=dice.chance(0.5))
    for part in figure.parts:
        if not isinstance(part.paint, str):
            pen.fill(canvas, part.points, lit(part.paint))
            continue
        pen.outline(canvas, part.points, edge, 0.07)
        pen.fill(canvas, part.points, shades[part.paint])
        if part.paint == "body":
            body_mask = Image.new("L", canvas.size)
            pen.fill(body_mask, part.points, 255)
            canvas.paste(lit(second), (0, 0), ImageChops.multiply(body_mask, pattern))
            for shade, ramp in shading:
                canvas.paste(shade, (0, 0), ImageChops.multiply(body_mask, ramp))


def _shading(size: tuple[int, int], pen: Pen, from_left: bool) -> list[tuple[RGB, Image.Image]]:
    """Light on one side, shadow on the other: the colours and how much of each, over the canvas."""
    ramp = Image.linear_gradient("L").rotate(90 if from_left else -90)
    width = round(2 * pen.scale)
    strip = Image.new("L", size)
    strip.paste(ramp.resize((width, size[1])), (round(pen.x - pen.scale), 0))
    light = strip.point([max(0, v - 160) // 2 for v in range(256)])
    dark = strip.point([max(0, 110 - v) // 2 for v in range(256)])
    return [((255, 255, 250), light), ((10, 8, 30), dark)]


def _varied(colour: RGB, dice: Dice) -> RGB:
    r, g, b = (min(255, max(0, c + dice.whole(-9, 9))) for c in colour)
    return r, g, b


def _darker(colour: RGB) -> RGB:
    return mixed(colour, (14, 10, 26), 0.36) if sum(colour) >= 200 else mixed(colour, (130, 134, 150), 0.22)


def scene_at(seed: int, index: int, wild: bool = False, allow_held_out: bool = False) -> tuple[Scene, Image.Image, str]:
    """Scene number `index` of a seed: the truth, the picture, and words for it with some left out."""
    dice = Dice(seed, index)
    scene = wild_scene(dice) if wild else named_scene(dice, allow_held_out)
    words = partial_caption(scene, dice)
    return scene, draw(scene, dice), words
