"""VOC's palette by its published entries; picture colours are distinct and fixed."""

import numpy as np

from pipeline.drawing.palette import UNNAMED, class_colors, label_colors, voc_palette


def test_voc_palette():
    palette = voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    published = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128),
        255: (224, 224, 192),
    }  # fmt: skip
    for index, color in published.items():
        assert tuple(palette[index]) == color
    assert len(np.unique(palette, axis=0)) == 256


def test_class_colors_are_apart():
    colors = class_colors().astype(int)
    assert colors.shape == (254, 3)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=-1) + 999 * np.eye(254, dtype=int)
    assert distance.min() >= 15
    assert distance[:30, :30].min() >= 50
    assert (colors.max(axis=1) - colors.min(axis=1) > 30).all()  # grey is for "nothing named"


def test_any_number_of_classes():
    many = class_colors(1203)
    assert len(np.unique(many, axis=0)) == 1203
    for count in (1, 3, 254):
        np.testing.assert_array_equal(class_colors(count), many[:count])
    np.testing.assert_array_equal(label_colors(1203), [UNNAMED, *many])
    assert class_colors(5000).shape == (5000, 3)
    assert class_colors() is class_colors() and not many.flags.writeable  # shared, not spoilt
