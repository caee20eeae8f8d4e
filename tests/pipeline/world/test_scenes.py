"""The rendered world: its words, its sprites, and that the masks of a scene are exact."""

import json

import numpy as np
import pytest

from models.protocols import read_words
from pipeline.world import scenes as world_module
from pipeline.world.scenes import (
    DATA,
    VOC_NOUNS,
    World,
    load_world,
    place_sprite,
    plural,
    read_names,
    render_scene,
)

SIZE = (96, 130)  # H ≠ W


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def render(world: World, seed: int, **options):
    return render_scene(world, np.random.default_rng(seed), **({"size": SIZE} | options))


def test_a_seed_names_a_scene(world):
    one, same, other = (render(world, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.image, same.image) and np.array_equal(one.instances, same.instances)
    assert one.objects == same.objects and np.array_equal(one.stuff, same.stuff)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", range(8))
def test_the_parts_of_a_scene_agree(world, seed):
    scene = render(world, seed, objects=(1, 5))
    assert scene.image.shape == (*SIZE, 3) and scene.image.dtype == np.uint8
    assert scene.instances.shape == SIZE and scene.instances.dtype == np.int16
    assert scene.stuff.shape == SIZE and scene.stuff.dtype == np.uint8
    assert scene.stuff.max() < len(world.stuff)
    assert len(scene.objects) <= 5 and set(scene.objects) <= set(world.nouns)
    visible = np.bincount(scene.instances.ravel(), minlength=len(scene.objects) + 1)
    assert len(visible) == len(scene.objects) + 1
    assert (visible[1:] >= 30).all()  # each can be seen, so a question for it has an answer


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (20, 20), (20, 33)])
def test_tiny_scenes(world, size):
    scene = render(world, 0, size=size, objects=(3, 3))
    assert scene.image.shape == (*size, 3) and scene.instances.shape == size
    assert scene.instances.max() == len(scene.objects)


def test_what_is_drawn(world):
    scenes = [render(world, s, nouns=["dog", "cat"], objects=(2, 2), size=(64, 80)) for s in (1, 2)]
    assert {noun for scene in scenes for noun in scene.objects} <= {"dog", "cat"}
    for scene in scenes:
        for number in range(1, len(scene.objects) + 1):
            rows, columns = np.nonzero(scene.instances == number)
            assert max(np.ptp(rows), np.ptp(columns)) < 140
    assert render(world, 1, objects=(0, 0)).objects == ()


def test_label_map(world):
    scene = render(world, 3, nouns=["dog", "cat", "tree"], objects=(5, 5), side=(20, 30))
    assert len(set(scene.objects)) > 1
    classes = {"dog": 7, "cat": 2}
    expected = np.zeros(SIZE, np.int64)
    for number, noun in enumerate(scene.objects, start=1):
        expected[scene.instances == number] = classes.get(noun, 0)
    assert np.array_equal(scene.label_map(classes), expected)
    assert not scene.label_map({}).any()


def patch(top: int, left: int, bottom: int, right: int, opacity: float = 1) -> np.ndarray:
    """A red rectangle as `place_sprite` would put it on a canvas of 20×30."""
    layer = np.zeros((20, 30, 4), np.float32)
    layer[top:bottom, left:right] = (200 * opacity, 0, 0, opacity)
    return layer


def test_masks_are_what_is_half_opaque_and_not_hidden(world, monkeypatch):
    first = patch(2, 2, 12, 12)
    first[2:12, 12] = (98, 0, 0, 0.49)  # an edge below one half, and one above
    first[2:12, 1] = (102, 0, 0, 0.51)
    hiding = patch(3, 1, 12, 13)  # would leave less than 40 % of the first
    second = patch(7, 6, 17, 16)  # over the first's corner
    layers = iter([first, hiding, hiding, second])
    monkeypatch.setattr(world_module, "place_sprite", lambda *a, **k: next(layers))
    scene = render(world, 0, size=(20, 30), objects=(2, 2), nouns=["dog"])
    expected = np.zeros((20, 30), np.int16)
    expected[2:12, 1:12] = 1
    expected[7:17, 6:16] = 2
    assert np.array_equal(scene.instances, expected)
    assert scene.objects == ("dog", "dog")
    red = scene.image[..., 0].astype(int) - scene.image[..., 1]
    assert red[expected > 0].min() > 60  # the picture shows what the mask says


def test_an_object_without_room_is_left_out(world, monkeypatch):
    layers = iter([patch(0, 0, 10, 10), *[patch(0, 0, 20, 30)] * 4])
    monkeypatch.setattr(world_module, "place_sprite", lambda *a, **k: next(layers))
    scene = render(world, 0, size=(20, 30), objects=(2, 2), nouns=["dog"])
    assert scene.objects == ("dog",) and (scene.instances == 1).sum() == 100


@pytest.fixture
def sprite() -> np.ndarray:
    """4×6: a full left half, a half-transparent right one; every pixel another red."""
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., 0] = np.arange(24).reshape(4, 6) * 10
    pixels[:, :3, 3], pixels[:, 3:, 3] = 255, 51
    return pixels


