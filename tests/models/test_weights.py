"""Weights: what loads, and one clear line for what does not. Every file is made here."""

import io
import json
import os
import pickle
import socket
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from models import weights
from models.anyup import AnyUp
from models.loftup import LoftUp
from models.presets import ANYUPS, LOFTUPS, PRESETS, ClipPreset, SamPreset, Source
from models.sam2_masks import available_configs, build_sam2
from models.weights import (
    WeightsError,
    WeightsNotFoundError,
    build_clip,
    load_anyup,
    load_clip,
    load_loftup,
    load_sam2,
    load_strictly,
    published_sam2,
    read_state_dict,
    resolve,
)
from tests import golden, hub
from tests.processes import FORK

ROOT = Path(__file__).parents[2]
TINY_SAM = ROOT / "models" / "tiny" / "sam2_tiny.yaml"
SAVERS = {
    "weights.bin": torch.save,
    "weights.pt": torch.save,
    "weights.pth": torch.save,
    "weights.safetensors": save_file,
}


def random_loftup(dim: int = 16) -> dict[str, Tensor]:
    """A dict in the format of the published files."""
    torch.manual_seed(dim)
    return LoftUp(dim).state_dict()


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache, and a hub that refuses every connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use_hub(monkeypatch, "http://127.0.0.1:9")
    return tmp_path / "hub"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


# Files


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_file_types_and_precisions(tmp_path, name, dtype):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in random_loftup(16).items()}
    SAVERS[name](state, tmp_path / name)
    loftup = load_loftup(tmp_path / name)
    assert not loftup.training and not any(p.requires_grad for p in loftup.parameters())
    for key, value in loftup.state_dict().items():
        assert value.dtype == (torch.float32 if state[key].is_floating_point() else torch.int64)
        assert torch.equal(value, state[key].to(value.dtype)), key


@torch.no_grad()
def test_loaded_loftup_gives_the_reference_output(tmp_path):
    tensors = golden.load("loftup")
    torch.save(golden.weights(tensors), tmp_path / "pytorch_model.bin")
    output = load_loftup(tmp_path / "pytorch_model.bin")(
        tensors["case0.lr_feats"], tensors["case0.image"]
    )
    assert golden.max_error(output, tensors["case0.output"]) < 1e-4


