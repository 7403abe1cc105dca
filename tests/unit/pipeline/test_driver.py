"""The driver's own decisions, without a cluster."""

import pytest

from geosweep.actors.connection import _reason, check_address
from geosweep.catalog.errors import JobError


@pytest.mark.parametrize(
    "address",
    ["http://user:hunter2@head:8265", "http://head:8265", "https://head/ray?token=hunter2"],
)
def test_addresses_of_dashboards_are_refused_with_the_remedy(address):
    with pytest.raises(JobError, match="geosweep submit --address http://head:8265") as caught:
        check_address(address, "RAY_ADDRESS")
    assert str(caught.value).startswith("RAY_ADDRESS is ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", [None, "auto", "10.0.0.1:6379", "ray://head:10001"])
def test_addresses_of_clusters_are_taken(address):
    check_address(address, "--address")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ray client connection timeout", "ray client connection timeout"),
        ("No node at 1.2.3.4.\nTry another.\nSee the docs.", "No node at 1.2.3.4. Try another"),
        (
            "Server failed:\nTraceback (most recent call last):\n  x()\nNoTokenError: no.\n",
            "Server failed: NoTokenError: no",
        ),
        ("", ""),
    ],
    ids=["a line", "lines", "a traceback", "nothing"],
)
def test_what_ray_says_is_cut_to_its_point(said, told):
    assert _reason(ConnectionError(said)) == told
