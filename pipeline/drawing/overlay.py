"""Draw a segmentation's masks, prompt points and labels over its image.

Shapes: H×W image pixels, h×w pixels of the drawing. Coordinates map with the half-pixel
convention: x of the image lies at (x + ½) · w/W − ½ of the drawing.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..result import Segmentation
from .layout import shorten
from .letters import draw_text, say_missing_letters, text_length
from .palette import class_colors, label_colors

OPACITY = 0.45  # of a mask's colour over the image
LABEL_SIZE = 15  # letters, pixels
_LABEL_LENGTH = 22  # characters of a class name on the image

Color = tuple[int, ...]
Box = tuple[float, ...]  # XYXY of the drawing


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) or (H, W) -> the same of `size` (h, w); uint8."""
    factor = max(size[0] / image.shape[0], size[1] / image.shape[1])
    if factor <= 1:
        method = cv2.INTER_AREA
    else:  # enlarged a lot, pixels should be seen as what they are
        method = cv2.INTER_LINEAR if factor < 8 else cv2.INTER_NEAREST
    return cv2.resize(image, (size[1], size[0]), interpolation=method)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of `mask` (H, W) bool in each pixel of `size` (h, w), uint8 0…255, smooth edges."""
    return resize_image(mask.astype(np.uint8) * 255, size)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) -> (h, w) of the same type: the label that covers most of each pixel."""
    present = np.unique(labels)
    if len(present) == 1:
        return np.full(size, present[0], labels.dtype)
    result, best = np.zeros(size, labels.dtype), np.full(size, -1, np.int16)
    for label in present:
        share = resize_mask(labels == label, size)
        wins = share > best
        result[wins], best[wins] = label, share[wins]
    return result


def draw_overlay(
    image: np.ndarray,
    segmentation: Segmentation,
    size: tuple[int, int],
    *,
    opacity: float = OPACITY,
    selected: int | None = None,
    tags: bool = True,
    points: bool = True,
) -> np.ndarray:
    """The image at `size` (h, w) with masks, outlines, points and name tags; (h, w, 3) uint8.

    The colour of a pixel is its class in the label map, of weight `opacity` (0…1). Every mask has
    its own outline, dotted where no mask of SAM 2 fitted and CLIP's region stands in; that of the
    mask `selected` is broad and white. Without `tags` or `points` these are left out.
    """
    expected = (*segmentation.size, 3)
    if image.dtype != np.uint8 or image.shape != expected:
        raise ValueError(
            f"the segmentation belongs to a uint8 image of shape {expected}, "
            f"got {image.dtype} {image.shape}"
        )
    classes = len(segmentation.class_names)
    canvas = resize_image(image, size)
    labels = resize_labels(segmentation.label_map, size)
    tint = label_colors(classes)[labels]
    blended = cv2.addWeighted(canvas, 1 - opacity, tint, opacity, 0)
    canvas = np.where((labels > 0)[..., None], blended, canvas)

    order = np.argsort([-int(mask.sum()) for mask in segmentation.masks])  # small ones on top
    colors = [tuple(c) for c in class_colors(classes)[segmentation.class_ids].tolist()]  # of masks
    anchors = {}
    for index in order:
        share = resize_mask(segmentation.masks[index], size)
        dotted = segmentation.sources[index] == "region"
        _outline(canvas, share >= 128, colors[index], dotted=dotted)
        anchors[index] = _box_of(share, segmentation.boxes[index], segmentation.size)
    if selected is not None:
        share = resize_mask(segmentation.masks[selected], size)
        _outline(canvas, share >= 128, (255, 255, 255), dotted=False, width=5)
    dots = _draw_points(canvas, segmentation, colors) if points else []
    say_missing_letters("".join(segmentation.class_names))
    if tags:
        _draw_labels(canvas, segmentation, colors, anchors, dots)
    return canvas


def _outline(
    canvas: np.ndarray, mask: np.ndarray, color: Color, *, dotted: bool, width: int = 2
) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = list(contours)
    if dotted:
        lines = [c[i : i + 6] for c in contours for i in range(0, len(c), 11)]
    # A dark rim keeps the colour visible on ground of the same colour.
    for tone, broad in (((20, 20, 20), width + 2), (color, width)):
        cv2.polylines(canvas, lines, not dotted, tone, broad, cv2.LINE_AA)


