"""A real head node with dashboard, Jobs API and token, and a connection to it that may be cut."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

TOKEN = "0123456789abcdef" * 4
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class RayHead:
    """Where dashboard and Ray Client are, and the environment of one who has the token."""

    address: str
    by_client: str
    client: dict[str, str]


def free_ports(number: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def ray_head_node() -> Iterator[RayHead]:
    """A head on free ports with a folder of its own; nobody who lacks the token is let in."""
    # Ray's sockets need short paths.
    folder = Path(tempfile.mkdtemp(prefix="gs"))
    port, dashboard, ray_client = free_ports(3)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    scripts = str(Path(sys.executable).parent)
    command = [
        *("ray", "start", "--head", "--block", "--disable-usage-stats"),
        *("--port", str(port), "--ray-client-server-port", str(ray_client)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-listen-port", "0", "--metrics-export-port", "0"),
        *("--num-cpus", "2", "--object-store-memory", str(256 << 20), "--temp-dir", str(folder)),
    ]
    address = f"http://127.0.0.1:{dashboard}"
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command,
            # Far from the checkout, whose modules the cluster is not to see. Wheels that it is sent
            # must do without anything from the internet.
            cwd=folder,
            env=bare
            | token
            | {
                "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
                "PIP_NO_INDEX": "1",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                # Some patience on a busy machine: each client gets a process of its own.
                "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "45",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(address, process, folder / "head.log")
            client = {
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "120",
                "XDG_CACHE_HOME": str(folder / "c"),
            }
            by_client = f"ray://127.0.0.1:{ray_client}"
            yield RayHead(address, by_client, bare | token | client)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        with suppress(URLError, OSError), urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise TimeoutError(log.read_text())


class CutConnection:
    """Passes bytes on to a server, and can hang up on everybody.

    Attributes
    ----------
    address
        To be used instead of the server's.
    """

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Hang up on everybody; returns how many ends were still there."""
        number = 0
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)
                number += 1
        return number

    def close(self) -> None:
        """Hang up, and take no more calls."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [caller, server]
                for pair in ((caller, server), (server, caller)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
