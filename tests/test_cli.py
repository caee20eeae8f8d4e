"""The program as users run it: what it writes, what it refuses, what it says."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clip_guided_segmentation_loftup
import models.networks
from clip_guided_segmentation_loftup import main
from models.presets import PRESETS
from models.weights import load_clip
from pipeline.app.options import SCENE
from pipeline.drawing.palette import voc_palette
from pipeline.result import Segmentation, decode_rle
from pipeline.segmenter import Segmenter
from tests.pipeline.app.folder_runs import FastSegmenter, save_image

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "clip_guided_segmentation_loftup.py"
TINY_SAM = PRESETS["tiny"].sam.source.path

# IoU with the truth that the shipped models must reach on the bundled scene: a little less than
# measured. Of the bicycle they find the frame, of people the upper body.
LEAST_IOU = {"person": 0.52, "car": 0.84, "bicycle": 0.38, "tree": 0.79, "building": 0.82}

# Loading the models takes longer than a small image: programs of several tests share them.
load_clip_once = functools.cache(load_clip)
from_preset, loaded = Segmenter.from_preset, {}


def load_once(name: str, **options: object) -> Segmenter:
    key = name, repr(sorted(options.items()))
    if key not in loaded:
        loaded[key] = from_preset(name, **options)
    return loaded[key]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(*argv: object, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        # Ctrl-C works as in a terminal even if the tests run in the background.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def files(folder: Path) -> dict[Path, bytes | None]:
    """Everything in a folder, with the content of its files."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def assert_refused(argv: list[object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line that holds `message`, nothing written."""
    before = files(Path.cwd())
    try:
        code = main([str(word) for word in argv])
    except SystemExit as stop:  # argparse's way
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 700
    assert message in err
    assert files(Path.cwd()) == before


def assert_outputs(folder: Path, size: tuple[int, int]) -> dict:
    """out.png, out.json and labels.png are whole and agree; gives the JSON."""
    with Image.open(folder / "out.png") as picture:
        picture.load()
        assert picture.mode == "RGB" and min(picture.size) > 100
    with Image.open(folder / "labels.png") as picture:
        assert picture.mode == "P" and picture.size == size[::-1]
        assert np.array_equal(np.reshape(picture.getpalette(), (-1, 3)), voc_palette())
        label_map = np.array(picture)
    data = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert (data["image"]["height"], data["image"]["width"]) == size
    assert {"torch", "sam2", "numpy", "python"} <= data["versions"].keys()
    assert data["settings"]["preset"] == "tiny" and data["settings"]["min_region_size"] >= 1
    covered = np.zeros(size, bool)
    for record in data["masks"]:
        mask = decode_rle(record["segmentation"])
        assert mask.shape == size and mask.sum() == record["area"] > 0
        assert data["class_names"][record["class_id"]] == record["class_name"]
        covered |= mask
    assert np.array_equal(label_map > 0, covered)
    for number, name in enumerate(data["class_names"], start=1):
        assert data["class_pixels"][name] == (label_map == number).sum()
    return data


OUTPUTS = ["--output", "out.png", "--save-json", "out.json", "--save-label-map", "labels.png"]
LAX = ["--min-confidence", "0", "--min-region-size", "1", "--background"]  # always finds something


def assert_scene(folder: Path, out: str) -> None:
    """What the shipped models must find in the bundled scene, and how it is told."""
    data = assert_outputs(folder, (448, 672))
    assert data["class_names"] == list(SCENE.words)
    truth = np.asarray(Image.open(ROOT / "examples" / "street_scene_labels.png"))
    found = np.asarray(Image.open(folder / "labels.png"))
    iou = {
        name: np.sum((truth == i) & (found == i)) / np.sum((truth == i) | (found == i))
        for i, name in enumerate(SCENE.words, start=1)
    }
    assert all(iou[name] > least for name, least in LEAST_IOU.items()), iou
    *lines, last = out.splitlines()
    assert len(lines) == len(data["masks"])
    assert all(line.split()[0] in SCENE.words and len(line) <= 100 for line in lines)
    assert last.startswith(f"{len(lines)} masks in ") and last.endswith("labels.png")


