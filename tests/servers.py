"""A real HTTP server with range requests, for tests of remote reading.

It may demand signatures. ``/token`` then gives one out, and ``/sas/…`` does so in the form of the
Planetary Computer's endpoint; it is also a proxy for hosts of any name, with the same files.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

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
    queries, headers, methods
        Query string, headers and method of each request.
    uses
        For how many requests a token is good; None demands no signatures.
    tokens
        Every token that was given out, and how often it may still be used.
    refuses_head
        Whether HEAD is answered with 405.
    etags, dated
        Whether answers have an ETag, and say when the file was modified.
    at_once
        Most requests that were being answered at a time.
    on_request
        Called with the client's port before a request is answered.
    """

    url: str = ""
    latency: float = 0.0
    statuses: list[int] = field(default_factory=list)
    requests: int = 0
    sent: int = 0
    queries: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    uses: int | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    refuses_head: bool = False
    etags: bool = True
    dated: bool = True
    at_once: int = 0
    busy: int = 0
    on_request: Callable[[int], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return self.url

    def issue(self) -> str:
        """Give out a token."""
        assert self.uses is not None, "this server demands no signatures"
        with self.lock:
            token = f"s3cret{next(_numbers):04d}"
            self.tokens[token] = self.uses
        return token

    def revoke(self) -> None:
        """Let no token that was given out be good any longer."""
        with self.lock:
            self.tokens = dict.fromkeys(self.tokens, 0)

    def admits(self, query: str) -> bool:
        """Whether a request is signed, where it has to be."""
        if self.uses is None:
            return True
        (token,) = parse_qs(query).get("sig", [""])
        with self.lock:
            left = self.tokens.get(token, 0)
            if left:
                self.tokens[token] = left - 1
        return left > 0


_numbers = itertools.count(1)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer, in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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

        def _say(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def _answer(self, *, body: bool) -> None:
            parts = urlsplit(self.path)
            with state.lock:
                state.requests += 1
                state.queries.append(parts.query)
                state.headers.append(dict(self.headers))
                state.methods.append(self.command)
                state.busy += 1
                state.at_once = max(state.at_once, state.busy)
                status = state.statuses.pop(0) if state.statuses else None
            time.sleep(state.latency)
            if state.on_request is not None:
                state.on_request(self.client_address[1])
            with state.lock:
                state.busy -= 1
            if state.uses is not None and parts.path == "/token":
                self._say(state.issue())
                return
            if state.uses is not None and parts.path.startswith("/sas/"):
                token = f"sig={state.issue()}&sp=r&se=2099-01-01T00%3A00%3A00Z"
                self._say(json.dumps({"token": token, "msft:expiry": "2099-01-01T00:00:00Z"}))
                return
            if status is None and not state.admits(parts.query):
                status = 403
            if status is None and state.refuses_head and not body:
                status = 405
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
            stamp = path.stat().st_mtime_ns
            if state.dated:
                self.send_header("Last-Modified", formatdate(stamp / 1e9, usegmt=True))
            if state.etags:
                self.send_header("ETag", f'"{stamp:x}-{size:x}"')
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
    with serving(server):
        yield state
