"""geosweep as a wheel: whole, the same however it was installed, and of no requirements."""

import os
import subprocess
import sys
import zipfile

from geosweep.pipeline._wheel import KEPT, content_hash, geosweep_wheel
from tests.rayhead import ROOT


def test_a_wheel_is_made_once_for_a_content(tmp_path):
    wheel = geosweep_wheel(tmp_path)
    assert wheel.name.endswith(f"-0{content_hash()}-py3-none-any.whl")
    stamp = wheel.stat().st_mtime_ns
    assert geosweep_wheel(tmp_path) == wheel
    assert wheel.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]
    again = geosweep_wheel(tmp_path / "elsewhere")
    assert again.read_bytes() == wheel.read_bytes()


def test_it_is_kept_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert geosweep_wheel().parent == tmp_path / "geosweep" / "wheels"


def test_the_cache_does_not_grow(tmp_path):
    for number in range(KEPT + 2):
        old = tmp_path / f"geosweep-0.0.{number}-py3-none-any.whl"
        old.touch()
        os.utime(old, (number, number))
    wheel = geosweep_wheel(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert wheel.name in left
    assert len(left) == KEPT
    assert "geosweep-0.0.0-py3-none-any.whl" not in left


def test_pip_installs_it_alone_and_what_is_installed_ships_itself(tmp_path):
    wheel = geosweep_wheel(tmp_path)
    place = tmp_path / "place"
    # As Ray does on each node: with a requirement in it, this would fetch torch.
    command = [sys.executable, "-m", "pip", "install", "--no-index", f"--target={place}", wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in zipfile.ZipFile(wheel).namelist():
        assert (place / name).is_file()
    code = (
        "from importlib.metadata import version\n"
        "from geosweep.pipeline import _wheel\n"
        "print(version('geosweep'), _wheel.content_hash(), _wheel.__file__)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(place)},
    )
    release, content, home = told.stdout.split()
    assert wheel.name.startswith(f"geosweep-{release}-")
    assert wheel.name.endswith(f"-0{content}-py3-none-any.whl")
    assert home == str(place / "geosweep" / "pipeline" / "_wheel.py")


def test_every_file_counts(tmp_path):
    names = set(zipfile.ZipFile(geosweep_wheel(tmp_path)).namelist())
    for folder in ("actors", "catalog", "models", "pipeline"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"geosweep/{path.relative_to(ROOT).as_posix()}" in names
