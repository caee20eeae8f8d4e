"""Random images, words, options and mishaps: one line, a known exit code, no half-written file.

The program's own entry point runs in this process, with small random networks. A case is told by
its number. For as long as wanted: `pytest tests/test_fuzz.py -n0 -s -m slow --fuzz-runs 100000`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clip_guided_segmentation_loftup as one
import compare_loftup_results as two
from models import networks, weights
from models.presets import Preset, get_preset
from models.sclip_segmentor import SCLIPSegmentor
from models.text import DEFAULT_TEMPLATES, TextEncoder
from pipeline.app import comparison_picture
from pipeline.drawing import picture
from pipeline.files.atomic import AtomicFile
from pipeline.segmenter import Segmenter
from tests.disk import contents, full_disk

EXIT_CODES = (0, 1, 2, 130)
LINES = re.compile(r"error: .+|interrupted(: .+)?|not segmented: .+|(WARNING|INFO): .+")


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width × height pixels and holds none."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", data), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts
    )


def encoded(rng: random.Random) -> bytes:
    """A sound picture of any kind."""
    height, width = rng.choice([(1, 1), (1, 70), (70, 1), (2, 300), (20, 20), (33, 47), (48, 32)])
    noise = np.random.default_rng(rng.randrange(2**32))
    rgb = Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8))
    kind, mode = rng.choice(
        [(kind, mode) for kind, modes in MODES.items() for mode in modes.split()]
    )
    picture = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    if mode != "I;16":
        picture = rgb.convert(mode)
    options: dict[str, object] = {}
    if kind in ("JPEG", "PNG", "WEBP"):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = rng.randrange(12)
    if kind in ("GIF", "TIFF") and rng.random() < 0.5:
        options |= {"save_all": True, "append_images": [picture.rotate(180)]}
    data = io.BytesIO()
    picture.save(data, format=kind, **options)
    return data.getvalue()


MODES = {
    "PNG": "1 L LA P RGB RGBA I;16",
    "JPEG": "L RGB CMYK",
    "WEBP": "RGB RGBA",
    "TIFF": "1 L P RGB RGBA CMYK I;16 F YCbCr",
    "GIF": "L P",
    "BMP": "1 L P RGB",
    "PPM": "L RGB",
    "TGA": "L RGB RGBA",
    "EPS": "RGB",
    "DDS": "RGB RGBA",
}


def damaged(rng: random.Random) -> bytes:
    data = bytearray(encoded(rng))
    for _ in range(rng.choice([1, 1, 3, 30])):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randrange(1, 40)]
            case 2:
                data[place:place] = rng.randbytes(rng.randrange(1, 40))
            case 3:
                del data[max(1, place) :]
        data = data or bytearray(b"x")
    return bytes(data)


NO_PICTURES: list[Callable[[random.Random], bytes]] = [
    damaged, damaged, damaged,
    lambda rng: b"",
    lambda rng: b"no picture, but text\n",
    lambda rng: rng.randbytes(200),
    lambda rng: png_header(60_000, 60_000),
    lambda rng: png_header(rng.randrange(3), rng.randrange(3)),
    lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
]  # fmt: skip
STEMS = ["a", "ä 猫🐈", 'it\'s "b"', "-c", "x\ny", "n" * 200, " ", "%s{0}", "\udcff", "@x", "..d"]
ENDINGS = [".png", ".jpg", ".JPEG", ".webp", ".tif", ".bmp"]
IMAGES = ["nowhere.png", "", "loop.png", "pipe.png", "file", "@list.txt", "@", "a/" + "n" * 300]
WORDS = [
    "cat", "dog", "cat,kitten", "Katze 🐈", "猫", "it's \"x\"", "two\nlines", "%s {0}",
    "@words.txt", "w" * 3000, "\x00", "\u200b", "background", "<b>&amp;", "$(touch x)", "../../x",
]  # fmt: skip
BAD_WORDS = [
    "-x", "--help-me", "", " , ", "a,,b", "\udcff", "@nowhere", "@", "@~nobody/x", "@photos",
    ",".join(map(str, range(2000))) + ",0",
]  # fmt: skip
OUTPUTS = ["o", "o.gif", "photos", "file/o.png", "/dev/full", "", ".", "n" * 300 + ".png"]
OPTIONS = [
    ["--min-region-size", "1"], ["--iou-threshold", "0"], ["--min-score", "1"],
    ["--strategy", "multi"], ["--strategy", "multi", "--points-per-region", "50"],
    ["--strategy", "peak"], ["--negative-points", "3"], ["--prompt-box"], ["--no-prompt-mask"],
    ["--attention", "vanilla"], ["--use-pamr"], ["--whole-image"], ["--background"],
    ["--background", "sky", "木"], ["--device", "cpu"], ["--min-agreement", "-0.0"],
    ["--min-region-size", "0.5%"], ["--no-tags"], ["--no-points"], ["--upsampled", "features"],
]  # fmt: skip
MORE = [  # of the first program alone
    ["--use-loftup"], ["--upsampler", "jbu"], ["--upsampler", "guided"], ["--upsampler", "none"],
    ["--use-loftup", "--text-space", "channel_norm"], ["--loftup-share", "0.5"],
    ["--export", "coco", "yolo"], ["--export", "voc", "labelme", "coco"], ["--overwrite"],
    ["--heatmap-format", "npy"], ["--yolo-val", "0.5"], ["--points-per-region", "2"],
    ["--cutouts", "cut"], ["--threshold", "cat=0.1"],
]  # fmt: skip
OF_ONE = [  # image
    ["--save-json", "r.json"], ["--save-json", "/dev/null"], ["--save-label-map", "l.png"],
    ["--save-heatmaps", "maps"], ["--overlay", "over.png"],
]  # fmt: skip
BAD_OPTIONS = [
    ["--min-confidence", "nan"], ["--min-confidence", "2"], ["--min-region-size", "1e3"],
    ["--min-region-size", "-1%"],
    ["--min-region-size", "0"], ["--strategy", "x"], ["--background", ""], ["--device", "cuda:99"],
    ["--device", ""], ["--preset", ""], ["--no-such-option"], ["two\nlines"],
    ["--save-json", "/dev/full"], ["--save-json", "file/r.json"],
]  # fmt: skip


class Case:
    """Files in the current folder, arguments, and what goes wrong on the way."""

    def __init__(self, number: int) -> None:
        self.number = number
        rng = self.rng = random.Random(number)
        Path("photos/more").mkdir(parents=True)
        Path("file").write_text("in the way")
        Path("words.txt").write_text("# list\nlamp\nsofa,couch\n")
        Path("here.png").write_bytes(b"older result")
        Path("loop.png").symlink_to("loop.png")
        os.mkfifo("pipe.png")
        images = [self._image(place, encoded) for place in ("photos", "photos/more", ".")]
        if rng.random() < 0.4:
            images.append(self._image("photos", rng.choice(NO_PICTURES)))
        Path("list.txt").write_text("\n".join(images), errors="replace")
        bad = rng.sample(["image", "words", "output", "option"], rng.choice([0, 0, 0, 0, 1, 1, 2]))
        self.program = two if rng.random() < 0.15 else one
        many = self.program is one and rng.random() < 0.5
        images = rng.choice([["photos"], images]) if many else [rng.choice(images)]
        if "image" in bad:
            images.append(rng.choice(IMAGES))
            del images[: rng.randrange(2) * (len(images) - 1)]
        argv = ["--image", *images] if len(images) > 1 else [f"--image={images[0]}"]
        words = rng.sample(WORDS, rng.randrange(1, 4))
        argv += ["--vocabulary", *words, *([rng.choice(BAD_WORDS)] if "words" in bad else [])]
        if rng.random() < 0.01:
            argv += ["--vocabulary", *map(str, range(2000))]
        fitting = "results" if many else rng.choice(["o.png", "ö 🐈.webp", "here.png", "loop.png"])
        argv += ["--output", rng.choice(OUTPUTS) if "output" in bad else fitting]
        options = OPTIONS + (self.program is one) * (MORE + (not many) * OF_ONE)
        for option in rng.sample(options, rng.randrange(4)):
            argv += option
        if "option" in bad:
            argv += rng.choice(BAD_OPTIONS)
        self.argv = [*argv, f"--min-confidence={rng.choice([0, 0, 0.01])}", "--preset=tiny"]
        self.mishap = rng.choice([None] * 6 + ["disk", "SIGINT", "SIGTERM", "memory", "cuda"])
        self.when = rng.choice([1, 1, 2, 3, 5])  # at which file written, or image encoded

    def _image(self, folder: str, content: Callable[[random.Random], bytes]) -> str:
        path = Path(folder, self.rng.choice(STEMS) + self.rng.choice(ENDINGS))
        path.write_bytes(content(self.rng))
        return str(path)

    def __str__(self) -> str:
        return f"case {self.number}: {self.program.__name__} {self.argv} {self.mishap} {self.when}"

    def run(self) -> tuple[int, str]:
        """Exit code and what is said on stderr."""
        out, err = io.StringIO(), io.StringIO()
        with self._mishaps(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = self.program.main(self.argv)
            except SystemExit as stop:  # argparse's way
                code = stop.code
        return code, err.getvalue()

    @contextlib.contextmanager
    def _mishaps(self) -> Iterator[None]:
        """Within, the `when`-th write or encoding meets the mishap."""
        if self.mishap is None:
            yield
            return
        encode, write = SCLIPSegmentor.encode, AtomicFile.write
        count, at_write = 0, self.mishap in ("disk", "SIGTERM") or self.when > 2

        def strike() -> None:
            nonlocal count
            count += 1
            if count != self.when:
                return
            if self.mishap == "memory":
                raise MemoryError
            if self.mishap == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if self.mishap != "disk":
                os.kill(os.getpid(), getattr(signal, self.mishap))

        def struck_write(file: AtomicFile, data: bytes) -> None:
            strike()
            left = len(data) // 2 if self.mishap == "disk" and count == self.when else None
            with full_disk(left) if left is not None else contextlib.nullcontext():
                write(file, data)
                if left is not None:
                    file._file.flush()

        def struck_encode(*args: object) -> object:
            strike()
            return encode(*args)

        with pytest.MonkeyPatch.context() as patch:
            if at_write:
                patch.setattr(AtomicFile, "write", struck_write)
            else:
                patch.setattr(SCLIPSegmentor, "encode", struck_encode)
            yield


def check_files(before: dict[str, bytes | None]) -> None:
    """What was there is as it was or replaced whole; what is new is whole."""
    after = contents(Path())
    assert before.keys() <= after.keys()
    for name, data in after.items():
        assert not name.endswith(".tmp"), name
        if before.get(name, b"") == data or data is None:
            continue
        kind = Path(name).suffix.lower()
        if kind in (".png", ".jpg", ".webp"):
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        elif kind == ".json":
            json.loads(data)
        else:
            assert kind in (".csv", ".txt", ".yaml", "") and data[-1:] in (b"\n", b""), name


@pytest.fixture
def small(
    monkeypatch: pytest.MonkeyPatch, random_preset: Preset, request: pytest.FixtureRequest
) -> None:
    """Small networks, loaded once, instead of any that is asked for; small pictures."""
    plain = Segmenter.from_preset

    def from_preset(name: str, **options: object) -> Segmenter:
        get_preset(name)  # an unknown one is refused
        return plain(random_preset, **options)

    @functools.cache
    def encoder(*args: object, **options: object) -> TextEncoder:
        return TextEncoder(*args, templates=DEFAULT_TEMPLATES[:2], **options)

    # As in a terminal, even if the tests run in the background, where it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(Segmenter, "from_preset", from_preset)
    monkeypatch.setattr(networks, "TextEncoder", encoder)
    monkeypatch.setattr(networks, "load_clip", functools.cache(networks.load_clip))
    monkeypatch.setattr(weights, "load_loftup", functools.cache(weights.load_loftup))
    sam = networks.load_sam2(random_preset.sam)
    monkeypatch.setattr(networks, "load_sam2", lambda preset, **options: sam)
    monkeypatch.setattr(picture, "MAIN", (45, 60))
    monkeypatch.setattr(comparison_picture, "BUDGET", (200, 2000))


def check(number: int) -> str:
    """Run a case in the current, empty folder; "exit 2, disk" and the like."""
    case = Case(number)
    before = contents(Path())
    try:
        code, said = case.run()
        assert code in EXIT_CODES, code
        lines = said.splitlines()
        assert all(LINES.fullmatch(line) for line in lines), said
        starts = Counter(line.split(":")[0] for line in lines)
        assert starts["error"] == (code == 2), said
        assert starts["interrupted"] == (code == 130), said
        assert (starts["not segmented"] > 0) == (code == 1), said
        check_files(before)
    except BaseException as error:
        raise AssertionError(str(case)) from error
    return f"exit {code}, {case.mishap or 'no mishap'}"


def run_cases(numbers: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each exit code came, with each mishap."""
    counts: Counter[str] = Counter()
    for number in numbers:
        place = folder / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        counts[check(number)] += 1
        monkeypatch.chdir(folder)
        shutil.rmtree(place)
    return counts


def test_a_few_cases(small, tmp_path, monkeypatch):
    counts = run_cases(range(25), tmp_path, monkeypatch)
    assert {what.split(",")[0] for what in counts} == {f"exit {code}" for code in EXIT_CODES}


@pytest.mark.slow
def test_many_cases(small, tmp_path, monkeypatch, request):
    runs = request.config.getoption("--fuzz-runs")
    counts = run_cases(range(1000, 1000 + runs), tmp_path, monkeypatch)
    print(*(f"{count:>7}  {what}" for what, count in sorted(counts.items())), sep="\n")
