"""Fetching ahead, from a hub and a cache made by the test."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from models.presets import PRESETS, Source
from scripts import download_weights
from tests import hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(cache: Path, *entries: tuple[str, str]) -> list[Path]:
    state = {"w": torch.zeros(2**18)}  # 1 MiB
    return [hub.add_to_cache(cache, *entry, lambda path: torch.save(state, path))
            for entry in entries]  # fmt: skip


CLIP = ("timm/vit_base_patch16_clip_224.openai", "open_clip_pytorch_model.bin")
LOFTUP = ("haiwen/loftup-clip", "pytorch_model.bin")
SAM = ("facebook/sam2-hiera-large", "sam2_hiera_large.pt")
SAM_TINY = ("facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny.pt")


def failure(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line of a refusal."""
    assert download_weights.main(arguments) == 2
    error = capsys.readouterr().err
    assert ": error: " in error and error.count("\n") == 1
    return error


def test_lists_what_is_there(cache, capsys):
    paths = fill(cache, CLIP, LOFTUP, SAM)
    assert download_weights.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("MiB")[0].split() for line in lines] == [
        ["CLIP", "1.0"], ["LoftUp", "1.0"], ["SAM", "2", "1.0"],
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines] == [str(path) for path in paths]


def test_another_sam2(cache, capsys):
    *_, path = fill(cache, CLIP, LOFTUP, SAM_TINY)
    assert download_weights.main(["--model-cfg", "sam2.1_hiera_t.yaml"]) == 0
    assert capsys.readouterr().out.strip().endswith(str(path))


def test_missing_damaged_and_unknown(cache, capsys):
    fill(cache, CLIP, LOFTUP)
    error = failure([], capsys)
    assert "facebook/sam2-hiera-large/sam2_hiera_large.pt" in error and "HF_HUB_OFFLINE" in error
    (path,) = fill(cache, SAM)
    path.resolve().write_bytes(path.read_bytes()[:1000])
    assert f"{path} cannot be read (1,000 bytes" in failure([], capsys)
    assert "valid: vit-b16, tiny" in failure(["--preset", "vit"], capsys)
    assert "sam2_hiera_l.yaml" in failure(["--model-cfg", "sam2_hiera_xl.yaml"], capsys)


def test_nothing_to_download_for_shipped_models(random_preset, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "tiny", random_preset)
    assert download_weights.main(["--preset", "tiny"]) == 0
    first, *parts = capsys.readouterr().out.splitlines()
    assert first.startswith("nothing to download") and len(parts) == 3
    lost = dataclasses.replace(random_preset.clip, source=Source(path=Path("nowhere.bin")))
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(random_preset, clip=lost))
    assert "nowhere.bin is part of this repository" in failure(["--preset", "tiny"], capsys)


def test_runs_as_a_file_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "download_weights.py"), "--preset", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "unknown preset 'nothing'" in done.stderr and done.stderr.count("\n") == 1
