"""Networks with weights: what loads, and one clear line for what does not fit."""

import io
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from models.anyup.network import AnyUp
from models.naf.network import NAF
from models.presets import ANYUPS, LOFTUPS, NAFS, PRESETS, ClipPreset, SamPreset, Source
from models.sam2_networks import build_sam2, find_config
from models.weight_files import WeightsError, WeightsNotFoundError, read_state_dict
from models.weights import (
    build_clip,
    load_anyup,
    load_clip,
    load_loftup,
    load_naf,
    load_sam2,
    load_strictly,
    published_sam2,
)
from tests import golden, hub
from tests.models.checkpoints import one_line, random_loftup

ROOT = Path(__file__).parents[2]
TINY_SAM = ROOT / "models" / "tiny" / "sam2_tiny.yaml"


@torch.no_grad()
def test_loaded_loftup_gives_the_reference_output(tmp_path):
    tensors = golden.load("loftup")
    torch.save(golden.weights(tensors), tmp_path / "pytorch_model.bin")
    output = load_loftup(tmp_path / "pytorch_model.bin")(
        tensors["case0.lr_feats"], tensors["case0.image"]
    )
    assert golden.max_error(output, tensors["case0.output"]) < 1e-4


# Strictness


def test_strictness_names_the_differences():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {
        "0.weight": torch.ones(2, 4),
        "0.bias": torch.ones(2),
        "a": torch.ones(1),
        "b": torch.ones(1),
        "c": torch.ones(1),
    }
    with pytest.raises(WeightsError) as error:
        load_strictly(module, state, "some/file.bin")
    message = one_line(error)
    assert "some/file.bin does not fit Sequential: of 4 tensors" in message
    assert "2 missing (1.weight, 1.bias)" in message
    assert "3 unknown (a, b, …)" in message
    assert "1 of another shape (0.weight is (2, 4), not (2, 3))" in message
    for name, value in module.state_dict().items():  # nothing was loaded halfway
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_must_be_finite(bad):
    module = nn.Linear(3, 2)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    state["weight"][1, 2] = bad
    with pytest.raises(WeightsError, match="is damaged: weight holds NaN or infinite"):
        load_strictly(module, state, "file.bin")


def test_loftup_of_another_width(tmp_path, cache):
    torch.save(random_loftup(16), tmp_path / "a.bin")
    assert load_loftup(tmp_path / "a.bin").dim == 16
    source = LOFTUPS["loftup_clip"].source
    hub.add_to_cache(
        cache, source.repo_id, source.filenames[0], lambda path: torch.save(random_loftup(16), path)
    )
    with pytest.raises(WeightsError, match=r"upsamples 16 channels, loftup_clip has 512"):
        load_loftup("loftup_clip")


def test_other_networks_are_no_loftup(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="is no LoftUp"):
        load_loftup(tmp_path / "a.bin")
    bare = {k: v for k, v in random_loftup().items() if not k.startswith("channelnorm")}
    torch.save(bare, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match=r"without its channel norm, .*train_loftup") as error:
        load_loftup(tmp_path / "a.bin")
    one_line(error)


def test_unknown_loftup_names_list_the_known():
    with pytest.raises(ValueError, match=r"unknown LoftUp 'loftup_clp'.*loftup_clip") as error:
        load_loftup("loftup_clp")
    one_line(error)


# CLIP and SAM 2


def test_clip_of_a_folder(random_preset):
    clip, tokenizer = load_clip(random_preset.clip)
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    assert clip.visual.image_mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert clip.visual.image_std == pytest.approx((0.26862954, 0.26130258, 0.27577711))
    assert tokenizer(["a photo of a cat."]).shape == (1, 16)
    saved = read_state_dict(random_preset.clip.source.path)
    assert all(torch.equal(v, saved[k]) for k, v in clip.state_dict().items())


def test_clip_drops_the_three_numbers_of_openai(random_preset, tmp_path):
    state = read_state_dict(random_preset.clip.source.path)
    for name in ("input_resolution", "context_length", "vocab_size"):
        state[name] = torch.tensor(7)
    torch.save(state, tmp_path / "clip.bin")
    clip, _ = load_clip(
        ClipPreset(
            architecture=random_preset.clip.architecture,
            features="tiny-clip",
            source=Source(path=tmp_path / "clip.bin"),
        )
    )
    assert torch.equal(clip.ln_final.weight, state["ln_final.weight"])
    state.pop("ln_final.weight")
    torch.save(state, tmp_path / "clip.bin")
    with pytest.raises(WeightsError, match=r"1 missing \(ln_final.weight\)"):
        load_clip(
            ClipPreset(
                architecture=random_preset.clip.architecture,
                features="tiny-clip",
                source=Source(path=tmp_path / "clip.bin"),
            )
        )


