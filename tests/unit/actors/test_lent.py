"""Readers of other nodes: in the pool while they stand, out of it at once when their node is gone."""

import asyncio

import pytest
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError

from geosweep.actors import pool as pools
from geosweep.actors.lent import LentReaders
from geosweep.actors.pool import Pool
from geosweep.pipeline.pools import ReaderNode


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(pools, "RESTART_SECONDS", 0.001)


class Handle:
    """Answers as a reader's handle does when it is asked whether it stands."""

    def __init__(self, node):
        self.node = node
        self.errors = []
        self.silent = False
        self.__ray_ready__ = self

    async def remote(self):
        if self.silent:
            await asyncio.sleep(60)
        if self.errors:
            raise self.errors.pop(0)


class Nodes:
    """Two nodes that lend readers to a coordinator with one of its own."""

    def __init__(self):
        self.hired, self.dismissed = [], []
        self.pool = Pool("reader", ["own"])
        self.lent = LentReaders(self.pool, self._hire, self.dismissed.append)

    def _hire(self, node):
        self.hired.append(Handle(node))
        return self.hired[-1]

    async def set(self, *names):
        self.lent.set(ReaderNode(name, readers=2, budget=100) for name in names)
        await asyncio.sleep(0.005)

    @property
    def there(self):
        return sorted(getattr(reader, "node", reader) for reader in self.pool.actors)


def test_readers_come_with_their_nodes_and_go_with_them():
    async def go():
        nodes = Nodes()
        await nodes.set("a")
        assert nodes.there == ["a", "a", "own"]
        await nodes.set("a", "b")
        assert nodes.there == ["a", "a", "b", "b", "own"]
        first, _, other, _ = nodes.hired
        assert nodes.lent.pixels_of("own") is None
        assert nodes.lent.pixels_of(first) is not nodes.lent.pixels_of(other)
        assert nodes.lent.pixels_of(first).limit == 100
        await nodes.set("b")
        assert nodes.there == ["b", "b", "own"]
        assert nodes.dismissed == nodes.hired[:2]
        assert await nodes.lent.is_gone(first)  # its scenes were cut off by us
        assert not await nodes.lent.is_gone("own")

    asyncio.run(go())


def test_a_reader_that_comes_back_is_to_blame_and_has_no_calls_until_then():
    async def go():
        nodes = Nodes()
        await nodes.set("a")
        died = nodes.hired[0]
        died.errors = [ActorUnavailableError("gone", None), RayActorError()]
        verdict = asyncio.create_task(nodes.lent.is_gone(died))
        await asyncio.sleep(0)
        assert nodes.there == ["a", "own"]
        assert not await verdict
        assert nodes.there == ["a", "a", "own"]

    asyncio.run(go())


def test_a_reader_whose_node_is_gone_leaves_for_good_and_the_driver_may_say_so_later():
    async def go():
        nodes = Nodes()
        await nodes.set("a")
        died = nodes.hired[0]
        died.errors = [ActorUnavailableError("gone", None), ActorUnschedulableError("gone")]
        both = await asyncio.gather(nodes.lent.is_gone(died), nodes.lent.is_gone(died))
        assert both == [True, True]
        assert nodes.there == ["a", "own"]
        assert nodes.dismissed == [died]
        assert await nodes.lent.is_gone(died)
        await nodes.set()
        assert (nodes.there, len(nodes.dismissed)) == (["own"], 2)

    asyncio.run(go())


def test_a_node_that_is_withdrawn_while_its_verdict_is_out_is_gone():
    async def go():
        nodes = Nodes()
        await nodes.set("a")
        died = nodes.hired[0]
        died.silent = True
        verdict = asyncio.create_task(nodes.lent.is_gone(died))
        await asyncio.sleep(0.005)
        await nodes.set()
        assert await asyncio.wait_for(verdict, 5)
        assert nodes.there == ["own"]

    asyncio.run(go())
