"""Targets of the CLIP training against hand-made answers."""

import numpy as np

from pipeline.training.clip.examples import SIDE, patch_targets
from pipeline.world.scenes import Scene


def test_patch_targets_of_clip():
    """Two patches of one object, the second shared with the surface: areas, not votes."""
    instances = np.zeros((SIDE, SIDE), np.int16)
    instances[:16, 16:40] = 1
    scene = Scene(
        np.zeros((SIDE, SIDE, 3), np.uint8), instances, ("b",), np.ones((SIDE, SIDE), np.uint8)
    )

    class Names:
        index, stuff, names = {"a": 0, "b": 1}, 2, [("a",), ("b",), ("s",), ("t",)]

    shares, members = patch_targets(scene, Names, merged=False)
    assert shares.shape == (196, 4) and members.shape == (1, 196)
    np.testing.assert_allclose(shares[:3], [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0.5, 0, 0.5]])
    np.testing.assert_allclose(members[0, :4], [0, 1, 0.5, 0])
    merged, _ = patch_targets(scene, Names, merged=True)
    np.testing.assert_allclose(merged[:3], [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]])
