"""Files of weights: read, refused, found in the hub's cache, downloaded."""

import importlib
import json
import os
import pickle
import socket
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from models import weight_files
from models.presets import LOFTUPS, Source
from models.weight_files import WeightsError, WeightsNotFoundError, read_state_dict, resolve
from models.weights import load_loftup
from tests import hub
from tests.hub import use_hub
from tests.models.checkpoints import one_line, random_loftup
from tests.processes import FORK

SAVERS = {
    "weights.bin": torch.save,
    "weights.pt": torch.save,
    "weights.pth": torch.save,
    "weights.safetensors": save_file,
}


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
def test_torchscript_archives_give_their_tensors(tmp_path):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Sequential(nn.Conv1d(2, 5, 3)))
    module[2].sizes, module[2].names = [1, 2], {"a": ["b"]}  # attributes that are no tensors
    module[2].register_buffer("nothing", torch.zeros(0, 2))
    module[0].weight = nn.Parameter(torch.randn(3, 2).T)  # of its own strides
    expected = module.half().state_dict()
    torch.jit.script(module).save(tmp_path / "scripted.pt")
    read = read_state_dict(tmp_path / "scripted.pt")
    assert read.keys() == expected.keys()
    for name, value in read.items():
        assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of a zip file with other contents."""
    copy = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return copy


@pytest.mark.filterwarnings("ignore")
def test_code_in_torchscript_archives_is_not_run(tmp_path):
    path, target = tmp_path / "scripted.pt", tmp_path / "exploded"
    torch.jit.script(nn.Linear(2, 2)).save(path)

    def no_code(name: str, data: bytes) -> bytes:
        return b"this is no program" if name.endswith(".py") else data

    assert read_state_dict(rewritten(path, no_code)).keys() == {"weight", "bias"}

    def bomb(name: str, data: bytes) -> bytes:
        return pickle.dumps(Bomb(target), protocol=2) if name.endswith("data.pkl") else data

    with pytest.raises(WeightsError, match=r"pickled Python code .* and is refused") as error:
        read_state_dict(rewritten(path, bomb))
    one_line(error)
    assert not target.exists()
    cut = rewritten(path, lambda name, data: data[:3] if "/data/" in name else data)
    with pytest.raises(WeightsError, match="cannot be read") as error:
        read_state_dict(cut)
    one_line(error)


def torchscript(path: Path, program: bytes, data: bytes = b"") -> Path:
    """An archive whose attributes are what the pickle `program` leaves, with one storage, "0"."""
    contents = {"constants.pkl": b"", "data.pkl": b"\x80\x02" + program + b".", "data/0": data}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"m/{name}", content)
    return path


@pytest.mark.parametrize("name", ["torch._utils _rebuild_tensor_v2", "torch HalfStorage"])
def test_torchscript_archives_change_nothing_of_torch(tmp_path, name):
    """A pickle may set attributes of whatever its names stand for."""
    shared = importlib.import_module(name.split()[0])
    before = getattr(shared, name.split()[1])
    program = b"c%s\nN}Vstain\nK\x07s\x86b0c__torch__\nM\n)\x81}b"
    path = torchscript(tmp_path / "a.pt", program % name.replace(" ", "\n").encode())
    with suppress(WeightsError):
        read_state_dict(path)
    assert not hasattr(before, "stain")


@pytest.mark.parametrize("data", [b"", bytes(8)])
def test_no_tensor_of_an_archive_reaches_beyond_its_bytes(tmp_path, data):
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ" % (len(data) // 4)
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n(I1000\nt(I1\nt\x89}tR"
    path = torchscript(tmp_path / "a.pt", b"c__torch__\nM\n)\x81}Vw\n" + tensor + b"sb", data)
    with pytest.raises(WeightsError, match="cannot be read") as error:
        read_state_dict(path)
    one_line(error)


def test_pickled_modules_are_refused(tmp_path):
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
    monkeypatch.setattr(weight_files, "_HUB_TIMEOUT", 0.5)
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
