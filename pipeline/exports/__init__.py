"""Results in the formats of other tools: one file per format."""

FORMATS = ("coco", "yolo", "voc", "labelme")
