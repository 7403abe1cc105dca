"""How many actors a node gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosweep.pipeline import ClusterError, Job
from geosweep.pipeline.pools import BUDGET_SHARE, plan_pools


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


@pytest.mark.parametrize(
    ("cpus", "detectors", "readers"), [(1, 1, 1), (2, 1, 1), (4, 2, 1), (16, 8, 4)]
)
def test_a_cpu_node_gets_a_detector_for_two_cores(cpus, detectors, readers):
    found = plan(job(), cpus=cpus)
    assert (found.detectors, found.readers, found.gpus) == (detectors, readers, 0)
    assert found.threads == min(2, cpus)
    assert found.scenes == readers + 1


@pytest.mark.parametrize(
    ("gpus", "cluster", "detectors", "share"),
    [
        (1, {}, 1, 1.0),
        (4, {}, 4, 1.0),
        (2, {"detectors": {"num_gpus": 0.5}}, 4, 0.5),
        (4, {"detectors": {"min": 1, "max": 2}}, 2, 1.0),
        (1, {"detectors": {"num_gpus": 0, "max": 3}}, 3, 0.0),
    ],
)
def test_a_gpu_node_gets_a_detector_for_each_gpu_or_share(gpus, cluster, detectors, share):
    found = plan(job(**cluster), gpus=gpus)
    assert (found.detectors, found.gpus) == (detectors, share)
    assert found.threads is None or share == 0


@pytest.mark.parametrize(
    ("gpus", "models", "cluster", "detector", "classifier"),
    [
        (1, 0, {}, 1.0, 0.0),
        (1, 1, {}, 0.75, 0.25),
        (1, 3, {}, 0.75, 0.083),
        (4, 2, {"classifiers": 2}, 0.75, 0.25),
        (1, 2, {"detectors": {"num_gpus": 1}}, 1.0, 0.0),
        (2, 1, {"detectors": {"num_gpus": 0.4}}, 0.4, 0.2),
        (0, 1, {}, 0.0, 0.0),
    ],
)
def test_classifiers_share_the_gpus(gpus, models, cluster, detector, classifier):
    of = job(**cluster)
    crops = tuple({"name": f"c{i}", "model": "m"} for i in range(models))
    of = Job.from_dict(of.model_dump(mode="json", exclude_defaults=True) | {"crop_models": crops})
    found = plan(of, gpus=gpus)
    assert found.gpus == detector
    assert found.classifier_gpus == pytest.approx(classifier)
    used = found.detectors * found.gpus + found.classifiers * models * found.classifier_gpus
    assert used <= gpus


def test_gpus_are_left_alone_if_the_job_says_cpu():
    found = plan(job(device="cpu"), gpus=2)
    assert (found.gpus, found.detectors) == (0, 4)


def test_more_gpu_than_there_is_is_refused_in_a_sentence():
    with pytest.raises(ClusterError, match=r"num_gpus is 1, but the node has 0 GPUs; lower it"):
        plan(job(detectors={"num_gpus": 1}))


def test_what_the_job_says_is_done():
    found = plan(job(readers=3, detectors=5, croppers=4, classifiers=2, scenes_in_flight=7))
    assert (found.readers, found.detectors, found.croppers) == (3, 5, 4)
    assert (found.classifiers, found.scenes) == (2, 7)


@given(st.integers(1, 256), st.integers(0, 16), st.floats(0, 1e12))
def test_every_node_gets_at_least_one_of_each_and_half_of_the_store_at_most(cpus, gpus, store):
    found = plan(job(), cpus=cpus, gpus=gpus, store=store)
    assert min(found.readers, found.detectors, found.croppers, found.classifiers) >= 1
    assert found.scenes > found.readers - 1
    assert found.detectors * found.gpus <= gpus
    if not found.gpus:
        assert found.detectors <= cpus  # each claims one core
    assert 2 * found.budget <= 2 * BUDGET_SHARE * store <= 0.5 * store
