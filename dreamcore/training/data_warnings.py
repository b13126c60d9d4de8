"""What a run says before it trains: of its photographs, of the word that names its subject, of prompts that are cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from ..backends.protocol import Backend
from ..config import TrainConfig
from ..data.finding import some
from ..data.inspection import remarks_in_short
from ..io.text import is_chinese
from ..text.prompts import identifier_words
from ..text.rare_tokens import CUSTOMARY, AnyTokenizer, known_word, notable
from ..text.tokenizer import Tokenizer
from .training_data import Subject, TrainingData

Say = Callable[[str], None]


def warn_of_data(config: TrainConfig, data: TrainingData, warn: Say, note: Say) -> None:
    """Warn of what `dreambooth data` would, and of subjects without a name of their own; `note` hears the harmless."""
    tokenizer = Tokenizer.known(data.model)
    for subject in data.subjects:
        for line in remarks_in_short(subject.images, subject.crops):
            warn(line)
        if tokenizer is not None and not config.train_text_encoder_ti:
            warn_of_identifier(config, subject, tokenizer, warn, note)


def warn_of_identifier(config: TrainConfig, subject: Subject, tokenizer: AnyTokenizer, warn: Say, note: Say) -> None:
    """Warn where no word names the subject, or one that means something or is several tokens."""
    prompt = subject.concept.instance_prompt
    words = identifier_words(config, subject.concept, subject.images)
    for word in words:
        if tokenizer.tokenize(word) == [tokenizer.unknown]:
            warn(f"{word!r} is not in the model's vocabulary: it reads {tokenizer.unknown}, as for every such word")
    if spelt := "".join(word for word in words if is_chinese(word[0]) and len(tokenizer.tokenize(word)) > 1):
        warn(
            f"{spelt!r}: the model's vocabulary has no Chinese characters and spells them by their bytes; write "
            "prompts in English, or take a model for Chinese, such as Taiyi"
        )
    words = [word for word in words if word not in spelt]
    whole = [word for word in words if len(tokenizer.tokenize(word)) == 1 and known_word(tokenizer, word) is None]
    if any(notable(tokenizer, word) is None for word in whole):
        return  # that one is rare, and the others can be the class and what stands around it
    for word in whole:
        meaning = notable(tokenizer, word)
        if word.lower() in CUSTOMARY:
            note(
                f"{word!r} is also {meaning} to models trained on the web; it is customary and works as a rule; "
                "`dreambooth identifiers` suggests words that mean nothing"
            )
        else:
            warn(
                f"{word!r} is {meaning} to the model, and its images will mix with the subject's; `dreambooth "
                "identifiers` suggests rare words"
            )
    several = {word: tokens for word in words if len(tokens := tokenizer.tokenize(word)) > 1}
    for word, tokens in several.items() if not whole else ():
        warn(
            f"{word!r} splits into {len(tokens)} tokens ({' '.join(tokens)}), each with a meaning of its own; as an "
            "identifier, a rare word of one token is learned better"
        )
    if not whole and not several and prompt is not None and not config.captioned:
        warn(
            f"instance_prompt: {prompt!r} has no identifier: all of its words are common, and what the model makes of "
            "them will mix with the subject; put a rare word before the class (`dreambooth identifiers` suggests some)"
        )


def prompt_owners(data: TrainingData) -> dict[str, str]:
    """Prompts of photographs -> whose they are, in a word."""
    owners: dict[str, str] = {}
    for subject in data.subjects:
        for photo, wordings in zip(subject.images.photos, subject.prompts, strict=True):
            for text in wordings:
                owners.setdefault(text, "instance_prompt" if photo.caption is None else photo.path.name)
    for part in data.held_out:
        for photo, text in zip(part.images.photos, part.prompts, strict=True):
            owners.setdefault(text, photo.path.name)
    return owners


def warn_of_cut_prompts(
    backend: Backend, encoders: int, prompts: Sequence[str], owners: Mapping[str, str], warn: Say
) -> None:
    """Warn of prompts that a text encoder sees only in part.

    Args:
        encoders: how many text encoders there are; what their tokenizers agree on is said once.
        owners: prompt -> whose it is.
    """
    found: dict[str, None] = {}
    for number in range(encoders):
        window, counts = backend.tokenizer_window(number), map(len, backend.tokenize(prompts, number))
        long = [(prompt, count) for prompt, count in zip(prompts, counts, strict=True) if count > window]
        if not long:
            continue
        (first, count), names = long[0], [owners.get(prompt, "a prompt") for prompt, _ in long]
        seen = _seen(backend, number, first, window)
        rest = first[seen:].strip()
        rest = rest if len(rest) <= 60 else f"{rest[:60]}…"
        more = f"; so are {len(long) - 1} more prompts: {some(names[1:])}" if len(long) > 1 else ""
        text = f"{names[0]}: prompt of {count} tokens, of which the text encoder sees {window}; cut off: {rest!r}{more}"
        found[text] = None
    for text in found:
        warn(text)


def _seen(backend: Backend, encoder: int, prompt: str, window: int) -> int:
    """Letters of a prompt whose tokens the text encoder sees."""
    tokens: Callable[[int], int] = lambda letters: len(backend.tokenize([prompt[:letters]], encoder)[0])  # noqa: E731
    return bisect_right(range(len(prompt) + 1), window, key=tokens) - 1
