"""Windows: SCLIP's whole dense step, batching, stitching, odd sizes."""

import functools

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import windows
from models.backbones.base import Backbone
from models.clip_dense import dense_features
from models.windows import (
    WindowFeatures,
    cosine_scores,
    encode_windows,
    pad_to_multiple,
    protocol_size,
    resize_for_protocol,
    sliding_scores,
    stitch_features,
    whole_image_scores,
    window_slices,
)
from tests.golden import load, max_error, tiny_clip, weights

GOLDEN = load("sclip_slide")
TEXT = GOLDEN["text"]


def resized(mode: str):
    """Scores of the patches, enlarged."""
    return lambda features, guide: F.interpolate(
        cosine_scores(features, TEXT), guide.shape[2:], mode=mode
    )


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return tiny_clip(weights(load("sclip")))


def as_backbone(clip: open_clip.CLIP) -> Backbone:
    encode = functools.partial(dense_features, clip)
    nothing = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Backbone("golden", 48, 16, *nothing, model=clip, encode=encode)


def encode(clip: open_clip.CLIP, image: Tensor, batch: int = 3) -> WindowFeatures:
    return encode_windows(
        as_backbone(clip),
        image,
        window=int(GOLDEN["crop"]),
        stride=int(GOLDEN["stride"]),
        batch=batch,
    )


def random_image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_matches_reference(clip, batch):
    scores = sliding_scores(encode(clip, GOLDEN["image"], batch), resized("bilinear"))
    size = tuple(GOLDEN["original_size"].tolist())
    scores = F.interpolate(scores[None], size, mode="bilinear")[0]
    assert max_error(scores, GOLDEN["scores"]) < 1e-5


def test_window_positions_by_hand():
    spans = [(r.start, r.stop, c.start, c.stop) for r, c in window_slices((336, 500), 224, 112)]
    columns = [(0, 224), (112, 336), (224, 448), (276, 500)]  # the last one is shifted back
    assert spans == [(*row, *column) for row in [(0, 224), (112, 336)] for column in columns]
    assert window_slices((100, 224), 224, 112) == [(slice(0, 100), slice(0, 224))]
    with pytest.raises(ValueError, match="stride must be between 1 and the window 224, got 225"):
        window_slices((300, 300), 224, 225)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (336, 448)),
        ((500, 333), (505, 336)),  # 504.5 rounds up
        ((20, 20), (336, 336)),
        ((100, 1000), (205, 2048)),  # the long side limits: 204.8
        ((1, 5000), (1, 2048)),
        ((9000, 1), (2048, 1)),
    ],
)
def test_protocol_size(size, expected):
    assert protocol_size(size) == expected
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized = resize_for_protocol(image)
    assert resized.shape == (*expected, 3) and resized.dtype == np.uint8


def test_resize_is_bilinear_between_pixel_centres():
    image = np.array([[[0, 0, 0], [200, 100, 40]]], dtype=np.uint8).repeat(2, axis=0)
    resized = resize_for_protocol(image, short=4)
    assert resized[:, :, 0].tolist() == [[0, 50, 150, 200]] * 4
    assert resized[0, :, 2].tolist() == [0, 10, 30, 40]


def test_resize_refuses_other_arrays():
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 RGB"):
            resize_for_protocol(wrong)


def test_padding_keeps_coordinates_and_repeats_the_border():
    image = random_image(17, 32)
    padded = pad_to_multiple(image, (16, 16))
    assert padded.shape == (1, 3, 32, 32)
    assert torch.equal(padded[:, :, :17], image)
    assert torch.equal(padded[:, :, 17:], image[:, :, -1:].expand(-1, -1, 15, -1))
    assert pad_to_multiple(padded, (16, 16)).shape == padded.shape


def test_without_a_window_the_whole_image_is_one(clip):
    assert window_slices((336, 500), None, 112) == [(slice(0, 336), slice(0, 500))]
    image = random_image(70, 100)
    encoded = encode_windows(as_backbone(clip), image, window=None)
    assert encoded.features.shape[2:] == (5, 7)
    with torch.no_grad():
        padded = pad_to_multiple(image, (16, 16))
        assert max_error(encoded.features, dense_features(clip, padded)) < 1e-6


def test_what_fills_no_patch_is_dropped_and_scores_are_stretched(clip):
    image = random_image(40, 70)
    encoded = encode_windows(as_backbone(clip), image, window=None, drop_remainder=True)
    with torch.no_grad():
        features = dense_features(clip, image[:, :, :32, :64])
    assert max_error(encoded.features, features) < 1e-6
    scored = sliding_scores(encoded, resized("bilinear"))
    stretched = F.interpolate(cosine_scores(features, TEXT), (40, 70), mode="bilinear")[0]
    assert max_error(scored, stretched) < 1e-6
    assert max_error(whole_image_scores(encoded, resized("bilinear")), stretched) < 1e-6
    thin = encode_windows(as_backbone(clip), random_image(9, 40), window=None, drop_remainder=True)
    assert thin.features.shape[2:] == (1, 2)  # less than a patch is padded to one


def test_a_small_image_is_one_window(clip):
    image = random_image(32, 48)
    encoded = encode(clip, image)
    assert encoded.slices == [(slice(0, 32), slice(0, 48))]
    with torch.no_grad():
        assert max_error(encoded.features, dense_features(clip, image)) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (200, 1), (50, 70), (64, 71), (65, 64)])
@pytest.mark.parametrize("scorer", [resized("bilinear"), resized("nearest-exact")])
def test_any_size_gives_finite_scores_of_that_size(clip, size, scorer):
    encoded = encode(clip, random_image(*size))
    for scores in (sliding_scores(encoded, scorer), whole_image_scores(encoded, scorer)):
        assert scores.shape == (6, *size)
        assert scores.isfinite().all() and scores.abs().max() <= 1 + 1e-5


