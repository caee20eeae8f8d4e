"""The `vit-b16` preset from files like the published ones: names, formats and sizes, random values.

They lie in a Hugging Face cache made here, so nothing is downloaded and every step of loading is
the real one.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from skimage import data

from models.loftup.network import LoftUp
from models.loftup_sclip_segmentor import LoftUpSCLIPSegmentor
from models.presets import LOFTUPS, PRESETS
from models.protocols import Protocol
from models.sam2_masks import Sam2Masks
from models.sam2_networks import build_sam2
from models.weight_files import resolve
from models.weights import build_clip, load_sam2, published_sam2
from tests import hub

PRESET = PRESETS["vit-b16"]
NAMES = ["cup", "spoon,teaspoon", "table"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache, offline; emptied again, as pytest keeps the folders of its last runs."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield tmp_path
    shutil.rmtree(tmp_path)


def add_clip(cache: Path, filename: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    clip, _ = build_clip(PRESET.clip.architecture)
    state = {k: v.to(dtype) for k, v in clip.state_dict().items()}
    save = save_file if filename.endswith(".safetensors") else torch.save
    hub.add_to_cache(cache, PRESET.clip.source.repo_id, filename, lambda path: save(state, path))


def add_loftup(cache: Path) -> None:
    torch.manual_seed(1)
    source = LOFTUPS[PRESET.loftup].source
    state = LoftUp(512).state_dict()
    hub.add_to_cache(
        cache, source.repo_id, source.filenames[0], lambda path: torch.save(state, path)
    )


def add_sam2(cache: Path, model_cfg: str) -> None:
    torch.manual_seed(2)
    source = published_sam2(model_cfg)
    state = {"model": build_sam2(model_cfg).state_dict()}
    hub.add_to_cache(
        cache, source.repo_id, source.filenames[0], lambda path: torch.save(state, path)
    )


def check(segmentor: LoftUpSCLIPSegmentor, image: np.ndarray) -> None:
    size = image.shape[:2]
    seg_map, logits, features = segmentor.predict_dense(
        image, NAMES, return_logits=True, return_features=True
    )
    assert seg_map.shape == size and seg_map.dtype == np.int64
    assert logits.shape == (3, *size) and features.shape == (512, *size)
    assert logits.isfinite().all() and features.isfinite().all()
    assert torch.equal(logits.argmax(0), torch.from_numpy(seg_map))
    assert features.std((1, 2)).mean() > 0.01  # pixels differ


def test_the_clip_is_the_one_that_open_clip_publishes():
    published = open_clip.get_pretrained_cfg(PRESET.clip.architecture, "openai")
    assert published["hf_hub"].strip("/") == PRESET.clip.source.repo_id
    assert published["quick_gelu"]
    assert set(PRESET.clip.source.filenames) <= {
        open_clip.constants.HF_SAFE_WEIGHTS_NAME,
        open_clip.constants.HF_WEIGHTS_NAME,
    }


def test_dense_map_from_half_precision_files(cache):
    add_clip(cache, "open_clip_pytorch_model.bin", torch.float16)
    add_loftup(cache)
    small = Protocol(name="small", logit_scale=40, short_side=48, window=48, stride=32)
    segmentor = LoftUpSCLIPSegmentor("cpu", protocol=small)
    assert {p.dtype for p in segmentor.networks.network("clip").parameters()} == {torch.float32}
    check(segmentor, data.coffee()[:200, :260])


def test_small_sam2(cache):
    add_sam2(cache, "sam2.1_hiera_t.yaml")
    model = load_sam2(PRESET.sam, model_cfg="sam2.1_hiera_t.yaml")
    torch.manual_seed(2)
    expected = build_sam2("sam2.1_hiera_t.yaml").state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())


@pytest.mark.slow
def test_everything_at_its_real_size(cache):
    """A photograph through CLIP ViT-B/16, LoftUp and SAM 2 large: minutes, 6 GB of memory."""
    add_clip(cache, "open_clip_model.safetensors", torch.float32)
    add_loftup(cache)
    add_sam2(cache, PRESET.sam.model_cfg)
    assert resolve(PRESET.clip.source).name == "open_clip_model.safetensors"
    image = data.coffee()
    assert image.shape == (400, 600, 3)
    check(LoftUpSCLIPSegmentor("cpu"), image)
    masks = Sam2Masks(load_sam2(PRESET.sam))
    masks.set_image(image)
    logits, iou = masks.decode(np.array([[[300.0, 150.0]], [[20.0, 380.0]]]), np.ones((2, 1)))
    assert logits.shape == (2, 3, 256, 256) and iou.shape == (2, 3)
    assert masks.upscale(logits[0]).shape == (3, 400, 600)
