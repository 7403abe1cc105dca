"""`make demo`: a job on real aerial imagery, on a local Ray cluster, in two minutes.

Takes a NEON tile out of the installed `deepforest` wheel (as data: it is not imported), makes four
overlapping COGs with STAC items of it, finds the trees and classifies their crops, and compares the
result with a run over the same ground as one scene.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
import yaml
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform_geom
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table

from geosweep.pipeline import GeosweepError, Job, Result, run, write_map, write_quicklook

TILE = "2019_YELL_2_528000_4978000_image_crop2.png"
# The wheel has the pixels but not their place. The corner is that of the kilometre tile that the
# file's name gives, so it is nominal: right to about a kilometre. Size and shape are right.
CRS = "EPSG:32612"
CORNER = (528_000.0, 4_979_000.0)
GSD = 0.1
FLOWN = datetime(2019, 7, 1, tzinfo=UTC)  # the name gives the year; the day is nominal
# The scenes are cut on the lattice of the windows (400 px, of which neighbours share 20): the eastern
# and southern ones begin at a window of the whole, the others end at one. Both runs then look through
# the same windows, and what they disagree on is the pipeline's doing, not the detector's, which is
# sensitive to where windows fall (its model card says how much).
SIZE, STRIDE = 400, 380
BEGIN, END = 2 * STRIDE, 2 * STRIDE + SIZE
IOU = 0.5
console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    output: Path = parser.parse_args().output
    start = time.perf_counter()
    try:
        demo(output)
    except GeosweepError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    console.print(f"Done in {time.perf_counter() - start:.0f} s.")
    return 0


def demo(output: Path) -> None:
    """Make the input, run both jobs, compare, and draw."""
    clear(output)
    folder = output / "input"
    folder.mkdir(parents=True)
    console.print(f"[bold]1[/] Imagery: {TILE}, as four overlapping COGs with STAC items")
    whole = write_whole(find_tile(), folder / "whole.tif")
    write_items([whole], folder / "one-scene.json")
    write_items(cut_in_four(whole, folder), folder / "items.json")

    console.print("[bold]2[/] Four scenes, on a local Ray cluster")
    four = run(write_job(folder / "job.yaml", folder / "items.json", output), engine="ray")
    console.print("[bold]3[/] The same ground as one scene, in this process")
    single = output / "one-scene"
    one = run(
        write_job(folder / "one-scene.yaml", folder / "one-scene.json", single), engine="local"
    )
    console.print("[bold]4[/] Map and picture")
    page = write_map(output, output / "map.html")
    picture = write_quicklook(output, output / "quicklook.png")
    report(four, one, output, page, picture)


def clear(output: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    if not output.exists():
        return
    if any(output.iterdir()) and not (output / "input" / "whole.tif").exists():
        raise GeosweepError(f"{output} holds something else; name another folder with --output.")
    shutil.rmtree(output)


def find_tile() -> Path:
    """Path of the tile in the `deepforest` wheel, without importing the package."""
    spec = importlib.util.find_spec("deepforest")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "data" / TILE
        if path.is_file():
            return path
    raise GeosweepError(
        f"The demo's imagery ({TILE}) comes with the package deepforest, which is not installed; "
        "run: pip install --no-deps deepforest==2.1.0"
    )


def write_whole(png: Path, path: Path) -> Path:
    """The tile as one georeferenced COG."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # that is why we are here
        with rasterio.open(png) as source:
            data = source.read([1, 2, 3])
    return write_cog(path, data, from_origin(*CORNER, GSD, GSD))


def cut_in_four(whole: Path, folder: Path) -> list[Path]:
    """Two by two COGs that overlap by the width of a window, 40 m."""
    paths = []
    with rasterio.open(whole) as source:
        right, bottom = source.width, source.height
        for name, x0, y0, x1, y1 in (
            ("north-west", 0, 0, END, END),
            ("north-east", BEGIN, 0, right, END),
            ("south-west", 0, BEGIN, END, bottom),
            ("south-east", BEGIN, BEGIN, right, bottom),
        ):
            window = Window(x0, y0, x1 - x0, y1 - y0)  # type: ignore[call-arg]
            data, transform = source.read(window=window), source.window_transform(window)
            paths.append(write_cog(folder / f"{name}.tif", data, transform))
    return paths


def write_cog(path: Path, data: np.ndarray, transform: Affine) -> Path:
    count, height, width = data.shape
    options = {"compress": "DEFLATE", "predictor": "YES", "blocksize": 256, "photometric": "RGB"}
    with rasterio.open(
        path,
        "w",
        driver="COG",
        width=width,
        height=height,
        count=count,
        dtype=data.dtype,
        crs=CRS,
        transform=transform,
        **options,
    ) as target:
        target.write(data)
    return path


