"""Nodes that come and go while a run is at work, by Ray's own autoscaler."""

import pytest

from geosweep.pipeline import run
from tests.aside import seen_aside
from tests.clusters import seen_in
from tests.elastic import SCENES, job
from tests.scenes import assert_sums

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a run came to that began without a node to work on."""
    return seen_aside("tests.elastic", tmp_path_factory.mktemp("elastic"))


def test_a_run_waits_for_the_nodes_that_it_asks_for(seen):
    assert any(
        "waiting for the autoscaler to bring some of 2 GPUs" in line for line in seen["said"]
    )
    assert seen["two asked for"]


def test_a_node_that_comes_later_detects_as_well(seen):
    assert seen["one joined"]
    assert any("has joined: pretended" in line for line in seen["said"])
    assert seen["run"]["devices"] == ["pretended"] * 3


def test_rows_are_those_of_one_process(seen, tmp_path):
    clean = seen_in(run(job(tmp_path), engine="local", progress=False))
    assert clean["counts"]["succeeded"] == SCENES
    assert seen["run"]["failures"] == []
    assert seen["run"]["ids"] == clean["ids"]
    assert seen["run"]["geometry"] == clean["geometry"]
    assert_sums(seen["run"]["counts"])


def test_a_node_that_comes_and_can_not_work_is_left_out(seen):
    assert seen["left out"]
    lines = [line for line in seen["said"] if "is left out" in line]
    assert len(lines) == 1
    assert "was given a GPU but runs on the CPU" in lines[0]


def test_a_node_without_a_gpu_reads_for_one_with(seen):
    assert seen["read elsewhere"]


def test_a_node_without_a_scene_is_given_back_while_another_works_on(seen):
    assert seen["one works on"]
    assert seen["items then"] < SCENES


def test_nothing_is_asked_for_after_the_run_and_all_nodes_go(seen):
    assert seen["wanted after"] == 0
    assert seen["nodes gone"]
