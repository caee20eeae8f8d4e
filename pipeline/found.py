"""Why classes have no mask: how sure CLIP was of them at best, and which words compete.

Shapes: K classes, Q query words, D joint width, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from models.vocabulary import Vocabulary

from .result import Segmentation

# Cosine from which two words mean one thing to CLIP. With `tiny` those of one thing (car and
# automobile, sofa and couch) have 0.98 and more, those of two things less than 0.90.
SAME = 0.95
_SAID = 5  # classes, and pairs, in a line


def what_is_missing(
    missing: Sequence[int], probs: np.ndarray, words: Vocabulary, vectors: Tensor
) -> dict[str, Any]:
    """What a result's settings say of classes without a mask, as JSON types.

    Args:
        missing: their indices.
        probs: (K, H, W).
        words: the vocabulary.
        vectors: (Q, D) unit vectors of its words.

    Returns:
        `not_found`: name → `confidence`, the highest anywhere, and the `point` (x, y) that has it;
        `compete`: pairs of words of two classes, one of them missing, that share what both mean.
    """
    best = {}
    for index in missing:
        y, x = np.unravel_index(int(probs[index].argmax()), probs.shape[1:])
        best[words.class_names[index]] = {
            "confidence": round(float(probs[index, y, x]), 4),
            "point": [int(x), int(y)],
        }
    names, owner = words.query_words, words.word_class
    same = np.triu((vectors @ vectors.T).cpu().numpy() > SAME, 1)
    pairs = [
        [names[i], names[j]]
        for i, j in np.argwhere(same).tolist()
        if owner[i] != owner[j] and {owner[i], owner[j]} & {*missing}
    ]
    return {"not_found": best} | ({"compete": pairs} if pairs else {})


def say_nothing_found(result: Segmentation, least_size: int | str) -> str:
    """One line about a result without masks, for regions of at least `least_size`."""
    size = f"{least_size} of the image" if isinstance(least_size, str) else f"{least_size} px"
    line = f"nothing found: no region of {size} reaches its least confidence"
    missing = say_what_is_missing(result)
    return f"{line}; {missing}" if missing else line


def say_what_is_missing(result: Segmentation) -> str:
    """One line about the classes without a mask; empty if each has one."""
    best = result.settings.get("not_found", {})
    if not best:
        return ""
    surest = sorted(best.items(), key=lambda item: -item[1]["confidence"])[:_SAID]
    parts = [
        "{} {:.2f} at ({}, {})".format(name, found["confidence"], *found["point"])
        for name, found in surest
    ]
    more = f" and {len(best) - _SAID} more" if len(best) > _SAID else ""
    line = f"best: {', '.join(parts)}{more}"
    for first, second in result.settings.get("compete", ())[:_SAID]:
        line += (
            f"; {first} and {second} are nearly one to CLIP and compete: leave one out, or write "
            f'"{first},{second}"'
        )
    return line