def test_unknown_clip():
    with pytest.raises(ValueError, match="unknown CLIP architecture 'ViT-Q-99'"):
        build_clip("ViT-Q-99")


@pytest.mark.parametrize("name", ["sam2.pt", "sam2.safetensors"])
def test_sam2_round_trip(tmp_path, name):
    torch.manual_seed(5)
    state = {k: v.half().contiguous() for k, v in build_sam2(TINY_SAM).state_dict().items()}
    if name.endswith(".pt"):
        torch.save({"model": state}, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    preset = SamPreset(model_cfg=TINY_SAM, source=Source(path=tmp_path / name))
    model = load_sam2(preset)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float()), key
    explicit = load_sam2(PRESETS["vit-b16"].sam, model_cfg=TINY_SAM, checkpoint=tmp_path / name)
    assert explicit.state_dict().keys() == state.keys()


def test_sam2_checkpoint_of_another_configuration(tmp_path):
    state = build_sam2(TINY_SAM).state_dict()
    name = "sam_mask_decoder.iou_token.weight"
    torch.save({"model": {**state, name: state[name][:, :64]}}, tmp_path / "sam2.pt")
    preset = SamPreset(model_cfg=TINY_SAM, source=None)
    with pytest.raises(WeightsError, match=r"SAM2Base.*is \(1, 64\), not \(1, 128\)") as error:
        load_sam2(preset, checkpoint=tmp_path / "sam2.pt")
    one_line(error)


