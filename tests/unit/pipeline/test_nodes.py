"""Which nodes sweep, which lend readers to whom, and what the autoscaler is asked for."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geosweep.catalog.errors import ClusterError, JobError
from geosweep.pipeline import Job
from geosweep.pipeline.nodes import (
    Node,
    alive,
    divide,
    lending,
    runs_on_gpus,
    still_wanted,
    sweeping,
)

HEAD = Node("head", "10.0.0.1", 0, 0, 1e9)
GPU = Node("gpu", "10.0.0.2", 8, 1, 1e9)
FOUR = Node("four", "10.0.0.3", 32, 4, 1e9)
CPU = Node("cpu", "10.0.0.4", 16, 0, 8e9)
ALL = [HEAD, GPU, FOUR, CPU]


def job(device=None, **cluster):
    return Job.from_dict(
        {
            "source": {"rasters": ["a.tif"]},
            "detector": {"device": device},
            "output": {"path": "out"},
            "cluster": cluster,
        }
    )


def test_the_living_are_told_from_the_dead():
    def told(name, **resources):
        return {"NodeID": name, "NodeManagerAddress": "10.0.0.1", "Resources": resources}

    nodes = alive(
        [
            {**told("a", CPU=8.0, GPU=1.0, object_store_memory=5e9), "Alive": True},
            {**told("b", CPU=8.0), "Alive": False},
            {**told("c"), "Alive": True},
        ]
    )
    assert [(n.id, n.cpus, n.gpus) for n in nodes] == [("a", 8, 1), ("c", 0, 0)]
    assert nodes[0].store_bytes == 5e9
    assert nodes[1].store_bytes > 0


@pytest.mark.parametrize(
    ("spec", "nodes", "on_gpus", "chosen"),
    [
        (job(), ALL, True, [GPU, FOUR]),
        (job(), [HEAD, CPU], False, [CPU]),
        (job("cpu"), ALL, False, [GPU, FOUR, CPU]),
        (job(autoscale={"gpus": 2}), [HEAD, CPU], True, []),
        (job(), [Node("bare", "", 0, 4, 1), CPU], False, [CPU]),
    ],
)
def test_who_sweeps(spec, nodes, on_gpus, chosen):
    assert runs_on_gpus(spec, nodes) is on_gpus
    assert sweeping(spec, nodes, on_gpus=on_gpus) == chosen


def test_cpus_are_not_asked_for_where_gpus_would_detect():
    asking = {"autoscale": {"cpus": 16}}
    with pytest.raises(ClusterError, match="asks for 16 CPUs, but the cluster has GPUs"):
        runs_on_gpus(job(**asking), ALL)
    assert runs_on_gpus(job(**asking), [HEAD, CPU]) is False
    assert runs_on_gpus(job("cpu", **asking), ALL) is False


def test_a_gpu_that_comes_into_a_run_on_cpus_is_left_alone():
    assert sweeping(job(), ALL, on_gpus=False) == [CPU]


def test_readers_are_lent_where_the_job_says_so_and_gpus_detect():
    assert lending(job(reader_nodes=True), ALL, on_gpus=True) == [CPU]
    assert lending(job(reader_nodes=True), ALL, on_gpus=False) == []
    assert lending(job(), ALL, on_gpus=True) == []
    lent = CPU.lent()
    assert (lent.node_id, lent.readers, lent.budget) == ("cpu", 8, 2_000_000_000)


def lenders(*cpus):
    return [Node(f"c{number}", "", each, 0, 1e9) for number, each in enumerate(cpus)]


def loads(nodes, given, borrowers):
    readers = Counter(dict.fromkeys(borrowers, 0))
    for node in nodes:
        readers[given[node.id]] += node.readers
    return readers


@example([1, 1, 4], {"a", "b", "c"}, {"c0": "a", "c1": "a"})  # the richest has nothing to spare
@given(
    st.lists(st.integers(1, 64), max_size=12),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.dictionaries(st.sampled_from([f"c{n}" for n in range(14)]), st.sampled_from("abcdefgh")),
)
def test_every_lender_has_one_borrower_and_no_move_would_even_it_out(cpus, borrowers, before):
    nodes = lenders(*cpus)
    given_to = divide(nodes, borrowers, before)
    assert given_to.keys() == {node.id for node in nodes}
    readers = loads(nodes, given_to, borrowers)
    for node in nodes:
        gap = readers[given_to[node.id]] - min(readers.values())
        assert node.readers >= gap
    assert divide(nodes, borrowers, given_to) == given_to


def test_a_newcomer_takes_no_more_than_its_share():
    nodes = lenders(16, 16, 16, 16)
    alone = divide(nodes, ["a"], {})
    both = divide(nodes, ["a", "b"], alone)
    assert Counter(both.values()) == {"a": 2, "b": 2}
    assert divide(nodes, ["b"], both) == dict.fromkeys(both, "b")
    assert divide(nodes, [], both) == {}


@pytest.mark.parametrize(
    ("cluster", "working", "scenes", "wanted"),
    [
        ({}, [], None, 0),
        ({"autoscale": {"gpus": 8}}, [], None, 8),
        ({"autoscale": {"gpus": 8}}, [GPU, FOUR], None, 3),
        ({"autoscale": {"gpus": 8}}, [GPU, FOUR], 2, 2),
        ({"autoscale": {"gpus": 4}}, [GPU, FOUR], None, 0),
        ({"autoscale": {"cpus": 40}}, [CPU], 100, 24),
    ],
)
def test_what_is_still_wanted(cluster, working, scenes, wanted):
    assert still_wanted(job(**cluster), working, scenes=scenes) == wanted


@pytest.mark.parametrize(
    ("device", "autoscale", "said"),
    [
        (None, {}, "one of gpus and cpus"),
        (None, {"gpus": 1, "cpus": 1}, "one of gpus and cpus"),
        (None, {"gpus": 0}, "cluster.autoscale.gpus"),
        ("cpu", {"gpus": 2}, r"detector.device is 'cpu'; write \{cpus: 2\}"),
        ("cuda", {"cpus": 16}, r"detector.device is 'cuda'; write \{gpus: 16\}"),
    ],
)
def test_what_can_not_be_asked_for(device, autoscale, said):
    with pytest.raises(JobError, match=said):
        job(device, autoscale=autoscale)
