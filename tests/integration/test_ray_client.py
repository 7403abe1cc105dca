"""A driver that isn't on a node: runs by Ray Client, on a real head that asks for a token."""

import json
import subprocess
import sys

import pytest
import yaml

from geosweep.models._annotations import deepforest_data
from geosweep.pipeline import Job, read_output, run
from tests.rayhead import free_ports
from tests.scenes import assert_sums

pytestmark = pytest.mark.ray


def job_file(folder):
    data = deepforest_data()
    job = {
        "source": {"rasters": [str(data / "OSBS_029.tif"), str(data / "SOAP_061.png")]},
        "output": {"path": "out", "crs": None},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def run_by_client(address, folder, env):
    return subprocess.run(
        [sys.executable, "-m", "geosweep.pipeline", "run", "job.yaml", "--address", address],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
        timeout=180,
        check=False,
    )


def test_a_run_by_ray_client_gives_the_rows_of_one_process(ray_head, tmp_path):
    job_file(tmp_path)
    done = run_by_client(ray_head.by_client, tmp_path, ray_head.client)
    assert done.returncode == 0, done.stderr
    found = read_output(tmp_path / "out")
    counts = json.loads((tmp_path / "out" / "run.json").read_text())["counts"]
    assert counts["succeeded"] == 2
    assert_sums(counts)
    job = Job.from_yaml(tmp_path / "job.yaml")
    output = job.output.model_copy(update={"path": str(tmp_path / "local")})
    local = run(job.model_copy(update={"output": output}), engine="local", progress=False)
    assert len(local.to_geopandas()) > 20
    assert found.equals(local.to_geopandas())


def test_a_server_that_is_not_there_is_told_in_a_sentence(tmp_path, ray_head):
    job_file(tmp_path)
    address = f"ray://127.0.0.1:{free_ports(1)[0]}"
    hasty = {"RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1"}  # three tries, each twice as patient
    done = run_by_client(address, tmp_path, ray_head.client | hasty)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert f"The Ray cluster at {address} can't be reached" in done.stderr
