"""All scores of one image together."""

import numpy as np
import pytest

from pipeline.evaluation.metrics import boundary_counts, confusion, edge_band
from pipeline.evaluation.object_metrics import score_objects
from pipeline.evaluation.scores import score_image


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    truth, predicted, objects = np.zeros((3, 60, 90), np.uint8)
    truth[10:40, 20:50], objects[10:40, 20:50] = 15, 1
    truth[10:40, 50:53], objects[10:40, 50:53] = 255, 255
    predicted[12:45, 25:60] = 15
    predicted[rng.random(truth.shape) < 0.1] = 20
    return truth, predicted, objects


def test_the_parts(image):
    truth, predicted, objects = image
    scores = score_image(truth, predicted, objects, 21)
    assert (scores.confusion == confusion(truth, predicted, 21)).all()
    assert scores.confusion.sum() == 60 * 90 - 30 * 3
    band = edge_band(truth, 3)
    assert (scores.edges == confusion(truth[band], predicted[band], 21)).all()
    assert 0 < scores.edges.sum() < scores.confusion.sum()
    assert (scores.boundary == boundary_counts(truth, predicted, 21)).all()
    assert scores.boundary.shape == (2, 21)
    assert scores.objects == score_objects(truth, predicted, objects)
    assert len(scores.objects) == 1
    assert score_image(truth, predicted, None, 21).objects is None


def test_inputs_stay_as_they_are(image):
    before = [a.copy() for a in image]
    for array in image:
        array.flags.writeable = False
    score_image(*image, 21)
    assert all((a == b).all() for a, b in zip(before, image, strict=True))


@pytest.mark.parametrize(
    ("count", "void", "kind"),
    [(171, 255, np.uint8), (1203, 65535, np.uint16), (300, -1, np.int16), (256, 0, np.uint16)],
)
def test_the_same_image_by_other_numbers(image, count, void, kind):
    old, new = [0, 15, 20], [1, count - 2, count - 1]
    names = dict(zip([*old, 255], [*new, void], strict=True))
    truth, predicted = (np.vectorize(names.get)(labels).astype(kind) for labels in image[:2])
    objects = np.select([image[2] == 1, image[2] == 255], [300, max(void, 0)]).astype(np.uint16)
    few, many = score_image(*image, 21), score_image(truth, predicted, objects, count, void)
    for name in ("confusion", "edges"):
        less, more = getattr(few, name), getattr(many, name)
        assert more.shape == (count, count) and more.sum() == less.sum()
        assert (more[np.ix_(new, new)] == less[np.ix_(old, old)]).all()
    assert (many.boundary[:, new] == few.boundary[:, old]).all()
    assert [score._replace(label=15) for score in many.objects] == few.objects


def test_errors_in_one_line(image):
    truth, predicted, objects = image
    with pytest.raises(ValueError, match="truth holds label 15"):
        score_image(*image, 9)
    with pytest.raises(ValueError, match=r"shape \(60, 90\), the prediction \(90, 60\)"):
        score_image(truth, predicted.T, objects, 21)
    with pytest.raises(ValueError, match=r"object map has shape \(90, 60\), the truth \(60, 90\)"):
        score_image(truth, predicted, objects.T, 21)
    predicted[0, 0] = 255
    with pytest.raises(ValueError, match="prediction holds label 255; expected 0…20"):
        score_image(truth, predicted, objects, 21)
