"""The house of DESIGN §1: who may import whom, what is light, and what the wheel holds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("pipeline", "actors", "catalog", "models")
TOP = {
    "pipeline.cli",
    "pipeline.cli_catalog",
    "pipeline.cli_density",
    "pipeline.cli_evaluate",
    "pipeline.cli_models",
    "pipeline.cli_submit",
    "pipeline.cli_train",
    "pipeline.cli_update",
    "pipeline.__main__",
    "pipeline.submitted",
}
DRIVER = "pipeline.driver"
JOBS_API = "pipeline._jobsapi"


@cache
def imports(source: str, module: str, *, package: bool) -> frozenset[str]:
    """Modules that a module's source imports anywhere in it, house modules as ``folder.module``.

    `from x import y` counts as x and as x.y, since y may be a module.
    """
    home = module.split(".") if package else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {stem} - {""}
            found |= {f"{stem}.{alias.name}".strip(".") for alias in node.names}
    return frozenset(name.removeprefix("geosweep.") for name in found)


def modules() -> dict[str, frozenset[str]]:
    """Each module of the four folders, with what it imports."""
    result = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if package else parts)
            result[name] = imports(path.read_text(encoding="utf-8"), name, package=package)
    return result


MODULES = modules()


def uses(module: str, *names: str) -> set[str]:
    """Which of `names`, or of what lies under them, the module imports."""
    return {
        imported
        for imported in MODULES[module]
        for name in names
        if imported == name or imported.startswith(f"{name}.")
    }


def in_folder(folder: str) -> list[str]:
    found = [name for name in MODULES if name.split(".")[0] == folder]
    assert len(found) > 1, f"{folder}/ has no modules: this test looks in the wrong place"
    return found


def test_the_reader_of_imports_sees_what_is_there():
    source = "import ray.util\nfrom ..actors import x\nfrom . import driver\n\ndef f():\n    import torch\n"
    seen = imports(source, "pipeline.a", package=False)
    assert {"ray.util", "actors", "actors.x", "pipeline.driver", "torch"} <= seen
    assert "models.b" in imports("from .b import c\n", "models", package=True)
    assert "catalog.errors" in imports(
        "from geosweep.catalog import errors", "models.a", package=False
    )
    assert uses(DRIVER, "ray")
    assert uses(DRIVER, "actors")


@pytest.mark.parametrize("module", in_folder("catalog"))
def test_catalog_stands_alone(module):
    assert not uses(module, "ray", "torch", "lightning", "pipeline", "actors", "models")


@pytest.mark.parametrize("module", in_folder("models"))
def test_models_know_of_errors_alone(module):
    # Training may use ray.train, behind an extra.
    assert not uses(module, "ray") - uses(module, "ray.train")
    assert not uses(module, "pipeline", "actors")
    # These and the names in them, or the bare package in `from ..catalog import errors`.
    allowed = uses(module, "catalog.errors", "catalog.lazy", "catalog.strict") | {"catalog"}
    others = uses(module, "catalog") - allowed
    assert not others


@pytest.mark.parametrize("module", in_folder("pipeline"))
def test_only_the_driver_talks_to_ray(module):
    # Of Ray, the Jobs API's client uses what speaks HTTP; it joins no cluster.
    http = ("ray.job_submission", "ray.util.state", "ray.exceptions")
    if module == JOBS_API:
        assert not uses(module, "ray", "actors") - uses(module, *http)
    elif module != DRIVER:
        assert not uses(module, "ray", "actors")


@pytest.mark.parametrize("module", in_folder("pipeline") + in_folder("actors"))
def test_nobody_imports_the_command_line(module):
    if module not in TOP:
        assert not uses(module, *TOP)


def below_the_actors() -> set[str]:
    """Pipeline modules that the actors reach: the stages."""
    reached: set[str] = set()
    waiting = [m for actor in in_folder("actors") for m in MODULES[actor] if m in MODULES]
    while waiting:
        module = waiting.pop()
        if module not in reached and module.startswith("pipeline."):
            reached.add(module)
            waiting += [m for m in MODULES[module] if m in MODULES]
    return reached


def test_stages_do_not_look_up():
    stages = below_the_actors()
    assert {"pipeline.stream", "pipeline.detect", "pipeline.commit"} <= stages
    afar = {JOBS_API, "pipeline.handle", "pipeline.submission"}
    above = {DRIVER, *afar, "pipeline.runner", "pipeline"}
    assert not stages & (TOP | above)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_within_the_house_are_relative(module):
    parts = module.split(".")
    path = ROOT.joinpath(*parts)
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] != "geosweep"
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "geosweep" for alias in node.names)


@pytest.mark.parametrize(
    "module", ["geosweep.catalog", "geosweep.pipeline", "geosweep.pipeline.cli", "geosweep.models"]
)
def test_importing_is_light(module):
    code = (
        f"import sys, {module}\n"
        "print(*sorted({'torch', 'torchvision', 'lightning', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_architecture_page_names_every_module():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", page, flags=re.M)[1:]
    folders = {re.match(r"`([\w/]+)/`", section)[1] for section in sections}
    packages = {path.parent for top in FOLDERS for path in (ROOT / top).rglob("__init__.py")}
    assert folders == {path.relative_to(ROOT).as_posix() for path in packages}
    for section in sections:
        folder = re.match(r"`([\w/]+)/`", section)[1]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
        there = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
        assert named == there


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree so that nothing is left behind in it."""
    pytest.importorskip("build", reason="the package build is not installed")
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in (*FOLDERS, "tests", "benchmarks", "docs", "examples", "infra"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_four_packages_whole(wheel):
    names = set(wheel.namelist())
    for folder in FOLDERS:
        assert f"geosweep/{folder}/__init__.py" in names
        assert f"geosweep/{folder}/py.typed" in names
        for path in (ROOT / folder).rglob("*.py"):
            assert f"geosweep/{path.relative_to(ROOT).as_posix()}" in names
    for folder in ("pipeline/assets", "models/weights", "models/cards"):
        files = [path for path in (ROOT / folder).iterdir() if path.is_file()]
        assert files
        for path in files:
            assert f"geosweep/{folder}/{path.name}" in names


def test_the_wheel_holds_nothing_else(wheel):
    names = wheel.namelist()
    assert "geosweep/__init__.py" not in names
    tops = {
        tuple(name.split("/")[:2])
        for name in names
        if not name.split("/")[0].endswith(".dist-info")
    }
    assert tops == {("geosweep", folder) for folder in FOLDERS}
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    assert b"License-Expression: Apache-2.0" in wheel.read(metadata)
    assert any(name.endswith("licenses/LICENSE") for name in names)
