"""The rendered world in the layouts of other data sets: for trying a benchmark without them.

The folder is laid out as the data set, with as many classes, of the rendered world instead:
`classes.txt` in it names them. Label maps are exact. Shapes: H×W image pixels.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..files.atomic import write_atomically
from ..files.label_png import write_index_png
from ..world.scenes import Scene, load_world, render_scene
from .indexed import OWN_NAMES, Layout, Place, numbers_of
from .layouts import ADE20K, CITYSCAPES, COCO_OBJECT, COCO_STUFF, CONTEXT

SEED_TAG = 20_262_026  # first number of every seed here; the other data sets have others
_GROUP = "rendered"  # where files lie by the first part of their name


def render_layout(
    layout: Layout, split: str, root: str | Path, *, images: int = 200, seed: int = 7
) -> None:
    """Write scenes 1…`images` of `seed` as a split of a data set.

    An image depends on the data set's classes, `seed` and its number alone. Interrupted, a second
    call goes on: files are written whole or not at all, and those that exist are kept.

    Args:
        layout: of the data set.
        split: name of the split.
        root: folder to fill; new, empty, or from an earlier call with the same arguments.
        images: number of images.
        seed: names the set; it is part of the ids.

    Raises:
        ValueError: `images` or `seed` out of range, or the folder holds something else.
        OSError: a file cannot be written.
    """
    root, place = Path(root), layout.places[0]
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    ids = [f"{_GROUP}_{seed}_{index:06d}" for index in range(1, images + 1)]
    names = "".join(f"{name}\n" for name in layout.rendered).encode()
    _check_folder(root, place, split, ids, names)
    # First, so that a folder which is not finished is not taken for the data set itself.
    write_atomically(root / OWN_NAMES, names)
    numbers = numbers_of(place.codes)
    for index, name in enumerate(tqdm(ids, desc="rendering", unit="image", disable=None), 1):
        picture = place.path(place.image, root, split, name)
        label = place.path(place.label, root, split, name)
        if picture.exists() and label.exists():
            continue
        scene = layout_scene(layout, seed, index)
        data = io.BytesIO()
        if picture.suffix == ".jpg":
            # Full colour resolution: thin things keep their colour up to the edge of their mask.
            Image.fromarray(scene.image).save(data, format="JPEG", quality=95, subsampling=0)
        else:
            Image.fromarray(scene.image).save(data, format="PNG")
        write_atomically(picture, data.getvalue())
        write_index_png(label, numbers[scene_labels(layout, scene)])
    if layout.listing:
        listing = "".join(f"{name}\n" for name in ids).encode("ascii")
        write_atomically(root / layout.listing.format(split=split), listing)


def layout_scene(layout: Layout, seed: int, index: int) -> Scene:
    """Scene `index` of `seed`, with the things among the layout's classes; VOC's picture sizes."""
    world = load_world()
    rng = np.random.default_rng([SEED_TAG, len(layout.rendered), seed, index])
    short = int(rng.integers(300, 401))
    size = (short, 500) if rng.random() < 0.6 else (500, short)
    nouns = [name for name in layout.rendered if name in world.names]
    return render_scene(world, rng, size=size, objects=(3, 9), nouns=nouns, side=(16, 0.6 * short))


def scene_labels(layout: Layout, scene: Scene) -> np.ndarray:
    """(H, W) labels: i + 1 the class i, a thing or the surface behind them, 0 none of them."""
    label_of = {name: i for i, name in enumerate(layout.rendered, 1)}
    surfaces = np.array([label_of.get(names[0], 0) for names in load_world().stuff])
    return np.where(scene.instances > 0, scene.label_map(label_of), surfaces[scene.stuff])


def _check_folder(root: Path, place: Place, split: str, ids: list[str], names: bytes) -> None:
    """Refuse to mix with files that are not this set's."""
    hint = "give a new folder, or the options it was made with"
    if root.exists() and not root.is_dir():
        raise ValueError(f"'{root}' is not a folder; give a new folder")
    own = root / OWN_NAMES
    if own.is_file() and own.read_bytes() != names:
        raise ValueError(f"'{own}' names other classes; {hint}")
    others = sorted({*place.ids(root, split)} - {*ids}) if root.is_dir() else []
    if others or (root.is_dir() and not own.is_file() and any(root.glob("[!.]*"))):
        what = others[0] if others else "files without " + OWN_NAMES
        raise ValueError(f"'{root}' holds something else: {what}; {hint}")


# For the table of data sets.
render_context = partial(render_layout, CONTEXT, "val")
render_coco_stuff = partial(render_layout, COCO_STUFF, "val")
render_coco_object = partial(render_layout, COCO_OBJECT, "val")
render_ade20k = partial(render_layout, ADE20K, "validation")
render_cityscapes = partial(render_layout, CITYSCAPES, "val")
