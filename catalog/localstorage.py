"""Storage in a folder, with atomic writes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError, StorageError
from .storage import MissingKeyError, check_key

TEMPORARY = ".geosweep-tmp-"
_STALE_S = 3600
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStorage:
    """A `Storage` in the folder `root`.

    Content is written to a hidden file in the target's own folder, synced, and renamed (`put`) or
    hard-linked (`put_if_absent`) into place.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser().absolute()
        if self._root.exists() and not self._root.is_dir():
            raise OutputError(f"{self._root} is a file: name a folder for the output")

    def __repr__(self) -> str:
        return f"LocalStorage('{self._root}')"

    def uri(self, key: str = "") -> str:
        return str(self._root / key) if key else str(self._root)

    def local_path(self, key: str) -> Path:
        return self._root / check_key(key)

    def get(self, key: str) -> bytes:
        path = self.local_path(key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise _unread(path, error) from None

    def open(self, key: str) -> BinaryIO:
        path = self.local_path(key)
        try:
            return path.open("rb")
        except OSError as error:
            raise _unread(path, error) from None

    def get_file(self, key: str, path: Path) -> None:
        source = self.local_path(key)
        try:
            shutil.copyfile(source, path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MissingKeyError(f"{source} does not exist") from None
        except OSError as error:
            raise StorageError(f"{source} can't be copied to {path}: {error.strerror}") from None

    def exists(self, key: str) -> bool:
        return self.local_path(key).is_file()

    def put(self, key: str, data: bytes) -> None:
        self._write(key, lambda file: file.write(data), os.replace)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.exists(key):
            return False
        try:
            self._write(key, lambda file: file.write(data), _link)
        except FileExistsError:
            return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        with Path(path).open("rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 20), os.replace)

    def list(self, prefix: str = "", suffix: str = "", *, sort: bool = True) -> Iterator[str]:
        start = self._root / prefix if prefix else self._root
        if not sort:
            yield from (key for key in self._scan(prefix) if key.endswith(suffix))
            return
        for folder, folders, names in os.walk(start):
            folders.sort()
            for name in sorted(names):
                if name.endswith(suffix) and not name.startswith(TEMPORARY):
                    yield (Path(folder) / name).relative_to(self._root).as_posix()

    def delete(self, key: str) -> None:
        path = self.local_path(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            pass
        except OSError as error:
            raise OutputError(f"{path} can't be removed: {error.strerror}") from None

    def check_writable(self) -> None:
        name = _temporary_name()
        self.put(name, b"")
        self.delete(name)

    def sweep_temporary(self) -> int:
        limit = time.time() - _STALE_S
        removed = 0
        for path in self._root.rglob(f"{TEMPORARY}*"):
            # Another sweeper, or the writer itself, may be faster.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a folder as the disk has them."""
        folders = [prefix.rstrip("/")]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(self._root / folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise StorageError(f"{self.uri(folder)} can't be read: {error.strerror}") from None
            with entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(key)
                    elif not entry.name.startswith(TEMPORARY):
                        yield key

    def _write(
        self,
        key: str,
        fill: Callable[[BinaryIO], object],
        place: Callable[[Path, Path], None],
    ) -> None:
        target = self.local_path(key)
        temporary = target.with_name(_temporary_name())
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                place(temporary, target)
                _sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            if target.is_file():
                raise
            raise OutputError(f"{target.parent} is not a folder: name another output") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE):
                raise StorageError(f"{target} can't be written: {error.strerror}") from None
            raise OutputError(
                f"{target} can't be written ({error.strerror}): name a folder you may write to"
            ) from None


def _unread(path: Path, error: OSError) -> OutputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return MissingKeyError(f"{path} does not exist")
    return StorageError(f"{path} can't be read: {error.strerror}")


def _temporary_name() -> str:
    return f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(6)}"


def _link(temporary: Path, target: Path) -> None:
    """Give `temporary` the name `target` unless that is taken (FileExistsError), atomically."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _claim(temporary, target)


def _claim(temporary: Path, target: Path) -> None:
    """Do what `_link` does where there are no hard links (exFAT, some network mounts).

    A lock file that only one writer can create guards the check and the rename. A writer killed in
    between leaves the lock, which `sweep_temporary` removes once it is stale.
    """
    lock = target.with_name(f"{TEMPORARY}{target.name}.lock")
    deadline = time.monotonic() + 10
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if target.exists():
                raise
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{lock} is held by another writer: remove it if no other run writes here"
                ) from None
            time.sleep(0.05)
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        temporary.replace(target)
    finally:
        lock.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Makes the new name itself survive a power cut; not every file system lets a folder be synced.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
