"""Pools that grow: with what waits, no faster and no further than they are to, and without harm."""

import asyncio

import pytest

from geosweep.actors import growth as growing
from geosweep.actors.growth import SIGNS, GrowingPool, keep_growing
from geosweep.catalog.errors import ModelError
from geosweep.pipeline.pools import Span


class Shop:
    """Hires workers by number; those that are told to fail do so, or never stand."""

    def __init__(self, least=1, most=3, prove=None, **options):
        self.hired, self.dismissed = [], []
        self._prove = prove
        self.pool = GrowingPool(
            "worker",
            Span(least, most),
            self._hire,
            self._answer,
            depth=1,
            dismiss=self.dismissed.append,
            **options,
        )

    def _hire(self):
        self.hired.append(len(self.hired))
        return self.hired[-1]

    async def _answer(self, worker):
        if self._prove is not None:
            await self._prove(worker)
        return f"worker {worker}"

    async def look(self, times=1):
        for _ in range(times):
            self.pool.look()
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)  # those that were hired answer


async def hold(pool, number, gate):
    """Open so many calls that end with the gate."""
    calls = [asyncio.create_task(pool.call(lambda _: gate.wait())) for _ in range(number)]
    await asyncio.sleep(0)
    return calls


def test_work_that_waits_for_long_hires_one_after_the_other_up_to_the_most():
    async def go():
        shop, gate = Shop(), asyncio.Event()
        calls = await hold(shop.pool, 5, gate)
        await shop.look(SIGNS - 1)
        assert shop.pool.size == 1
        await shop.look()
        assert (shop.pool.size, shop.pool.load) == (2, 2)
        await shop.look(SIGNS)
        assert shop.pool.size == 3
        await shop.look(3 * SIGNS)
        assert (shop.pool.size, shop.pool.load, shop.hired) == (3, 3, [0, 1, 2])
        gate.set()
        await asyncio.gather(*calls)
        assert shop.dismissed == []

    asyncio.run(go())


def test_work_that_waits_now_and_then_hires_nobody():
    async def go():
        shop = Shop()
        for _ in range(SIGNS):
            gate = asyncio.Event()
            calls = await hold(shop.pool, 2, gate)
            await shop.look(2)
            gate.set()
            await asyncio.gather(*calls)
            await shop.look(2)
        assert shop.hired == [0]

    asyncio.run(go())


def test_a_new_actor_gets_no_work_before_it_stands_and_holds_nobody_up():
    async def go():
        stands, used = asyncio.Event(), []

        async def prove(worker):
            await stands.wait()

        shop, gate = Shop(prove=prove), asyncio.Event()

        async def use(worker):
            used.append(worker)
            await gate.wait()

        calls = [asyncio.create_task(shop.pool.call(use)) for _ in range(3)]
        await shop.look(3 * SIGNS)
        assert (shop.hired, used, shop.pool.size) == ([0, 1], [0], 1)  # one at a time
        stands.set()
        await asyncio.sleep(0.001)
        assert (used, shop.pool.size) == ([0, 1], 2)
        gate.set()
        await asyncio.gather(*calls)

    asyncio.run(go())


@pytest.mark.parametrize("how", ["its model fails", "it never stands"])
def test_an_actor_that_comes_to_nothing_is_no_failure_and_tried_again_later(how, monkeypatch):
    monkeypatch.setattr(growing, "START_SECONDS", 0.005)
    monkeypatch.setattr(growing, "REST_SECONDS", 0.05)

    async def prove(worker):
        if worker == 1 and how == "its model fails":
            raise ModelError("The weights are gone.")
        if worker == 1:
            await asyncio.sleep(60)

    async def go():
        shop, gate = Shop(prove=prove), asyncio.Event()
        calls = await hold(shop.pool, 3, gate)
        await shop.look(SIGNS)
        while not shop.dismissed:
            await asyncio.sleep(0.001)
        assert (shop.pool.size, shop.pool.actors, shop.dismissed) == (1, [0], [1])
        await shop.look(SIGNS)
        assert shop.hired == [0, 1]  # it rests
        await asyncio.sleep(0.06)
        await shop.look(SIGNS)
        assert (shop.pool.size, shop.pool.actors) == (2, [0, 2])
        gate.set()
        await asyncio.gather(*calls)

    asyncio.run(go())


def test_another_sign_than_waiting_calls_can_be_given():
    async def go():
        wanted = False
        shop = Shop(least=2, wanted=lambda: wanted)
        assert await shop.pool.proven() == ["worker 0", "worker 1"]
        await shop.look(SIGNS)
        assert shop.pool.size == 2
        wanted = True
        await shop.look(SIGNS)
        assert shop.pool.size == 3

    asyncio.run(go())


def test_looking_ends_when_no_pool_may_grow(monkeypatch):
    monkeypatch.setattr(growing, "LOOK_SECONDS", 0.001)

    async def go():
        shops = [Shop(most=1), Shop(most=2, wanted=lambda: True), Shop(wanted=lambda: True)]
        await asyncio.wait_for(keep_growing([shop.pool for shop in shops]), 10)
        assert [shop.pool.size for shop in shops] == [1, 2, 3]

    asyncio.run(go())
