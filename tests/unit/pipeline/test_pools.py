"""How many actors a node gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosweep.pipeline import ClusterError, Job
from geosweep.pipeline.pools import BUDGET_SHARE, Span, plan_pools


def job(device=None, **cluster):
    return Job.from_dict(
        {
            "source": {"stac": "a.json"},
            "output": {"path": "out"},
            "detector": {"device": device},
            "cluster": cluster,
        }
    )


def plan(of, *, cpus=8, gpus=0.0, store=1000):
    return plan_pools(of, cpus=cpus, gpus=gpus, store_bytes=store)


def bounds(span):
    return (span.min, span.max)


@pytest.mark.parametrize(
    ("cpus", "detectors", "readers", "croppers"),
    [
        (1, 1, (1, 1), (1, 1)),
        (2, 1, (1, 1), (1, 1)),
        (4, 2, (1, 2), (1, 2)),
        (16, 8, (4, 8), (4, 8)),
    ],
)
def test_a_cpu_node_gets_a_detector_for_two_cores(cpus, detectors, readers, croppers):
    found = plan(job(), cpus=cpus)
    assert bounds(found.detectors) == (detectors, detectors)
    assert (bounds(found.readers), bounds(found.croppers)) == (readers, croppers)
    assert bounds(found.classifiers) == (1, max(1, cpus // 4))
    assert found.gpus == 0
    assert found.threads == min(2, cpus)
    assert found.scenes == found.readers.max + 1


@pytest.mark.parametrize(
    ("gpus", "cluster", "detectors", "share"),
    [
        (1, {}, (1, 1), 1.0),
        (4, {}, (4, 4), 1.0),
        (2, {"detectors": {"num_gpus": 0.5}}, (4, 4), 0.5),
        (4, {"detectors": {"min": 1, "max": 2}}, (1, 2), 1.0),
        (4, {"detectors": {"min": 1, "max": 8, "num_gpus": 1}}, (1, 4), 1.0),
        (4, {"detectors": {"min": 2}}, (2, 4), 1.0),
        (4, {"detectors": {"num_gpus": 2}}, (2, 2), 2.0),
        (1, {"detectors": {"num_gpus": 0, "max": 3}}, (3, 3), 0.0),
    ],
)
def test_a_gpu_node_gets_a_detector_for_each_gpu_or_share(gpus, cluster, detectors, share):
    found = plan(job(**cluster), gpus=gpus)
    assert (bounds(found.detectors), found.gpus) == (detectors, share)
    assert found.threads is None or share == 0


def job_with_crops(models, cluster):
    crops = tuple({"name": f"c{i}", "model": "m"} for i in range(models))
    of = job(**cluster).model_dump(mode="json", exclude_defaults=True)
    return Job.from_dict(of | {"crop_models": crops})


@pytest.mark.parametrize(
    ("gpus", "models", "cluster", "detectors", "classifiers"),
    [
        (1, 0, {}, (1, 1.0), (1, 0.0)),
        (1, 1, {}, (1, 0.75), (1, 0.25)),
        (1, 3, {}, (1, 0.75), (1, 0.083)),
        (4, 1, {}, (4, 0.75), (4, 0.25)),
        (4, 2, {}, (4, 0.75), (2, 0.25)),
        (4, 2, {"classifiers": 2}, (4, 0.75), (2, 0.25)),
        (1, 1, {"classifiers": {"min": 1, "max": 2}}, (1, 0.75), (2, 0.125)),
        (1, 2, {"detectors": {"num_gpus": 1}}, (1, 1.0), (1, 0.0)),
        (2, 1, {"detectors": {"num_gpus": 0.4}}, (4, 0.4), (2, 0.2)),
        (0, 1, {}, (4, 0.0), (2, 0.0)),
        (1, 1, {"classifiers": {"max": 2, "num_gpus": 0.2}}, (1, 0.6), (2, 0.2)),
        (1, 1, {"classifiers": {"num_gpus": 0.5}}, (1, 0.5), (1, 0.5)),
        (2, 1, {"classifiers": {"max": 1, "num_gpus": 0.5}}, (1, 1.0), (1, 0.5)),
        (2, 1, {"classifiers": {"max": 1, "num_gpus": 1}}, (1, 1.0), (1, 1.0)),
        (
            1,
            1,
            {"detectors": {"num_gpus": 0.25}, "classifiers": {"max": 2, "num_gpus": 0.25}},
            (2, 0.25),
            (2, 0.25),
        ),
        (1, 1, {"detectors": {"num_gpus": 0}, "classifiers": {"num_gpus": 1}}, (4, 0), (1, 1)),
    ],
)
def test_classifiers_share_the_gpus(gpus, models, cluster, detectors, classifiers):
    found = plan(job_with_crops(models, cluster), gpus=gpus)
    assert (found.detectors.max, found.gpus) == detectors
    if models:
        assert found.classifiers.max == classifiers[0]
    assert found.classifier_gpus == pytest.approx(classifiers[1])
    used = found.detectors.max * found.gpus
    used += found.classifiers.max * models * found.classifier_gpus
    assert used <= gpus + 1e-9


@pytest.mark.parametrize(
    ("gpus", "cluster", "words"),
    [
        (
            1,
            {"classifiers": {"num_gpus": 2}},
            "cluster.classifiers.num_gpus is 2, but the node has",
        ),
        (1, {"classifiers": {"max": 3, "num_gpus": 0.5}}, "3 classifiers of 0.5, but a node has 1"),
        (
            1,
            {"detectors": {"num_gpus": 0.75}, "classifiers": {"max": 1, "num_gpus": 0.5}},
            "1 detectors of 0.75 GPUs and 1 classifiers of 0.5, but a node has 1; lower",
        ),
        (
            2,
            {
                "detectors": {"num_gpus": 0.4, "min": 2},
                "classifiers": {"max": 2, "num_gpus": 0.7},
            },
            "2 detectors of 0.4 GPUs and 2 classifiers of 0.7, but a node has 2",
        ),
        (2, {"detectors": {"num_gpus": 1, "min": 3}}, "asks for 3 detectors of 1 GPUs, but a node"),
        (0, {"detectors": 9}, "asks for 9 detectors of a core each, but a node has 8 CPUs"),
    ],
)
def test_what_can_never_be_placed_is_refused_in_a_sentence(gpus, cluster, words):
    with pytest.raises(ClusterError, match=words) as caught:
        plan(job_with_crops(1, cluster), gpus=gpus)
    assert str(caught.value).endswith(".")


def test_gpus_are_left_alone_if_the_job_says_cpu():
    found = plan(job(device="cpu"), gpus=2)
    assert (found.gpus, found.detectors) == (0, Span(4, 4))


def test_more_gpu_than_there_is_is_refused_in_a_sentence():
    with pytest.raises(ClusterError, match=r"num_gpus is 1, but the node has 0 GPUs; lower it"):
        plan(job(detectors={"num_gpus": 1}))


def test_what_the_job_says_is_done():
    found = plan(job(readers=3, detectors=5, croppers=4, classifiers=2, scenes_in_flight=7))
    assert (found.readers, found.detectors, found.croppers) == (Span(3, 3), Span(5, 5), Span(4, 4))
    assert (found.classifiers, found.scenes) == (Span(2, 2), 7)
    pools = {"readers": {"max": 6}, "croppers": {"min": 3}, "classifiers": {"min": 1, "max": 9}}
    found = plan(job(**pools))
    assert (found.readers, found.croppers) == (Span(2, 6), Span(3, 4))
    assert (found.classifiers, found.scenes) == (Span(1, 9), 7)


def test_scenes_in_flight_come_with_the_readers():
    found = plan(job(readers={"min": 1, "max": 4}))
    assert [found.scenes_with(readers) for readers in range(1, 5)] == [2, 3, 4, 5]
    found = plan(job(readers={"min": 1, "max": 4}, scenes_in_flight=2))
    assert [found.scenes_with(readers) for readers in range(1, 5)] == [1, 1, 2, 2]


@given(
    st.integers(1, 256),
    st.integers(0, 16),
    st.floats(0, 1e12),
    st.integers(0, 3),
    st.sampled_from([None, 0.25, 0.5, 1]),
    st.sampled_from([None, 0.1, 0.3, 1]),
)
def test_every_node_gets_at_least_one_of_each_and_half_of_the_store_at_most(
    cpus, gpus, store, models, share, of_classifier
):
    cluster = {"detectors": {"num_gpus": share}, "classifiers": {"num_gpus": of_classifier}}
    try:
        found = plan(job_with_crops(models, cluster), cpus=cpus, gpus=gpus, store=store)
    except ClusterError:
        assert share or of_classifier
        return
    for span in (found.readers, found.detectors, found.croppers, found.classifiers):
        assert 1 <= span.min <= span.max
    assert found.scenes == found.readers.max + 1
    used = found.detectors.max * found.gpus
    used += found.classifiers.max * models * found.classifier_gpus
    assert used <= gpus + 1e-9
    if not found.gpus:
        assert found.detectors.max <= cpus  # each claims one core
    assert 2 * found.budget <= 2 * BUDGET_SHARE * store <= 0.5 * store