def test_old_torch_format_and_text_paths(tmp_path):
    torch.save(random_loftup(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert load_loftup(str(tmp_path / "old.bin")).dim == 16


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrappers_are_opened(tmp_path, wrapper):
    torch.save({wrapper: {"w": torch.ones(2)}, "step": 3}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").keys() == {"w"}


@pytest.mark.parametrize("content", [{"a": 1}, [torch.ones(1)], torch.ones(1), {"model": {"a": 2}}])
def test_other_contents_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="not a dict of tensors") as error:
        read_state_dict(tmp_path / "a.pt")
    assert "a.pt" in one_line(error)


@pytest.mark.parametrize("name", SAVERS)
def test_missing_empty_and_folder(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(WeightsNotFoundError, match="does not exist") as error:
        load_loftup(path)
    assert str(path) in one_line(error)
    path.touch()
    with pytest.raises(WeightsError, match=r"is empty \(0 bytes\)") as error:
        load_loftup(path)
    assert str(path) in one_line(error)
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsNotFoundError, match="is a folder") as error:
        load_loftup(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files(tmp_path, name, share):
    path = tmp_path / name
    SAVERS[name](random_loftup(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=r"cannot be read .*download it again") as error:
        load_loftup(path)
    assert f"{path.stat().st_size:,} bytes" in one_line(error)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
         r"not a weights file but a Git LFS pointer .* run `git lfs pull`"),
        (b"<!doctype html><html>Not found</html>",
         r"not a weights file but a web page .* /resolve/"),
        (b"\xef\xbb\xbf\n  <html>", "but a web page"),
        (b"\x00" * 4096, "not a weights file, delete it"),
        (b"<\x00\x00\x00\x00\x00\x00\x00{", "not a weights file, delete it"),
        (pickle.dumps({"a": 1}, protocol=4), "not a weights file, delete it"),
    ],
    ids=["lfs", "html", "indented html", "zeros", "cut header", "pickle"],
)  # fmt: skip
def test_files_that_hold_something_else(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        load_loftup(tmp_path / name)
    # torch's own message would advise to load the file unsafely
    assert "weights_only" not in one_line(error)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_is_refused_and_does_not_run(tmp_path, new_format):
    path, target = tmp_path / "bomb.bin", tmp_path / "exploded"
    state = {**random_loftup(), "more": Bomb(target)}
    torch.save(state, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(WeightsError, match=r"holds pickled Python code .* is refused") as error:
        load_loftup(path)
    assert f"({os.mkdir.__module__}.mkdir)" in one_line(error)
    assert not target.exists()
    torch.load(path, weights_only=False)  # it would have exploded
    assert target.exists()


def test_plain_pickles_do_not_run(tmp_path):
    path, target = tmp_path / "bomb.bin", tmp_path / "exploded"
    path.write_bytes(pickle.dumps({"more": Bomb(target)}, protocol=2))
    with pytest.raises(WeightsError) as error:
        load_loftup(path)
    one_line(error)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_torchscript_and_pickled_modules_are_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "ViT-B-16.pt")
    with pytest.raises(WeightsError, match="TorchScript archive and is refused") as error:
        read_state_dict(tmp_path / "ViT-B-16.pt")
    one_line(error)
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"pickled Python code \(torch\.nn") as error:
        read_state_dict(tmp_path / "module.pt")
    one_line(error)


def test_too_little_memory_is_not_called_damage(tmp_path, monkeypatch):
    def burst(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B")

    torch.save(random_loftup(), tmp_path / "a.bin")
    monkeypatch.setattr(torch, "load", burst)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        read_state_dict(tmp_path / "a.bin")


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


def test_unknown_loftup_names_list_the_known():
    with pytest.raises(ValueError, match=r"unknown LoftUp 'loftup_clp'.*loftup_clip") as error:
        load_loftup("loftup_clp")
    one_line(error)


# The hub and its cache


def load_official(folder: Path, **environment: str) -> tuple[int | None, str, str]:
    """Load LoftUp where the environment is as given; exit code, what is printed, errors.

    In a process of its own, as huggingface_hub reads the environment when it is imported.
    """
    printed, errors = folder / "out.txt", folder / "err.txt"

    def run() -> None:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_"))]:
            del os.environ[name]
        os.environ |= environment
        for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
            del sys.modules[name]
        with (
            printed.open("w") as out,
            redirect_stdout(out),
            errors.open("w") as err,
            redirect_stderr(err),
        ):
            try:
                loftup = load_loftup("loftup_clip")
                total = float(sum(p.double().sum() for p in loftup.state_dict().values()))
                print(json.dumps([loftup.dim, total]))
            except Exception:
                traceback.print_exc()
                raise SystemExit(1) from None

    process = FORK.Process(target=run, daemon=True)
    process.start()
    process.join(120)
    return process.exitcode, printed.read_text(), errors.read_text()


@pytest.mark.parametrize(
    ("variable", "environment"),
    [
        ("HF_HUB_CACHE", {"HF_HUB_OFFLINE": "1"}),
        ("HF_HOME", {"HF_ENDPOINT": "http://127.0.0.1:9"}),  # online, but nobody there
    ],
)
def test_official_file_in_the_cache(tmp_path, variable, environment):
    state = random_loftup(512)
    cache = tmp_path / "home" / "hub" if variable == "HF_HOME" else tmp_path / "home"
    hub.add_to_cache(
        cache, "haiwen/loftup-clip", "pytorch_model.bin", lambda path: torch.save(state, path)
    )
    code, out, err = load_official(tmp_path, **environment, **{variable: str(tmp_path / "home")})
    assert code == 0, err
    dim, total = json.loads(out)
    assert dim == 512
    assert total == pytest.approx(float(sum(p.double().sum() for p in state.values())))


def test_without_network_the_error_is_quick(tmp_path):
    start = time.monotonic()
    settings = {"HF_HUB_CACHE": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    code, _, err = load_official(tmp_path, **settings)
    assert time.monotonic() - start < 15
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert "WeightsNotFoundError: weights missing: haiwen/loftup-clip/pytorch_model.bin" in last
    assert str(tmp_path / "home") in last and "download_weights.py" in last
    assert "Retrying" not in err


def test_offline_is_said(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match=r"\(HF_HUB_OFFLINE is set\)") as error:
        resolve(LOFTUPS["loftup_clip"].source)
    one_line(error)


def test_refused_connection_is_said(cache):
    with pytest.raises(WeightsNotFoundError, match="refused") as error:
        resolve(LOFTUPS["loftup_clip"].source)
    one_line(error)


def test_a_hub_that_does_not_answer(cache, monkeypatch):
    monkeypatch.setattr(weights, "_HUB_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(WeightsNotFoundError, match="timed out") as error:
            resolve(LOFTUPS["loftup_clip"].source)
        assert time.monotonic() - start < 5
    one_line(error)


def test_download_then_cache(cache, monkeypatch, tmp_path):
    torch.save(random_loftup(16), tmp_path / "a.bin")
    content = (tmp_path / "a.bin").read_bytes()
    source = Source(repo_id="some/loftup", filenames=("pytorch_model.bin",))
    with hub.serve({"some/loftup/pytorch_model.bin": content}) as (address, requests):
        use_hub(monkeypatch, address)
        path = resolve(source)
        assert path.is_relative_to(cache) and path.read_bytes() == content
        assert any(r.startswith("GET") for r in requests)
        requests.clear()
        assert resolve(source) == path
        assert not requests  # the cache comes first
    assert load_loftup(path).dim == 16


def test_second_file_name(cache, monkeypatch):
    source = Source(repo_id="some/clip", filenames=("a.safetensors", "a.bin"))
    with hub.serve({"some/clip/a.bin": b"weights"}) as (address, _):
        use_hub(monkeypatch, address)
        path = resolve(source)
        assert path.name == "a.bin" and path.read_bytes() == b"weights"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(source) == path


@pytest.mark.parametrize("status", [404, 401, 403, 500])
def test_hub_errors(cache, monkeypatch, status):
    with hub.serve({}, status) as (address, _):
        use_hub(monkeypatch, address)
        with pytest.raises(WeightsNotFoundError, match=str(status)) as error:
            resolve(LOFTUPS["loftup_clip"].source)
    one_line(error)


def test_missing_files_of_the_repository(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"part of this repository.*git checkout"):
        resolve(Source(path=tmp_path / "loftup.safetensors"))


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
    assert config in available_configs()


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