def test_sam2_checkpoint_that_is_missing(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.pt does not exist"):
        load_sam2(PRESETS["vit-b16"].sam, checkpoint=tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("config", "repo_id", "filename"),
    [
        ("sam2_hiera_t.yaml", "facebook/sam2-hiera-tiny", "sam2_hiera_tiny.pt"),
        ("sam2_hiera_s.yaml", "facebook/sam2-hiera-small", "sam2_hiera_small.pt"),
        ("sam2_hiera_b+.yaml", "facebook/sam2-hiera-base-plus", "sam2_hiera_base_plus.pt"),
        ("sam2_hiera_l.yaml", "facebook/sam2-hiera-large", "sam2_hiera_large.pt"),
        ("sam2.1_hiera_t.yaml", "facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny.pt"),
        ("sam2.1_hiera_s.yaml", "facebook/sam2.1-hiera-small", "sam2.1_hiera_small.pt"),
        ("sam2.1_hiera_b+.yaml", "facebook/sam2.1-hiera-base-plus", "sam2.1_hiera_base_plus.pt"),
        ("sam2.1_hiera_l.yaml", "facebook/sam2.1-hiera-large", "sam2.1_hiera_large.pt"),
    ],
)
def test_published_sam2(config, repo_id, filename):
    folder = "sam2.1" if config.startswith("sam2.1") else "sam2"
    expected = Source(repo_id=repo_id, filenames=(filename,))
    for name in (config, f"{folder}/{config}", f"configs/{folder}/{config}"):
        assert published_sam2(name) == expected
    assert find_config(config).name == config


def test_configurations_without_a_published_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown SAM 2 configuration 'sam2_hiera_x\.yaml'"):
        published_sam2("sam2_hiera_x.yaml")
    own = tmp_path / "mine.yaml"
    own.write_text(TINY_SAM.read_text())
    with pytest.raises(ValueError, match=r"no checkpoint is published.*--checkpoint"):
        load_sam2(PRESETS["vit-b16"].sam, model_cfg=str(own))


# AnyUp: by name, address or file


def anyup_bytes(tmp_path: Path, width: int = 16) -> bytes:
    torch.save(AnyUp(width).state_dict(), tmp_path / "a.pth")
    return (tmp_path / "a.pth").read_bytes()


@pytest.fixture
def downloads(tmp_path, monkeypatch) -> Path:
    """An empty cache of files from addresses."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "home" / "downloads"


def test_anyup_from_a_file(tmp_path):
    tensors = golden.load("anyup")
    torch.save(golden.weights(tensors), tmp_path / "anyup.pth")
    anyup = load_anyup(tmp_path / "anyup.pth")
    assert not anyup.training and not any(p.requires_grad for p in anyup.parameters())
    output = anyup(tensors["case0.image"], tensors["case0.features"])
    assert golden.max_error(output, tensors["case0.output"]) < 1e-4


def test_anyup_from_an_address_then_from_the_cache(tmp_path, downloads):
    with hub.serve({"x/anyup.pth": anyup_bytes(tmp_path, 24)}) as (address, requests):
        for _ in range(2):
            assert load_anyup(f"{address}/x/anyup.pth").rope.freqs.shape == (2, 24)
        assert requests == ["GET /x/anyup.pth"]
    assert load_anyup(f"{address}/x/anyup.pth").rope.freqs.shape == (2, 24)  # the server is gone
    assert len(list(downloads.iterdir())) == 1  # nothing but the file


def test_the_releases_have_addresses_of_their_own(tmp_path, downloads, monkeypatch):
    assert ANYUPS.keys() == {"anyup_paper", "anyup_multi_backbone"}
    for number, name in enumerate(ANYUPS, start=1):
        assert ANYUPS[name].url.endswith(f"/{name}.pth")
        content = anyup_bytes(tmp_path, 8 * number)
        with hub.serve({f"{number}/anyup.pth": content}) as (address, _):
            source = Source(url=f"{address}/{number}/anyup.pth")
            monkeypatch.setitem(ANYUPS, name, source)
            assert load_anyup(name).rope.freqs.shape == (2, 8 * number)


def test_an_address_that_cannot_be_fetched(tmp_path, downloads, monkeypatch):
    with hub.serve({}) as (address, _), pytest.raises(WeightsNotFoundError, match="404") as error:
        load_anyup(f"{address}/anyup.pth")
    message = one_line(error)
    assert "give the file's path, or put it at" in message and str(downloads) in message
    with pytest.raises(WeightsNotFoundError, match="refused"):
        load_anyup("http://127.0.0.1:9/anyup.pth")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE is set") as error:
        load_anyup("anyup_paper")
    assert ANYUPS["anyup_paper"].url in one_line(error)
    assert not [path for path in downloads.rglob("*") if path.is_file()]


def test_half_a_download_is_none(tmp_path, downloads, monkeypatch):
    def half(url, timeout):
        answer = io.BytesIO(b"half")
        answer.headers = {"Content-Length": "8"}
        return answer

    monkeypatch.setattr("urllib.request.urlopen", half)
    with pytest.raises(WeightsNotFoundError, match="only 4 of 8 bytes came"):
        load_anyup("http://a.org/anyup.pth")
    assert not list(downloads.iterdir())


def test_what_is_no_anyup(tmp_path):
    torch.save(random_loftup(), tmp_path / "loftup.pth")
    with pytest.raises(WeightsError, match=r"loftup\.pth is no AnyUp: it has no image_encoder"):
        load_anyup(tmp_path / "loftup.pth")
    state = AnyUp(16).state_dict()
    del state["rope.freqs"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"does not fit AnyUp: of \d+ tensors 1 missing \(rope"):
        load_anyup(tmp_path / "part.pth")
    with pytest.raises(WeightsNotFoundError, match=r"gone\.pth does not exist"):
        load_anyup(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match=r"unknown AnyUp 'anyup_own'.*anyup_multi_backbone, any"):
        load_anyup("anyup_own")


def test_naf_from_a_file_and_by_name(tmp_path, downloads, monkeypatch):
    tensors = golden.load("naf")
    torch.save(golden.weights(tensors), tmp_path / "naf.pth")
    naf = load_naf(tmp_path / "naf.pth")
    assert not naf.training and not any(p.requires_grad for p in naf.parameters())
    output = naf(tensors["case0.image"], tensors["case0.features"])
    assert golden.max_error(output, tensors["case0.output"]) < 1e-4
    assert NAFS["naf_release"].url.endswith("/naf_release.pth")
    with hub.serve({"naf_release.pth": (tmp_path / "naf.pth").read_bytes()}) as (address, _):
        monkeypatch.setitem(NAFS, "naf_release", Source(url=f"{address}/naf_release.pth"))
        assert load_naf().image_encoder.rope.periods.shape == (4,)
        assert load_naf(f"{address}/naf_release.pth").image_encoder.rope.periods.shape == (4,)


def test_what_is_no_naf(tmp_path):
    torch.save(AnyUp(16).state_dict(), tmp_path / "anyup.pth")
    with pytest.raises(WeightsError, match=r"anyup\.pth is no NAF: it has no image_encoder\.sem"):
        load_naf(tmp_path / "anyup.pth")
    torch.save(NAF(32).state_dict() | {"other": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"does not fit NAF: of \d+ tensors 1 unknown \(other\)"):
        load_naf(tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"unknown NAF 'naf_own': .* or one of naf_release"):
        load_naf("naf_own")
