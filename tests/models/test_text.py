"""Word vectors against reference values, by hand, and cut against uncut."""

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.text import DEFAULT_TEMPLATES, TextEncoder, encode_texts, encode_words
from tests.golden import load, max_error, tiny_clip, weights

GOLDEN = load("sclip")
TEMPLATES = (lambda word: f"a {word}", lambda word: f"one more big {word}")


class LetterTokenizer:
    """One token a letter, start token 62 and end token 63 as in CLIP; counts the texts it saw."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.texts += texts
        tokens = torch.zeros(len(texts), 12, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            letters = [ord(letter) % 61 + 1 for letter in text.replace(" ", "")][:10]
            row[: len(letters) + 2] = torch.tensor([62, *letters, 63])
        return tokens


def unit_error(actual: Tensor, expected: Tensor) -> float:
    return max_error(F.normalize(actual, dim=-1), F.normalize(expected, dim=-1))


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return tiny_clip(weights(GOLDEN))


@torch.no_grad()
def test_matches_reference(clip):
    embedding = encode_texts(clip, GOLDEN["text.tokens"])
    assert max_error(embedding, GOLDEN["text.embedding"]) < 1e-5


@torch.no_grad()
def test_texts_of_all_lengths_keep_their_order(clip):
    """Those of one length go together: three, two and two of them."""
    tokens = LetterTokenizer()(["sea", "a", "long word", "fox", "a longer word", "b", "cat"])
    tokens[4, 9] = 63  # after a first end token comes nothing that counts
    tokens[4, 10:] = 7
    expected = clip.encode_text(tokens)
    assert max_error(encode_texts(clip, tokens), expected) < 1e-5
    assert max_error(encode_texts(clip, tokens[4:5]), expected[4:5]) < 1e-5
    assert unit_error(expected[:1], expected[3:4]) > 1e-2  # the order would be noticed


@torch.no_grad()
def test_towers_that_are_not_causal_are_not_cut():
    clip = tiny_clip(weights(GOLDEN))
    clip.attn_mask = None  # every token sees the padding
    tokens = LetterTokenizer()(["cat", "a fox"])
    assert torch.equal(encode_texts(clip, tokens), clip.encode_text(tokens))


def test_encoder_in_bfloat16(clip):
    words = ["cat", "a long word"]
    exact = TextEncoder(clip, LetterTokenizer(), TEMPLATES)(words)
    rough = TextEncoder(clip, LetterTokenizer(), TEMPLATES, torch.bfloat16)(words)
    assert rough.dtype == torch.float32
    assert 0.999 < F.cosine_similarity(exact, rough).min() < 1


@torch.no_grad()
def test_cut_with_an_end_token_that_is_not_the_highest():
    clip = tiny_clip(weights(GOLDEN))
    clip.text_pool_type, clip.text_eos_id = "eos", 5
    tokens = torch.tensor([[62, 9, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0], [62, 5] + [0] * 10])
    assert unit_error(encode_texts(clip, tokens), clip.encode_text(tokens)) < 1e-6


@torch.no_grad()
def test_towers_reading_the_last_token_are_not_cut():
    clip = tiny_clip(weights(GOLDEN))
    clip.text_pool_type = "last"
    tokens = LetterTokenizer()(["cat"])
    assert torch.equal(encode_texts(clip, tokens), clip.encode_text(tokens))


@torch.no_grad()
def test_mean_over_templates_by_hand(clip):
    tokenizer = LetterTokenizer()
    vectors = encode_words(clip, tokenizer, ["cat", "sea"], TEMPLATES)
    for word, vector in zip(["cat", "sea"], vectors, strict=True):
        texts = [template(word) for template in TEMPLATES]
        unit = F.normalize(clip.encode_text(tokenizer(texts)), dim=-1)
        assert max_error(vector, F.normalize(unit.mean(0), dim=0)) < 1e-6
    assert vectors.dtype == torch.float32 and not vectors.requires_grad


def test_batches_do_not_change_the_result(clip):
    words = ["cat", "dog", "sea", "sky", "fox"]
    expected = encode_words(clip, LetterTokenizer(), words, TEMPLATES)
    for batch_size in (1, 4, 7):
        vectors = encode_words(clip, LetterTokenizer(), words, TEMPLATES, batch_size=batch_size)
        assert max_error(vectors, expected) < 1e-6


def test_the_default_templates_are_openais_eighty():
    assert len(DEFAULT_TEMPLATES) == 80
    assert DEFAULT_TEMPLATES[0]("cat") == "a bad photo of a cat."


def test_encoder_encodes_a_word_once(clip):
    tokenizer = LetterTokenizer()
    encoder = TextEncoder(clip, tokenizer, TEMPLATES)
    first = encoder(["cat", "dog", "cat"])
    assert len(tokenizer.texts) == 2 * len(TEMPLATES)
    second = encoder(["dog", "sea", "cat"])
    assert len(tokenizer.texts) == 3 * len(TEMPLATES)
    assert torch.equal(second[0], first[1])
    assert torch.equal(second[2], first[0]) and torch.equal(first[0], first[2])
    expected = encode_words(clip, tokenizer, ["dog", "sea", "cat"], TEMPLATES)
    assert max_error(second, expected) < 1e-6


@pytest.mark.parametrize("words", [[], "cat"])
def test_words_must_be_a_list(clip, words):
    with pytest.raises(ValueError, match="non-empty list of strings"):
        encode_words(clip, LetterTokenizer(), words, TEMPLATES)
    with pytest.raises(ValueError, match="non-empty list of strings"):
        TextEncoder(clip, LetterTokenizer(), TEMPLATES)(words)


def test_blank_words_and_missing_templates_are_refused(clip):
    with pytest.raises(ValueError, match="must not be blank"):
        encode_words(clip, LetterTokenizer(), ["cat", " "], TEMPLATES)
    with pytest.raises(ValueError, match="at least one prompt template"):
        encode_words(clip, LetterTokenizer(), ["cat"], [])
