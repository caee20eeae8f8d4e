"""What the README and the notebook show runs as it is written there, and links lead somewhere."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import models.networks
import models.weights
import pipeline.sam2_prompting
import pipeline.segmenter
from models.protocols import PROTOCOLS
from models.text import TextEncoder
from models.weights import load_clip, load_loftup, load_sam2

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
FOLDERS = ("benchmarks", "docs", "examples", "models", "pipeline", "scripts")
PAGES = [
    *ROOT.glob("*.md"),
    *(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.md")),
]

# The examples load the same models again and again; what is loaded is only read.
ONCE = {
    "load_clip": (functools.cache(load_clip), models.networks),
    "load_loftup": (functools.cache(load_loftup), models.weights),
    "load_sam2": (functools.cache(load_sam2), models.networks, pipeline.sam2_prompting),
    "TextEncoder": (functools.cache(TextEncoder), models.networks),
}


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> Path:
    """A folder with nothing but the bundled scene in `examples`.

    Models are loaded and words encoded once, and CLIP and LoftUp see a small picture of it.
    """
    (tmp_path / "examples").mkdir()
    for name in ("street_scene.jpg", "street_scene_labels.png"):
        shutil.copy(EXAMPLES / name, tmp_path / "examples")
    for name, (once, *modules) in ONCE.items():
        for module in modules:
            monkeypatch.setattr(module, name, once)
    small = dataclasses.replace(PROTOCOLS["tiny"], short_side=112, window=112, stride=56)
    monkeypatch.setitem(PROTOCOLS, "tiny", small)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))  # undoes what the notebook adds, too
    return tmp_path


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))


def sources(notebook: dict, kind: str) -> list[str]:
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


def anchors(markdown: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", markdown, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(markdown: str, page: Path) -> list[str]:
    """Relative links and pictures of a page, or headings of another, that are not there."""
    lost = []
    text = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            lost.append(link)
        elif anchor and anchor not in anchors(
            markdown if target == page else target.read_text(encoding="utf-8")
        ):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page.read_text(encoding="utf-8"), page) == []


def test_links_of_the_notebook(notebook):
    text = "\n".join(sources(notebook, "markdown"))
    assert "](../README.md" in text
    assert broken(text, EXAMPLES / "tour.ipynb") == []


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    text = '# One & two\n[a](#one--two) [b](#two) ![c](c.png) [d](https://x.y) <img src="e.png">'
    page.write_text(text)
    assert broken(text, page) == ["#two", "c.png", "e.png"]


def test_the_python_of_the_readme_runs(fresh):
    """Block after block, each in a namespace of its own, as a reader would paste it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    made = {}
    for block in blocks:
        # tests/models: upsamplers/test_base.py, backbones/test_registry.py run these
        if "def blurred" in block or "build_backbone(" in block:
            continue
        names: dict = {}
        exec(compile(block, "README.md", "exec"), names)
        made |= names
    height, width = 448, 672
    assert made["result"].masks.shape[1:] == (height, width) and len(made["result"]) > 5
    assert made["probs"].shape == (height, width, 3)
    assert len(made["results"]) == len(made["prompts"]) > 5
    assert (fresh / "result.json").stat().st_size > 1000


def test_the_notebook_runs_from_top_to_bottom(fresh, monkeypatch, notebook, capsys):
    monkeypatch.chdir(fresh / "examples")
    plt.switch_backend("Agg")
    names: dict = {}
    try:
        for number, source in enumerate(sources(notebook, "code"), start=1):
            exec(compile(source, f"tour.ipynb[{number}]", "exec"), names)
    finally:
        plt.close("all")
    assert "masks read back from COCO, equal to the pixel" in capsys.readouterr().out
    result = names["result"]
    assert result.label_map.shape == (448, 672)
    assert {"person", "car", "bicycle", "tree", "building"} == {
        result.class_name(i) for i in range(len(result))
    }
    assert {p.name for p in (fresh / "outputs" / "tour").iterdir()} == {
        "coco", "export.json", "heatmaps", "labelme", "labels.png", "result.json", "voc", "yolo",
    }  # fmt: skip


def test_the_notebook_is_stored_as_it_ran(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}  # no warnings
    pictures = [o["data"]["image/jpeg"] for o in outputs if o["output_type"] == "display_data"]
    assert len(pictures) >= 6
    assert (EXAMPLES / "tour.ipynb").stat().st_size < 1.2e6
    printed = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    assert not re.search(r"(^|[\s'\"])/\w+/", printed)  # paths of the machine it ran on
