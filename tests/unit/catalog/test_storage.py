from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import pytest

from geosweep.catalog import MissingKeyError, OutputError, Storage, StorageError, open_storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path) -> Storage:
    return open_storage(tmp_path / "out" if request.param == "local" else f"memory://{tmp_path}")


def test_round_trip(storage, tmp_path):
    assert isinstance(storage, Storage)
    assert list(storage.list()) == []
    assert not storage.exists("items/a.json")
    storage.put("items/b.json", b"one")
    storage.put("items/b.json", b"two")
    storage.put("items/a.json", b"")
    storage.put("items-other/c.json", b"")
    storage.put("data/x/y.parquet", b"rows")
    assert storage.get("items/b.json") == b"two"
    assert (
        list(storage.list("items/"))
        == list(storage.list("items"))
        == [
            "items/a.json",
            "items/b.json",
        ]
    )
    assert list(storage.list(suffix=".parquet")) == ["data/x/y.parquet"]
    source = tmp_path / "file"
    source.write_bytes(b"from a file")
    storage.put_file("data/z", source)
    assert storage.get("data/z") == b"from a file" == source.read_bytes()
    with storage.open("data/z") as file:
        assert file.seek(-4, os.SEEK_END) == 7
        assert (file.read(2), file.tell(), file.read(), file.read(9)) == (b"fi", 9, b"le", b"")
        assert (file.seek(0), file.read(4), file.seek(1, os.SEEK_CUR), file.read(1)) == (
            0,
            b"from",
            5,
            b"a",
        )
        assert (file.seek(50), file.read()) == (50, b"")
    storage.delete("data/z")
    storage.delete("data/z")
    assert not storage.exists("data/z")
    assert storage.uri("a/b").endswith("/a/b")
    storage.check_writable()
    assert len(list(storage.list())) == 4


def test_what_is_missing(storage):
    with pytest.raises(MissingKeyError, match="nope"):
        storage.get("items/nope.json")
    with pytest.raises(KeyError):
        storage.get("nope")
    with pytest.raises(MissingKeyError, match="nope"):
        storage.open("nope")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a"])
def test_keys_stay_inside(storage, key):
    for call in (storage.get, storage.open, storage.exists, storage.delete, storage.local_path):
        with pytest.raises(OutputError, match="not a valid key"):
            call(key)
    with pytest.raises(OutputError):
        storage.put(key, b"")


def test_the_first_put_if_absent_wins(storage):
    assert storage.put_if_absent("items/a.json", b"first")
    assert not storage.put_if_absent("items/a.json", b"second")
    assert storage.get("items/a.json") == b"first"


def _race(root: str, worker: int, barrier, wins) -> None:
    storage = open_storage(root)
    for number in range(40):
        barrier.wait()
        payload = f"{worker}:{number}:".encode() + bytes([worker]) * 200_000
        if storage.put_if_absent(f"items/{number}.json", payload):
            wins.put((number, worker))


def test_of_many_processes_exactly_one_wins_with_whole_content(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=_race, args=(str(tmp_path), worker, barrier, wins))
        for worker in range(4)
    ]
    for process in workers:
        process.start()
    won = dict(wins.get(timeout=60) for _ in range(40))
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    assert wins.empty()
    assert sorted(won) == list(range(40))
    for number, worker in won.items():
        data = (tmp_path / "items" / f"{number}.json").read_bytes()
        assert data == f"{worker}:{number}:".encode() + bytes([worker]) * 200_000
    assert not list(tmp_path.rglob(".geosweep-tmp-*"))


def test_without_hard_links_one_still_wins(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)  # as on exFAT
    storage = open_storage(tmp_path)
    assert storage.put_if_absent("a", b"first")
    assert not storage.put_if_absent("a", b"second")
    assert storage.get("a") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_readers_never_see_half_a_file(tmp_path):
    storage = open_storage(tmp_path)
    old, new = b"o" * 3_000_000, b"n" * 3_000_000
    storage.put("x", old)
    context = multiprocessing.get_context("fork")

    def rewrite() -> None:
        for number in range(60):
            open_storage(tmp_path).put("x", (new, old)[number % 2])

    writer = context.Process(target=rewrite)
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(storage.get("x"))
    writer.join()
    assert seen <= {old, new}


def test_stale_temporary_files_are_swept(tmp_path):
    storage = open_storage(tmp_path)
    storage.put("data/kept", b"")
    for name, age in (("old", 7200), ("young", 60)):
        path = tmp_path / "data" / f".geosweep-tmp-1-{name}"
        path.write_bytes(b"part")
        os.utime(path, (time.time() - age,) * 2)
    assert list(storage.list()) == ["data/kept"]
    assert storage.sweep_temporary() == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        ".geosweep-tmp-1-young",
        "kept",
    ]


def test_opening_makes_nothing(tmp_path):
    open_storage(tmp_path / "new").exists("a")
    assert not (tmp_path / "new").exists()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file") as caught:
        open_storage(tmp_path / "out")
    assert caught.value.exit_code == 2
    with pytest.raises(OutputError):
        open_storage(tmp_path / "out" / "deeper").check_writable()


def test_unwritable_folder():
    with pytest.raises(OutputError, match=r"/proc/geosweep.* can't be written"):
        open_storage("/proc/geosweep").check_writable()


def test_pickled_storage_finds_the_same_place(storage):
    storage.put("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).get("a") == b"1"


def test_unknown_scheme_and_bucketless_url():
    with pytest.raises(OutputError, match="unknown scheme 'ftp'") as caught:
        open_storage("ftp://user:hushhush@host/x")
    assert "hush" not in str(caught.value)
    with pytest.raises(OutputError, match="names no bucket"):
        open_storage("s3://")


def test_unreachable_bucket(monkeypatch):
    from datetime import timedelta

    from geosweep.catalog import objectstore

    monkeypatch.setattr(
        objectstore, "_RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": "hushhushid",
        "AWS_SECRET_ACCESS_KEY": "hushhushkey",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    storage = open_storage("s3://bucket/prefix")
    assert storage.uri("a") == "s3://bucket/prefix/a"
    for call in (storage.check_writable, lambda: storage.get("a"), lambda: list(storage.list())):
        with pytest.raises(StorageError, match=r"s3://bucket/prefix.* can't be reached") as caught:
            call()
        assert "hush" not in str(caught.value)
        assert "builder error" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3


def test_local_path(tmp_path):
    assert open_storage(tmp_path).local_path("a/b") == Path(tmp_path, "a/b")
    assert open_storage("memory://x").local_path("a/b") is None
