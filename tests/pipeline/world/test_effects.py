"""Shadows, occluders and recoloured glyphs: what they change, and what they must not."""

import numpy as np
import pytest

from pipeline.world.effects import add_occluders, cast_shadow, recolour
from pipeline.world.scenes import load_world, render_scene

SIZE = (96, 130)  # H ≠ W


@pytest.mark.parametrize("seed", range(6))
def test_a_varied_scene_is_a_scene(seed):
    world = load_world()
    options = {"size": SIZE, "objects": (3, 6)}
    scene = render_scene(world, np.random.default_rng(seed), **options, varied=True)
    again = render_scene(world, np.random.default_rng(seed), **options, varied=True)
    assert np.array_equal(scene.image, again.image)
    assert scene.image.dtype == np.uint8 and scene.instances.dtype == np.int16
    visible = np.bincount(scene.instances.ravel(), minlength=len(scene.objects) + 1)
    assert len(visible) == len(scene.objects) + 1 and (visible[1:] >= 15).all()
    assert scene.stuff.max() < len(world.stuff)


def test_recolouring_keeps_the_shape():
    sprite = load_world().sprites["car"][0].astype(np.float32)
    changed = [recolour(sprite, np.random.default_rng(seed)) for seed in range(8)]
    assert all(np.array_equal(new[..., 3], sprite[..., 3]) for new in changed)
    assert all(0 <= new.min() and new.max() <= 255 for new in changed)
    assert sum(not np.allclose(new, sprite) for new in changed) >= 5


def test_a_shadow_darkens_and_nothing_more():
    image = np.full((*SIZE, 3), 200, np.float32)
    opacity = np.zeros(SIZE, np.float32)
    opacity[20:60, 50:80] = 1
    shaded = cast_shadow(image, opacity, np.random.default_rng(0))
    assert (shaded <= image + 1e-3).all() and shaded.min() < 170
    assert np.array_equal(shaded[:10], image[:10]) and np.array_equal(shaded[75:], image[75:])
    assert np.array_equal(cast_shadow(image, 0 * opacity, np.random.default_rng(0)), image)


def test_occluders_take_the_place_of_things():
    surfaces = {words[0]: i for i, words in enumerate(load_world().stuff)}
    hidden = 0
    for seed in range(12):
        image = np.full((*SIZE, 3), 90, np.float32)
        instances = np.zeros(SIZE, np.int16)
        instances[30:70, 20:110] = 1
        instances[5:12, 5:12] = 2  # 49 pixels: small things keep at least 30
        stuff = np.full(SIZE, 200, np.uint8)
        before = instances.copy()
        painted = add_occluders(image, instances, stuff, surfaces, np.random.default_rng(seed))
        covered = stuff != 200
        assert (instances[covered] == 0).all()
        assert np.array_equal(instances[~covered], before[~covered])
        assert np.array_equal(painted[~covered], image[~covered])
        assert (instances == 1).sum() >= 0.5 * (before == 1).sum()
        assert (instances == 2).sum() >= 30
        hidden += covered.any()
    assert hidden >= 8
