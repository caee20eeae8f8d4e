"""How good a student is on images that no training sees.

Shapes: B images, C channels, h×w patches, H×W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.device import autocast
from models.loftup.network import restore_text_space

from ...evaluation.metrics import confusion, edge_band, mean_iou
from ...world.scenes import World
from ..naming import Namer, held_out_scene, upsample
from .losses import share_loss, stack_shares
from .samples import RenderedScenes, Sample, Source, scene_masks
from .stage import Stage, mean_cosine
from .students import Student, upsample_student
from .targets import Example, stage1_target

# How words are found: bilinearly upsampled scores; LoftUp's output brought back to the joint space;
# as it comes, channel-normalised; and the mean of the scores of the first two.
WAYS = ("bilinear", "restored", "channel_norm", "mean")


@dataclass
class _Image:
    sample: Sample
    example: Example
    compared: bool  # with the target of stage 1
    ground_truth: np.ndarray | None = None  # (H, W) int64 classes


class Validator:
    """Measures a student on held-out images.

    Every backbone: the mean cosine between the output and stage 1's target ("cosine"), and between
    that target and the bicubically upsampled features ("cosine_bicubic"); where they teach, the
    term "shares" of whole images. With a text side, on
    held-out rendered scenes: mIoU (percent) of zero-shot naming, and of pixels within 3 px of an
    outline ("…_edge"), by each of `WAYS`. `count` is that of images, and of scenes.
    """

    def __init__(self, stage: Stage, source: Source, world: World, count: int) -> None:
        self.stage, self.side = stage, stage.config.side
        rendered, text = isinstance(source, RenderedScenes), stage.backbone.text
        self.namer = None if text is None else Namer(text.clip, text.tokenizer, world)
        # Rendered scenes serve both measures at once.
        samples = [] if rendered and text else source.held_out(count, self.side)
        self.images = [_Image(s, stage.examples([s])[0], True) for s in samples]
        if self.namer is not None:
            for i in range(count):
                scene = held_out_scene(world, i, (self.side, self.side))
                sample = Sample(scene.image, scene_masks(scene))
                ground_truth = self.namer.ground_truth(scene)
                self.images.append(
                    _Image(sample, stage.examples([sample])[0], rendered, ground_truth)
                )

    @torch.no_grad()
    def measure(self, student: Student) -> dict[str, float]:
        """All measures of a student in eval mode."""
        cosines: dict[str, list[float]] = {"cosine": [], "cosine_bicubic": []}
        if self.stage.config.shares:
            cosines["shares"] = []
        matrices: dict[str, np.ndarray] = {}
        for image in self.images:
            normed, output = self.upsample(student, image.example)
            if image.compared:
                window = (0, 0, self.side)
                target = stage1_target(image.example, normed, self.stage.config.alpha, window)
                bicubic = stage1_target(image.example, normed, 0.0, window)
                cosines["cosine"].append(mean_cosine(output, target).item())
                cosines["cosine_bicubic"].append(mean_cosine(bicubic, target).item())
                if self.stage.config.shares:
                    cosines["shares"].append(self._shares(student, image.example))
            if self.namer is not None and image.ground_truth is not None:
                for name, found in self._name(self.namer, student, image, output):
                    matrices[name] = matrices.get(name, 0) + found
        scores = {name: float(np.mean(values)) for name, values in cosines.items()}
        return scores | {name: mean_iou(matrix) for name, matrix in matrices.items()}

    def upsample(self, student: Student, example: Example) -> tuple[Tensor, Tensor]:
        """Channel-normalised features (C, h, w) and LoftUp's output (C, H, W) float32."""
        features, precision = example.features[None], self.stage.precision
        with autocast(features.device, precision):
            output = student(features, example.image[None])[0].float()
        return student.channelnorm(features)[0], output

    def _shares(self, student: Student, example: Example) -> float:
        """The term of that name for a whole image."""
        features, starts = example.features[None], [[(0, 0)]]
        with autocast(features.device, self.stage.precision):
            _, mixed = upsample_student(
                student, features, example.image[None], starts, self.side, stack_shares([example])
            )
        assert mixed is not None
        return share_loss(mixed.float(), [example], starts).item()

    def _name(
        self, namer: Namer, student: Student, image: _Image, output: Tensor
    ) -> Iterator[tuple[str, np.ndarray]]:
        """An image's confusions, by the name of the measure."""
        features, true = image.example.features, image.ground_truth
        assert true is not None
        joint = restore_text_space(output[None], features[None], student.channelnorm.norm)[0]
        bilinear = upsample(namer.scores(features), (self.side, self.side))
        restored = namer.scores(joint)
        scores = (bilinear, restored, namer.scores(output), (bilinear + restored) / 2)
        band = edge_band(true)
        for name, map_ in zip(WAYS, scores, strict=True):
            predicted = map_.argmax(0).cpu().numpy()
            yield name, confusion(true, predicted, namer.count)
            yield f"{name}_edge", confusion(true[band], predicted[band], namer.count)

    def score(self, measures: dict[str, float]) -> float:
        """What the best weights are chosen by: higher is better.

        With the term "shares" minus that, with a text side the mean of the restored mIoU and its
        edge mIoU, else the cosine.
        """
        if "shares" in measures:
            return -measures["shares"]
        if self.namer is None:
            return measures["cosine"]
        return (measures["restored"] + measures["restored_edge"]) / 2


def principal_colours(grids: list[Tensor]) -> list[np.ndarray]:
    """Features as colours: the three principal components of the first grid's patches, for all.

    Grids are (C, h, w) each, of any size, and give (h, w, 3) uint8 each.
    """
    patches = grids[0].flatten(1).T  # (N, C)
    centre = patches.mean(0)
    basis = torch.linalg.svd((patches - centre).cpu().double(), full_matrices=False).Vh[:3]
    basis = basis.T.to(patches)  # (C, 3)
    shown = [((grid.flatten(1).T - centre) @ basis).cpu() for grid in grids]
    low, high = shown[0].quantile(0.02, dim=0), shown[0].quantile(0.98, dim=0)
    pictures = []
    for grid, values in zip(grids, shown, strict=True):
        scaled = ((values - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * 255
        pictures.append(scaled.round().byte().view(*grid.shape[1:], -1).numpy())
    return pictures


@torch.no_grad()
def feature_picture(validator: Validator, student: Student) -> np.ndarray:
    """The first held-out image beside its features: low-resolution, bilinear, LoftUp, target.

    (S, 5 · S, 3) uint8.
    """
    image, side = validator.images[0], validator.side
    normed, output = validator.upsample(student, image.example)
    nearest = F.interpolate(normed[None], (side, side), mode="nearest")[0]
    bilinear = upsample(normed, (side, side))
    target = stage1_target(image.example, normed, validator.stage.config.alpha, (0, 0, side))
    _, *pictures = principal_colours([normed, nearest, bilinear, output, target])
    return np.concatenate([image.sample.image, *pictures], axis=1)
