"""Masks from SAM 2 for many prompts on one image, with the sam2 package's own networks.

    masks = Sam2Masks(model)                         # from `models.weights.load_sam2`
    masks.set_image(image)                           # encodes once
    logits, iou = masks.decode(points, labels)       # small: choose among these ...
    chosen = masks.upscale(logits[rows, columns])    # ... and enlarge only what was chosen

Points are (x, y) pixels of the original image, boxes XYXY, sizes (H, W). A label is 1 (on the
object), 0 (not on it) or -1 (no point: padding of prompts with fewer points than others).

Shapes: N prompts, P points per prompt, T prompt tokens, M masks, S side of SAM's square image
(1024 in the official models), L = S/4 side of its mask logits, H×W pixels of the original image.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .device import autocast
from .presets import AutomaticMasks

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as in sam2's transforms
PADDING = -1
_TOP_LEFT, _BOTTOM_RIGHT = 2, 3  # the prompt encoder's labels of a box's corners


class Sam2Masks:
    """One image, many prompts."""

    def __init__(
        self,
        model: SAM2Base,
        mask_threshold: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        """Use `model` where it is, as it is; logits above `mask_threshold` are mask.

        `dtype` is that of the image encoder's products. The decoder stays in float32: it is a
        small part of the work, and its logits decide about pixels.
        """
        self.model, self._dtype = model, dtype
        self.mask_threshold = mask_threshold
        self._image: np.ndarray | None = None
        self._size: tuple[int, int] | None = None
        self._embedding: Tensor | None = None  # (1, C, S/16, S/16)
        self._fine: list[Tensor] | None = None  # (1, C/8, S/4, S/4), (1, C/4, S/8, S/8)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def logits_side(self) -> int:
        """L, the side of mask prompts and mask logits."""
        return self.model.sam_prompt_encoder.mask_input_size[0]

    @property
    def image_side(self) -> int:
        """S, the side of the square that the image is resized to."""
        return self.model.image_size

    @property
    def default_batch_size(self) -> int:
        """Prompts decoded at once.

        A GPU wants many. On a CPU the decoder's activations (4 MB per prompt and layer in the
        official models) should stay in the cache: one thread decodes 16 prompts in 2.0 s by 4s,
        in 2.4 s one by one and in 3.1 s at once.
        """
        return 4 if self.device.type == "cpu" else 64

    @torch.inference_mode()
    def set_image(self, image: np.ndarray) -> None:
        """Encode an (H, W, 3) uint8 RGB image; the array that is set already is not redone."""
        if image is self._image:
            return
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"SAM 2 takes an RGB image as an (H, W, 3) uint8 array, not {image.shape} "
                f"{image.dtype}."
            )
        side = self.image_side
        # As SAM2Transforms does (a float image, antialiased), without its TorchScript.
        tensor = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None] / 255
        tensor = F.interpolate(tensor, (side, side), mode="bilinear", antialias=True)
        mean, std = (tensor.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        with autocast(self.device, self._dtype):
            levels = self.model.forward_image((tensor - mean) / std)["backbone_fpn"]
        levels = [x.to(tensor.dtype) for x in levels[-self.model.num_feature_levels :]]
        embedding = levels[-1]
        if self.model.directly_add_no_mem_embed:
            embedding = embedding + self.model.no_mem_embed.view(1, -1, 1, 1)
        self._embedding = embedding
        self._fine = levels[:-1] or None
        self._image, self._size = image, (image.shape[0], image.shape[1])

    def sam_pixel(self) -> np.ndarray:
        """(2,) float64: width and height of one of SAM's pixels, in pixels of the image.

        Raises:
            RuntimeError: no image is set.
        """
        height, width = self._image_size()
        return np.array([width, height]) / self.image_side

    def middles(self, pixels: np.ndarray) -> np.ndarray:
        """The middles of pixels (…, 2) (x, y) of the image, as `decode` takes points: float32.

        A middle is half a pixel from the edge, and SAM's encoder adds half of one of its own: it
        is given (x + ½)·S/W - ½ in its square, so that (x + ½)·S/W is what it sees.

        Raises:
            RuntimeError: no image is set.
        """
        return (pixels + 0.5 - 0.5 * self.sam_pixel()).astype(np.float32)

    def _image_size(self) -> tuple[int, int]:
        if self._size is None:
            raise RuntimeError("No image is set: call set_image(image) first.")
        return self._size

    @torch.inference_mode()
    def decode(
        self,
        points: np.ndarray | Tensor | None,
        labels: np.ndarray | Tensor | None,
        boxes: np.ndarray | Tensor | None = None,
        mask_logits: np.ndarray | Tensor | None = None,
        batch_size: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Three masks for each prompt, small.

        SAM attends to padding points too, so the same prompt gives another mask next to a prompt
        with more points. Here prompts are grouped by their number of points and decoded without
        padding: a result depends on its own prompt alone.

        Args:
            points: (N, P, 2) pixels (x, y), as sam2's predictor takes them: it counts from the
                image's edge, and adds half a pixel of its own square (see `middles`); None with
                boxes only.
            labels: (N, P), 1, 0 or -1 (padding).
            boxes: (N, 4) XYXY, or None.
            mask_logits: (N, 1, L, L) earlier or coarse masks as logits, or None.
            batch_size: prompts decoded at once; None chooses by device.

        Returns:
            Logits (N, 3, L, L) and predicted IoU (N, 3), both float32 on the CPU.

        Raises:
            RuntimeError: no image is set.
            ValueError: arguments that do not fit together, or a prompt without point and box.
        """
        self._image_size()
        coordinates, labels = self._tokens(points, labels, boxes)
        count, side = len(labels), self.logits_side
        if mask_logits is not None:
            mask_logits = torch.as_tensor(mask_logits)
            _check_shape("mask_logits", mask_logits, (count, 1, side, side))
        step = self.default_batch_size if batch_size is None else batch_size
        if step < 1:
            raise ValueError(f"batch_size must be at least 1, not {step}.")
        lengths = (labels != PADDING).sum(1)
        if count and int(lengths.min()) == 0:
            row = int(lengths.argmin())
            raise ValueError(f"Prompt {row} has neither a point nor a box.")
        # Real tokens first, in their order.
        order = (labels == PADDING).int().argsort(dim=1, stable=True)
        coordinates = coordinates.gather(1, order[..., None].expand(-1, -1, 2))
        labels = labels.gather(1, order)

        logits = torch.empty(count, 3, side, side)
        iou = torch.empty(count, 3)
        for length in lengths.unique().tolist():
            for rows in torch.nonzero(lengths == length).flatten().split(step):
                masks = None if mask_logits is None else mask_logits[rows]
                logits[rows], iou[rows] = self._decode_batch(
                    coordinates[rows, :length], labels[rows, :length], masks
                )
        return logits, iou

    def _tokens(
        self,
        points: np.ndarray | Tensor | None,
        labels: np.ndarray | Tensor | None,
        boxes: np.ndarray | Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """All prompts as (N, T, 2) pixels of SAM's square and (N, T) int64 labels, on the CPU."""
        if points is None and boxes is None:
            raise ValueError("Give points, boxes or both.")
        if (points is None) != (labels is None):
            raise ValueError("Points and labels go together: give both or neither.")
        coordinates, kinds = [], []
        if boxes is not None:  # corners first, as sam2's predictor orders them
            boxes = torch.as_tensor(boxes, dtype=torch.float32).cpu()
            _check_shape("boxes", boxes, (len(boxes), 4))
            coordinates.append(boxes.view(-1, 2, 2))
            kinds.append(torch.tensor([[_TOP_LEFT, _BOTTOM_RIGHT]]).expand(len(boxes), 2))
        if points is not None and labels is not None:
            points = torch.as_tensor(points, dtype=torch.float32).cpu()
            labels = torch.as_tensor(labels).to("cpu", torch.int64)
            count = len(points) if boxes is None else len(boxes)
            width = points.shape[1] if points.ndim == 3 else 1
            _check_shape("points", points, (count, width, 2))
            _check_shape("labels", labels, (count, width))
            if not ((labels >= PADDING) & (labels <= 1)).all():
                raise ValueError("Labels must be 1 (object), 0 (not object) or -1 (padding).")
            points = torch.where(labels[..., None] == PADDING, 0.0, points)
            coordinates.append(points)
            kinds.append(labels)
        tokens = torch.cat(coordinates, 1)
        if not tokens.isfinite().all():
            raise ValueError("Points and boxes must be finite numbers.")
        height, width = self._image_size()
        scale = torch.tensor([self.image_side / width, self.image_side / height])
        return tokens * scale, torch.cat(kinds, 1)

    def _decode_batch(
        self, coordinates: Tensor, labels: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        encoder = self.model.sam_prompt_encoder
        sparse, dense = encoder(
            points=(coordinates.to(self.device), labels.to(self.device)),
            boxes=None,
            masks=None if masks is None else masks.to(self.device, torch.float32),
        )
        logits, iou, _, _ = self.model.sam_mask_decoder(
            image_embeddings=self._embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=True,
            high_res_features=self._fine,
        )
        return logits.float().cpu(), iou.float().cpu()

    @torch.inference_mode()
    def upscale(self, logits: Tensor) -> Tensor:
        """(M, L, L) logits → (M, H, W) bool masks of the image that is set, on the CPU.

        One at a time: a mask of a 24-megapixel image is 96 MB as floats, 24 MB as bools.
        """
        size = self._image_size()
        _check_shape("logits", logits, (len(logits), self.logits_side, self.logits_side))
        masks = torch.empty(len(logits), *size, dtype=torch.bool)
        for row, low in enumerate(logits):
            large = F.interpolate(low[None, None].float(), size, mode="bilinear")
            masks[row] = (large[0, 0] > self.mask_threshold).cpu()
        return masks

    @torch.inference_mode()
    def automatic(
        self,
        image: np.ndarray,
        settings: AutomaticMasks = AutomaticMasks(),  # noqa: B008 (frozen)
    ) -> list[dict[str, Any]]:
        """Masks of everything: SAM 2's own generator, a grid of clicks, doubles removed.

        Args:
            image: (H, W, 3) uint8 RGB, as for `set_image`: it becomes the image that is set, and
                if it already is, it is not encoded again.
            settings: the preset's, `Preset.sam.automatic`; the defaults suit the official models.

        Returns:
            SAM's records: `segmentation` (H, W) bool, `bbox` XYWH, `area`, `predicted_iou`,
            `stability_score`, `point_coords`, `crop_box`.
        """
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        self.set_image(image)
        with warnings.catch_warnings():  # sam2 scripts its transforms, which torch deprecates
            warnings.simplefilter("ignore", FutureWarning)
            generator = SAM2AutomaticMaskGenerator(
                self.model,
                points_per_side=settings.points_per_side,
                points_per_batch=self.default_batch_size,
                pred_iou_thresh=settings.predicted_iou,
                stability_score_thresh=settings.stability,
                mask_threshold=self.mask_threshold,
                multimask_output=settings.multimask,
            )
        predictor: Any = generator.predictor

        def hand_over(crop: np.ndarray) -> None:
            assert crop.shape[:2] == self._size  # no crops: the generator asks for the whole image
            predictor._orig_hw = [self._size]
            predictor._features = {
                "image_embed": self._embedding,
                "high_res_feats": self._fine or [],
            }
            predictor._is_image_set = True

        predictor.set_image = hand_over  # instead of encoding the image a second time
        return generator.generate(image)


def _check_shape(name: str, value: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(value.shape) != expected:
        raise ValueError(f"{name} must be {expected}, not {tuple(value.shape)}.")
