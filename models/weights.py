"""Find, check and load weights."""

from __future__ import annotations

from pathlib import Path


def build_clip_from_folder(folder: Path):
    import json

    import open_clip
    from open_clip.model import CLIP

    config = json.loads((folder / "open_clip_config.json").read_text())
    model = CLIP(**config["model_cfg"])
    pre = config["preprocess_cfg"]
    model.visual.image_mean, model.visual.image_std = tuple(pre["mean"]), tuple(pre["std"])
    tokenizer = open_clip.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return model, tokenizer