def _box_of(share: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> Box:
    """Where a mask is in the drawing; from its box if it is too small to be seen there."""
    rows, columns = (np.flatnonzero(share.max(axis=axis) >= 128) for axis in (1, 0))
    if len(rows):
        return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    factor = np.array([share.shape[1] / size[1], share.shape[0] / size[0]] * 2)
    return tuple((box * factor).tolist())


def _draw_points(canvas: np.ndarray, segmentation: Segmentation, colors: list[Color]) -> list[Box]:
    """Draw the prompt points; returns the boxes of the dots."""
    dots: list[Box] = []
    factor = np.array([canvas.shape[1], canvas.shape[0]]) / segmentation.size[::-1]
    for color, points in zip(colors, segmentation.points, strict=True):
        for x, y in (points + 0.5) * factor - 0.5:
            dots.append((x - 7, y - 7, x + 7, y + 7))
            centre = (round(x * 8), round(y * 8))  # eighths of a pixel
            for tone, radius in (((20, 20, 20), 7), ((255, 255, 255), 6), (color, 3.5)):
                cv2.circle(canvas, centre, round(radius * 8), tone, -1, cv2.LINE_AA, shift=3)
    return dots


def _draw_labels(
    canvas: np.ndarray,
    segmentation: Segmentation,
    colors: list[Color],
    anchors: dict[int, Box],
    dots: list[Box],
) -> None:
    """A name tag by every mask. Where the picture is too full, the smaller masks go without."""
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    height, width = canvas.shape[:2]
    taken: list[Box] = []
    for index, box in anchors.items():
        name = shorten(segmentation.class_name(index), _LABEL_LENGTH)
        text = f"{name} {segmentation.scores[index]:.2f}"
        tag_width, tag_height = text_length(text, LABEL_SIZE) + 10, LABEL_SIZE + 7
        if tag_width > width or tag_height > height:
            continue
        tag = _place_tag((tag_width, tag_height), box, (width, height), taken, dots)
        if tag is None:
            continue
        taken.append(tag)
        draw.rounded_rectangle(tag, radius=4, fill=colors[index], outline=(20, 20, 20))
        middle, ink = (tag[0] + 5, (tag[1] + tag[3]) / 2), _text_color(colors[index])
        draw_text(draw, middle, text, LABEL_SIZE, ink)
    canvas[:] = np.asarray(picture)


def _place_tag(
    tag: tuple[float, float], box: Box, limits: tuple[int, int], taken: list[Box], dots: list[Box]
) -> Box | None:
    """Where a tag (width, height) by `box` hides least of the other tags and dots.

    None if it would hide another tag.
    """
    w, h = tag
    x0, y0, x1, y1 = box
    middle_x, middle_y = (x0 + x1 - w) / 2, (y0 + y1 - h) / 2
    spots = [
        (middle_x, y0 - h - 3),
        (middle_x, y1 + 3),
        (middle_x, y0 + 3),
        (middle_x, y1 - h - 3),
        (x0, y0 - h - 3),
        (x1 - w, y0 - h - 3),
        (x0, y1 + 3),
        (x1 - w, y1 + 3),
        (x1 + 3, middle_y),
        (x0 - w - 3, middle_y),
    ]
    best, least = None, np.inf
    for x, y in spots:
        x = min(max(x, 0), limits[0] - 1 - w)
        y = min(max(y, 0), limits[1] - 1 - h)
        spot = (x, y, x + w, y + h)
        hidden = sum(_overlap(spot, other) for other in taken)
        cost = hidden + sum(_overlap(spot, dot) for dot in dots)
        if hidden < 0.3 * w * h and cost < least:
            best, least = spot, cost
    return best


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _text_color(background: Color) -> Color:
    """Black or white, whichever is read better on `background`."""
    luminance = np.dot(background, (0.299, 0.587, 0.114))
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)
