"""A pool of actors: least busy first, and a call that lost its actor is served alone, soon."""

import asyncio

import pytest
from ray.exceptions import ActorUnschedulableError, RayActorError

from geosweep.actors import pool as pools
from geosweep.actors.pool import Pool, stood
from geosweep.catalog.errors import ClusterError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(pools, "RESTART_SECONDS", 0.001)


def test_calls_are_spread_and_bounded():
    async def go():
        pool = Pool("worker", ["a", "b"], depth=2)
        running = {"a": 0, "b": 0}
        most = {"a": 0, "b": 0}

        async def use(actor):
            running[actor] += 1
            most[actor] = max(most[actor], running[actor])
            await asyncio.sleep(0.001)
            running[actor] -= 1

        await asyncio.gather(*(pool.call(use) for _ in range(20)))
        assert most == {"a": 2, "b": 2}
        assert pool.load == 0

    asyncio.run(go())


def test_a_call_that_is_to_be_alone_is_so_from_the_first_try():
    async def go():
        pool = Pool("worker", ["a"], depth=2)
        running = set()

        async def use(_, me):
            running.add(me)
            if me == "suspect":
                assert running == {"suspect"}
            await asyncio.sleep(0.001)
            if me == "suspect":
                assert running == {"suspect"}
            running.discard(me)

        def call(me):
            return pool.call(lambda actor: use(actor, me), alone=me == "suspect")

        await asyncio.gather(*(call(me) for me in ("b", "c", "suspect", "d", "e")))
        assert pool.load == 0

    asyncio.run(go())


def test_a_call_tried_again_is_alone_and_gets_its_turn_on_a_busy_pool():
    """Others keep coming all the time: an idle actor never turns up by itself."""

    async def go():
        pool = Pool("worker", ["a"], depth=2)
        running, served, tries = set(), 0, []

        async def easy(_):
            nonlocal served
            me = object()
            running.add(me)
            await asyncio.sleep(0.002)
            running.discard(me)
            served += 1

        async def unlucky(_):
            tries.append(len(running))
            if len(tries) == 1:
                raise RayActorError
            await asyncio.sleep(0.002)
            assert not running
            return served

        async def crowd():
            for _ in range(60):
                await pool.call(easy)

        crowds = [asyncio.create_task(crowd()) for _ in range(4)]
        await asyncio.sleep(0.004)
        served_before = await pool.call(unlucky)
        await asyncio.gather(*crowds)
        assert tries[1] == 0
        assert served_before < 60
        assert pool.load == 0

    asyncio.run(go())


def test_a_call_is_tried_again_only_when_its_actor_stands():
    """A process that takes long to start must not use up the tries of an innocent call."""

    async def go():
        asked, tries = 0, 0

        async def stands(actor):
            nonlocal asked
            asked += 1
            if asked < 20:
                raise RayActorError

        async def use(_):
            nonlocal tries
            tries += 1
            if asked < 20:
                raise RayActorError
            return "done"

        assert await Pool("worker", ["a"], stands=stands).call(use) == "done"
        assert (asked, tries) == (20, 2)

    asyncio.run(go())


def test_a_call_that_always_loses_its_actor_ends_in_a_sentence():
    async def go():
        pool = Pool("worker", ["a", "b"])
        tries = 0

        async def use(_):
            nonlocal tries
            tries += 1
            raise RayActorError

        with pytest.raises(ClusterError, match=r"ended its worker's process 4 times in a row"):
            await pool.call(use)
        assert (tries, pool.load) == (4, 0)

    asyncio.run(go())


def test_who_gives_up_waiting_for_an_idle_actor_does_not_bar_the_others():
    async def go():
        pool = Pool("worker", ["a"], depth=2)
        gate = asyncio.Event()
        held = asyncio.create_task(pool.call(lambda _: gate.wait()))
        await asyncio.sleep(0)
        deaths = 0

        async def unlucky(_):
            nonlocal deaths
            deaths += 1
            raise RayActorError

        waiting = asyncio.create_task(pool.call(unlucky))
        while not deaths:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        async def easy(actor):
            return actor

        assert await asyncio.wait_for(pool.call(easy), 5) == "a"
        gate.set()
        await held

    asyncio.run(go())


def test_an_actor_that_is_added_takes_what_waits_and_one_that_is_removed_gets_no_more():
    async def go():
        told = []
        pool = Pool("worker", ["a"], depth=1, changed=lambda: told.append(list(pool.actors)))
        gate, used = asyncio.Event(), []

        async def use(actor):
            used.append(actor)
            await gate.wait()

        calls = [asyncio.create_task(pool.call(use)) for _ in range(4)]
        await asyncio.sleep(0)
        assert (used, pool.waiting, pool.load) == (["a"], 3, 1)
        pool.add("b")
        await asyncio.sleep(0)
        assert (used, pool.waiting, pool.load) == (["a", "b"], 2, 2)
        pool.remove("a")
        pool.remove("a")
        gate.set()
        await asyncio.gather(*calls)
        assert used == ["a", "b", "b", "b"]
        assert (pool.load, pool.waiting, pool.actors) == (0, 0, ["b"])
        assert told == [["a", "b"], ["b"], ["b"]]

    asyncio.run(go())


def test_calls_to_a_pool_without_actors_wait_until_one_comes():
    async def go():
        pool = Pool("worker", ["a"])
        pool.remove("a")

        async def use(actor):
            return actor

        call = asyncio.create_task(pool.call(use))
        await asyncio.sleep(0.01)
        assert not call.done()
        pool.add("b")
        assert await call == "b"

    asyncio.run(go())


def test_an_actor_whose_constructor_fails_or_whose_node_is_gone_is_not_waited_for():
    async def go(error):
        asked = 0

        async def answer():
            nonlocal asked
            asked += 1
            raise error

        assert not await stood(answer, patience=60)
        assert asked == 1

    asyncio.run(go(RayActorError(actor_init_failed=True)))
    asyncio.run(go(ActorUnschedulableError("The node is gone.")))


def test_an_actor_that_is_silent_is_given_up_after_a_while():
    async def go():
        assert not await stood(lambda: asyncio.sleep(60), patience=0.01)

    asyncio.run(go())
