"""What the embedded model is trained on: never a subject, and captions that say what people would say."""

from __future__ import annotations

import pytest

from dreamcore.tinyworld import SUBJECTS, Scene
from dreamcore.tinyworld.draws import Draws
from dreamcore.tinyworld.patterns import KINDS
from dreamcore.tinyworld.scenes import wild_scene
from dreamcore.tinyworld.vocabulary import COLOURS, RARE_WORDS, RGB
from tools.tinyworld.make_dataset import NEAR, resembles_a_subject, training_caption, training_scene

GREY: RGB = (128, 128, 128)


def _truth(index: int) -> Scene:
    return training_scene(50, index)[0]


@pytest.mark.parametrize("name", list(SUBJECTS))
def test_a_scene_resembles_a_subject_by_class_pattern_and_one_colour(name: str) -> None:
    subject = SUBJECTS[name]
    scene = subject.scene("on grass")
    assert resembles_a_subject(scene)
    assert resembles_a_subject(Scene(scene.kind, GREY, scene.pattern, scene.second, scene.place))
    assert resembles_a_subject(Scene(scene.kind, scene.second, scene.pattern, GREY, scene.place))
    assert not resembles_a_subject(Scene(scene.kind, (0, 0, 255), scene.pattern, (0, 0, 120), scene.place))
    assert not resembles_a_subject(Scene("tree", scene.body, scene.pattern, scene.second, scene.place))


def test_training_scenes_wear_a_subjects_pattern_on_its_class_only_in_other_colours() -> None:
    scenes = [_truth(index) for index in range(300)]
    of_subjects = {(subject.kind, subject.pattern): subject for subject in SUBJECTS.values()}
    alike = [scene for scene in scenes if (scene.kind, scene.pattern) in of_subjects]
    assert alike
    for scene in alike:
        subject = of_subjects[scene.kind, scene.pattern]
        for own in (scene.body, scene.second):
            for other in (subject.body, subject.second):
                assert sum(abs(a - b) for a, b in zip(own, other, strict=True)) >= NEAR
    wild = [scene for scene in scenes if scene.colour is None]
    assert len(wild) == 200
    assert {scene.pattern for scene in wild} == set(KINDS)


def test_captions_call_wild_colours_by_the_nearest_words_every_other_time() -> None:
    scene = Scene("mug", (250, 60, 60), "checks", (60, 90, 250), "in snow")
    captions = [training_caption(scene, "a photo of a mug", Draws(1, i)) for i in range(400)]
    called = [words for words in captions if "red" in words or "blue" in words]
    assert 150 < len(called) < 250
    assert not any(name in words.split() for words in captions for name in COLOURS if name not in ("red", "blue"))
    assert 8 < sum(any(word in words.split() for word in RARE_WORDS) for words in captions) < 50


def test_a_named_scene_keeps_its_caption() -> None:
    scene = Scene("mug", COLOURS["red"], "plain", COLOURS["blue"], "in snow", "red", "blue")
    captions = {training_caption(scene, "a photo of a mug", Draws(1, i)) for i in range(60)}
    assert {" ".join(w for w in words.split() if w not in RARE_WORDS) for words in captions} == {"a photo of a mug"}


def test_colours_that_one_word_would_call_alike_stay_unsaid() -> None:
    scene = Scene("mug", (250, 60, 60), "checks", (200, 20, 20), "in snow")
    captions = [training_caption(scene, "a photo of a mug", Draws(2, i)) for i in range(60)]
    assert not any("red" in words.split() for words in captions)


def test_wild_scenes_are_those_of_the_seed() -> None:
    """The training set chooses among the scenes that judge and autoencoder draw; it does not change them."""
    scene = training_scene(50, 1)[0]
    assert scene in [wild_scene(Draws(50, attempt)) for attempt in range(1, 20_000_001, 1_000_000)]
