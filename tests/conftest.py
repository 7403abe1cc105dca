"""Shared fixtures: servers that are slow to start, one of each for the whole run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.rayhead import RayHead
    from tests.s3server import S3Server
    from tests.stacservers import Proxy

# How long an example takes is not what is tested, and says most about what else a machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A quiet local cluster with two CPUs, to which every Ray engine of the run connects."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",  # not whatever cluster this machine may have besides
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=512 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """A real head node with a dashboard, to which jobs are submitted; it demands a token."""
    from tests.rayhead import ray_head_node

    with ray_head_node() as head:
        yield head


@pytest.fixture(scope="session")
def pgstac() -> Iterator[str]:
    """URL of a real, at first empty STAC API with all extensions; tests name their collections."""
    from tests.stacservers import pgstac_server, postgres_programs

    programs, reason = postgres_programs()
    if programs is None:
        pytest.skip(reason)
    with pgstac_server() as url:
        yield url


@pytest.fixture(scope="module")
def proxy(pgstac: str) -> Iterator[Proxy]:
    """A proxy in front of `pgstac` that counts, and misbehaves when told to."""
    from tests.stacservers import proxy_server

    with proxy_server() as running:
        running.target = pgstac
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, without buckets."""
    from tests.s3server import s3_server, weed_works

    works, reason = weed_works()
    if not works:
        pytest.skip(reason)
    with s3_server() as server:
        yield server
