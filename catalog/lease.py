"""Who works on an output just now: a lease that one pass holds, and marks that runs leave.

Both are small JSON objects that their owner rewrites every few seconds with a higher count. Whoever
finds one watches whether the count moves, so that no clock is compared with another machine's. A lease
whose count stands still is taken over by creating the one with the next number, which of several only
one can; the old holder notices the higher number at its next beat.

Nothing rests on this but effort: two passes at once would do the same work twice, and their commits
would still be sound.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from .errors import OutputError
from .intervals import format_time
from .storage import MissingKeyError, Storage

FOLDER = ".geosweep/"
BEAT_S = 4.0
PATIENCE_S = 16.0
"""How long a count must stand still before its owner is taken for dead."""

_LEASE = re.compile(rf"{re.escape(FOLDER)}lease-(\d+)\.json")
_MARK = re.compile(rf"{re.escape(FOLDER)}run-[0-9a-f]+\.json")

log = logging.getLogger("geosweep")


@dataclass(slots=True)
class Lease:
    """Whether this process holds the lease, true or false as such, and who else does.

    Parameters
    ----------
    key
        Of the object that is kept alive; None where another process holds the lease.
    holder
        In a few words, who that is and since when by its own clock.
    """

    key: str | None
    holder: str
    _lost: threading.Event = field(default_factory=threading.Event)

    def __bool__(self) -> bool:
        return self.key is not None and not self._lost.is_set()


@contextmanager
def lease(
    storage: Storage,
    purpose: str,
    *,
    beat_s: float | None = None,
    patience_s: float | None = None,
) -> Iterator[Lease]:
    """Hold the lease on an output, if no other process does.

    Parameters
    ----------
    storage
        Of the output.
    purpose
        One word for what is going to be done, told to others.
    beat_s, patience_s
        How often the count rises, and how long another's must stand still; by default `BEAT_S` and
        `PATIENCE_S`.

    Yields
    ------
    Lease
        False if another process holds it. One that was held turns false when another process took
        this one for dead, because it was suspended or cut off from the storage.
    """
    beacon, holder = _acquire(storage, purpose, beat_s or BEAT_S, patience_s or PATIENCE_S)
    if beacon is None:
        yield Lease(None, holder)
        return
    try:
        yield Lease(beacon.key, beacon.owner, beacon.lost)
    finally:
        beacon.put_out()


@contextmanager
def presence(storage: Storage, purpose: str, *, beat_s: float | None = None) -> Iterator[None]:
    """Let others know that this process writes data files; any number may."""
    key = f"{FOLDER}run-{secrets.token_hex(8)}.json"
    beacon = _Beacon(storage, key, purpose, beat_s or BEAT_S)
    beacon.light()
    try:
        yield
    finally:
        beacon.put_out()


def somebody_writes(storage: Storage, *, patience_s: float | None = None) -> bool:
    """Whether a process other than the lease's holder writes data files; forgets the dead ones."""
    for key in list(storage.list(FOLDER, ".json")):
        if _MARK.fullmatch(key):
            if _watched(storage, key, patience_s or PATIENCE_S)[0] == "moves":
                return True
            storage.delete(key)
    return False


class _Beacon:
    """An object in the storage whose count rises for as long as this process lives."""

    def __init__(self, storage: Storage, key: str, purpose: str, beat_s: float) -> None:
        self.key = key
        self.lost = threading.Event()
        self._storage = storage
        self._beat_s = beat_s
        self._about = {
            "purpose": purpose,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": format_time(datetime.now(UTC).replace(microsecond=0)),
            "token": secrets.token_hex(8),
        }
        self._beats = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, name="geosweep-lease", daemon=True)

    @property
    def owner(self) -> str:
        return _owner(self._about)

    def light(self) -> bool:
        """Create the object and keep it alive; False if it was there already."""
        try:
            if not self._storage.put_if_absent(self.key, self._content()):
                return False
            self._thread.start()
        except BaseException:
            self._remove()  # it may be there all the same, and nobody would keep it alive
            raise
        return True

    def put_out(self) -> None:
        """Stop, and remove the object."""
        self._end.set()
        self._thread.join()
        try:
            self._remove()
        except OutputError as error:
            log.warning("the lease %s stays behind: %s", self._storage.uri(self.key), error)

    def _live(self) -> None:
        while not self._end.wait(self._beat_s):
            try:
                if not self._stands():
                    self.lost.set()
                    log.warning("another process took over %s", self._storage.uri())
                    return
                self._beats += 1
                self._storage.put(self.key, self._content())
            except OutputError as error:  # perhaps the next beat gets through
                log.debug("no beat of %s: %s", self.key, error)

    def _stands(self) -> bool:
        """Whether the object is still ours, and no higher number was created."""
        number = _number(self.key)
        if number is not None and (_newest(self._storage) or (0, ""))[0] > number:
            return False
        found = _read(self._storage, self.key)
        return found is None or _parsed(found).get("token") == self._about["token"]

    def _remove(self) -> None:
        found = _read(self._storage, self.key)
        if found is not None and _parsed(found).get("token") == self._about["token"]:
            self._storage.delete(self.key)

    def _content(self) -> bytes:
        return json.dumps(self._about | {"beats": self._beats}).encode()


def _acquire(
    storage: Storage, purpose: str, beat_s: float, patience_s: float
) -> tuple[_Beacon | None, str]:
    while True:
        newest = _newest(storage)
        number = 0
        if newest is not None:
            number, key = newest
            state, content = _watched(storage, key, patience_s)
            if state == "moves":
                return None, _owner(_parsed(content))
            if state == "gone":
                continue
            log.warning(
                "%s left %s and did not come back: its work is taken over",
                _owner(_parsed(content)),
                storage.uri(),
            )
        beacon = _Beacon(storage, f"{FOLDER}lease-{number + 1}.json", purpose, beat_s)
        if beacon.light():  # or somebody was faster, and is watched next
            for key in list(storage.list(FOLDER, ".json")):
                if (_number(key) or number + 1) <= number:
                    storage.delete(key)
            return beacon, ""


def _watched(
    storage: Storage, key: str, patience_s: float
) -> tuple[Literal["moves", "still", "gone"], bytes]:
    first = content = _read(storage, key)
    end = time.monotonic() + patience_s
    while content is not None and time.monotonic() < end:
        time.sleep(min(0.5, patience_s / 10))
        content = _read(storage, key)
        if content is not None and content != first:
            return "moves", content
    return ("still", content) if content is not None else ("gone", b"")


def _newest(storage: Storage) -> tuple[int, str] | None:
    """Number and key of the lease with the highest number."""
    found = [(_number(key), key) for key in storage.list(FOLDER, ".json")]
    return max(((number, key) for number, key in found if number is not None), default=None)


def _number(key: str) -> int | None:
    match = _LEASE.fullmatch(key)
    return int(match[1]) if match else None


def _read(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except MissingKeyError:
        return None


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        about = json.loads(content)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _owner(about: dict[str, Any]) -> str:
    known = {name: about.get(name, "?") for name in ("purpose", "host", "pid", "since")}
    return "{purpose} on {host} (process {pid}, since {since})".format(**known)
