"""VOC's palette by its published entries; picture colours are distinct and fixed."""

import numpy as np

from pipeline.drawing.palette import class_colors, voc_palette


def test_voc_palette():
    palette = voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    for index, color in (
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ):
        assert tuple(palette[index]) == color
    assert len(np.unique(palette, axis=0)) == 256


def test_class_colors_are_apart():
    colors = class_colors().astype(int)
    assert colors.shape == (254, 3)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=-1) + 999 * np.eye(254, dtype=int)
    assert distance.min() >= 15
    assert distance[:30, :30].min() >= 50
    assert (colors.max(axis=1) - colors.min(axis=1) > 30).all()  # grey is for "nothing named"


def test_class_colors_are_shared_and_cannot_be_spoilt():
    assert class_colors() is class_colors()
    assert not class_colors().flags.writeable
