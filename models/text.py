"""Class words as vectors of CLIP's joint space.

A word's vector is the mean over prompt templates ("a photo of a {}.", ...) of the L2-normalised
text embeddings, normalised again (Radford et al., 2021, arXiv:2103.00020, section 3.1.4).

Shapes: K words, N texts, L tokens of a text, D joint width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .device import autocast

Clip = Any  # one of open_clip, whose attributes have no types
Template = Callable[[str], str]
Tokenizer = Callable[[list[str]], Tensor]  # texts -> (N, context) int64

DEFAULT_TEMPLATES: tuple[Template, ...] = tuple(open_clip.OPENAI_IMAGENET_TEMPLATES)


@torch.no_grad()
def encode_words(
    clip: Clip,
    tokenizer: Tokenizer,
    words: Sequence[str],
    templates: Sequence[Template] = DEFAULT_TEMPLATES,
    *,
    batch_size: int = 640,
) -> Tensor:
    """Unit vectors of words, averaged over the templates.

    Args:
        clip: its network.
        tokenizer: the tokenizer of `clip`.
        words: K words.
        templates: functions from a word to a text; OpenAI's 80 by default.
        batch_size: texts encoded at once, rounded to whole words.

    Returns:
        (K, D) float32 on the device of `clip`.
    """
    if isinstance(words, str) or not words:
        raise ValueError(f"words must be a non-empty list of strings, got {words!r}")
    if blank := [word for word in words if not word.strip()]:
        raise ValueError(f"words must not be blank, got {blank[0]!r} among {list(words)}")
    if not templates:
        raise ValueError("at least one prompt template is needed")
    device = clip.logit_scale.device
    step = max(1, batch_size // len(templates))
    vectors = []
    for start in range(0, len(words), step):
        some = words[start : start + step]
        texts = [template(word) for word in some for template in templates]
        embeddings = encode_texts(clip, tokenizer(texts).to(device)).float()
        embeddings = F.normalize(embeddings, dim=-1).unflatten(0, (len(some), -1))
        vectors.append(F.normalize(embeddings.mean(dim=1), dim=-1))
    return torch.cat(vectors)


def encode_texts(clip: Clip, tokens: Tensor) -> Tensor:
    """`clip.encode_text` without the work spent on padding: (N, context) -> (N, D), unnormalised.

    In a causal text transformer no token sees later ones, so what follows the end token, where the
    embedding is read, cannot matter. Texts of one length go together, cut after their end token.
    Towers that are not causal or read elsewhere are run on the full length.
    """
    if not _causal(clip):
        return clip.encode_text(tokens)
    if clip.text_pool_type == "argmax":  # the end token has the highest id
        ends = tokens.argmax(dim=-1)
    else:
        ends = tokens.eq(clip.text_eos_id).int().argmax(dim=-1)
    rows = [torch.nonzero(ends == end).flatten() for end in ends.unique()]
    parts = [_encode_cut(clip, tokens[some, : int(ends[some[0]]) + 1]) for some in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _encode_cut(clip: Clip, tokens: Tensor) -> Tensor:
    """Texts (N, L) that all end with their last token -> (N, D)."""
    length = tokens.shape[1]
    dtype = clip.transformer.get_cast_dtype()
    x = clip.token_embedding(tokens).to(dtype) + clip.positional_embedding[:length].to(dtype)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x[:, -1])
    if isinstance(clip.text_projection, nn.Linear):
        return clip.text_projection(x)
    return x if clip.text_projection is None else x @ clip.text_projection


def _causal(clip: Clip) -> bool:
    return (
        isinstance(clip, open_clip.CLIP)
        and clip.attn_mask is not None
        and clip.text_pool_type in ("argmax", "eos")
    )


class TextEncoder:
    """`encode_words` that remembers every word, so a repeated vocabulary costs nothing.

    The memory is never emptied: make a new encoder after changing the weights of `clip`.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Tokenizer,
        templates: Sequence[Template] = DEFAULT_TEMPLATES,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype` is that of the transformer's products."""
        self.clip, self.dtype = clip, dtype
        self.tokenizer = tokenizer
        self.templates = tuple(templates)
        self._vectors: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device

    def __call__(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (K, D) float32 of K words, on the device of the CLIP."""
        new = [word for word in dict.fromkeys(words) if word not in self._vectors]
        if isinstance(words, str) or not words or new:
            new = words if isinstance(words, str) else new
            with autocast(self.device, self.dtype):
                vectors = encode_words(self.clip, self.tokenizer, new, self.templates)
            self._vectors.update(zip(new, vectors.cpu(), strict=True))
        return torch.stack([self._vectors[word] for word in words]).to(self.device)
