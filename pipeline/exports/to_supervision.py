"""A result as `supervision.Detections` (https://supervision.roboflow.com), an optional package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..result import Segmentation

if TYPE_CHECKING:
    import supervision


def to_supervision(result: Segmentation) -> supervision.Detections:
    """See `Segmentation.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise ImportError(
            "to_supervision() needs the package supervision: pip install supervision"
        ) from error
    names = [result.class_name(i) for i in range(len(result))]
    return supervision.Detections(
        xyxy=result.boxes,
        mask=result.masks,
        confidence=result.scores,
        class_id=result.class_ids,
        data={
            "class_name": np.array(names, dtype=str),
            "class_confidence": result.confidences,
        },
    )