def test_nearest_takes_the_patch_a_pixel_lies_in(clip):
    encoded = encode(clip, random_image(40, 60))  # one window, padded to 48 x 64
    scores = sliding_scores(encoded, resized("nearest-exact"))
    cosines = F.normalize(encoded.features, dim=1)[0].movedim(0, -1) @ TEXT.T  # (3, 4, Q)
    for row, column in [(0, 0), (15, 16), (16, 15), (39, 59)]:
        expected = cosines[row // 16, column // 16]
        assert max_error(scores[:, row, column], expected) < 1e-5


def test_an_upsampler_sees_its_own_windows(clip):
    """The guide handed to an upsampler is the padded window, features and guide in step."""
    image = random_image(64, 90)
    seen = []

    def upsample(features: Tensor, guide: Tensor) -> Tensor:
        seen.append(guide)
        return resized("nearest-exact")(features, guide)

    encoded = encode(clip, image, batch=2)
    sliding_scores(encoded, upsample)
    expected = [image[:, :, row, column] for row, column in encoded.slices]
    assert torch.equal(torch.cat(seen), torch.cat(expected))
    assert [len(guide) for guide in seen] == [2]


def test_overlaps_are_averaged():
    image = torch.zeros(1, 3, 4, 10)
    encoded = WindowFeatures(
        image=image,
        slices=window_slices((4, 10), 6, 4),
        patch=(2, 2),
        features=torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 1, 2, 3),
        batch=1,
    )

    def value(features: Tensor, guide: Tensor) -> Tensor:
        return features[:, :, :1, :1].expand(-1, -1, *guide.shape[2:])

    assert sliding_scores(encoded, value)[0, 0].tolist() == [1.0] * 4 + [2.0] * 2 + [3.0] * 4
    assert stitch_features(encoded)[0, 0].tolist() == [[1.0, 1.0, 2.0, 3.0, 3.0]] * 2


def windows_of_a_ramp(size: tuple[int, int], window: int, stride: int, patch: int):
    """Windows whose features are the pixel position (y, x) of every patch centre."""
    slices = window_slices(size, window, stride)
    image = torch.zeros(1, 3, *size)
    features = []
    for row, column in slices:
        counts = [-(-(s.stop - s.start) // patch) for s in (row, column)]
        ys = row.start + (torch.arange(counts[0]) + 0.5) * patch
        xs = column.start + (torch.arange(counts[1]) + 0.5) * patch
        features.append(torch.stack(torch.meshgrid(ys, xs, indexing="ij")))
    return WindowFeatures(
        image=image, slices=slices, patch=(patch, patch), features=torch.stack(features), batch=4
    )


def test_stitching_puts_features_where_they_belong():
    """Linear features survive the resampling of the shifted-back windows up to its clamping."""
    aligned = stitch_features(windows_of_a_ramp((96, 160), 64, 32, 16))
    ys, xs = (torch.arange(6) + 0.5) * 16, (torch.arange(10) + 0.5) * 16
    assert torch.allclose(aligned[0, 0], ys[:, None].expand(6, 10))
    assert torch.allclose(aligned[0, 1], xs.expand(6, 10))

    shifted = stitch_features(windows_of_a_ramp((96, 150), 64, 32, 16))
    assert shifted.shape == (1, 2, 6, 10)
    assert torch.allclose(shifted[0, 0], ys[:, None].expand(6, 10))
    # The last window spans 86..150. Cell 5 (centre 88) takes the window's first token (94), and is
    # averaged with two windows that have it exactly; cell 9 (144, beyond the last token) takes 142.
    expected = xs.clone()
    expected[5] = (88 + 88 + 94) / 3
    expected[9] = 142
    assert torch.allclose(shifted[0, 1, 0], expected)


def test_stitching_covers_a_last_cell_that_sticks_out():
    encoded = windows_of_a_ramp((64, 65), 64, 32, 16)  # the fifth cell holds one pixel
    stitched = stitch_features(encoded)
    assert stitched.shape == (1, 2, 4, 5)
    assert stitched.isfinite().all()
    # Only the window 1..65 holds the last pixel; the cell takes that window's last token.
    assert stitched[0, 1, 0, 4].item() == pytest.approx(57.0)


def test_one_window_stitches_to_itself(clip):
    encoded = encode(clip, random_image(50, 64))
    assert max_error(stitch_features(encoded), encoded.features) < 1e-6
    scorer = resized("bilinear")
    assert max_error(whole_image_scores(encoded, scorer), sliding_scores(encoded, scorer)) < 1e-5


def test_wrong_inputs_are_refused(clip):
    with pytest.raises(ValueError, match=r"shape \(1, 3, H, W\), got \(2, 3, 64, 64\)"):
        encode_windows(as_backbone(clip), torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        encode_windows(as_backbone(clip), torch.zeros(1, 3, 64, 64), batch=0)


def test_cosines_of_zero_features_are_zero():
    assert windows.cosine_scores(torch.zeros(1, 48, 2, 2), TEXT).eq(0).all()


def test_cosines_of_text_vectors_of_any_length():
    features = torch.randn(2, 48, 3, 5, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([0.01, 1, 30])[:, None]
    scores = cosine_scores(features, TEXT[:3] * lengths)
    assert scores.abs().max() <= 1 and max_error(scores, cosine_scores(features, TEXT[:3])) < 1e-6
    unit = F.normalize(TEXT, dim=1)
    plain = torch.einsum("bchw,qc->bqhw", features, unit) / features.norm(dim=1, keepdim=True)
    assert cosine_scores(features, unit).equal(plain)  # to the last bit
