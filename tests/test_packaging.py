"""What an installation gets: packages, data, commands, and the same requirements either way."""

import importlib
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
# Nothing of the product: they need the working tree.
NOT_INSTALLED = {"tests", "benchmarks"}


def tracked() -> list[Path]:
    """The repository's files, without what lies about beside them."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git repository")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def packages() -> set[str]:
    """The packages that setuptools finds: all folders below the root that match its patterns."""
    find = SETUPTOOLS["packages"]["find"]
    folders = {folder for file in tracked() for folder in file.parents if folder.parts}
    names = {".".join(folder.parts) for folder in folders}
    found = {name for name in names if any(fnmatch(name, like) for like in find["include"])}
    return {name for name in found if not any(fnmatch(name, like) for like in find["exclude"])}


def test_requirements_agree():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]


def test_python_versions_agree():
    version = PROJECT["requires-python"].removeprefix(">=")
    assert PYPROJECT["tool"]["pyright"]["pythonVersion"] == version
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + version.replace(".", "")


def test_every_module_is_in_a_package(packages):
    modules = [file for file in tracked() if file.suffix == ".py"]
    inside = [file for file in modules if file.parts[0] not in NOT_INSTALLED]
    assert len(inside) > 100
    alone = sorted(file.stem for file in inside if len(file.parts) == 1)
    assert alone == sorted(SETUPTOOLS["py-modules"])
    needed = {".".join(file.parent.parts) for file in inside if len(file.parts) > 1}
    assert needed <= packages
    assert not any(name.split(".")[0] in NOT_INSTALLED for name in packages)


def test_data_is_in_the_wheel(packages):
    """Every file that is no module is told of, and every pattern finds some."""
    found = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        assert package in packages
        folder = ROOT / package.replace(".", "/")
        for pattern in patterns:
            files = {file.relative_to(ROOT) for file in folder.glob(pattern) if file.is_file()}
            assert files, f"{package}: {pattern}"
            found |= files
    data = {file for file in tracked() if file.parts[0] in ("models", "pipeline")}
    data = {file for file in data if file.suffix != ".py" and file.name != "README.md"}
    assert len(data) > 10
    assert data <= found


def test_the_scene_is_in_the_wheel():
    from pipeline.app.options import SCENE

    folder, name = SCENE.path.relative_to(ROOT).parts
    assert SETUPTOOLS["package-data"][folder] == [name]


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_commands_lead_somewhere_and_are_told_of(command):
    module, _, name = PROJECT["scripts"][command].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"`{command}`", readme)
