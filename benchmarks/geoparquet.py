"""From detections to a GeoParquet file: ours (what a commit does) against geopandas.

Both start from the same arrays of boxes, labels, scores and class probabilities of one scene, put the
boxes' corners through the raster's transform into degrees, sort along a Hilbert curve and write zstd
with a bbox covering and row groups of 100,000. Ours also makes the ids of the detections; geopandas
gets them ready. Each in a process of its own, in turn; time is CPU time after the imports, memory the
growth of its peak over what the arrays take. The two files must give equal frames.

`python -m benchmarks.geoparquet ROWS ROUNDS` takes other numbers than 5,000,000 and 3.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rich.console import Console
from rich.table import Table

from benchmarks._results import save
from geosweep.pipeline.collect import SceneDetections
from geosweep.pipeline.rows import ROW_GROUP_ROWS, CropColumns, RowSchema, SceneRows
from geosweep.pipeline.scene_reader import SceneHeader
from geosweep.pipeline.windows import WindowGrid

ROWS, ROUNDS, SIDE = 5_000_000, 3, 100_000
TRANSFORM, SOURCE, TARGET = Affine(0.3, 0, 450_000, 0, -0.3, 4_978_000), "EPSG:32612", "EPSG:4326"
TIME = datetime(2022, 6, 1, tzinfo=UTC)
HREF = "s3://bucket/imagery/scene.tif"
SCHEMA = RowSchema(("Tree", "Bush"), "m@1", (CropColumns("cropmodel", ("Alive", "Dead")),), TARGET)


def detections(count: int) -> SceneDetections:
    rng = np.random.default_rng(0)
    boxes = np.empty((count, 4), np.float32)
    boxes[:, :2] = rng.uniform(0, SIDE - 60, (count, 2))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(8, 60, (count, 2))
    first = rng.random(count, np.float32)
    classes = {"cropmodel": np.stack([first, 1 - first], axis=1)}
    return SceneDetections(
        boxes, rng.integers(0, 2, count), rng.random(count, np.float32), classes, {}
    )


def scene_rows(found: SceneDetections) -> SceneRows:
    grid = WindowGrid.cover(SIDE, SIDE, 400, 0.05)
    header = SceneHeader(grid, (1.0, 1.0), None, TRANSFORM, SOURCE, (SIDE, SIDE), 0, 0)
    return SceneRows(found, header, SCHEMA, scene_id="scene", image_path=HREF, time=TIME)


def ours(found: SceneDetections, ids: None, path: Path) -> None:
    from geosweep.pipeline.geofile import write_geoparquet

    rows = scene_rows(found)
    write_geoparquet(rows.groups(), path, rows.schema, crs=TARGET, bounds=rows.bounds)


def geopandas(found: SceneDetections, ids: Any, path: Path) -> None:
    import geopandas as gpd
    import pandas as pd
    import shapely
    from pyproj import Transformer

    boxes = found.boxes.astype(np.float64)
    a, b, c, d, e, f = TRANSFORM[:6]
    x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [3, 3, 1, 1]]
    x, y = a * x + b * y + c, d * x + e * y + f
    x, y = Transformer.from_crs(SOURCE, TARGET, always_xy=True).transform(x, y)
    probabilities = found.classes["cropmodel"]
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    count = len(boxes)
    frame = gpd.GeoDataFrame(
        {
            "detection_id": ids,
            "scene_id": pd.Categorical.from_codes(np.zeros(count, np.int8), ["scene"]),
            "image_path": pd.Categorical.from_codes(np.zeros(count, np.int8), [HREF]),
            "datetime": pd.Timestamp(TIME).as_unit("us"),
            **{name: found.boxes[:, i] for i, name in enumerate(("xmin", "ymin", "xmax", "ymax"))},
            "label": pd.Categorical.from_codes(found.labels, list(SCHEMA.labels)),
            "score": found.scores,
            "cropmodel_label": pd.Categorical.from_codes(
                probabilities.argmax(axis=1), ["Alive", "Dead"]
            ),
            "cropmodel_score": probabilities.max(axis=1),
            "area_m2": (width * height * TRANSFORM.a**2).astype(np.float32),
        },
        geometry=shapely.polygons(np.stack([x, y], axis=-1)),
        crs=TARGET,
    )
    frame = frame.iloc[np.argsort(frame.hilbert_distance().to_numpy(), kind="stable")]
    frame.to_parquet(
        path,
        index=False,
        compression="zstd",
        write_covering_bbox=True,
        row_group_size=ROW_GROUP_ROWS,
    )


WRITERS = {"ours": ours, "geopandas": geopandas}


def child(name: str, count: int, path: Path) -> dict[str, float]:
    """In a process of its own: CPU and wall seconds, MB above what was there, bytes."""
    found = detections(count)
    ids = None
    if name == "geopandas":
        import geopandas as gpd  # noqa: F401

        stored = path.with_name("ids.arrow")
        if stored.exists():
            import pyarrow as pa

            with pa.memory_map(str(stored)) as source:
                table = pa.ipc.open_file(source).read_all()
                ids = table["detection_id"].to_pandas()
    WRITERS[name](detections(100), None if ids is None else ids[:100], path.with_name("warm"))
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    WRITERS[name](found, ids, path)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = memory("VmHWM")
    return {"cpu_s": cpu, "wall_s": wall, "mb": peak - before, "bytes": path.stat().st_size}


def memory(what: str) -> float:
    """Of this process, now (VmRSS) or at its peak (VmHWM), in MB."""
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) / 1024


def store_ids(count: int, path: Path) -> None:
    import pyarrow as pa

    rows = scene_rows(detections(count))
    with pa.OSFile(str(path), "wb") as sink:
        # In the order in which the detections came.
        order = np.argsort(rows._order)
        ids = pa.concat_tables(g.select(["detection_id"]) for g in rows.groups())
        ids = ids.combine_chunks().take(pa.array(order))
        with pa.ipc.new_file(sink, ids.schema) as writer:
            writer.write_table(ids)


def compare(folder: Path) -> None:
    """Raise AssertionError unless geopandas reads equal frames from both files."""
    import geopandas as gpd
    import pandas as pd
    import pyarrow.parquet as pq

    groups = pq.read_metadata(folder / "ours.parquet").num_row_groups
    one, two = (pq.ParquetFile(folder / f"{name}.parquet") for name in WRITERS)
    assert one.metadata.num_rows == two.metadata.num_rows
    for name, file in (("ours", one), ("geopandas", two)):
        meta = json.loads(file.schema_arrow.metadata[b"geo"])["columns"]["geometry"]
        assert meta["covering"]["bbox"]["xmin"] == ["bbox", "xmin"], name
    for group in {0, groups // 2, groups - 1}:
        frames = []
        for file in (one, two):
            frame = file.read_row_group(group).to_pandas()
            geometry = gpd.GeoSeries.from_wkb(frame.pop("geometry"))
            for column in frame.select_dtypes("category"):
                frame[column] = frame[column].astype("str")
            frames.append(gpd.GeoDataFrame(frame, geometry=geometry))
        # Rows in one cell of the curve are sorted by id in ours.
        frames = [f.sort_values("detection_id", ignore_index=True) for f in frames]
        common = set(frames[0]["detection_id"]) & set(frames[1]["detection_id"])
        assert len(common) >= len(frames[0]) - 20
        frames = [f[f["detection_id"].isin(common)].reset_index(drop=True) for f in frames]
        pd.testing.assert_frame_equal(*frames, check_dtype=False, rtol=1e-6)
        assert (frames[0].geometry == frames[1].geometry).all()
    whole = gpd.read_parquet(folder / "ours.parquet", bbox=(-111.6, 44.9, -111.5, 44.95))
    other = gpd.read_parquet(folder / "geopandas.parquet", bbox=(-111.6, 44.9, -111.5, 44.95))
    assert set(whole["detection_id"]) == set(other["detection_id"])


def run(name: str, count: int, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.geoparquet", name, str(count), str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(done.stdout)


def main(count: int = ROWS, times: int = ROUNDS) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store_ids(count, folder / "ids.arrow")
        rounds = [{writer: run(writer, count, folder) for writer in WRITERS} for _ in range(times)]
        compare(folder)
    table = Table(title=f"{count:,} rows")
    for column in ("", "CPU s", "wall s", "MB", "file MB"):
        table.add_column(column)
    middle = {
        writer: {
            key: statistics.median(one[writer][key] for one in rounds) for key in rounds[0][writer]
        }
        for writer in WRITERS
    }
    for writer, row in middle.items():
        table.add_row(
            writer,
            f"{row['cpu_s']:.1f}",
            f"{row['wall_s']:.1f}",
            f"{row['mb']:.0f}",
            f"{row['bytes'] / 1e6:.0f}",
        )
    console = Console()
    console.print(table)
    ratio = {
        key: statistics.median(one["geopandas"][key] / one["ours"][key] for one in rounds)
        for key in ("cpu_s", "wall_s", "mb", "bytes")
    }
    console.print("geopandas ÷ ours: " + ", ".join(f"{k} {v:.2f}" for k, v in ratio.items()))
    if count != ROWS:
        return
    content = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {n: version(n) for n in ("geopandas", "pandas", "pyarrow", "shapely", "numpy")},
        "rows": count,
        "rounds": times,
        "median": middle,
        "ratio": ratio,
    }
    save("geoparquet", content)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in WRITERS:
        which, rows, place = sys.argv[1:]
        print(json.dumps(child(which, int(rows), Path(place) / f"{which}.parquet")))
    else:
        main(*map(int, sys.argv[1:]))
