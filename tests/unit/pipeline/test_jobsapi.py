"""Talking to clusters that are not there, too old, or named wrongly; and streams read from afar."""

import asyncio
import re
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty
from threading import Thread

import pytest

from geosweep.catalog.errors import ClusterError, JobError
from geosweep.pipeline._jobsapi import RAY_MINIMUM, JobsApi, _is_ours
from geosweep.pipeline._tail import Tail
from tests.rayhead import ROOT, free_ports


def test_nobody_there_is_said_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    address = f"http://user:hunter2@127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ClusterError, match="can't be reached") as caught:
        JobsApi(address)
    assert caught.value.exit_code == 3
    assert "hunter2" not in str(caught.value)
    # The address that was named, not the variable's, which Ray would take.
    assert address.rpartition(":")[2] in str(caught.value)
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9 can't be reached"):
        JobsApi()


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "head"])
def test_other_addresses_are_refused_with_the_right_one(address):
    with pytest.raises(JobError, match=re.escape("http://head:8265")):
        JobsApi(address)


def test_an_old_cluster_is_refused():
    class Old(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"version": "4", "ray_version": "2.9.3", "ray_commit": "x"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match=r"runs Ray 2\.9\.3, and geosweep needs 2\.40"):
            JobsApi(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_the_least_ray_is_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [name for name in project["dependencies"] if name.startswith("ray[")]
    assert wanted == f"ray[default]>={RAY_MINIMUM[0]}.{RAY_MINIMUM[1]}"


def test_our_own_addresses_are_known():
    assert _is_ours("127.0.0.1")
    assert not _is_ours("203.0.113.7")  # set aside for documentation


def test_a_stream_comes_in_order_and_ends():
    async def stream():
        for number in range(3):
            await asyncio.sleep(0)
            yield str(number)

    async def in_a_notebook():
        tail = Tail(stream)  # where a loop is running already
        return [tail.get(5.0) for _ in range(4)]

    assert asyncio.run(in_a_notebook()) == ["0", "1", "2", None]


def test_what_a_stream_raises_comes_after_what_it_said():
    async def stream():
        yield "a"
        raise OSError("gone")

    tail = Tail(stream)
    assert tail.get(5.0) == "a"
    with pytest.raises(OSError, match="gone"):
        tail.get(5.0)
    tail.close()


def test_a_stream_can_be_given_up():
    ended = []

    async def stream():
        try:
            yield "a"
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    tail = Tail(stream)
    assert tail.get(5.0) == "a"
    with pytest.raises(Empty):
        tail.get(0.05)
    tail.close()
    assert ended == [True]
