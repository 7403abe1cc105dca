"""Leases between real processes: who gets one, who is told, and what a killed holder leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from geosweep.catalog import open_storage
from geosweep.catalog.lease import FOLDER, lease, presence, somebody_writes

HOLDER = """
import sys
from geosweep.catalog import open_storage
from geosweep.catalog.lease import lease, presence

kind = {"lease": lease, "presence": presence}[sys.argv[2]]
with kind(open_storage(sys.argv[1]), "update", beat_s=0.1) as held:
    print("held" if held or kind is presence else "refused", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder, kind="lease") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lease until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def traces(storage) -> list[str]:
    return list(storage.list(FOLDER))


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_held_and_given_back(place, tmp_path):
    storage = open_storage(tmp_path if place == "folder" else f"memory://{tmp_path}")
    with lease(storage, "update") as held:
        assert held
        (key,) = traces(storage)
        assert key.startswith(FOLDER)
        about = json.loads(storage.get(key))
        assert about["pid"] == os.getpid()
        assert about["purpose"] == "update"
    assert traces(storage) == []


def test_given_back_after_an_error(tmp_path):
    storage = open_storage(tmp_path)
    with pytest.raises(KeyError), lease(storage, "update"):
        raise KeyError
    assert traces(storage) == []


def test_the_second_is_told_who_holds_it(tmp_path):
    storage = open_storage(tmp_path)
    with holder(tmp_path) as process:
        with lease(storage, "update", patience_s=60) as held:
            assert not held
            assert f"process {process.pid}" in held.holder
            assert held.holder.startswith("update on ")
        assert len(traces(storage)) == 1  # the refused one took nothing away
        process.communicate("")
        assert process.returncode == 0
    with lease(storage, "update") as held:
        assert held


def test_a_killed_holder_is_replaced_by_one_of_many(tmp_path):
    storage = open_storage(tmp_path)
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert traces(storage) == [f"{FOLDER}lease-1.json"]
    held, done = [], threading.Barrier(3)

    def compete() -> None:
        with lease(storage, "update", beat_s=0.05, patience_s=2) as mine:
            held.append(bool(mine))
            done.wait(30)

    threads = [threading.Thread(target=compete) for _ in range(2)]
    for thread in threads:
        thread.start()
    done.wait(30)
    for thread in threads:
        thread.join()
    assert sorted(held) == [False, True]
    assert traces(storage) == []


def test_a_holder_taken_for_dead_notices(tmp_path):
    storage = open_storage(tmp_path)
    with lease(storage, "update", beat_s=0.05) as held:
        storage.put(f"{FOLDER}lease-2.json", b"{}")
        assert held._lost.wait(30)
        assert not held
    assert traces(storage) == [f"{FOLDER}lease-2.json"]


def test_an_unreadable_lease_blocks_nobody_for_long(tmp_path):
    storage = open_storage(tmp_path)
    storage.put(f"{FOLDER}lease-7.json", b"\xff")
    with lease(storage, "update", patience_s=0.2) as held:
        assert held
        assert traces(storage) == [f"{FOLDER}lease-8.json"]


def test_writers_are_seen_until_they_end_or_are_dead(tmp_path):
    storage = open_storage(tmp_path)
    assert not somebody_writes(storage)
    with holder(tmp_path, "presence") as process:
        assert somebody_writes(storage, patience_s=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not somebody_writes(storage, patience_s=0.5)
    assert traces(storage) == []
    with presence(storage, "run"):
        assert len(traces(storage)) == 1
    assert traces(storage) == []
