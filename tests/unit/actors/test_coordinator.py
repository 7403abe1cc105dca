"""The coordinator's bookkeeping, on one event loop without a cluster."""

import asyncio
from types import SimpleNamespace

import pytest

from geosweep.actors.budget import Budget
from geosweep.actors.coordinator import Coordinator
from geosweep.actors.workers import Announced
from geosweep.catalog.errors import RasterError
from geosweep.pipeline.pools import Span


class ReaderHandle:
    """Answers as a reader's handle does, with so many batches."""

    def __init__(self, batches):
        self._left = batches
        self.next_batch = self

    def options(self, num_returns):
        assert num_returns == 2
        return self

    def remote(self, session):
        async def note():
            await asyncio.sleep(0)
            self._left -= 1
            return Announced(1) if self._left >= 0 else None

        return [note(), object()]


def coordinator(do_batch):
    one = Coordinator.__new__(Coordinator)
    one._plan = SimpleNamespace(detectors=Span(2, 2))
    one._staff = SimpleNamespace(lent=SimpleNamespace(pixels_of=lambda reader: None))
    one._pixels = Budget(1000)
    one._batch_size = 4
    one._batches = SimpleNamespace(do=do_batch)
    return one


def header(side):
    return SimpleNamespace(
        grid=SimpleNamespace(size=side), count=3, windows_at_once=lambda wanted: wanted
    )


RUN = SimpleNamespace(header=header(5))
BATCH_BYTES = 3 * 5 * 5 * 4


@pytest.mark.parametrize("bad", [0, 1, 3, 5])
def test_a_batch_that_fails_gives_back_the_bytes_of_all(bad):
    """Also of those that were cancelled before their first step."""

    async def do_batch(run, number, note, pixels):
        if number == bad:
            raise RasterError("bad")
        await asyncio.sleep(0.001)

    async def go():
        one = coordinator(do_batch)
        with pytest.raises(RasterError, match="bad"):
            await one._stream(RUN, ReaderHandle(6), "session")
        await asyncio.sleep(0)
        assert one._pixels.used == 0

    asyncio.run(go())


def test_bytes_are_held_by_the_windows_real_size_until_the_batch_is_done():
    seen = []

    async def go():
        async def do_batch(run, number, note, pixels):
            seen.append((number, one._pixels.used))
            await asyncio.sleep(0)

        one = coordinator(do_batch)
        await one._stream(RUN, ReaderHandle(6), "session")
        assert one._pixels.used == 0

    asyncio.run(go())
    assert [number for number, _ in seen] == list(range(6))
    assert all(used % BATCH_BYTES == 0 and 0 < used <= 1000 for _, used in seen)
