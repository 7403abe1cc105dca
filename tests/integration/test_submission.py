"""Jobs on a cluster that is elsewhere: one story on a real head, told by the command and in Python."""

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.rayhead import ROOT, CutConnection
from tests.scenes import assert_sums, painted_scene
from tests.servers import range_server

pytestmark = pytest.mark.ray

SECRET = "hunter2hunter2"
SCENES = 6

GATED = """

class GatedDetector(PaintDetector):
    # Stands still once a scene is committed, for as long as the gate is shut.
    def _one(self, image):
        while Path({gate!r}).exists() and list(Path({items!r}).glob("*.json")):
            time.sleep(0.05)
        return super()._one(image)


def gated():
    return GatedDetector()
"""

FOLLOW = """
import io, json, os, sys
from geosweep.pipeline import Job, submit

class Seen(io.StringIO):
    def write(self, text):
        # Tell the test where we are, so that it cuts the connection in the middle.
        sys.stdout.write(text); sys.stdout.flush()
        return super().write(text)

handle = submit(Job.from_yaml("job.yaml"), address=sys.argv[1], py_modules=["shop.py"])
seen = Seen()
code = handle.follow(seen)
result = handle.result()
frame = result.to_geopandas()
print("TOLD", json.dumps({
    "id": handle.id, "attached": handle.attached, "code": code, "log": seen.getvalue(),
    "whole": handle.logs(), "counts": result.counts, "exit_code": result.exit_code,
    "rows": len(frame), "ids": len(set(frame.detection_id)), "crs": str(frame.crs),
    "state": handle.status().to_dict(),
}))
"""


