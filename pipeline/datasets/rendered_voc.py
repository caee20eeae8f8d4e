"""The rendered world as a VOC data set: for trying the benchmark without the photographs.

Shapes: H×W image pixels. Labels and objects are coded as in `pipeline.datasets.voc`;
the masks are exact, so there are no void pixels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..files.atomic import write_atomically
from ..files.label_png import write_index_png
from ..world.scenes import VOC_NOUNS, Scene, load_world, render_scene
from .voc import CLASSES

# First number of every seed here. Training, validation and the other benchmark have others.
SEED_TAG = 20_122_012
_FOLDERS = {"JPEGImages": "jpg", "SegmentationClass": "png", "SegmentationObject": "png"}
_LIST = Path("ImageSets", "Segmentation", "val.txt")
_LABEL = {noun: CLASSES.index(noun) + 1 for noun in VOC_NOUNS}


def voc_scene(seed: int, index: int, *, varied: bool = False) -> Scene:
    """Scene `index` of `seed`: VOC's picture sizes, things of 10 pixels to most of the picture.

    `varied` is `render_scene`'s.
    """
    rng = np.random.default_rng([SEED_TAG, seed, index])
    short = int(rng.integers(300, 401))
    size = (short, 500) if rng.random() < 0.6 else (500, short)
    side = (10.0, 0.7 * short)
    return render_scene(
        load_world(), rng, size=size, objects=(2, 6), nouns=VOC_NOUNS, side=side, varied=varied
    )


def render_voc(root: str | Path, *, images: int = 200, seed: int = 7, varied: bool = False) -> None:
    """Write scenes 1…`images` of `seed`, VOC2012's layout, with the list `val`.

    An image depends on `seed` and its number alone. Interrupted, a second call goes on: files are
    written whole or not at all, those that exist are kept, and the list comes last.

    Args:
        root: folder to fill; new, empty, or from an earlier call with the same arguments.
        images: number of images.
        seed: names the set; it is part of the ids.
        varied: shadows, occluders, recoloured things; part of the ids as well.

    Raises:
        ValueError: `images` or `seed` out of range, or the folder holds something else.
        OSError: a file cannot be written.
    """
    root = Path(root)
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    kind = "varied" if varied else "rendered"
    ids = {f"{kind}_{seed}_{index:06d}": index for index in range(1, images + 1)}
    listing = "".join(f"{name}\n" for name in ids).encode("ascii")
    _check_folder(root, ids, listing)
    for name, index in tqdm(ids.items(), desc="rendering", unit="image", disable=None):
        paths = [root / folder / f"{name}.{end}" for folder, end in _FOLDERS.items()]
        if all(path.exists() for path in paths):
            continue
        scene = voc_scene(seed, index, varied=varied)
        picture = io.BytesIO()
        # Full colour resolution: thin things keep their colour up to the edge of their mask.
        Image.fromarray(scene.image).save(picture, format="JPEG", quality=95, subsampling=0)
        write_atomically(paths[0], picture.getvalue())
        write_index_png(paths[1], scene.label_map(_LABEL).astype(np.uint8))
        write_index_png(paths[2], scene.instances.astype(np.uint8))
    write_atomically(root / _LIST, listing)


def _check_folder(root: Path, ids: dict[str, int], listing: bytes) -> None:
    """Refuse to mix with files that are not this set's; hidden files are passed over."""
    hint = "give a new folder, or the options it was made with"
    if root.exists() and not root.is_dir():
        raise ValueError(f"'{root}' is not a folder; give a new folder")
    if (root / _LIST).is_file() and (root / _LIST).read_bytes() != listing:
        raise ValueError(f"'{root / _LIST}' lists other images than these {len(ids)}; {hint}")
    expected = {Path(f, f"{name}.{end}") for f, end in _FOLDERS.items() for name in ids} | {_LIST}
    known = {parent for path in expected for parent in path.parents}
    for folder in known:
        for path in sorted((root / folder).glob("[!.]*")):
            if (relative := path.relative_to(root)) not in expected | known:
                raise ValueError(f"'{root}' holds something else: {relative}; {hint}")
