"""The measures of DreamBooth (2208.12242, sections 4.1 and 4.2) on embeddings, whoever made them.

With cos(a, b) = a·b / (|a| |b|), pictures g of the subject, photographs r of it, prompts p without the rare word,
pictures h of the class:

    subject fidelity     mean over g, r of cos(f(g), f(r))       f: DINO (called DINO) or CLIP's images (CLIP-I)
    prompt fidelity      mean over g of cos(f(g), t(p of g))     f, t: CLIP's images and words (CLIP-T)
    prior preservation   mean over h, r of cos(f(h), f(r))       f: DINO (PRES): lower is better
    diversity            mean over prompts, and over pairs of pictures of one prompt, of their distance (DIV)

The paper's distance is LPIPS; here it is 1 − cos of DINO's embeddings, and is called so.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
"""[N, width]."""
Scores = NDArray[np.float64]
"""One of each picture, [N]."""


def cosines(one: Embeddings, other: Embeddings) -> Scores:
    """[N, M] of every row with every row."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (one, other))
    return np.asarray(a @ b.T)


def likeness(pictures: Embeddings, photographs: Embeddings) -> Scores:
    """[N] each picture's mean cosine to the photographs; the mean of all is subject fidelity, of pictures of the class
    the loss of what the model knew of it (PRES)."""
    return np.asarray(cosines(pictures, photographs).mean(1))


def truth(pictures: Embeddings, words: Embeddings) -> Scores:
    """[N] each picture's cosine to its own prompt: row n of both belong together."""
    return np.asarray(np.diagonal(cosines(pictures, words)).copy())


def spread(pictures: Embeddings, prompts: Sequence[Hashable]) -> dict[Hashable, float]:
    """Mean distance, 1 − cos, over the pairs of pictures of each prompt that has several."""
    distances = 1 - cosines(pictures, pictures)
    found = {}
    for prompt in dict.fromkeys(prompts):
        rows = np.array([n for n, other in enumerate(prompts) if other == prompt])
        if len(rows) > 1:
            pairs = np.triu_indices(len(rows), 1)
            found[prompt] = float(distances[np.ix_(rows, rows)][pairs].mean())
    return found


def nearest(pictures: Embeddings, photographs: Embeddings) -> tuple[NDArray[np.int64], Scores]:
    """[N] which photograph each picture is most like, and how like: near 1 the picture was learned by heart."""
    found = cosines(pictures, photographs)
    return found.argmax(1).astype(np.int64), np.asarray(found.max(1))


def confusion(pictures: Sequence[Embeddings], photographs: Sequence[Embeddings]) -> Scores:
    """[S, S] share of the pictures of each subject that are most like the photographs of each."""
    rows = []
    for some in pictures:
        likest = np.stack([likeness(some, others) for others in photographs]).argmax(0)
        rows.append(np.bincount(likest, minlength=len(photographs)) / len(likest))
    return np.stack(rows)


def interval(
    values: Sequence[float] | Scores,
    groups: Sequence[Hashable],
    *,
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The bootstrap's percentile interval (Efron 1979) of the mean, groups being drawn whole: pictures of one prompt,
    or of one training seed, are alike, and drawing them singly would make the interval too narrow."""
    each = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    rows = [each[group] for group in groups]
    sums, counts = np.bincount(rows, np.asarray(values, np.float64)), np.bincount(rows)
    drawn = np.random.default_rng(seed).integers(len(each), size=(draws, len(each)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
