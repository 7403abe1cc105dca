"""HTTP requests to a server counted on the wire, by what they are; for `smoke.py`."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_REQUEST = re.compile(rb"(?:^|\n)(GET|PUT|POST|HEAD|DELETE) (/[^ ]*) HTTP/1\.1\r\n")


@contextmanager
def tap(port: int) -> Iterator[tuple[str, Counter[str]]]:
    """Pass bytes on to a port of this machine, unchanged; gives its URL and requests by method.

    A signature covers the host's name and port, so clients have to be told of this port alone. A
    listing counts as LIST.
    """
    seen: Counter[str] = Counter()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=_pass, args=(server, self.request), daemon=True)
                back.start()
                with suppress(OSError):
                    while data := self.request.recv(1 << 16):
                        for method, path in _REQUEST.findall(data):
                            listing = b"list-type=" in path
                            seen["LIST" if listing else method.decode()] += 1
                        server.sendall(data)
                    server.shutdown(socket.SHUT_WR)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}", seen
        finally:
            running.shutdown()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
