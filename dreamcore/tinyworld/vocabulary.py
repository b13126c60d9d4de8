"""What tinyworld's captions can say: classes, colours, patterns, places; and which combinations training never saw."""

from __future__ import annotations

RGB = tuple[int, int, int]

CLASSES = ("mug", "house", "fish", "car", "tree", "star", "boat", "bird")

COLOURS: dict[str, RGB] = {
    "red": (214, 44, 44),
    "orange": (242, 138, 34),
    "yellow": (240, 212, 52),
    "green": (52, 158, 64),
    "blue": (48, 88, 214),
    "purple": (142, 62, 178),
    "white": (243, 243, 240),
    "black": (44, 44, 50),
}

PATTERNS = ("plain", "stripe", "spots", "checks")
"""Patterns of the scenes in named colours; `patterns.KINDS` has more, for wild scenes and for subjects."""

PLACES = ("on grass", "on sand", "in snow", "at night", "at sunset")

RARE_WORDS = ("sks", "ohwx", "zwx", "qrv", "wlk", "xjy", "vbq", "hjk")
"""Words without meaning that the tokenizer keeps whole: identifiers for subjects."""

TEMPLATES = ("a photo of {}", "a picture of {}", "{}")
"""Openings of training captions, most usual first."""


def with_article(words: str) -> str:
    """The words after "a" or "an".

    >>> with_article("orange mug")
    'an orange mug'
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(
    kind: str,
    colour: str | None = None,
    pattern: str = "plain",
    pattern_colour: str | None = None,
    place: str | None = None,
    template: str = TEMPLATES[0],
) -> str:
    """A scene in words; what is None stays unsaid.

    >>> caption("mug", "red", "spots", "white", "on grass")
    'a photo of a red mug with white spots on grass'
    """
    words = with_article(f"{colour} {kind}" if colour else kind)
    if pattern != "plain":
        figure = f"{pattern_colour} {pattern}" if pattern_colour else pattern
        words += f" with {with_article(figure) if pattern in ('stripe', 'zigzag') else figure}"
    return template.format(f"{words} {place}" if place else words)


def held_out(kind: str, colour: str, place: str) -> bool:
    """Whether training never saw this combination: 1 of 13, so that each of its pairs is still seen."""
    return (5 * CLASSES.index(kind) + 3 * list(COLOURS).index(colour) + PLACES.index(place)) % 13 == 0
