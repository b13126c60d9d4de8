"""The paper's 25 prompts for things, and its 25 for living subjects (github.com/google/dreambooth,
dataset/prompts_and_classes.txt; section 4.1 of 2208.12242), with places for the rare word and the class."""

from __future__ import annotations

from ..tinyworld.vocabulary import PLACES

_SHARED = (
    "a {0} {1} in the jungle",
    "a {0} {1} in the snow",
    "a {0} {1} on the beach",
    "a {0} {1} on a cobblestone street",
    "a {0} {1} on top of pink fabric",
    "a {0} {1} on top of a wooden floor",
    "a {0} {1} with a city in the background",
    "a {0} {1} with a mountain in the background",
    "a {0} {1} with a blue house in the background",
    "a {0} {1} on top of a purple rug in a forest",
)
_ITS_OWN_SHAPE = ("a red {0} {1}", "a purple {0} {1}", "a shiny {0} {1}", "a wet {0} {1}", "a cube shaped {0} {1}")
OBJECTS = (
    *_SHARED,
    "a {0} {1} with a wheat field in the background",
    "a {0} {1} with a tree and autumn leaves in the background",
    "a {0} {1} with the Eiffel Tower in the background",
    "a {0} {1} floating on top of water",
    "a {0} {1} floating in an ocean of milk",
    "a {0} {1} on top of green grass with sunflowers around it",
    "a {0} {1} on top of a mirror",
    "a {0} {1} on top of the sidewalk in a crowded street",
    "a {0} {1} on top of a dirt road",
    "a {0} {1} on top of a white rug",
    *_ITS_OWN_SHAPE,
)
LIVE_SUBJECTS = (
    *_SHARED,
    "a {0} {1} wearing a red hat",
    "a {0} {1} wearing a santa hat",
    "a {0} {1} wearing a rainbow scarf",
    "a {0} {1} wearing a black top hat and a monocle",
    "a {0} {1} in a chef outfit",
    "a {0} {1} in a firefighter outfit",
    "a {0} {1} in a police outfit",
    "a {0} {1} wearing pink glasses",
    "a {0} {1} wearing a yellow shirt",
    "a {0} {1} in a purple wizard outfit",
    *_ITS_OWN_SHAPE,
)
MINIATURE = tuple(f"a photo of a {{0}} {{1}} {place}" for place in PLACES)
"""What the embedded model's words can say."""
PROTOCOLS = {"objects": OBJECTS, "live": LIVE_SUBJECTS, "tinyworld": MINIATURE}
LIVING = frozenset((
    *("dog", "puppy", "cat", "kitten", "pet", "animal", "horse", "pony", "rabbit", "bunny", "hamster"),
    *("mouse", "bird", "parrot", "owl", "duck", "chicken", "fish", "turtle", "tortoise", "lizard"),
    *("snake", "frog", "fox", "wolf", "bear", "lion", "tiger", "monkey", "sheep", "goat", "cow", "pig"),
    *("person", "man", "woman", "boy", "girl", "child", "baby", "face"),
))  # fmt: skip
"""Classes whose subjects are asked for by the prompts for live ones, where nothing else is said."""


def prompts(protocol: str, identifier: str, class_word: str) -> list[str]:
    """A protocol's prompts of a subject."""
    return [" ".join(prompt.format(identifier, class_word).split()) for prompt in PROTOCOLS[protocol]]
