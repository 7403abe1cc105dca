"""A run's numbers on a real cluster: what Prometheus is told is what the run counts."""

import re
import time
from collections import Counter
from urllib.request import urlopen

import pytest

from geosweep.pipeline import run
from geosweep.pipeline.progress import RunProgress
from tests.scenes import job_over, painted_scene

CROP = {"crop_models": [{"model": "tests.cropmodels:tiny"}]}


def scraped(job_name):
    """Values of the job's metrics, by name and by its tag beside the common ones."""
    import ray

    (node,) = ray.nodes()
    with urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}") as answer:
        text = answer.read().decode()
    found = Counter()
    line = re.compile(r"^ray_geosweep_(\w+)\{(.*)\} (\S+)$", flags=re.M)
    for name, labels, value in line.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags["job_name"] == job_name and node["NodeID"].startswith(tags["node"]):
            found[name, tags.get("pool") or tags.get("status") or tags.get("le", "")] += float(
                value
            )
    return found


def job_of(tmp_path, out, name):
    rasters = [painted_scene(tmp_path, number) for number in range(2)]
    text = tmp_path / "notes.tif"
    text.write_text("not a raster")
    return job_over([*rasters, text], tmp_path / out, **CROP).model_copy(update={"name": name})


@pytest.fixture
def last_numbers(monkeypatch):
    """The numbers that runs end with."""
    seen = []

    class Noted(RunProgress):
        def __exit__(self, *args):
            seen.append(self.numbers)
            super().__exit__(*args)

    monkeypatch.setattr("geosweep.pipeline.runner.RunProgress", Noted)
    return seen


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_prometheus_is_told_what_the_run_counts(tmp_path, last_numbers):
    by_ray = run(job_of(tmp_path, "ray", "told"), engine="ray", progress=False)
    local = run(job_of(tmp_path, "local", "told"), engine="local", progress=False)
    counts = by_ray.counts
    assert counts == local.counts
    kept = counts["detections"] + counts["duplicates_seam"]
    assert counts["crops"] == kept > 0
    assert counts["decoded_bytes"] > counts["stored_bytes"] > 0

    end = time.monotonic() + 15
    while not (seen := scraped("told")) and time.monotonic() < end:
        time.sleep(0.2)
    assert seen["scenes_total", "succeeded"] == counts["succeeded"] == 2
    assert seen["scenes_total", "failed"] == counts["failed"] == 1
    assert seen["scene_seconds_count", ""] == counts["scenes"]
    assert seen["windows_total", ""] == counts["windows_processed"]
    assert seen["detections_total", ""] == kept
    assert seen["crops_total", ""] == counts["crops"]
    assert seen["decoded_bytes_total", ""] == counts["decoded_bytes"]
    assert seen["stored_bytes_total", ""] == counts["stored_bytes"]
    detecting = seen["detect_seconds_total", ""]
    assert detecting == pytest.approx(by_ray.timings["detect"], abs=0.01)
    assert 0 < detecting < seen["detector_seconds_total", ""]
    for pool in ("readers", "detectors", "croppers", "classifiers"):
        assert seen["queue", pool] == 0
        assert seen["actors", pool] >= 1

    one, other = last_numbers
    for name in (
        "scenes_done",
        "failed",
        "windows",
        "detections",
        "crops",
        "read_gb",
        "decoded_gb",
    ):
        assert getattr(one, name) == getattr(other, name)
    assert set(one.queues) == {"readers", "detectors", "croppers", "classifiers"}
    assert other.queues == {}
    assert 0 < other.detectors_busy < 1
