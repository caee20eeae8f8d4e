"""Imports point one way, cost little and need no screen."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("matplotlib", "sam2", "hydra", "omegaconf", "pandas", "gradio", "supervision")


def modules(package: str) -> list[str]:
    """Dotted names of all modules of a package."""
    names = []
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imports(module: str, *, everywhere: bool) -> Iterator[str]:
    """Absolute names a module imports, at import time only or also inside its functions."""
    file = ROOT / Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            # Each may be a module of its own.
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if not everywhere:
                continue
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        todo.extend(ast.iter_child_nodes(node))


def test_the_reader_of_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "p" / "q").mkdir(parents=True)
    (tmp_path / "p" / "q" / "m.py").write_text(
        "import a.b\nfrom . import c\nfrom ..d import e\nfrom f import g\n"
        "if TYPE_CHECKING:\n    import h\ntry:\n    import i\nfinally:\n    pass\n"
        "def function():\n    import j\n"
    )
    first = {"a.b", "p.q", "p.q.c", "p.d", "p.d.e", "f", "f.g", "i"}
    assert set(imports("p.q.m", everywhere=False)) == first
    assert set(imports("p.q.m", everywhere=True)) == first | {"j"}


@pytest.mark.parametrize(
    ("package", "never", "everywhere"),
    [
        # models.loftup_sclip_segmentor offers one name of the pipeline, looked up when asked for.
        ("models", ("pipeline",), False),
        ("models", ("scripts", "benchmarks", "tests"), True),
        ("pipeline", ("scripts", "benchmarks", "tests"), True),
    ],
)
def test_arrow(package, never, everywhere):
    names = modules(package)
    assert len(names) > 5
    wrong = [
        f"{module} imports {name}"
        for module in names
        for name in imports(module, everywhere=everywhere)
        if name.split(".")[0] in never
        or f"{name}.py" in {"clip_guided_segmentation_loftup.py", "compare_loftup_results.py"}
    ]
    assert not wrong


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way through the arrows that comes back to where it began; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_the_finder_of_circles():
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
    assert len(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == 4


def test_no_circles():
    """At import time. Arrows to the packages a module lies in are left out: they come first."""
    names = {*modules("models"), *modules("pipeline")}
    graph = {
        module: {
            name
            for name in imports(module, everywhere=False)
            if name in names and not f"{module}.".startswith(f"{name}.")
        }
        for module in names
    }
    assert sum(map(len, graph.values())) > 250  # arrows; a reader that sees none finds no circle
    assert circle(graph) == []


IMPORT = """
import importlib, json, sys
for names in sys.argv[1:]:
    for name in names.split():
        importlib.import_module(name)
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def loaded_by(*groups: list[str]) -> list[set[str]]:
    """Top-level modules in memory after importing each group, one after another, in one process.

    It has no screen.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", IMPORT, *map(" ".join, groups)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "importing should be silent"
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def test_packages_are_light_and_models_below_the_pipeline():
    # The page is made of gradio's parts; `scripts/app.py` alone imports it, when gradio is there.
    others = [name for name in modules("pipeline") if name != "pipeline.app.page"]
    models, both = loaded_by(modules("models"), others)
    assert "torch" in models and "models" in models
    assert models & {*HEAVY, "pipeline", "scripts"} == set()
    assert "pipeline" in both
    assert both & {*HEAVY, "scripts", "benchmarks"} == set()


def test_opencv_needs_no_screen():
    # The other wheels of OpenCV need libGL, which servers lack.
    files = [*ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"]
    named = re.findall(r"opencv[\w-]*", " ".join(f.read_text(encoding="utf-8") for f in files))
    assert set(named) == {"opencv-python-headless"}


def test_the_promised_names_are_where_users_look():
    from models.loftup_sclip_segmentor import (
        LoftUpSCLIPSegmentor,
        extract_prompt_points_from_upsampled,
    )
    from models.sclip_segmentor import SCLIPSegmentor
    from pipeline.prompts import extract_prompt_points_from_upsampled as original

    assert extract_prompt_points_from_upsampled is original
    assert issubclass(LoftUpSCLIPSegmentor, SCLIPSegmentor)
    with pytest.raises(ImportError):
        from models.loftup_sclip_segmentor import nothing_of_this_name  # noqa: F401