def write_items(rasters: list[Path], path: Path) -> None:
    """One STAC item for each raster, in one ItemCollection next to them."""
    items = []
    for raster in rasters:
        with rasterio.open(raster) as dataset:
            left, bottom, right, top = dataset.bounds
            outline = shapely.segmentize(shapely.box(left, bottom, right, top), 50.0)
            geometry = transform_geom(CRS, "EPSG:4326", shapely.geometry.mapping(outline))
            properties = {
                "proj:code": CRS,
                "proj:shape": list(dataset.shape),
                "proj:transform": list(dataset.transform)[:6],
                "description": "NEON aerial imagery (YELL, 2019); place and day are nominal.",
            }
        item = pystac.Item(
            id=raster.stem,
            geometry=geometry,
            bbox=list(shapely.geometry.shape(geometry).bounds),
            datetime=FLOWN,
            properties=properties,
        )
        item.add_asset(
            "image",
            pystac.Asset(f"./{raster.name}", media_type=pystac.MediaType.COG, roles=["data"]),
        )
        items.append(item)
    pystac.ItemCollection(items).save_object(str(path))


def write_job(path: Path, items: Path, output: Path) -> Job:
    """Write the job file, with paths as seen from here, and read it as `geosweep run` does."""
    content: dict[str, Any] = {
        "name": "yellowstone-trees",
        "source": {"stac": os.path.relpath(items), "asset": "image"},
        "windows": {"size": SIZE, "overlap": 0.05},
        "detector": {"model": "geosweep/tree"},
        "crop_models": [{"name": "cropmodel", "model": "geosweep/alive-dead"}],
        "output": {"path": os.path.relpath(output)},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return Job.from_yaml(path)


@dataclass(frozen=True)
class Agreement:
    """How many detections of each side have a partner on the other."""

    matched: int
    four: int
    one: int

    @property
    def share(self) -> float:
        """Of the side that has more without a partner."""
        return self.matched / max(self.four, self.one, 1)


def compare(four: Result, one: Result) -> Agreement:
    """Match one-to-one in map coordinates, best IoU first, at IoU 0.5 or more."""
    a, b = (
        result.to_geopandas().to_crs(CRS).geometry.bounds.to_numpy().reshape(-1, 4)
        for result in (four, one)
    )
    tree = shapely.STRtree(shapely.box(*b.T))
    left, right = tree.query(shapely.box(*a.T), predicate="intersects")
    sides = np.minimum(a[left, 2:], b[right, 2:]) - np.maximum(a[left, :2], b[right, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    iou = common / (areas[0][left] + areas[1][right] - common)
    taken: tuple[set[int], set[int]] = (set(), set())
    for k in np.argsort(-iou, kind="stable"):
        if iou[k] < IOU:
            break
        if left[k] not in taken[0] and right[k] not in taken[1]:
            taken[0].add(int(left[k]))
            taken[1].add(int(right[k]))
    return Agreement(len(taken[0]), len(a), len(b))


def report(four: Result, one: Result, output: Path, page: Path, picture: Path) -> None:
    """Print what was found, how fast, how well the two runs agree, and where it all is."""
    table = Table(title="What was found", title_justify="left")
    table.add_column("")
    for name in ("four scenes (ray)", "one scene (local)"):
        table.add_column(name, justify="right")
    rows = {
        "scenes": "scenes",
        "  failed": "failed",
        "windows": "windows",
        "  processed": "windows_processed",
        "  skipped: another scene's": "windows_skipped_owned",
        "detections": "detections",
        "duplicates removed": "duplicates_removed",
    }
    for title, key in rows.items():
        table.add_row(title, *(f"{result.counts[key]:,}" for result in (four, one)))
    frames = [result.to_geopandas() for result in (four, one)]
    for column in ("label", "cropmodel_label"):
        tallies = [frame[column].value_counts() for frame in frames]
        for value in sorted(set(tallies[0].index) | set(tallies[1].index)):
            counts = (f"{tally.get(value, 0):,}" for tally in tallies)
            table.add_row(f"  {column} {value}", *counts)
    table.add_row(
        "windows/s, start-up included", *(f"{r.windows_per_second:.1f}" for r in (four, one))
    )
    console.print(table)
    agreement = compare(four, one)
    console.print(
        f"Same trees: {agreement.share:.1%}. One-to-one at IoU {IOU}, {agreement.matched:,} of "
        f"{agreement.four:,} from four scenes ({agreement.matched / max(agreement.four, 1):.1%}) are among "
        f"the {agreement.one:,} from one ({agreement.matched / max(agreement.one, 1):.1%})."
    )
    console.print(
        "Both runs look through the same windows, so this tells how well scenes are joined; how much the "
        "detector itself changes its mind when windows shift is in its card (geosweep models show "
        "geosweep/tree)."
    )
    console.print(
        "The imagery's place is nominal, and alive/dead is a demonstration model (37 crops of one image)."
    )
    places = Table.grid(padding=(0, 2))
    places.add_row("dataset", f"{output}/ (items/, data/, collection.json)")
    places.add_row("map", str(page))
    places.add_row("picture", str(picture))
    places.add_row("job file", str(output / "input" / "job.yaml"))
    console.print(places)


if __name__ == "__main__":
    raise SystemExit(main())
