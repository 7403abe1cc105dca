"""geosweep as a wheel for a cluster, made of the files that are imported here.

It is the same whether geosweep runs from a checkout or was installed from a wheel, needs no build
tools, and names no dependencies: Ray installs wheels with pip and all that they require, on every
node, and what geosweep requires (torch, GDAL) belongs into the cluster's image.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_HERE = Path(__file__).parent
_PACKAGES = ("actors", "catalog", "models", "pipeline")
KEPT = 5
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip file can name: the same files are to make the same wheel."""


def geosweep_version() -> str:
    """The installed version."""
    try:
        return version("geosweep")
    except PackageNotFoundError:
        return "0"


def content_hash() -> str:
    """Hash of every file of geosweep as it is imported here (16 hex digits)."""
    return _hash(_files())


def geosweep_wheel(folder: Path | None = None) -> Path:
    """Return the wheel, made anew only if a file changed since.

    Parameters
    ----------
    folder
        Where wheels are kept; default is the user's cache folder (``XDG_CACHE_HOME``).
    """
    folder = folder or _cache_folder()
    release = geosweep_version()
    files = dict(_files())
    # Ray tells wheels apart by their names alone, so the content stands there, as the build tag.
    wheel = folder / f"geosweep-{release}-0{_hash(files.items())}-py3-none-any.whl"
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
        try:
            _write(Path(draft), release, files)
            Path(draft).replace(wheel)
        finally:
            Path(draft).unlink(missing_ok=True)
        _prune(folder)
    return wheel


def _prune(folder: Path) -> None:
    """Remove all wheels but the latest: whoever develops makes a new one with every change."""
    wheels = sorted(folder.glob("geosweep-*.whl"), key=lambda path: path.stat().st_mtime)
    for wheel in wheels[:-KEPT]:
        wheel.unlink(missing_ok=True)


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "geosweep" / "wheels"


def _files() -> Iterator[tuple[str, bytes]]:
    """All files of the four packages: their names in the wheel and their content, in one order."""
    for package in _PACKAGES:
        # The folders stand side by side both in a checkout and where geosweep is installed.
        top = _HERE.parent / package
        for path in sorted(top.rglob("*")):
            inside = path.relative_to(top)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not hidden:
                yield f"geosweep/{package}/{inside.as_posix()}", path.read_bytes()


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _write(wheel: Path, release: str, files: dict[str, bytes]) -> None:
    about = f"geosweep-{release}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: geosweep\nVersion: {release}\n"
    kind = "Wheel-Version: 1.0\nGenerator: geosweep\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record: list[str] = []
    texts = {f"{about}/METADATA": metadata.encode(), f"{about}/WHEEL": kind.encode()}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files | texts).items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{name},sha256={digest.decode()},{len(content)}\n")
        record.append(f"{about}/RECORD,,\n")
        archive.writestr(zipfile.ZipInfo(f"{about}/RECORD", _EPOCH), "".join(record))