def test_bundled_scene(tmp_path):
    # As in the README: from the repository's root, the scene by its relative name.
    outputs = [tmp_path / word if word[0] != "-" else word for word in OUTPUTS]
    image = "examples/street_scene.jpg"
    code, out, err = finish(start("--image", image, *outputs))
    assert (code, err) == (0, "")  # libraries are silent, too
    assert_scene(tmp_path, out)
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["image"]["path"] == image and "loftup" not in data["settings"]["weights"]
    assert data["settings"]["vocabulary"] == [[word] for word in SCENE.words]


def test_bundled_scene_with_loftup(here, capsys):
    assert main(["--use-loftup", *OUTPUTS]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert_scene(here, out)
    data = json.loads((here / "out.json").read_text())
    assert data["settings"]["weights"].keys() == {"clip", "loftup", "sam2"}
    assert data["settings"]["upsampler"] == "loftup"
    assert sorted(p.name for p in here.iterdir()) == ["labels.png", "out.json", "out.png"]


PICTURES = {
    "grey.png": lambda rgb: rgb.convert("L"),
    "palette.png": lambda rgb: rgb.quantize(16),
    "alpha.png": lambda rgb: Image.merge("RGBA", (*rgb.split(), rgb.convert("L"))),
    "sixteen.png": lambda rgb: Image.fromarray(
        np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    ),
    "row.png": lambda rgb: rgb.resize((90, 1)),
    "column.png": lambda rgb: rgb.resize((1, 90)),
    "small.png": lambda rgb: rgb.resize((20, 20)),
    "rotated.jpg": lambda rgb: rgb,
}


@pytest.mark.parametrize("name", PICTURES)
def test_kinds_of_images(name, here, capsys, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_preset", load_once)
    rgb = Image.open(SCENE.path).crop((100, 120, 400, 280)).resize((75, 40))
    picture = PICTURES[name](rgb)
    exif = Image.Exif()
    if name == "rotated.jpg":
        exif[0x0112] = 6  # to be turned by 90° for display
    picture.save(name, exif=exif)
    size = picture.size if name == "rotated.jpg" else picture.size[::-1]  # (H, W)
    assert main(["--image", name, "--preset", "tiny", *LAX, *OUTPUTS]) == 0
    assert capsys.readouterr().err == ""
    data = assert_outputs(here, size)
    assert data["masks"] and data["image"]["path"] == name
    assert data["unnamed_pixels"] < size[0] * size[1]


def test_nothing_found(here, capsys, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_preset", load_once)
    Image.new("RGB", (64, 48), (90, 160, 240)).save("sky.png")
    argv = ["--image", "sky.png", "--preset", "tiny", "--vocabulary", "zebra"]
    assert main([*argv, "--min-region-size", "3073", "--output", "new/folder/out.png"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("nothing found: no region of 3073 px") and len(out) == 2
    assert re.search(r"; best: zebra 0\.\d\d at \(\d+, \d+\)$", out[0])
    assert out[1].startswith("0 masks in ")
    Image.open("new/folder/out.png").load()


def test_exports(here, capsys, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_preset", load_once)
    Image.open(SCENE.path).crop((80, 280, 240, 400)).save("a 'car'.png")
    argv = ["--image", "a 'car'.png", "--preset", "tiny", "--vocabulary", "auto,car", "zebra"]
    argv += ["--not-words", "banana,plantain", "--threshold", "auto=0.65"]
    exports = ["--export", "coco", "yolo", "voc", "labelme", "--save-heatmaps", "maps"]
    assert main([*argv, *exports, *OUTPUTS]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith(
        "exports/coco/annotations.json, exports/yolo/data.yaml, exports/voc/class_names.txt, "
        "exports/labelme, maps/a 'car'\n"
    )
    data = assert_outputs(here, (120, 160))
    assert data["masks"] and data["class_names"] == ["auto", "zebra"]
    assert data["settings"]["not_words"] == [["banana", "plantain"]]
    assert data["settings"]["thresholds"] == {"auto": 0.65}
    coco = json.loads(Path("exports/coco/annotations.json").read_text())
    assert coco["images"][0]["file_name"] == "a 'car'.png"
    assert [a["segmentation"] for a in coco["annotations"]] == [
        mask["segmentation"] for mask in data["masks"]
    ]
    yolo = Path("exports/yolo/labels/a 'car'.txt").read_text().splitlines()
    assert [int(line.split()[0]) for line in yolo] == [m["class_id"] for m in data["masks"]]
    labels = [Image.open(p) for p in ("labels.png", "exports/voc/SegmentationClass/a 'car'.png")]
    assert np.array_equal(*map(np.asarray, labels))
    labelme = json.loads(Path("exports/labelme/a 'car'.json").read_text())
    assert labelme["imagePath"] == "../../a 'car'.png"
    assert {s["label"] for s in labelme["shapes"]} == {m["class_name"] for m in data["masks"]}
    maps = {p.name: np.asarray(Image.open(p)) for p in sorted(Path("maps/a 'car'").iterdir())}
    assert list(maps) == ["000_auto.png", "001_zebra.png", "002_background.png"]
    dense = Segmentation.load_json("out.json").dense_map
    highest = np.max(list(maps.values()), axis=0)
    assert np.any(dense == 1) and np.all(maps["000_auto.png"][dense == 1] == highest[dense == 1])
    x, y = map(int, data["masks"][0]["points"][0])
    assert maps[f"{data['masks'][0]['class_id']:03d}_auto.png"][y, x] > 0.65 * 255

    Image.open("a 'car'.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("b.png")
    argv = ["--image", "b.png", "--preset", "tiny", "--vocabulary", "auto,car", "zebra"]
    more = ["--yolo-images", "copy", "--yolo-val", "0.5", "--polygon-tolerance", "1"]
    more += ["--overlay", "over.png", "--cutouts", "cut"]
    assert main([*argv, *exports, "--heatmap-format", "npy", *more, *OUTPUTS]) == 0
    capsys.readouterr()
    coco = json.loads(Path("exports/coco/annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a 'car'.png", "b.png"]
    assert Image.open("over.png").size == (160, 120)
    masks = Segmentation.load_json("out.json")
    cuts = [np.asarray(Image.open(p)) for p in sorted(Path("cut/b").glob("*.png"))]
    assert [np.sum(cut[..., 3] == 255) for cut in cuts] == [found.area for found in masks]
    assert np.load("maps/b/000_auto.npy").shape == (120, 160)
    with monkeypatch.context() as patch:  # what one format cannot hold
        patch.setattr("pipeline.exports.voc.object_map", lambda result: int("many"))
        for several in ([], ["--image", "b.png", "a 'car'.png", "--output", "results"]):
            assert main([*argv, *several, "--export", "voc", "coco", "--export-dir", "new"]) == 1
    data = json.loads(Path("new/coco/annotations.json").read_text())
    assert [image["file_name"] for image in data["images"]] == ["b.png", "a 'car'.png"]
    assert Path("new/voc/ImageSets/Segmentation/all.txt").read_text() == ""
    capsys.readouterr()
    argv[argv.index("--vocabulary") + 1 :] = ["zebra", "auto,car"]
    assert_refused([*argv, *exports], "exports is for auto, zebra and cannot be continued", capsys)


def test_a_folder(here, capsys, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_preset", load_once)
    scene = Image.open(SCENE.path)
    for name, left in (("photos/a.png", 100), ("photos/more/a.png", 300)):
        Path(name).parent.mkdir(exist_ok=True)
        scene.crop((left, 120, left + 75, 160)).save(name)
    Path("photos/bad.jpg").write_text("no picture")
    argv = ["--image", "photos", "--output", "out", "--preset", "tiny", *LAX]

    segment = Segmenter.segment  # interrupted at the second image
    stop = iter([segment])

    def segment_once(*args, **kwargs):
        for once in stop:
            return once(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "segment", segment_once)
        assert main(argv) == 130
    message = "interrupted: 1 of 3 images are done; the same command goes on\n"
    assert capsys.readouterr() == ("", message)
    before = files(here / "out")

    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out.startswith("2 of 3 images, ") and out.endswith(" masks -> out\n")
    bad = "'photos/bad.jpg' is not an image that Pillow can read; convert it to PNG or JPEG"
    assert err == f"not segmented: {bad}\n"
    assert before.items() <= files(here / "out").items()
    results = [f"out/{r}" for r in ("pictures/more/a.jpg", "json/more/a.json", "labels/more/a.png")]
    for result, name in zip(results, ("out.png", "out.json", "labels.png"), strict=True):
        shutil.copy(result, name)
    data = assert_outputs(here, (40, 75))  # as of one image
    assert data["masks"] and data["image"]["path"] == "photos/more/a.png"
    argv += ["--export", "coco", "--export-dir", "sets", "--save-heatmaps", "maps"]
    argv += ["--cutouts", "cut"]
    assert main(argv) == 1  # only the export, the maps and the cutouts are new
    new = " masks -> out, sets/coco/annotations.json, maps, cut\n"
    assert capsys.readouterr().out.endswith(new)
    assert len(list(Path("cut/more/a").glob("*.png"))) == len(data["masks"])
    assert len(list(Path("maps/more/a").glob("*.png"))) == len(SCENE.words)
    coco = json.loads(Path("sets/coco/annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "more/a.png"]
    assert len(coco["annotations"]) >= len(data["masks"])
    other = [*argv, "--vocabulary", "dog"]
    assert_refused(other, "sets is for person, car, bicycle, tree, building and cannot be", capsys)
    other += ["--export-dir", "other"]
    message = 'the results in out were made with other settings (vocabulary: [["person"], ["car"]'
    assert_refused(other, message, capsys)


def test_exports_name_the_pictures_as_they_are_now(here, monkeypatch):
    monkeypatch.setattr(clip_guided_segmentation_loftup, "_load", lambda *args: FastSegmenter())
    for name in ("photo.jpg", "photo.jpg.jpg", "IMG.PNG.PNG"):
        save_image(here / "photos" / name, 3)
    run = ["--image", "photos", "--vocabulary", "cat", "dog", "--preset", "tiny", "--output", "out"]
    assert main(run) == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    shutil.move(here / "photos", here / "moved")
    run[1], run[-1] = "../moved/*", "../out"
    assert main([*run, "--export", "coco", "labelme"]) == 0
    coco = json.loads(Path("exports/coco/annotations.json").read_text())
    names = ["IMG.PNG.PNG", "photo.jpg", "photo.jpg.jpg"]
    assert [image["file_name"] for image in coco["images"]] == names
    for name in names:
        labelme = Path("exports/labelme", name).with_suffix(".json")
        picture = labelme.parent / json.loads(labelme.read_text())["imagePath"]
        assert picture.resolve() == here / "moved" / name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image", "nowhere.jpg"], "image not found: 'nowhere.jpg'"),
        (["--image", ""], "the image path is empty; give an image file or a folder"),
        (["--image", "text.jpg"], "is not an image"),
        (["--image", "half.jpg"], "truncated"),
        (["--vocabulary"], "expected at least one argument"),
        (["--vocabulary", ""], "blank word"),
        (["--vocabulary", "cat", " , "], "blank word"),
        (["--vocabulary", "cat", "dog", "Cat"], "'Cat' is given twice"),
        (["--vocabulary", "@nowhere.txt"], "vocabulary file not found"),
        (["--vocabulary", "cat", "--background", "sky", "Sky"], "'Sky' is given twice"),
        (["--not-words", "sky", "Car"], "'Car' is both wanted and not wanted; remove one"),
        (["--not-words", "@nowhere.txt"], "vocabulary file not found"),
        (["--vocabulary", "caf\udce9"], "is no valid text; type it, or its file, in UTF-8"),
        (["--threshold", "persn=0.5"], "no class 'persn' for a threshold; the nearest is 'person'"),
        (["--threshold", "person"], "threshold 'person' is not CLASS=SHARE; write person=0.6"),
        (["--threshold", "car=7"], "the threshold of 'car' must be between 0 and 1, got 7.0"),
        (["--preset", "huge"], "unknown preset 'huge'; valid: vit-b16, tiny"),
        (["--strategy", "guess"], "valid: pole, centroid, peak, multi"),
        (["--attention", "full"], "valid: csa, vanilla, maskclip"),
        (["--text-space", "own"], "valid: restored, channel_norm"),
        (["--device", "abacus"], "device 'abacus' is not available; here: "),
        (["--min-confidence", "2"], "min_confidence must be between 0 and 1, got 2.0"),
        (["--min-confidence", "much"], "invalid float value: 'much'"),
        (["--iou-threshold", "-1"], "iou_threshold must be between 0 and 1, got -1.0"),
        (["--min-region-size", "0"], "min_region_size must be at least 1, got 0"),
        (["--loftup-model", "loftup_clip"], "--loftup-model needs --use-loftup"),
        (["--upsampler", "trilinear"], "unknown upsampler 'trilinear'; valid: none, bilinear, bic"),
        (
            ["--use-loftup", "--upsampler", "bilinear"],
            "--use-loftup is short for --upsampler loftup and contradicts --upsampler bilinear",
        ),
        (["--anyup-model", "a.pth"], "--anyup-model needs --upsampler anyup"),
        (["--upsampler", "jbu", "--loftup-model", "a.bin"], "--loftup-model needs --use-loftup"),
        (["--upsampler", "anyup", "--anyup-model", "a.pth"], "checkpoint a.pth does not exist"),
        (["--upsampler", "jbu", "--upsampled", "words"], "unknown upsampled 'words'; valid: feat"),
        (["--use-loftup", "--upsampled", "scores"], "loftup upsamples features, not scores"),
        (["--output", "out.gif"], "its name must end in .png, .jpg, .jpeg, .webp"),
        (["--output", "out"], "its name must end in"),
        (["--output", "folder.png"], "--output folder.png is a folder"),
        (["--save-json", "folder.png"], "--save-json folder.png is a folder"),
        (["--output", "text.jpg/out.png"], "text.jpg is not a folder"),
        (["--save-label-map", "out.jpg"], "its name must end in .png"),
        (["--output", "out.png", "--save-label-map", "out.png"], "is also --output"),
        (["--image", "half.jpg", "--output", "half.jpg"], "is also --image"),
        (["--export", "pdf"], "invalid choice: 'pdf' (choose from "),
        (["--export-dir", "out"], "--export-dir needs --export FORMAT ...; formats: coco, yolo"),
        (["--export", "coco", "--export-dir", "text.jpg"], "text.jpg is not a folder"),
        (["--save-heatmaps", "text.jpg"], "text.jpg is not a folder"),
        (["--image", "."], "several images need a folder for their results, not clip_guided_seg"),
        (["--image", "half.jpg", "text.jpg", "--output", "a.jpg"], "give --output FOLDER"),
        (["--image", ".", "--output", "text"], "text cannot be a folder: text is a file"),
        (["--image", ".", "--output", "."], "--output . holds files that are no results"),
        (["--image", "folder.png", "--output", "new"], "'folder.png' holds no image (.jpg, "),
        (["--image", "@nowhere.txt", "--output", "new"], "image list not found: 'nowhere.txt'"),
        (["--image", ".", "--output", "new", "--save-json", "a.json"], "--save-json is for one im"),
        (
            ["--image", ".", "--output", "new", "--save-heatmaps", "."],
            "--save-heatmaps . holds fil",
        ),
        (["--image", ".", "--output", "new", "--preset", "huge"], "unknown preset 'huge'"),
        (["--image", "half.jpg", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_input(argv, message, here, capsys):
    (here / "text.jpg").write_text("no picture")
    (here / "half.jpg").write_bytes(SCENE.path.read_bytes()[:30_000])
    (here / "folder.png").mkdir()
    (here / "text").touch()
    assert_refused(argv, message, capsys)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_bad_checkpoints(here, capsys, monkeypatch):
    monkeypatch.setattr(models.networks, "load_clip", load_clip_once)
    (here / "half.safetensors").write_bytes(TINY_SAM.read_bytes()[:100_000])
    (here / "half.pt").write_bytes(TINY_SAM.read_bytes()[:100_000])
    save_file({"weight": torch.zeros(2, 3)}, "other.safetensors")
    torch.save({"model": Bomb()}, "bomb.pt")
    for name, message in (
        ("nowhere.pt", "checkpoint nowhere.pt does not exist"),
        ("half.safetensors", "cannot be read (100,000 bytes"),
        ("half.pt", "cannot be read (100,000 bytes"),
        ("other.safetensors", "does not fit SAM2Base: of "),
        ("bomb.pt", "holds pickled Python code"),
        (".", "is a folder"),
    ):
        assert_refused(["--checkpoint", name], message, capsys)
    assert not (here / "exploded").exists()
    assert_refused(["--model-cfg", "sam9.yaml"], "Unknown SAM 2 configuration 'sam9.yaml'", capsys)


def test_a_loftup_that_does_not_fit(here, capsys):
    message = "loftup_dinov2s upsamples dinov2_vits14 features, not tiny-clip; for tiny-clip: "
    argv = ["--use-loftup", "--loftup-model", "loftup_dinov2s"]
    assert_refused(argv, message + "loftup_tiny", capsys)


def test_no_network(tmp_path):
    cache, output = tmp_path / "cache", tmp_path / "out.png"
    argv = ["--image", SCENE.path, "--preset", "vit-b16", "--output", output]
    code, out, err = finish(start(*argv, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache)))
    assert (code, out) == (2, "") and not output.exists()
    assert err.count("\n") == 1 and err.startswith("error: weights missing: ")
    for word in ("HF_HUB_OFFLINE", "scripts/download_weights.py", "--preset tiny", str(cache)):
        assert word in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, number):
    # The program waits for this file to be written; that is when it is interrupted.
    words, output = tmp_path / "words", tmp_path / "out.png"
    os.mkfifo(words)
    process = start("--vocabulary", f"@{words}", "--output", output)
    writer = None
    while writer is None:
        assert process.poll() is None
        try:
            writer = os.open(words, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.02)
    process.send_signal(number)
    assert finish(process) == (130, "", "interrupted\n")
    os.close(writer)
    assert not output.exists()


def test_help():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(PROGRAM), "--help"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0
    for option, default in (
        ("--min-confidence", "(default: 0.7)"),
        ("--min-region-size", "(default: 100)"),
        ("--iou-threshold", "(default: 0.8)"),
        ("--output OUTPUT", "(default: clip_guided_segments.png)"),
        ("--vocabulary WORD", "(default: the bundled scene's: person car bicycle tree building)"),
    ):
        (line,) = (x for x in done.stdout.splitlines() if x.strip().startswith(option))
        rest = done.stdout.split(line)[1].splitlines()[:2]
        assert default in " ".join([line, *rest])
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "pipeline.app.options" in imported
    assert not imported & {"torch", "open_clip", "numpy", "cv2"}  # help comes at once


@pytest.mark.slow
def test_24_megapixels(tmp_path):
    image = Image.open(SCENE.path).resize((6000, 4000), Image.Resampling.BICUBIC)
    image.save(tmp_path / "large.jpg", quality=90)
    outputs = [tmp_path / word if word[0] != "-" else word for word in OUTPUTS]
    process = start("--image", tmp_path / "large.jpg", "--preset", "tiny", *outputs)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(assert_outputs(tmp_path, (4000, 6000))["masks"]) > 5
    gigabytes = usage.ru_maxrss / 2**20  # Linux counts in KiB
    seconds = usage.ru_utime + usage.ru_stime
    print(f"{seconds:.0f} s of processor time, {gigabytes:.1f} GiB at most")
    assert gigabytes < 4 and seconds < 120
