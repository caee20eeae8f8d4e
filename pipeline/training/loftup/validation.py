"""How good a LoftUp is on images that no training sees.

Shapes: B images, C channels, h×w cells, H×W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.loftup.network import LoftUp, restore_text_space

from ...evaluation.metrics import confusion, edge_band, mean_iou
from ...world.scenes import World
from ..naming import Namer, enlarge, held_out_scene
from .samples import RenderedScenes, Sample, Source, scene_masks
from .stage import Stage, mean_cosine
from .targets import Example, stage1_target

# How words are told: bilinearly enlarged scores; LoftUp's output brought back to the joint space;
# as it comes, channel-normalised; and the mean of the scores of the first two.
WAYS = ("bilinear", "restored", "channel_norm", "mean")


@dataclass
class _Image:
    sample: Sample
    example: Example
    compared: bool  # with the target of stage 1
    truth: np.ndarray | None  # (H, W) int64 classes


class Validator:
    """Measures a LoftUp on held-out images.

    Every backbone: the mean cosine between the output and stage 1's target ("cosine"), and between
    that target and the bicubically enlarged features ("cosine_bicubic"). With a text side, on
    held-out rendered scenes: mIoU (percent) of zero-shot naming, and of pixels within 3 px of an
    outline ("…_edge"), by each of `WAYS`.

    Args:
        stage: backbone and settings.
        source: of the training images.
        world: the rendered world.
        count: images, and scenes.
    """

    def __init__(self, stage: Stage, source: Source, world: World, count: int) -> None:
        self.stage, self.side = stage, stage.config.side
        rendered, text = isinstance(source, RenderedScenes), stage.backbone.text
        self.namer = None if text is None else Namer(text.clip, text.tokenizer, world)
        # Rendered scenes serve both measures at once.
        samples = [] if rendered and text else source.held_out(count, self.side)
        self.images = [self._image(sample, compared=True) for sample in samples]
        if self.namer is not None:
            for i in range(count):
                scene = held_out_scene(world, i, (self.side, self.side))
                sample = Sample(scene.image, scene_masks(scene))
                image = self._image(sample, compared=rendered)
                image.truth = self.namer.truth(scene)
                self.images.append(image)

    def _image(self, sample: Sample, *, compared: bool) -> _Image:
        (example,) = self.stage.examples([sample])
        return _Image(sample, example, compared, None)

    @property
    def columns(self) -> list[str]:
        """Names of the measures."""
        ways = [] if self.namer is None else [f"{w}{part}" for w in WAYS for part in ("", "_edge")]
        return ["cosine", "cosine_bicubic", *ways]

    @torch.no_grad()
    def measure(self, loftup: LoftUp) -> dict[str, float]:
        """All measures of a LoftUp in eval mode."""
        cosines: dict[str, list[float]] = {"cosine": [], "cosine_bicubic": []}
        matrices: dict[str, np.ndarray] = {}
        for image in self.images:
            normed, output = self.upsample(loftup, image.example)
            if image.compared:
                window = (0, 0, self.side)
                target = stage1_target(image.example, normed, self.stage.config.alpha, window)
                bicubic = stage1_target(image.example, normed, 0.0, window)
                cosines["cosine"].append(mean_cosine(output, target).item())
                cosines["cosine_bicubic"].append(mean_cosine(bicubic, target).item())
            if image.truth is not None:
                self._name(loftup, image, output, matrices)
        scores = {name: float(np.mean(values)) for name, values in cosines.items()}
        return scores | {name: mean_iou(matrix) for name, matrix in matrices.items()}

    def upsample(self, loftup: LoftUp, example: Example) -> tuple[Tensor, Tensor]:
        """Channel-normalised features (C, h, w) and LoftUp's output (C, H, W) float32."""
        features, precision = example.features[None], self.stage.precision
        low = precision != torch.float32
        with torch.autocast(features.device.type, precision, enabled=low):
            output = loftup(features, example.image[None])[0].float()
        return loftup.channelnorm(features)[0], output

    def _name(
        self, loftup: LoftUp, image: _Image, output: Tensor, matrices: dict[str, np.ndarray]
    ) -> None:
        """Add an image's confusions."""
        features = image.example.features
        joint = restore_text_space(output[None], features[None], loftup.channelnorm.norm)[0]
        bilinear = enlarge(self.namer.scores(features), (self.side, self.side))
        restored = self.namer.scores(joint)
        scores = (bilinear, restored, self.namer.scores(output), (bilinear + restored) / 2)
        band = edge_band(image.truth)
        for name, map_ in zip(WAYS, scores, strict=True):
            predicted = map_.argmax(0).cpu().numpy()
            for key, pixels in ((name, np.s_[:]), (f"{name}_edge", band)):
                found = confusion(image.truth[pixels], predicted[pixels], self.namer.count)
                matrices[key] = matrices.get(key, 0) + found

    def score(self, measures: dict[str, float]) -> float:
        """What the best weights are chosen by: higher is better.

        With a text side the mean of the restored mIoU and its edge mIoU, else the cosine.
        """
        if self.namer is None:
            return measures["cosine"]
        return (measures["restored"] + measures["restored_edge"]) / 2


def principal_colours(grids: list[Tensor]) -> list[np.ndarray]:
    """Features as colours: the three principal components of the first grid's cells, for all.

    Args:
        grids: (C, h, w) each, of any size.

    Returns:
        (h, w, 3) uint8 each.
    """
    cells = grids[0].flatten(1).T  # (N, C)
    centre = cells.mean(0)
    basis = torch.linalg.svd((cells - centre).cpu().double(), full_matrices=False).Vh[:3]
    basis = basis.T.to(cells)  # (C, 3)
    shown = [((grid.flatten(1).T - centre) @ basis).cpu() for grid in grids]
    low, high = shown[0].quantile(0.02, dim=0), shown[0].quantile(0.98, dim=0)
    pictures = []
    for grid, values in zip(grids, shown, strict=True):
        scaled = ((values - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * 255
        pictures.append(scaled.round().byte().view(*grid.shape[1:], -1).numpy())
    return pictures


@torch.no_grad()
def feature_picture(validator: Validator, loftup: LoftUp) -> np.ndarray:
    """The first held-out image beside its features: low-resolution, bilinear, LoftUp, target.

    Returns:
        (S, 5 · S, 3) uint8.
    """
    image, side = validator.images[0], validator.side
    normed, output = validator.upsample(loftup, image.example)
    nearest = F.interpolate(normed[None], (side, side), mode="nearest")[0]
    bilinear = enlarge(normed, (side, side))
    target = stage1_target(image.example, normed, validator.stage.config.alpha, (0, 0, side))
    _, *pictures = principal_colours([normed, nearest, bilinear, output, target])
    return np.concatenate([image.sample.image, *pictures], axis=1)
