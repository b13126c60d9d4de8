"""The top of the page, for whoever has ten seconds: what it looks like, and how to use it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from . import live
from .collect import RunData
from .elements import command, figure, image, missing, note, sample, section, text, typed, when
from .facts import Fact, facts

SIDE = 512
"""Longest side of the pictures on top, in pixels."""


def header(data: RunData) -> str:
    """The run's name, what was taught, and whether it is still at work."""
    words = [one.words for one in data.subjects if one.words] or [str(data.config.get("instance_prompt") or "")]
    lead = f"<p>Trained on {', '.join(map(text, words))}</p>" if any(words) else ""
    problems = "".join(f'<p class="problem">Could not be read: {text(problem)}</p>' for problem in data.problems)
    return (
        f'<header><p class="kicker">DreamBooth run</p><h1>{text(data.name)}</h1>{lead}'
        f"{live.words(data)}{problems}{_at_a_glance(data)}</header>"
    )


def _at_a_glance(data: RunData) -> str:
    """A photograph, and the same image before and after, side by side."""
    photographs = [path for one in data.subjects for path in one.instance_images[:1]]
    pictures = [figure(image(path, SIDE, f"photograph {path.name}"), "A photograph") for path in photographs[:1]]
    pictures += [
        figure(sample(data, step, min(data.samples[step]), SIDE), _caption(data, step))
        for step in dict.fromkeys((min(data.samples), max(data.samples)) if data.samples else ())
    ]
    if not pictures:
        return ""
    return f'<div class="glance">{"".join(pictures)}</div>'


def _caption(data: RunData, step: int) -> str:
    said = when(step)
    return said[0].upper() + said[1:] + (", so far" if data.live and step else "")


def use(data: RunData) -> str:
    """The words to use, what to type, and what the files are for."""
    steps = data.next
    assert steps is not None
    parts = []
    for number, words in enumerate(steps.subjects):
        parts.append(command(f"words-{number}", words))
    if parts:
        calls = "these words call the subject" if len(parts) == 1 else "each line calls one of the subjects"
        parts.insert(0, f"<h3>Words to use</h3>{note(f'In a prompt, {calls}; what stands around them is yours.')}")
    if steps.generate:
        parts.append(f"<h3>An image of your own</h3>{note(_typed(data))}{command('generate', steps.generate)}")
    elif data.live is None:
        parts.append(missing("There is nothing yet to make images with: the run has left no finished model."))
    if steps.convert:
        said = note("One file of the whole model, as ComfyUI and other programs take it:")
        parts.append(f"<h3>For other programs</h3>{said}{command('convert', steps.convert)}")
    if not steps.finished and data.live is None:
        said = note("It goes on from its last checkpoint, or begins anew where there is none:")
        parts.append(f"<h3>To go on with it</h3>{said}{command('go-on', steps.go_on)}")
    if steps.files:
        parts.append(f"<h3>Files</h3>{_files(data.next.files if data.next else [])}")
    return section("Use it", "".join(parts))


def _typed(data: RunData) -> str:
    more = "" if data.next and data.next.finished else " This makes one with what has been trained so far:"
    return "Type this into a terminal, with a prompt of your own." + more


def _files(files: list[tuple[Path, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{text(file.name)}</th><td>{typed(what)}</td></tr>' for file, what in files)
    return f'<table class="names files">{rows}</table>'


def warnings(data: RunData) -> str:
    """What was warned of; empty where nothing was."""
    items = "".join(f"<li>{text(warning)}</li>" for warning in data.warnings)
    return section("Warnings", f'<ul class="warnings">{items}</ul>') if items else ""


def told(data: RunData) -> str:
    """What the run was, in numbers that say what they mean."""
    return f'<dl class="facts">{"".join(map(_card, facts(data)))}</dl>'


def _card(fact: Fact) -> str:
    meaning = f'<dd class="meaning">{escape(fact.meaning)}</dd>' if fact.meaning else ""
    return f"<div><dt>{escape(fact.name)}</dt><dd>{text(fact.value)}</dd>{meaning}</div>"
