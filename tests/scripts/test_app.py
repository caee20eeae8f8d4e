"""The page in a real browser, and how its program refuses what it cannot use.

How long a visitor waits, and the picture of the page in examples/:

    pytest tests/scripts/test_app.py -n0 -s -m slow -k test_a_visit --page-picture examples/page.png
"""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from pipeline.app.explore import DRAWING
from pipeline.app.options import SCENE
from pipeline.drawing.picture import fit
from pipeline.result import Segmentation

ROOT = Path(__file__).resolve().parents[2]
APP = [sys.executable, str(ROOT / "scripts" / "app.py")]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["the browser chromium"]
needs_browser = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
PATIENCE = 240_000  # ms, on a busy machine


def refused(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [*APP, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_bad_options_are_one_line():
    assert "--port must be 1…65535, got 0" in refused("--port", "0")
    assert "--max-upload-mb must be at least 1" in refused("--max-upload-mb", "0")


def test_without_gradio_the_command_to_get_it_is_named(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError('No module named gradio')")
    assert "pip install 'gradio>=6'" in refused(PYTHONPATH=str(tmp_path))


def test_an_address_that_cannot_be_listened_on_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused("--port", str(port))
    assert said == (
        f"error: cannot listen on 127.0.0.1, port {port} (Address already in use); "
        "give another --port or --host\n"
    )
    assert "give another --port or --host" in refused("--host", "192.0.2.1")  # of no machine


@pytest.mark.slow
@needs_browser
def test_missing_weights_are_one_line(tmp_path):
    said = refused("--preset", "vit-b16", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert "scripts/download_weights.py" in said


def test_fields_that_were_never_unfolded_are_empty():
    """Gradio gives None for them."""
    page = pytest.importorskip("pipeline.app.page", exc_type=ImportError)
    parts = {name: {"loftup": name} for name in ("columns", "pictures", "counts")}
    fake = SimpleNamespace(shown=lambda *args: {}, question="question", untouched={}, **parts)
    answers = page._Page.segment(fake, "a.png", "cat dog", None, None, None, False, 0.5, 0.4)
    asked = next(answers)["question"]
    assert (asked.words, asked.not_words, dict(asked.thresholds)) == (("cat", "dog"), (), {})


class Server(NamedTuple):
    """A running page."""

    process: subprocess.Popen
    address: str
    log: Path  # stderr


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*APP, "--port", str(port), "--max-upload-mb", "1"],
            cwd=folder,
            env=os.environ | {"TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert f"127.0.0.1:{port}" in line, f"the page did not start: {log.read_text()}"
        yield Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(180)  # gradio closes its connections first


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page")) as server:
        yield server


@pytest.mark.slow
@needs_browser
def test_ctrl_c_ends_even_a_long_computation(browser, tmp_path):
    with served(tmp_path) as server:
        me = Visitor(browser, server.address)
        me.segment()
        me.said("bilinear")  # and LoftUp is at work
        assert [*tmp_path.glob("masks*/**/*.png")]
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(180) == 130
        assert not [*tmp_path.glob("masks*")]
        assert server.log.read_text() == "interrupted\n" and not server.process.stdout.read()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


class Visitor:
    """Somebody at the page."""

    def __init__(self, browser, address: str, size: tuple[int, int] = (880, 1400)) -> None:
        viewport = {"width": size[1], "height": size[0]}
        self.page = browser.new_context(viewport=viewport).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.hosts: set[str] = set()
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(address)
        self.page.get_by_role("button", name="Segment", exact=True).wait_for()

    def drop(self, file: Path) -> None:
        if (remove := self.page.get_by_label("Remove Image")).count():
            remove.click()
        self.page.locator("input[type=file]").first.set_input_files(str(file))

    def words(self, text: str) -> None:
        self.page.get_by_label(re.compile("Words")).fill(text)

    def more(self, **lines: str) -> None:
        """Fill in the fields that are folded away, by the beginnings of their names."""
        for name, text in lines.items():
            field = self.page.get_by_label(re.compile(name))
            if not field.is_visible():
                self.page.get_by_role("button", name="More").click()
            field.fill(text)

    def loftup(self, on: bool) -> None:
        self.page.get_by_label(re.compile("LoftUp: show")).set_checked(on)

    def segment(self) -> None:
        self.page.get_by_role("button", name="Segment", exact=True).click()

    def said(self, arm: str) -> str:
        """What is found, once it is."""
        self.page.locator(f"#count-{arm}").get_by_text(re.compile("mask|Nothing found")).wait_for()
        return self.page.locator(f"#count-{arm}").inner_text()

    def until_said(self, pattern: str, arm: str = "bilinear") -> None:
        self.page.locator(f"#count-{arm}").filter(has_text=re.compile(pattern)).wait_for()

    def until_it_changes(self, selector: str, act, attribute: str = "innerText") -> str:
        read = "([s, a]) => document.querySelector(s)[a]"
        before = self.page.evaluate(read, [selector, attribute])
        act()
        self.page.wait_for_function(
            "([s, a, b]) => document.querySelector(s)[a] != b", arg=[selector, attribute, before]
        )
        return self.page.evaluate(read, [selector, attribute])

    def slide(self, name: str, value: float) -> None:
        self.page.get_by_label(f"number input for {name}").fill(str(value))
        self.page.keyboard.press("Enter")

    def warned(self) -> str:
        toast = self.page.locator(".toast-body").first
        toast.wait_for()
        text = toast.inner_text()
        self.page.locator(".toast-close").first.click()
        toast.wait_for(state="hidden")  # it fades away
        return text


def timed(what: str, act: Callable[[], object]) -> None:
    start = time.perf_counter()
    act()
    print(f"{what}: {time.perf_counter() - start:.2f} s")


@pytest.mark.slow
@needs_browser
def test_a_visit(browser, server, tmp_path, request):
    me = Visitor(browser, server.address)

    def first_result() -> None:
        me.segment()
        assert "person" in me.said("bilinear")

    timed("first result", first_result)
    timed("with LoftUp, after that", lambda: me.said("loftup"))
    assert "person" in me.said("loftup")
    assert me.hosts == {server.address.split("/")[2]}  # nothing is fetched from elsewhere

    picture = me.page.locator("#loftup img")
    box = picture.bounding_box()
    red_car = {"x": 0.25 * box["width"], "y": 0.82 * box["height"]}

    def click() -> None:
        picture.click(position=red_car)
        me.page.locator("#chosen table").wait_for()

    timed("a click on a mask", click)
    if file := request.config.getoption("--page-picture"):
        save_picture(me.page.screenshot(full_page=True), Path(file))
    chosen = me.page.locator("#chosen").inner_text()
    assert "car" in chosen and "prompt point" in chosen and "SAM 2" in chosen

    def slide(name: str, value: float) -> None:
        me.until_it_changes("#loftup img", lambda: me.slide(name, value), "src")

    timed("another opacity", lambda: slide("Opacity", 0.9))
    assert "car" in me.page.locator("#chosen").inner_text()  # still chosen
    timed("another confidence", lambda: slide("Confidence", 0.95))
    fewer = me.said("loftup")
    me.page.locator("#chosen").get_by_text("Click a mask").wait_for()  # none is chosen any more

    me.page.get_by_role("button", name="Make files").click()
    me.page.locator("a[download]").nth(5).wait_for()
    got = {}
    for link in me.page.locator("a[download]").all():
        with me.page.expect_download() as download:
            link.click()
        got[download.value.suggested_filename] = download.value.path()
    assert sorted(got) == sorted(
        f"street_scene_{arm}{end}"
        for arm in ("bilinear", "loftup")
        for end in (".png", ".json", "_labels.png")
    )
    result = Segmentation.load_json(got["street_scene_loftup.json"])
    assert f"{len(result)} mask" in fewer
    assert result.settings["min_confidence"] == 0.95
    labels = np.asarray(Image.open(got["street_scene_loftup_labels.png"]))
    assert np.array_equal(labels, result.label_map)

    me.loftup(False)
    me.page.locator("#loftup").wait_for(state="hidden")


def save_picture(screenshot: bytes, file: Path) -> None:
    """With a palette: half a megabyte less, and no difference that is seen."""
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(256).save(file, optimize=True)


@pytest.mark.slow
@needs_browser
def test_words_to_leave_out_and_thresholds(browser, server):
    me = Visitor(browser, server.address)
    me.loftup(False)
    me.segment()
    me.until_said(r"person\s*\d.*car\s*\d")

    me.words("person,human tree,human")
    me.segment()
    assert "'human' belongs to 'person' and 'tree'" in me.warned()
    me.until_said(r"person\s*\d.*tree\s*\d")
    me.words("person building tree")
    me.more(Not="car bicycle")
    me.segment()
    me.until_said(r"^(?!.*(car|bicycle)).*person\s*\d.*building\s*\d")

    field = "Least confidence of"
    me.more(**{field: "person=1"})
    me.page.get_by_label(re.compile(field)).press("Enter")
    me.until_said(r"building\s*\d.*not found: person")

    me.more(**{field: "persn=0.5"})
    me.segment()
    assert "the nearest is 'person'" in me.warned()
    me.page.locator("#bilinear img").click(trial=True)  # what was found stays in sight
    me.more(**{field: "person"})
    me.segment()
    assert "write person=0.6" in me.warned()
    me.more(**{field: "", "Not": "tree"})
    me.segment()
    assert "'tree' is both wanted and not wanted" in me.warned()


@pytest.mark.slow
@needs_browser
def test_a_phone_and_a_tall_picture(browser, server, tmp_path):
    me = Visitor(browser, server.address, size=(900, 420))
    me.loftup(False)
    me.segment()
    me.until_said("bicycle")
    assert me.page.evaluate("document.documentElement.scrollWidth") <= 420
    picture = me.page.locator("#bilinear img")
    assert picture.bounding_box()["width"] > 360
    shown = picture.evaluate("i => i.getBoundingClientRect().bottom <= innerHeight + 1")
    assert shown  # though it begins far below the button

    tall = tmp_path / "tall.png"
    Image.open(SCENE.path).crop((0, 0, 200, 400)).save(tall)
    me.drop(tall)
    me.words("person car tree building")
    me.segment()
    me.until_said("^(?!.*bicycle).*car")
    box = picture.bounding_box()  # with bars at the sides
    scale = min(box["width"] / 200, box["height"] / 400)
    x, y = (box["width"] - 200 * scale) / 2 + 166 * scale, box["height"] / 2 + 154 * scale
    picture.click(position={"x": x, "y": y})
    me.page.locator("#chosen h4").get_by_text("car").wait_for()


@pytest.mark.slow
@needs_browser
def test_two_visitors_and_bad_input(browser, server, tmp_path):
    first, second = Visitor(browser, server.address), Visitor(browser, server.address)
    for visitor in (first, second):
        visitor.loftup(False)
    first.words("person car")
    first.segment()
    before = first.said("bilinear")

    second.words("")
    second.segment()
    assert "at least one word" in second.warned()
    second.words("person, car")
    second.segment()
    assert "put spaces between classes" in second.warned()
    second.words("tree")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    second.drop(broken)
    second.segment()
    warned = second.warned()
    assert "broken.png" in warned and "Traceback" not in warned and "/" not in warned
    large = tmp_path / "large.png"
    large.write_bytes(broken.read_bytes() + b"0" * 2**20)
    second.drop(large)
    assert "maximum allowed size of 1" in second.warned()
    assert "Traceback" not in server.log.read_text()  # bad input is no bug of the program

    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save(grey)
    second.drop(grey)
    second.segment()
    assert "person" not in second.said("bilinear")

    first.until_it_changes("#bilinear img", lambda: first.slide("Opacity", 0.9), "src")
    assert first.said("bilinear") == before
    image = "document.querySelector('#bilinear img')"
    width_height = first.page.evaluate(f"[{image}.naturalWidth, {image}.naturalHeight]")
    assert tuple(width_height) == fit((400, 600), DRAWING)[::-1]
