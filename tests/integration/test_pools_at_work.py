"""A node's pools on a real cluster: they grow, share a GPU, borrow readers, and change no row."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from geosweep.pipeline import run
from tests.clusters import seen_in
from tests.lenders import BATCH, SCENES, job_of
from tests.scenes import HEIGHT, WIDTH, assert_sums

pytestmark = pytest.mark.ray

WINDOWS = 12
SCENE_BYTES = 3 * WIDTH * HEIGHT
WINDOW_BYTES = 3 * 400 * 400
SLACK = 1.1


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a coordinator did that lost one lender, and had another withdrawn."""
    folder = tmp_path_factory.mktemp("lenders")
    # Ray's sockets need short paths, and its own folder keeps this cluster out of the others' sight.
    with tempfile.TemporaryDirectory(prefix="gs") as ray_folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.lenders", str(folder)],
            cwd=Path(__file__).parents[2],
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            | {"RAY_TMPDIR": ray_folder},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "seen.json").read_text())


def test_pools_start_small_and_grow_with_what_waits(seen):
    assert seen["at first"] == {"readers": 1, "detectors": 1, "croppers": 1, "classifiers": 1}
    assert seen["grown"] == {"readers": 4, "detectors": 2, "croppers": 2, "classifiers": 2}
    assert seen["at last"] == {"readers": 1, "detectors": 2, "croppers": 2, "classifiers": 2}


def test_two_detectors_and_two_classifiers_share_one_gpu_and_give_it_back(seen):
    assert seen["devices"] == ["pretended"]
    assert seen["GPUs in use"] == pytest.approx(1.0)
    assert seen["GPUs returned"] == 1.0


def test_lent_readers_read_and_pixels_cross_the_network_once(seen):
    assert seen["with lenders"]["readers"] == 4
    assert min(seen["lent bytes"]) >= WINDOW_BYTES * BATCH
    found = seen["bytes"]
    # What is decoded comes into the store as windows, which overlap.
    windows = found["decoded"] * WINDOWS * WINDOW_BYTES / SCENE_BYTES
    assert SCENES * WINDOWS * WINDOW_BYTES <= found["at home"] <= SLACK * windows
    assert seen["spilled"] == 0


def test_losing_a_lender_or_having_it_withdrawn_costs_no_row_and_blames_no_scene(seen, tmp_path):
    clean = seen_in(run(job_of(tmp_path, "local"), engine="local", progress=False))
    found = seen["found"]
    assert seen["statuses"] == ["succeeded"] * SCENES
    assert seen["blamed"] == 0
    assert found["failures"] == []
    assert found["ids"] == clean["ids"]
    assert found["geometry"] == clean["geometry"]
    assert found["counts"]["crops"] == clean["counts"]["crops"] > 0
    assert_sums(found["counts"])
