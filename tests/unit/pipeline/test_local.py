"""The local engine: scenes opened ahead and committed behind the one that is swept."""

import os
import threading
from pathlib import Path

import pytest

from geosweep.catalog import open_storage
from geosweep.catalog.errors import OutputError, SourceError
from geosweep.pipeline.frozen import settle_plan
from geosweep.pipeline.local import LocalEngine
from geosweep.pipeline.planner import ScenePlan
from geosweep.pipeline.runner import claim
from geosweep.pipeline.settings import Settings
from tests.scenes import job_over, painted_scene

SCENES = 4
PATIENCE_S = 30


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    return [painted_scene(folder, number) for number in range(SCENES)]


@pytest.fixture
def engine_over(rasters, tmp_path):
    def make(paths=rasters):
        job = job_over(paths, tmp_path / "out")
        settings, storage = Settings.resolve(job), open_storage(job.output.path)
        claim(storage, settings, overwrite=False)
        tasks = list(ScenePlan(job, settle_plan(job, storage)).tasks())
        return LocalEngine(settings, storage), tasks

    return make


def committed(folder):
    return sorted(path.stem for path in (folder / "out" / "items").glob("*.json"))


def open_rasters():
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [name for path in links if (name := os.path.realpath(path)).endswith(".tif")]


def test_a_commit_waits_while_later_scenes_are_looked_at(engine_over, tmp_path):
    engine, tasks = engine_over()
    committer, detector = engine._committer, engine._finder.detector
    later, waited = threading.Event(), []
    succeed, detect, seen = committer.succeed, detector.detect, []

    def hesitate(task, *rest):
        if task is tasks[0]:
            waited.append(later.wait(PATIENCE_S))
        return succeed(task, *rest)

    def count(images):
        seen.extend(images)
        if len(seen) > 12 * (SCENES - 1):  # of 12 windows each
            later.set()
        return detect(images)

    committer.succeed, detector.detect = hesitate, count
    outcomes = list(engine.sweep(tasks))
    assert waited == [True]
    assert len(outcomes) == SCENES == len(committed(tmp_path))
    assert outcomes[0].scene_id != tasks[0].scene.id  # it was not the first to be done


def test_the_next_scene_is_open_before_the_one_at_hand_is_looked_at(engine_over):
    engine, tasks = engine_over()
    opening, detect = engine._open, engine._finder.detector.detect
    opened: list[threading.Event] = [threading.Event() for _ in tasks]
    in_time = []

    def note(task):
        found = opening(task)
        opened[tasks.index(task)].set()
        return found

    def look(images):
        if not in_time:
            in_time.append(opened[1].wait(PATIENCE_S))
        return detect(images)

    engine._open, engine._finder.detector.detect = note, look
    sweeping = engine.sweep(tasks)
    next(sweeping)
    assert in_time == [True]
    sweeping.close()


def test_whoever_stops_leaves_nothing_open_and_what_is_looked_at_is_committed(
    engine_over, rasters, tmp_path
):
    engine, tasks = engine_over()
    before = {thread.name for thread in threading.enumerate()}
    sweeping = engine.sweep(tasks)
    first = next(sweeping)
    sweeping.close()
    assert first.scene_id in committed(tmp_path)
    assert len(committed(tmp_path)) < SCENES
    assert {thread.name for thread in threading.enumerate()} <= before
    assert not {str(path) for path in rasters} & set(open_rasters())
    again = LocalEngine(engine._settings, open_storage(str(tmp_path / "out")))
    left = [task for task in tasks if task.scene.id not in committed(tmp_path)]
    assert {outcome.status for outcome in again.sweep(left)} == {"succeeded"}
    assert len(committed(tmp_path)) == SCENES


def test_a_commit_that_is_refused_ends_the_run_in_its_own_words(engine_over, rasters, tmp_path):
    engine, tasks = engine_over()
    succeed = engine._committer.succeed

    def refuse(task, *rest):
        if task is tasks[1]:
            raise OutputError("The disk is full.")
        return succeed(task, *rest)

    engine._committer.succeed = refuse
    with pytest.raises(OutputError, match=r"^The disk is full\.$"):
        list(engine.sweep(tasks))
    done = committed(tmp_path)
    assert tasks[0].scene.id in done
    assert tasks[1].scene.id not in done
    assert not {str(path) for path in rasters} & set(open_rasters())


def test_what_goes_wrong_in_a_thread_is_put_to_its_own_scene(engine_over, rasters, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(rasters[0].read_bytes()[:3000])
    engine, tasks = engine_over([rasters[0], bad, rasters[1], rasters[2]])
    succeed, odd = engine._committer.succeed, tasks[-1]

    def stumble(task, *rest):
        if task is odd:
            raise ZeroDivisionError("of a merge")
        return succeed(task, *rest)

    engine._committer.succeed = stumble
    outcomes = {outcome.scene_id: outcome for outcome in engine.sweep(tasks)}
    failed = {name for name, outcome in outcomes.items() if outcome.status == "failed"}
    assert failed == {"bad", odd.scene.id}
    assert outcomes[odd.scene.id].error == "ZeroDivisionError: of a merge"
    assert outcomes[odd.scene.id].counts["windows_failed"] == 12
    assert len(committed(tmp_path)) == 4


def test_a_plan_that_breaks_off_does_so_after_the_scenes_before(engine_over, tmp_path):
    engine, tasks = engine_over()

    def broken():
        yield from tasks[:2]
        raise SourceError("The plan ends here.")

    with pytest.raises(SourceError, match="The plan ends here"):
        list(engine.sweep(broken()))
    assert committed(tmp_path) == sorted(task.scene.id for task in tasks[:2])
