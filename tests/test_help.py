"""--help of every program answers without the libraries that take long to load."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import __version__

ROOT = Path(__file__).parents[1]
PROGRAMS = (
    "clip_guided_segmentation_loftup.py",
    "compare_loftup_results.py",
    *(
        f"benchmarks/{name}.py"
        for name in ("voc", "segmentation", "speed", "pipeline_speed", "folder", "ceiling", "probe")
    ),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "scripts").glob("[!_]*.py"))),
)
OTHERS = {"--nproc-per-node", "--fuzz-runs", "--index-url"}  # of torchrun, the tests and pip
HEAVY = {"torch", "torchvision", "open_clip", "sam2", "matplotlib", "scipy", "pandas", "gradio"}

HELP = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, "")
found = {}
for program in sys.argv[1:]:
    sys.argv, text = [program, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_path(program, run_name="__main__")
        status = "went on"
    except SystemExit as end:
        status = end.code
    found[program] = status, text.getvalue(), sorted({name.split(".")[0] for name in sys.modules})
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[object, str, list[str]]]:
    """Program -> exit status, text, modules loaded by then.

    All in one process, whose modules add up: the first program that loads too much is named.
    """
    done = subprocess.run(
        [sys.executable, "-c", HELP, *PROGRAMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help_is_light(found):
    assert len(found) == len(PROGRAMS) > 8
    for program, (status, text, modules) in found.items():
        assert status == 0 and "usage:" in text, program
        assert HEAVY.isdisjoint(modules), (program, HEAVY & set(modules))


def test_version_is_light():
    programs = [name for name in PROGRAMS if not name.startswith("benchmarks")]
    text = HELP.replace('"--help"', '"--version"')
    done = subprocess.run(
        [sys.executable, "-c", text, *programs],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(programs) > 6
    for program, (status, text, modules) in found.items():
        assert (status, text) == (0, f"{Path(program).name} {__version__}\n")
        assert (HEAVY | {"numpy"}).isdisjoint(modules), program


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md", "scripts/README.md"])
def test_the_pages_name_options_that_exist(found, page):
    option = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    known = {name for _, text, _ in found.values() for name in option.findall(text)} | OTHERS
    named = set(option.findall((ROOT / page).read_text(encoding="utf-8")))
    assert len(named) > 5 and named <= known, named - known