def geosweep(head, *arguments, cwd, **env):
    return subprocess.run(
        [sys.executable, "-m", "geosweep.pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=head.client | {"RAY_ADDRESS": head.address, "GEOSWEEP_PROGRESS_SECONDS": "0.5"} | env,
        timeout=120,
        check=False,
    )


def state_of(head, job_id, cwd):
    done = geosweep(head, "status", job_id, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_sentence(done):
    assert "Traceback" not in done.stderr + done.stdout
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("geosweep: ")]
    return said


@pytest.fixture(scope="module")
def story(ray_head, tmp_path_factory):
    """Submit, submit again, look, stop, look, and submit once more and follow it to its end."""
    folder = tmp_path_factory.mktemp("story")
    rasters = [painted_scene(folder, number) for number in range(SCENES)]
    # The user's own module, which nobody on the cluster has.
    items, gate = folder / "out" / "items", folder / "gate"
    module = (ROOT / "tests" / "detectors.py").read_text()
    (folder / "shop.py").write_text(module + GATED.format(gate=str(gate), items=str(items)))
    gate.touch()
    seen = {"folder": folder}
    with range_server(folder) as server:
        job = {
            "name": "Paint shop",
            "source": {"rasters": [f"{server.url}/{rasters[0].name}?sig={SECRET}"]},
            "detector": {"model": "shop:gated"},
            "output": {"path": "out"},
        }
        job["source"]["rasters"] += [path.name for path in rasters[1:]]
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        command = ("submit", "job.yaml", "--py-module", "shop.py", "--ship")
        with ThreadPoolExecutor(2) as pool:
            twins = [pool.submit(geosweep, ray_head, *command, cwd=folder) for _ in range(2)]
        seen["twins"] = [twin.result() for twin in twins]
        first = seen["id"] = seen["twins"][0].stdout.strip()
        job["cluster"] = {"readers": 1}  # how it is done is not what is done
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        seen["again"] = geosweep(ray_head, "submit", "job.yaml", cwd=folder)
        while not list(items.glob("*.json")):
            time.sleep(0.1)
        seen["running"] = state_of(ray_head, first, folder)
        seen["stop"] = geosweep(ray_head, "stop", first, cwd=folder)
        seen["stopped"] = state_of(ray_head, first, folder)
        seen["committed"] = sorted(path.name for path in items.glob("*.json"))
        gate.unlink()
        seen["log"] = geosweep(ray_head, "logs", first, cwd=folder).stdout

        line = CutConnection(ray_head.address)
        client = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, line.address],
            cwd=folder,
            # Ray alone would let the variable win over the address that the caller names.
            env=ray_head.client
            | {"RAY_ADDRESS": "http://127.0.0.1:9", "GEOSWEEP_PROGRESS_SECONDS": "0.5"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        for text in client.stdout:
            said.append(text)
            if text.startswith("detectors:"):
                seen["cut"] = line.cut()
        assert client.wait(timeout=120) == 0, client.stderr.read()
        line.close()
    seen["end"] = json.loads(said[-1].removeprefix("TOLD "))
    return seen


def test_submitting_starts_one_job_however_often_and_at_once(story):
    assert story["id"].startswith("geosweep-paint-shop-")
    told = [twin.stderr.partition(":")[0] for twin in story["twins"]]
    assert sorted(told) == ["runs already", "submitted"], story["twins"]
    assert {twin.stdout.strip() for twin in story["twins"]} == {story["id"]}
    assert story["again"].returncode == 0, story["again"].stderr
    assert story["again"].stdout.strip() == story["id"]
    assert "runs already: " in story["again"].stderr


def test_status_tells_numbers_while_it_runs(story):
    running = story["running"]
    assert running["state"] == "running"
    assert running["exit_code"] is None
    assert running["progress"]["scenes"] == SCENES
    assert running["progress"]["windows"] > 0


def test_what_is_stopped_keeps_its_scenes_and_goes_on(story):
    assert story["stop"].returncode == 0, story["stop"].stderr
    assert (story["stopped"]["state"], story["stopped"]["exit_code"]) == ("stopped", 130)
    assert "geosweep: stopped; what is finished is kept" in story["log"]
    assert 0 < len(story["committed"]) < SCENES
    end = story["end"]
    assert (end["id"], end["attached"]) == (f"{story['id']}-2", False)
    assert end["counts"]["scenes_now"] == SCENES - len(story["committed"])


def test_the_result_has_every_row_once(story):
    end = story["end"]
    assert (end["code"], end["exit_code"], end["state"]["state"]) == (0, 0, "succeeded")
    assert end["counts"]["succeeded"] == SCENES
    assert_sums(end["counts"])
    assert end["rows"] == end["ids"] == end["counts"]["detections"] > 40
    assert end["crs"] == "EPSG:4326"
    assert end["state"]["progress"]["scenes_done"] == SCENES


def test_following_survives_a_cut_connection_and_repeats_nothing(story):
    assert story["cut"] > 0
    assert story["end"]["log"] == story["end"]["whole"]
    assert "progress: " in story["end"]["log"]


def test_geosweep_goes_along_unless_the_image_has_it(story):
    def home(log):
        return re.search(r"^geosweep \S+ \(\w{16}\) at (.*)$", log, re.MULTILINE)[1]

    assert "py_modules_files" in home(story["log"])
    assert home(story["end"]["log"]) == str(ROOT / "pipeline")


def test_no_secret_is_in_what_ray_shows(ray_head, story):
    code = (
        "import sys; from ray.job_submission import JobSubmissionClient as C; c = C(sys.argv[1])\n"
        "for job in c.list_jobs(): print(job)\n"
        "for id in sys.argv[2:]: print(c.get_job_logs(id))"
    )
    ids = [story["id"], story["end"]["id"]]
    done = subprocess.run(
        [sys.executable, "-c", code, ray_head.address, *ids],
        env=ray_head.client,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(job_id in done.stdout for job_id in ids)
    assert str(story["folder"] / "out") in done.stdout
    assert SECRET not in done.stdout
    assert not any(
        SECRET.encode() in path.read_bytes()
        for path in (story["folder"] / "out").rglob("*")
        if path.is_file()
    )


def test_an_error_on_the_cluster_is_the_commands_own(ray_head, story, tmp_path):
    job = {
        "name": "wrong",
        "source": {"rasters": [str(story["folder"] / "scene1.tif")]},
        "detector": {"model": "nobody:has_this"},
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = geosweep(ray_head, "submit", "job.yaml", "--follow", cwd=tmp_path)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "geosweep: nobody:has_this: there is no module nobody" in done.stdout


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, ["401", "RAY_AUTH_MODE=token"]),
        ({"RAY_AUTH_TOKEN": "f" * 64}, ["403", "RAY_AUTH_TOKEN"]),
    ],
)
def test_without_the_token_one_sentence_says_what_to_do(ray_head, tmp_path, env, words):
    done = geosweep(ray_head, "status", "geosweep-x", cwd=tmp_path, **env)
    assert done.returncode == 3
    assert all(word in one_sentence(done) for word in words)


def test_an_unknown_job_is_named(ray_head, tmp_path):
    done = geosweep(ray_head, "stop", "geosweep-nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "geosweep-nothing" in one_sentence(done)
