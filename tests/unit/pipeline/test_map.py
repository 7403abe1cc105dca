from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geosweep.catalog import OutputError
from geosweep.pipeline import write_map
from tests.outputs import make_output

EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def decode(page: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What the page's scripts see."""
    text = page.read_text(encoding="utf-8")
    meta = json.loads(re.search(r'<script id="meta"[^>]*>(.*?)</script>', text, re.S)[1])
    packed = re.search(r'<script id="blob"[^>]*>(.*?)</script>', text, re.S)[1]
    blob = gzip.decompress(base64.b64decode(packed))
    arrays = {
        name: np.frombuffer(blob, np.dtype(entry["type"]), entry["length"], entry["at"])
        for name, entry in meta["arrays"].items()
    }
    return meta, arrays


def column(meta: dict, arrays: dict[str, np.ndarray], name: str) -> list:
    described = next(c for c in meta["detections"]["columns"] if c["name"] == name)
    data = arrays[f"column {name}"]
    if described["kind"] == "code":
        return [described["values"][code] for code in data]
    return json.loads(data.tobytes()) if described["kind"] == "text" else data.tolist()


def all_rows(output: Path) -> gpd.GeoDataFrame:
    frames = [gpd.read_parquet(path) for path in sorted((output / "data").glob("*.parquet"))]
    return pd.concat(frames, ignore_index=True).set_index("detection_id")


def test_the_page_holds_every_row_where_it_is(tmp_path):
    output = make_output(tmp_path, detections=200)
    meta, arrays = decode(write_map(output))
    rows = all_rows(output).to_crs("EPSG:3857")
    ids = column(meta, arrays, "detection_id")
    assert sorted(ids) == sorted(rows.index)
    rows = rows.loc[ids]
    for name in ("label", "cropmodel_label", "scene_id", "image_path"):
        assert column(meta, arrays, name) == rows[name].to_list()
    for name in ("score", "xmin", "ymax", "area_m2"):
        np.testing.assert_array_equal(column(meta, arrays, name), rows[name])
    assert set(column(meta, arrays, "datetime")) == {"2019-07-01T00:00:00Z"}
    described = meta["detections"]
    points = arrays["coords"].reshape(-1, 2) * described["step"] + described["origin"]
    rings = [points[a:b] for a, b in zip(arrays["offsets"], arrays["offsets"][1:], strict=False)]
    for ring, shape in zip(rings, rows.geometry, strict=True):
        np.testing.assert_allclose(ring, np.array(shape.exterior.coords), atol=0.002)


def test_totals_scenes_and_imagery(tmp_path):
    output = make_output(tmp_path)
    meta, _ = decode(write_map(output, preview_px=128))
    counts = all_rows(output)["cropmodel_label"].value_counts()
    assert dict(meta["totals"]["cropmodel_label"]) == counts.to_dict()
    assert meta["total"] == 40
    scenes = {scene["id"]: scene for scene in meta["scenes"]}
    assert {name: scene["status"] for name, scene in scenes.items()} == {
        "A": "succeeded",
        "B": "succeeded",
        "broken": "failed",
    }
    assert scenes["broken"]["outline"] == []
    assert "truncated" in scenes["broken"]["error"]
    for name, level in (("A", 60), ("B", 120)):
        picture = scenes[name]["image"]
        kind, data = picture["src"].removeprefix("data:image/").split(";base64,")
        image = np.array(Image.open(BytesIO(base64.b64decode(data))).convert("RGBA"))
        assert max(image.shape) == 128
        assert abs(int(image[64, 64, 0]) - level) <= 3
        # UTM squares are tilted in web mercator: what lies outside them must not cover a neighbour.
        assert kind == "webp"
        assert image[0, 0, 3] == 0 or image[0, -1, 3] == 0


def test_missing_imagery_is_said(tmp_path):
    output = make_output(tmp_path, imagery=False)
    meta, _ = decode(write_map(output))
    notes = {scene["id"]: scene["note"] for scene in meta["scenes"]}
    assert notes["A"].startswith("No imagery")
    assert "A.tif" in notes["A"]
    assert meta["scenes"][0]["image"] is None


def test_too_many_keep_the_best_and_say_so(tmp_path):
    output = make_output(tmp_path, detections=200, imagery=False)
    meta, arrays = decode(write_map(output, max_detections=50))
    best = all_rows(output)["score"].nlargest(50)
    assert sorted(column(meta, arrays, "detection_id")) == sorted(best.index)
    assert meta["total"] == 200
    assert sum(count for _, count in meta["totals"]["label"]) == 200
    assert "50 of 200" in meta["notes"][0]


def test_other_output_crs_lands_on_the_same_spot(tmp_path):
    pages = []
    for name, crs in (("degrees", "EPSG:4326"), ("metres", "EPSG:32612")):
        folder = tmp_path / name
        folder.mkdir()
        meta, arrays = decode(write_map(make_output(folder, crs=crs)))
        step, origin = meta["detections"]["step"], meta["detections"]["origin"]
        pages.append(arrays["coords"].reshape(-1, 2) * step + origin)
    np.testing.assert_allclose(*pages, atol=0.01)


def test_pixel_output_lies_side_by_side(tmp_path):
    output = make_output(tmp_path, crs=None, failed=False)
    meta, arrays = decode(write_map(output))
    assert meta["georeferenced"] is False
    a, b = (scene["image"]["bounds"] for scene in meta["scenes"])
    assert a == [0, -400, 400, 0]
    assert b[0] > a[2]
    ids, described = column(meta, arrays, "detection_id"), meta["detections"]
    points = arrays["coords"].reshape(-1, 2) * described["step"] + described["origin"]
    row = all_rows(output).loc[ids[0]]
    ring = points[: arrays["offsets"][1]]
    shift = 0 if row.scene_id == "A" else b[0]
    np.testing.assert_allclose(ring[:, 0].min(), row.xmin + shift, atol=0.01)
    np.testing.assert_allclose(ring[:, 1].max(), -row.ymin, atol=0.01)


def test_zero_detections_and_zero_scenes(tmp_path):
    meta, arrays = decode(write_map(make_output(tmp_path, detections=0)))
    assert meta["detections"]["count"] == 0
    assert len(arrays["coords"]) == 0
    for item in (tmp_path / "out" / "items").glob("*.json"):
        item.unlink()
    meta, _ = decode(write_map(tmp_path / "out"))
    assert meta["scenes"] == []


def test_files_without_an_item_do_not_count(tmp_path):
    output = make_output(tmp_path, imagery=False)
    shutil.copy(output / "data" / "A-v1.parquet", output / "data" / "A-v0.parquet")
    assert decode(write_map(output))[0]["total"] == 40


@pytest.mark.parametrize("make", [lambda p: p / "nowhere", lambda p: p])
def test_no_output_is_one_sentence(tmp_path, make):
    with pytest.raises(OutputError, match=r"geosweep run or detect") as caught:
        write_map(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


def test_lost_data_file_is_an_error(tmp_path):
    output = make_output(tmp_path, imagery=False)
    (output / "data" / "A-v1.parquet").unlink()
    with pytest.raises(OutputError, match=r"A-v1\.parquet"):
        write_map(output)


def test_nothing_is_fetched_and_nothing_escapes(tmp_path):
    output = make_output(tmp_path, labels=(EVIL, "Dead"), name="a <b> & {{blob}}")
    page = write_map(output, tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("</script>") == 3
    assert "<title>a &lt;b&gt; &amp; {{blob}} · geosweep</title>" in text
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert "default-src 'none'" in text
    meta, arrays = decode(page)
    assert EVIL in column(meta, arrays, "cropmodel_label")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("detections", [0, 60])
def test_the_page_works_in_a_browser(tmp_path, detections):
    output = make_output(tmp_path, labels=(EVIL, "Dead"), detections=detections)
    page = write_map(output)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    assert 'data-ready="true"' in dom
    assert "owned" not in re.search(r"<title>(.*?)</title>", dom)[1]
    assert f"{detections} detections in 3 scenes, 12 windows" in dom
    assert "broken.tif &lt;script&gt;" in dom
    assert "<img" not in dom
    if detections:
        counts = all_rows(output)["cropmodel_label"].value_counts()
        legend = re.search(r'<div id="legend">(.*?)</div>', dom, re.S)[1]
        assert f'>Dead</span><span class="count">{counts["Dead"]}<' in legend
