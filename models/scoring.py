"""From word scores to class probabilities and a label map, as SCLIP's evaluation does it.

Shapes: Q query words, K classes, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .strips import resized_rows
from .vocabulary import Vocabulary

# Scores held at full resolution at once. Larger blocks of memory are fetched from the system anew
# for every strip, which takes longer than the arithmetic.
_STRIP_ELEMENTS = 2**22


def class_probabilities(
    scores: Tensor, word_class: Tensor, logit_scale: float | None, merged: int = 0
) -> Tensor:
    """Softmax over all query words, then the best word of every class.

    Args:
        scores: (Q, H, W) cosines, or probabilities of the words already.
        word_class: (Q,) int64, the class of every word; every class 0..K-1 has at least one.
        logit_scale: factor before the softmax (40 in SCLIP; 65 for VOC21); None takes `scores` as
            probabilities.
        merged: so many classes, the first ones, are represented by their best word before the
            softmax: their synonyms do not compete with each other. 0 is published SCLIP.

    Returns:
        (K, H, W) in [0, 1]; their sum is 1 only if every class has one word.
    """
    if word_class.shape != scores.shape[:1] or not len(word_class):
        raise ValueError(
            f"word_class must name a class for each of the {len(scores)} words, got shape "
            f"{tuple(word_class.shape)}"
        )
    classes = sorted(set(word_class.tolist()))
    if classes != list(range(len(classes))):
        raise ValueError(f"classes must be 0, 1, 2, ... without gaps, got {classes}")
    if logit_scale is None:
        probabilities = scores
    else:
        scores, word_class = _best_words(scores, word_class, merged)
        probabilities = torch.softmax(scores * logit_scale, dim=0)
    if len(classes) == len(word_class):  # one word a class: only the order may differ
        return probabilities[word_class.argsort()]
    return _best(probabilities, word_class, len(classes))


def _best_words(scores: Tensor, word_class: Tensor, merged: int) -> tuple[Tensor, Tensor]:
    """One row for each class below `merged`; the rows of the other classes' words as they are."""
    rest = word_class >= merged
    if int((~rest).sum()) == merged:  # no synonyms
        return scores, word_class
    best = _best(scores[~rest], word_class[~rest], merged)
    classes = torch.arange(merged, device=word_class.device)
    return torch.cat([best, scores[rest]]), torch.cat([classes, word_class[rest]])


def _best(values: Tensor, word_class: Tensor, classes: int) -> Tensor:
    """The highest of every class's rows, (Q, H, W) -> (K, H, W)."""
    best = values.new_empty(classes, *values.shape[1:])
    index = word_class[:, None, None].expand_as(values)
    return best.scatter_reduce_(0, index, values, "amax", include_self=False)


def class_probabilities_at(
    size: tuple[int, int],
    scores: Tensor,
    vocabulary: Vocabulary,
    logit_scale: float | None,
    *,
    merge_synonyms: bool,
) -> Tensor:
    """Class probabilities of scores upsampled bilinearly, strip by strip.

    Scores of all words at 24 megapixels would take gigabytes; those of the classes are kept.

    Args:
        size: (H, W).
        scores: (Q, h, w), see `class_probabilities`.
        vocabulary: whose words these are.
        logit_scale: see `class_probabilities`.
        merge_synonyms: see `models.protocols.Protocol`; the background's words stay apart.

    Returns:
        (K, H, W), in the order of `vocabulary.competitors`.
    """
    word_class = torch.tensor(vocabulary.word_class, device=scores.device)
    classes = len(vocabulary.competitors)
    merged = classes - bool(vocabulary.background) if merge_synonyms else 0
    probs = scores.new_empty(classes, *size)
    rows = max(1, _STRIP_ELEMENTS // (len(scores) * size[1]))
    for top in range(0, size[0], rows):
        strip = resized_rows(scores[None], size, top, min(top + rows, size[0]))[0]
        probs[:, top : top + rows] = class_probabilities(strip, word_class, logit_scale, merged)
    return probs


def apply_area_threshold(probs: Tensor, area_thd: float, background_index: int = 0) -> Tensor:
    """Zero the foreground classes that win only a small part of the foreground.

    A foreground class keeps its probabilities if it wins *more* than `area_thd` of the pixels won
    by foreground classes. (K, H, W) -> (K, H, W), a new tensor.
    """
    _check_background(probs, background_index)
    won = torch.bincount(probs.argmax(dim=0).flatten(), minlength=len(probs))  # (K,) pixels
    won[background_index] = 0
    keep = won > area_thd * won.sum()
    keep[background_index] = True
    return probs * keep[:, None, None]


def to_labels(probs: Tensor, prob_thd: float = 0.0, background_index: int | None = None) -> Tensor:
    """Label map (H, W) int64: the most probable class of (K, H, W).

    Pixels whose best probability is below `prob_thd` become `background_index`; without a
    background class (None) there is no such threshold, and `prob_thd` must be 0.
    """
    best, labels = probs.max(dim=0)
    if background_index is None:
        if prob_thd:
            raise ValueError(
                f"prob_thd {prob_thd} needs a background class; give background_index or 0"
            )
        return labels
    _check_background(probs, background_index)
    return labels.masked_fill(best < prob_thd, background_index)


def _check_background(probs: Tensor, background_index: int) -> None:
    if not 0 <= background_index < len(probs):
        raise ValueError(
            f"background_index must be one of the {len(probs)} classes, got {background_index}"
        )


def vote_by_masks(labels: Tensor, probs: Tensor, masks: Sequence[np.ndarray]) -> Tensor:
    """Give every mask the class with the highest mean probability in it.

    Args:
        labels: (H, W) int64; pixels in no mask keep theirs.
        probs: (K, H, W).
        masks: M masks (H, W) bool; where they overlap, the smallest decides.

    Returns:
        (H, W) int64, a new tensor.
    """
    voted = labels.clone()
    for mask in sorted(masks, key=np.count_nonzero, reverse=True):
        inside = torch.from_numpy(mask).to(labels.device)
        if inside.any():
            voted[inside] = probs[:, inside].mean(dim=1).argmax()
    return voted
