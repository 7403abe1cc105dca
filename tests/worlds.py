"""A source that changes: a file of STAC items, and small painted rasters that overlap."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rasterio.transform import from_origin
from shapely.geometry import mapping

from geosweep.catalog import open_storage
from geosweep.catalog.header import outline
from geosweep.pipeline import Job
from tests import stacservers
from tests.detectors import grey, paint_patches
from tests.rasters import UTM, write_raster

PLACES = 5
HEIGHT, WIDTH, STEP = 260, 340, 220  # neighbours share 120 columns
GSD = 0.1


@cache
def _ground(content: int) -> np.ndarray:
    """The strip that all rasters are cut from, as it looks at one of a few times."""
    rng = np.random.default_rng(content)
    boxes = []
    for x in range(10, STEP * PLACES + WIDTH - 60, 70):
        for y in range(10, HEIGHT - 50, 60):
            if rng.random() < 0.7:
                wide, high = rng.integers(8, 30, 2)
                dx, dy = rng.integers(0, 20, 2)
                boxes.append((int(x + dx), int(y + dy), int(x + dx + wide), int(y + dy + high)))
    strip = grey(HEIGHT, STEP * PLACES + WIDTH)
    return paint_patches(paint_patches(strip, boxes[::2], "red"), boxes[1::2], "blue")


@cache
def _rendered(place: int, content: int) -> Path:
    """One place's raster at one time, made once for the whole run of tests."""
    folder = Path(tempfile.mkdtemp(prefix="geosweep-ground-"))
    left = place * STEP
    return write_raster(
        folder / f"{place}-{content}.tif",
        _ground(content)[:, :, left : left + WIDTH],
        transform=from_origin(500_000 + left * GSD, 4_978_000, GSD, GSD),
    )


@dataclass
class Entry:
    """An item of the source, and how its raster is."""

    place: int
    content: int
    updated: int
    health: str = "well"


class World:
    """Items ``i0``, ``i1`` …, each `STEP` columns further east, and an output of a job over them.

    Items before which a collection stands, such as ``other/i1``, are of that one.

    Parameters
    ----------
    folder
        For all of it.
    href
        Of the rasters, with ``{}`` for the name; relative to the file of items where not given.

    Attributes
    ----------
    detector
        Which of `tests.detectors` the job names.
    bare
        Whether items say nothing of their rasters' grids.
    """

    def __init__(self, folder: Path, href: str = "{}.tif") -> None:
        self.folder = folder
        self.items = folder / "items.json"
        self.output = folder / "out"
        self.storage = open_storage(self.output)
        self.detector = "paint"
        self.bare = False
        self.entries: dict[str, Entry] = {}
        self._href = href
        self._clock = 0

    @property
    def job(self) -> Job:
        return self.job_into(self.output)

    def job_into(self, output: Path) -> Job:
        """The job, with another output."""
        return Job.from_dict(self._job(output))

    def write_job(self) -> Path:
        """The job as a file."""
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(self._job(self.output)))
        return path

    def set(self, name: str, content: int = 0, health: str = "well") -> None:
        """Add an item, or replace it in place under the same href with a new `updated`."""
        self._clock += 1
        place = int(name.rpartition("/")[2][1:]) % PLACES
        self.entries[name] = Entry(place, content, self._clock, health)
        self._write_raster(name)

    def heal(self, name: str) -> None:
        """Mend a raster; its item stays as it is."""
        self.entries[name].health = "well"
        self._write_raster(name)

    def remove(self, name: str) -> None:
        """Take an item out; its raster stays."""
        del self.entries[name]

    def publish(self) -> None:
        """Write the file of items."""
        features = [self.item(name) for name in self.entries]
        self.items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def item(self, name: str) -> dict[str, Any]:
        """The STAC item of an entry."""
        entry = self.entries[name]
        transform = tuple(from_origin(500_000 + entry.place * STEP * GSD, 4_978_000, GSD, GSD))[:6]
        footprint = outline((HEIGHT, WIDTH), transform, UTM)
        assert footprint is not None
        collection, _, item_id = name.rpartition("/")
        start = datetime(2024, 1, 1, tzinfo=UTC)
        grid = {
            "proj:code": UTM,
            "proj:transform": list(transform),
            "proj:shape": [HEIGHT, WIDTH],
        }
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": item_id,
            "collection": collection or "ground",
            "geometry": mapping(footprint),
            "bbox": list(footprint.bounds),
            "properties": {
                # Several items share a date, so that `updated` and the id decide as well.
                "datetime": f"2022-07-0{1 + int(item_id[1:]) % 2}T00:00:00Z",
                "updated": (start + timedelta(hours=entry.updated)).isoformat(),
                **({} if self.bare else grid),
            },
            "links": [],
            "assets": {"image": {"href": self._href.format(_file(name)), "type": "image/tiff"}},
        }

    @property
    def source(self) -> dict[str, Any]:
        """The job's source."""
        return {"stac": str(self.items)}

    def _job(self, output: Path) -> dict[str, Any]:
        return {
            "name": "world",
            "source": self.source,
            "windows": {"size": 200, "overlap": 0.15},
            "detector": {"model": f"tests.detectors:{self.detector}"},
            "output": {"path": str(output)},
        }

    def _write_raster(self, name: str) -> None:
        entry, path = self.entries[name], self.folder / f"{_file(name)}.tif"
        if entry.health == "missing":
            path.unlink(missing_ok=True)
            return
        if entry.health == "garbage":
            path.write_bytes(b"II*\0 and nothing of a raster")
            return
        beside = path.with_suffix(".new")
        shutil.copyfile(_rendered(entry.place, entry.content), beside)
        beside.replace(path)


class ApiWorld(World):
    """The same behind a STAC API with transactions, in a collection of its own.

    Parameters
    ----------
    folder
        For rasters and the output.
    api
        URL to write to.
    collection
        Its name, which nobody else uses.
    asked
        URL that the job names, if that is another one.
    """

    def __init__(self, folder: Path, api: str, collection: str, asked: str | None = None) -> None:
        super().__init__(folder, href=f"file://{folder}/{{}}.tif")
        self._items = f"{api}/collections/{collection}/items"
        self._collection = collection
        self._asked = asked or api
        self._there: dict[str, dict[str, Any]] = {}
        send(f"{api}/collections", stacservers.collection(collection))

    @property
    def source(self) -> dict[str, Any]:
        return {"stac": self._asked, "collections": [self._collection]}

    def publish(self) -> None:
        """Bring the API's items to what they are to be."""
        wanted = {name: self.item(name) for name in self.entries}
        for name, item in wanted.items():
            if name not in self._there:
                send(self._items, item)
            elif item != self._there[name]:
                send(f"{self._items}/{name}", item, "PUT")
        for name in self._there.keys() - wanted.keys():
            send(f"{self._items}/{name}", None, "DELETE")
        self._there = wanted

    def item(self, name: str) -> dict[str, Any]:
        return super().item(name) | {"collection": self._collection}


def send(url: str, document: dict[str, Any] | None, method: str = "POST") -> None:
    """Create, replace or delete by the API's transaction extension."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60):
            pass
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:2000]}") from None


def _file(name: str) -> str:
    return name.replace("/", "-")
