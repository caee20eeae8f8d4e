"""SAM 2's networks: configurations by name, and what is refused in a user's own."""

import pytest
import torch
from omegaconf import OmegaConf

from models.presets import MODELS
from models.sam2_networks import build_sam2, find_config
from models.weight_files import read_state_dict
from models.weights import load_strictly

TINY = MODELS / "tiny" / "sam2_tiny.yaml"


def test_configs_by_name():
    for name in ("sam2_hiera_l.yaml", "sam2.1_hiera_t.yaml"):
        assert find_config(name).name == name
    with pytest.raises(ValueError, match=r"sam2_hiera_x.yaml.*sam2_hiera_l\.yaml"):
        build_sam2("sam2_hiera_x.yaml")


@pytest.mark.parametrize("name", ["sam2_hiera_t.yaml", "configs/sam2.1/sam2.1_hiera_t.yaml"])
def test_official_configs_build_and_load_their_own_checkpoints(name, tmp_path):
    model = build_sam2(name)
    assert model.image_size == 1024 and not model.training
    is_21 = any("no_obj_embed_spatial" in key for key in model.state_dict())
    assert is_21 == ("2.1" in name)
    checkpoint = {k: torch.full_like(v, 0.5) for k, v in model.state_dict().items()}
    torch.save({"model": checkpoint}, tmp_path / "sam2.pt")
    load_strictly(model, read_state_dict(tmp_path / "sam2.pt"), "sam2.pt")
    assert all((value == 0.5).all() for value in model.state_dict().values())


def test_only_classes_of_sam2_are_built(tmp_path):
    config = OmegaConf.load(TINY)
    config.model.image_encoder.trunk._target_ = "subprocess.run"
    OmegaConf.save(config, tmp_path / "bad.yaml")
    with pytest.raises(ValueError, match=r"subprocess\.run"):
        build_sam2(tmp_path / "bad.yaml")


CLASS = "_target_: sam2.modeling.sam2_base.SAM2Base"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "is no SAM 2 configuration"),
        ("- 1", "is no SAM 2 configuration"),
        ("model: _target_", "is no SAM 2 configuration"),
        ("a: [1, 2\nb: }", "is no YAML file of SAM 2: while parsing"),
        ("\x00\x01", "is no YAML file of SAM 2"),
        ("model: {_target_: '${nowhere}'}", "is no YAML file of SAM 2: Interpolation key"),
        (f"model: {{{CLASS}, colour: 1}}", "does not describe a SAM 2: "),
        ("model: {_target_: sam2.modeling.nothing.SAM2}", "is not a class of the sam2 package"),
        # Reached through a module of sam2 that imports it.
        ("model: {_target_: sam2.build_sam.os.mkdir, _args_: [exploded]}", "os.mkdir' is not a cl"),
        ("model: {_target_: sam2.build_sam.torch.nn.Linear, _args_: [1, 1]}", "is not a class of"),
        ("model: {_target_: sam2.build_sam.build_sam2}", "is not a class of the sam2 package"),
    ],
)
def test_bad_configs_are_refused_and_run_nothing(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text + "\n")
    with pytest.raises(ValueError, match=message) as raised:
        build_sam2("bad.yaml")
    assert "bad.yaml" in str(raised.value) and not (tmp_path / "exploded").exists()
