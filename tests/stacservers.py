"""Real STAC APIs: rustac's in memory, and stac-fastapi on pgstac in a PostgreSQL of our own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.servers import serving

_BIN = Path(sys.executable).parent
_DEBIAN = Path("/usr/lib/postgresql")


def free_port() -> int:
    """A port of this machine that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def rustac_server(items: list[dict[str, Any]], folder: Path, public: str) -> Iterator[str]:
    """Serve items from memory: paging and item search, but neither filter nor sort extension.

    Its links start with `public`, where a proxy is.
    """
    path = folder / "served.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(_BIN / "rustac"), "serve", "--create-collections", "-a", public, "-b", url[7:]]
    command.append(str(path))
    with _process(command, folder / "rustac.log") as server:
        wait_for(url, server, folder / "rustac.log")
        yield url


def postgres_programs() -> tuple[Path | None, str]:
    """Where initdb and pg_ctl are, or why PostgreSQL with PostGIS can't be used here."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(_DEBIAN.glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            extensions = Path("/usr/share/postgresql") / folder.parent.name / "extension"
            if extensions.is_dir() and not (extensions / "postgis.control").is_file():
                return None, "PostGIS is not installed (postgresql-15-postgis-3 on Debian)"
            return folder, ""
    return None, "PostgreSQL is not installed (postgresql-15 on Debian)"


@contextmanager
def pgstac_server() -> Iterator[str]:
    """Serve an empty pgstac database with all extensions, transactions among them."""
    programs, reason = postgres_programs()
    assert programs is not None, reason
    port = free_port()
    environment = {
        **os.environ,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "geosweep",
        "PGPASSWORD": "unused",
        "PGDATABASE": "postgres",
        "ENABLE_TRANSACTIONS_EXTENSIONS": "TRUE",
        "DB_MIN_CONN_SIZE": "1",
        "DB_MAX_CONN_SIZE": "4",
    }
    # Not below pytest's folder, which only its own user may enter: PostgreSQL refuses to be root.
    with TemporaryDirectory(prefix="geosweep-pg-") as place, _postgres(programs, Path(place), port):
        folder = Path(place)
        subprocess.run(
            [str(_BIN / "pypgstac"), "migrate"], env=environment, check=True, capture_output=True
        )
        url = f"http://127.0.0.1:{free_port()}"
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            "stac_fastapi.pgstac.app:create_app",
        ]
        command += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
        with _process(command, folder / "api.log", environment) as server:
            wait_for(url, server, folder / "api.log")
            yield url


def post(url: str, document: dict[str, Any]) -> None:
    """Create a collection or items by the API's transaction extension."""
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            pass
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.read().decode()[:2000]}") from None


def collection(name: str) -> dict[str, Any]:
    """The least that an API takes for a collection."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": "test",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
        "links": [],
    }


@dataclass
class Proxy:
    """What a running proxy is told to do, and what it has seen.

    Attributes
    ----------
    url
        Base URL of the proxy.
    target
        Base URL of the server behind it.
    failures
        (status, headers) to answer searches with, one each, until the list is used up; status 0
        hangs up without an answer.
    edit
        Changes a page of items on its way back, or says nothing.
    searches
        Body of each search, or its query string.
    headers, paths
        Of every request.
    write_failures
        As `failures`, for requests that change something; status 200 lets one pass, and None passes
        it on and then hangs up, so that the answer is lost.
    writes
        (method, path, body) of each request that changes something and came through.
    """

    url: str
    target: str = ""
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    edit: Callable[[dict[str, Any]], None] | None = None
    searches: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    write_failures: list[tuple[int | None, dict[str, str]]] = field(default_factory=list)
    writes: list[tuple[str, str, Any]] = field(default_factory=list)

    def forget(self) -> None:
        """Start counting anew, and do nothing to answers."""
        self.failures, self.edit = [], None
        self.searches, self.headers, self.paths = [], [], []
        self.write_failures, self.writes = [], []


@contextmanager
def proxy_server() -> Iterator[Proxy]:
    """A real HTTP proxy in front of an API, which can fail, count and change what passes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["Content-Length"])))

        def do_PUT(self) -> None:
            self.do_POST()

        def do_DELETE(self) -> None:
            self._pass(None)

        def log_message(self, *args: object) -> None:
            pass

        def _pass(self, body: bytes | None) -> None:
            state.headers.append(dict(self.headers))
            state.paths.append(self.path)
            path, _, query = self.path.partition("?")
            searching = path == "/search"
            if searching:
                state.searches.append(query if body is None else json.loads(body))
                if state.failures:
                    status, headers = state.failures.pop(0)
                    if not status:
                        self.close_connection = True
                        return
                    self._answer(status, b"", headers)
                    return
            writing = self.command != "GET" and not searching
            lost = False
            if writing and state.write_failures:
                failure, headers = state.write_failures.pop(0)
                lost = failure is None
                if failure == 0:
                    self.close_connection = True
                    return
                if failure not in (None, 200):
                    self._answer(failure, b"", headers)
                    return
            wanted = {"Host": self.headers["Host"], "Content-Type": "application/json"}
            request = urllib.request.Request(
                state.target + self.path, body, wanted, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    status, content = response.status, response.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            if writing:
                state.writes.append((self.command, self.path, body and json.loads(body)))
            if lost:
                self.close_connection = True
                return
            if searching and state.edit is not None:
                page = json.loads(content)
                state.edit(page)
                content = json.dumps(page).encode()
            self._answer(status, content, {"Content-Type": "application/json"})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    with serving(server):
        yield state


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Return once `url` answers; fail with the log if the server ends or takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer: {log.read_text()[-2000:]}")


@contextmanager
def _postgres(programs: Path, folder: Path, port: int) -> Iterator[None]:
    data = folder / "pgdata"
    _as_user(
        [str(programs / "initdb"), "-D", str(data), "-U", "geosweep", "-A", "trust", "--no-sync"],
        folder,
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [str(programs / "pg_ctl"), "-D", str(data), "-l", str(folder / "pg.log")]
    _as_user([*control, "-w", "-o", options, "start"], folder)
    try:
        yield
    finally:
        _as_user([*control, "-m", "immediate", "stop"], folder)


def _as_user(command: list[str], folder: Path) -> None:
    """Run a command of PostgreSQL as somebody who isn't root."""
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")  # the user that Debian's package makes
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    # Not a pipe: the server would keep it open, and we would wait for its end.
    with (folder / "command.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, cwd=folder, check=False, **who)
    assert done.returncode == 0, (folder / "command.log").read_text()[-2000:]


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            yield server
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
