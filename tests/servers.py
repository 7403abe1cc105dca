"""A real HTTP server with range requests, for tests of remote reading."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class RangeServer:
    """What a running server is told to do, and what it has seen.

    Attributes
    ----------
    url
        Base URL, without a slash at its end.
    latency
        Seconds that every request waits.
    statuses
        Statuses to answer with instead of a file, one a request, until the list is used up.
    requests, sent
        How many requests came and how many bytes of files were sent.
    queries, headers
        Query string and headers of each request.
    """

    url: str = ""
    latency: float = 0.0
    statuses: list[int] = field(default_factory=list)
    requests: int = 0
    sent: int = 0
    queries: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return self.url


@contextmanager
def range_server(directory: Path, *, latency: float = 0.0) -> Iterator[RangeServer]:
    """Serve `directory` on a free port of this machine; byte ranges, HEAD and 404 work."""
    state = RangeServer(latency=latency)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            parts = urlsplit(self.path)
            with state.lock:
                state.requests += 1
                state.queries.append(parts.query)
                state.headers.append(dict(self.headers))
                status = state.statuses.pop(0) if state.statuses else None
            time.sleep(state.latency)
            path = directory / unquote(parts.path).lstrip("/")
            if status is not None or not path.is_file():
                self.send_response(status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = path.stat().st_size
            start, stop = 0, size
            wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
            if wanted:
                start = int(wanted[1])
                stop = min(size, int(wanted[2]) + 1) if wanted[2] else size
            if start >= size > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if body:
                with path.open("rb") as file:
                    file.seek(start)
                    self.wfile.write(file.read(stop - start))
                with state.lock:
                    state.sent += stop - start

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hangs up early is its own affair

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