def test_a_sprite_in_its_own_size_is_copied(sprite):
    # Its middle is between pixels: columns 5…10 and rows 3…6 have their middle at (7.5, 4.5).
    canvas = place_sprite(sprite, (9, 14), centre=(7.5, 4.5), side=6)
    expected = np.zeros((9, 14, 4), np.float32)
    alpha = sprite[..., 3:] / 255
    expected[3:7, 5:11] = np.concatenate([sprite[..., :3] * alpha, alpha], axis=2)
    np.testing.assert_allclose(canvas, expected, atol=1e-3)
    mirrored = place_sprite(sprite, (9, 14), centre=(7.5, 4.5), side=6, flip=True)
    np.testing.assert_allclose(mirrored[3:7, 5:11], expected[3:7, 5:11][:, ::-1], atol=1e-3)


def test_a_sprite_cut_off_by_the_border(sprite):
    canvas = place_sprite(sprite, (4, 3), centre=(-0.5, 1.5), side=6)
    np.testing.assert_allclose(canvas[..., 3], 51 / 255, atol=1e-3)


@pytest.mark.parametrize("side", [6, 12, 60])
def test_sizes_of_sprites(side):
    sprite = np.full((20, 30, 4), 255, np.uint8)
    covers = place_sprite(sprite, (80, 90), centre=(44.5, 41.5), side=side)[..., 3] >= 0.5
    rows, columns = np.nonzero(covers)
    assert np.ptp(columns) + 1 == pytest.approx(side, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(side * 2 / 3, abs=1)
    assert covers.sum() == pytest.approx(side**2 * 2 / 3, rel=0.05)
    assert columns.mean() == pytest.approx(44.5, abs=0.5)
    assert rows.mean() == pytest.approx(41.5, abs=0.5)


def test_turned_counter_clockwise():
    sprite = np.zeros((21, 21, 4), np.uint8)
    sprite[10, 10:] = 255  # a hand that points to the right
    canvas = place_sprite(sprite, (31, 31), centre=(15, 15), side=21, angle=90)[..., 3]
    assert canvas[5:15, 15].min() > 0.9  # and then up
    assert canvas[17:, :].max() == 0


def test_no_dark_rim_where_a_sprite_is_transparent():
    sprite = np.zeros((40, 40, 4), np.uint8)
    sprite[10:30, 10:30] = (255, 255, 255, 255)
    canvas = place_sprite(sprite, (30, 30), centre=(15, 15), side=17, angle=13)
    partly = (canvas[..., 3] > 0.05) & (canvas[..., 3] < 0.95)
    assert partly.any()
    np.testing.assert_allclose(canvas[partly][:, 0] / canvas[partly][:, 3], 255, rtol=0.01)


def test_words(world):
    assert len(world.nouns) > 200
    nouns = set(world.nouns)
    # Every class of PASCAL VOC but the dining table, which no glyph shows.
    voc = {group[0] for group in read_words("voc20")}
    names = {name: noun for noun, group in world.names.items() for name in group}
    assert set(VOC_NOUNS) <= nouns and len(set(VOC_NOUNS)) == 19
    assert {names.get(word) for word in voc - {"table"}} == set(VOC_NOUNS)
    assert "table" in voc
    for one, many in [("car", "cars"), ("bus", "buses"), ("person", "people"), ("pony", "ponies"),
                      ("sheep", "sheep"), ("wolf", "wolves"), ("television", "tv"),
                      ("sofa", "couches"), ("aeroplane", "airplanes")]:  # fmt: skip
        assert names[one] == names[many]


def test_names_are_whole_and_belong_to_one_noun(world):
    owners: dict[str, str] = {}
    for noun, names in [*world.names.items(), *((group[0], group) for group in world.stuff)]:
        assert names[0] == noun and len(set(names)) == len(names)
        for name in names:
            assert name == " ".join(name.split()).lower() and name
            assert owners.setdefault(name, noun) == noun, f"{name}: {owners[name]} and {noun}"


@pytest.mark.parametrize(
    ("one", "many"),
    [("car", "cars"), ("bus", "buses"), ("box", "boxes"), ("bench", "benches"), ("fly", "flies"),
     ("key", "keys"), ("fire engine", "fire engines"), ("brush", "brushes")],
)  # fmt: skip
def test_plural(one, many):
    assert plural(one) == many


def test_sheet_and_lists_agree(world):
    rows = read_names(DATA / "nouns.txt")
    boxes = json.loads((DATA / "sprites.json").read_text(encoding="utf-8"))
    assert [words[0] for words, _ in rows] == list(world.nouns)  # no noun is listed twice
    assert {glyph for _, glyphs in rows for glyph in glyphs} == boxes.keys()
    used = np.zeros((2000, 2800), bool)
    for top, left, height, width in boxes.values():
        assert not used[top : top + height, left : left + width].any()
        used[top : top + height, left : left + width] = True
    for (words, glyphs), sprites in zip(rows, world.sprites.values(), strict=True):
        assert glyphs and len(glyphs) == len(sprites), words
        for glyph, picture in zip(glyphs, sprites, strict=True):
            assert picture.shape == (*boxes[glyph][2:], 4) and picture.dtype == np.uint8
            opaque = picture[..., 3] > 0
            # Cropped to what can be seen, and not nearly empty.
            assert opaque[[0, -1]].any(1).all() and opaque[:, [0, -1]].any(0).all(), glyph
            assert opaque.mean() > 0.1, glyph
