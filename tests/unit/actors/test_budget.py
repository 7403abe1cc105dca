"""The byte budget: never over its limit but for one that is larger alone; first come, first served."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.actors.budget import Budget, HeldPixels, JointBudget


async def _settle():
    for _ in range(5):
        await asyncio.sleep(0)


@settings(max_examples=80)
@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 4), st.booleans()), max_size=25),
)
def test_never_over_the_limit_first_come_first_served_and_all_given_back(limit, requests):
    async def go():
        budget = Budget(limit)
        inside, order = [], []

        async def one(number, amount, turns):
            async with budget.hold(amount):
                order.append(number)
                inside.append(amount)
                # Who was granted a turn, but has not run since, counts already.
                assert sum(inside) <= budget.used
                assert budget.used <= limit or budget.used in {size for size, _, _ in requests}
                try:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                finally:
                    inside.remove(amount)

        tasks = [
            asyncio.create_task(one(number, amount, turns))
            for number, (amount, turns, _) in enumerate(requests)
        ]
        await asyncio.sleep(0)
        for task, (_, _, impatient) in zip(tasks, requests, strict=True):
            if impatient:
                task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        wrong = [r for r in results if isinstance(r, Exception)]
        assert wrong == []
        assert order == sorted(order)
        patient = {n for n, (_, _, impatient) in enumerate(requests) if not impatient}
        assert patient <= set(order)
        assert budget.used == 0

    asyncio.run(go())


def test_one_that_is_larger_than_all_goes_alone():
    async def go():
        budget = Budget(10)
        await budget.acquire(4)
        large = asyncio.create_task(budget.acquire(25))
        await _settle()
        assert not large.done()
        budget.release(4)
        await large
        small = asyncio.create_task(budget.acquire(1))
        await _settle()
        assert not small.done()
        budget.release(25)
        await small
        assert budget.used == 1

    asyncio.run(go())


def test_a_small_one_does_not_pass_a_large_one_that_came_first():
    async def go():
        budget = Budget(10)
        await budget.acquire(6)
        large = asyncio.create_task(budget.acquire(8))
        await _settle()
        small = asyncio.create_task(budget.acquire(1))
        await _settle()
        assert not small.done()
        budget.release(6)
        await asyncio.gather(large, small)
        assert budget.used == 9

    asyncio.run(go())


def test_who_gives_up_waiting_lets_those_behind_go():
    async def go():
        budget = Budget(10)
        await budget.acquire(6)
        large = asyncio.create_task(budget.acquire(8))
        await _settle()
        small = asyncio.create_task(budget.acquire(2))
        await _settle()
        large.cancel()
        await asyncio.wait_for(small, 5)
        assert budget.used == 8

    asyncio.run(go())


def test_who_gives_up_just_as_the_turn_comes_keeps_nothing():
    async def go():
        budget = Budget(10)
        await budget.acquire(10)
        late = asyncio.create_task(budget.acquire(7))
        await _settle()
        budget.release(10)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert budget.used == 0

    asyncio.run(go())


def test_a_release_just_after_a_cancel_passes_the_dead_by():
    async def go():
        budget = Budget(10)
        await budget.acquire(10)
        dead = asyncio.create_task(budget.acquire(7))
        alive = asyncio.create_task(budget.acquire(7))
        await _settle()
        dead.cancel()
        budget.release(10)
        await asyncio.wait_for(alive, 5)
        assert budget.used == 7

    asyncio.run(go())


def test_an_error_inside_gives_the_bytes_back():
    async def go():
        budget = Budget(10)
        with pytest.raises(KeyError):
            async with budget.hold(5):
                raise KeyError
        assert budget.used == 0

    asyncio.run(go())


@pytest.mark.parametrize("users", [0, 1, 3])
def test_pixels_are_let_go_once_when_the_last_user_leaves(users):
    given_back = []
    pixels = HeldPixels("ref", lambda: given_back.append(1))
    pixels.share(users)
    for _ in range(users):
        assert (pixels.ref, given_back) == ("ref", [])
        pixels.leave()
    pixels.release()
    assert (pixels.ref, given_back) == (None, [1])


def test_a_limit_that_rises_lets_in_who_waits_and_one_that_sinks_keeps_them_out():
    async def go():
        budget = Budget(1)
        await budget.acquire(1)
        waiting = [asyncio.create_task(budget.acquire(1)) for _ in range(3)]
        await _settle()
        assert budget.waiting == 3
        budget.limit = 3
        await _settle()
        assert (budget.waiting, budget.used) == (1, 3)
        budget.limit = 1
        budget.release(1)
        budget.release(1)
        await _settle()
        assert (budget.waiting, budget.used) == (1, 1)
        budget.release(1)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert (budget.waiting, budget.used) == (0, 1)

    asyncio.run(go())


def test_of_several_budgets_the_smallest_decides_and_who_gives_up_leaves_nothing_behind():
    async def go():
        small, large = Budget(10), Budget(100)
        both = JointBudget(large, small)
        await both.acquire(8)
        assert (small.used, large.used) == (8, 8)
        waiting = asyncio.create_task(both.acquire(8))
        await _settle()
        assert (small.used, large.used) == (8, 16)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (small.used, large.used) == (8, 8)
        both.release(8)
        assert (small.used, large.used) == (0, 0)

    asyncio.run(go())
