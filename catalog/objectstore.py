"""Storage in S3, Google Cloud Storage, Azure or memory, through obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ._ranges import RangeReader
from ._s3settings import imagery_endpoint, reads_unsigned, s3_endpoint
from ._storefaults import fault
from .errors import OutputError, StorageError
from .hrefs import public_href
from .storage import MissingKeyError, check_key

if TYPE_CHECKING:
    from obstore.store import MemoryStore, ObjectStore

    from .scene import Access

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory")
_CLIENT: dict[str, Any] = {"connect_timeout": "10s", "timeout": "120s"}
_RETRY: dict[str, Any] = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_memory: dict[str, MemoryStore] = {}


def connect(url: str, *, reading: bool = False, access: Access | None = None) -> ObjectStore:
    """Return obstore's store for the folder at `url`; credentials come from the environment.

    Parameters
    ----------
    url
        ``scheme://bucket/folder``.
    reading
        Whether imagery and catalogs are to be read: ``AWS_NO_SIGN_REQUEST``, GDAL's word for public
        buckets, then holds here, too, and so does its ``AWS_S3_ENDPOINT``. Outputs are always written
        with credentials.
    access
        How an S3 bucket wants to be asked.

    Raises
    ------
    OutputError
        If the scheme is unknown or the URL is malformed.
    """
    from obstore import store

    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise OutputError(
            f"{public_href(url)} has the unknown scheme '{scheme}': use a folder, s3://, gs:// or az://"
        )
    if scheme == "memory":
        return _memory.setdefault(url.rstrip("/"), store.MemoryStore())
    if not url.partition("://")[2].strip("/"):
        raise OutputError(f"{url} names no bucket: write {scheme}://bucket/prefix")
    s3 = scheme.startswith("s3")
    imagery = imagery_endpoint() if s3 and reading else None
    endpoint = (imagery or s3_endpoint()) if s3 else os.environ.get("AZURE_STORAGE_ENDPOINT")
    # Options given here hide the environment's, so that this one has to be passed on.
    options = {**_CLIENT, "allow_http": (endpoint or "").startswith("http://")}
    extra: dict[str, Any] = {"endpoint": imagery} if imagery else {}
    if s3 and reading and reads_unsigned():
        extra["skip_signature"] = True
    if s3 and access is not None:
        extra |= {"region": access.region} if access.region else {}
        extra |= {"request_payer": True} if access.requester_pays else {}
    try:
        return store.from_url(url, client_options=options, retry_config=_RETRY, **extra)  # type: ignore[arg-type]
    except Exception as error:
        raise OutputError(f"{public_href(url)} can't be used: {fault(error)}") from None


class ObjectStorage:
    """A `Storage` under a prefix of a bucket.

    Objects appear whole by the nature of these stores; `put_if_absent` is a conditional put
    (``If-None-Match: *``), and small enough never to become a multipart upload, which could not be
    conditional.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") if not url.endswith("://") else url
        self._store = connect(self._url)

    def __repr__(self) -> str:
        return f"ObjectStorage('{public_href(self._url)}')"

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str]]:
        return type(self), (self._url,)

    def uri(self, key: str = "") -> str:
        return public_href(f"{self._url}/{key}" if key else self._url)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def get(self, key: str) -> bytes:
        import obstore

        with self._errors(key):
            return bytes(obstore.get(self._store, check_key(key)).bytes())

    def open(self, key: str) -> BinaryIO:
        import obstore

        def fetch(start: int, end: int) -> bytes:
            with self._errors(key):
                return bytes(obstore.get_range(self._store, key, start=start, end=end))

        with self._errors(key):
            size = obstore.head(self._store, check_key(key))["size"]
        return cast(BinaryIO, RangeReader(size, fetch))

    def get_file(self, key: str, path: Path) -> None:
        import obstore

        with self._errors(key):
            chunks = obstore.get(self._store, check_key(key)).stream()
            with Path(path).open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)

    def exists(self, key: str) -> bool:
        import obstore

        try:
            with self._errors(key):
                obstore.head(self._store, check_key(key))
        except MissingKeyError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        import obstore

        with self._errors(key):
            obstore.put(self._store, check_key(key), data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._errors(key):
            try:
                obstore.put(self._store, check_key(key), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        import obstore

        with self._errors(key):
            obstore.put(self._store, check_key(key), Path(path))

    def list(self, prefix: str = "", suffix: str = "", *, sort: bool = True) -> Iterator[str]:
        import obstore

        with self._errors(prefix):
            chunks = iter(obstore.list(self._store, prefix.rstrip("/") or None))
            if self._url.startswith("memory://"):  # the only store that lists in no order
                chunks = iter([sorted((o for c in chunks for o in c), key=lambda o: o["path"])])
            for chunk in chunks:
                yield from (o["path"] for o in chunk if o["path"].endswith(suffix))

    def delete(self, key: str) -> None:
        import obstore

        try:
            with self._errors(key):
                obstore.delete(self._store, check_key(key))
        except MissingKeyError:
            pass

    def check_writable(self) -> None:
        key = ".geosweep-writable"
        self.put(key, b"")
        self.delete(key)

    def sweep_temporary(self) -> int:
        return 0  # a put that is cut off leaves nothing that can be seen

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, ValueError, OSError) as error:
            why = fault(error)
            if isinstance(error, FileNotFoundError) and "bucket" not in why:
                raise MissingKeyError(f"{self.uri(key)} does not exist") from None
            raise StorageError(f"{self.uri(key)} can't be reached: {why}") from None
