"""Re-batching: full batches, order kept, errors to those who asked, nobody left waiting."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosweep.catalog.errors import ModelError
from geosweep.pipeline.rebatch import Rebatcher


class Doubler:
    """Classifies x as (x, 2x); notes its batches, and fails on negative items."""

    def __init__(self):
        self.batches = []
        self.threads = set()

    def __call__(self, items):
        items = np.reshape(items, (-1, 1))
        self.batches.append(items[:, 0].tolist())
        self.threads.add(threading.current_thread().name)
        if (items < 0).any():
            raise ValueError("negative")
        return np.concatenate([items, 2 * items], axis=1)


def items(*values):
    return np.array(values, np.float32).reshape(-1, 1)


def submit_all(requests, size, doubler=None):
    doubler = doubler or Doubler()

    async def go():
        batches = Rebatcher(doubler, size)
        results = await asyncio.wait_for(
            asyncio.gather(*(batches.submit(r) for r in requests), return_exceptions=True), 20
        )
        return results, batches.fill

    results, fill = asyncio.run(go())
    return results, doubler.batches, fill


def assert_own_rows(requests, results):
    for request, rows in zip(requests, results, strict=True):
        assert rows.tolist() == [[x, 2 * x] for x in request[:, 0].tolist()]


def test_small_requests_go_out_together_in_full_batches():
    requests = [items(n, n + 100) for n in range(8)]
    results, batches, fill = submit_all(requests, 4)
    assert_own_rows(requests, results)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]
    assert fill == 1.0


def test_a_request_larger_than_a_batch_is_spread_and_comes_back_in_order():
    requests = [items(*range(11)), items(50, 51)]
    results, batches, _ = submit_all(requests, 4)
    assert_own_rows(requests, results)
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 50], [51]]


def test_what_does_not_fill_a_batch_goes_out_all_the_same():
    results, batches, fill = submit_all([items(7)], 64)
    assert results[0].tolist() == [[7, 14]]
    assert batches == [[7]]
    assert fill == 1 / 64


def test_no_items_give_no_rows_but_the_right_number_of_columns():
    results, _, fill = submit_all([np.zeros((0, 1), np.float32)], 4)
    assert results[0].shape == (0, 2)
    assert fill == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 6))
def test_everybody_gets_their_own_rows_whatever_the_sizes(lengths, size):
    start, requests = 0, []
    for length in lengths:
        requests.append(items(*range(start, start + length)))
        start += length
    results, batches, _ = submit_all(requests, size)
    assert_own_rows(requests, results)
    assert [x for batch in batches for x in batch] == list(range(start))
    assert all(len(batch) == size for batch in batches[:-1])


def test_an_error_goes_to_those_in_its_batch_only():
    requests = [items(1, 2), items(-3, 4), items(5, 6), items(7, 8)]
    results, _, _ = submit_all(requests, 4)
    assert [type(r) for r in results[:2]] == [ValueError, ValueError]
    assert_own_rows(requests[2:], results[2:])


def test_a_request_that_failed_in_part_is_given_up_and_later_ones_work():
    requests = [items(-1, *range(9)), items(20, 21), items(30)]
    results, batches, _ = submit_all(requests, 4)
    assert isinstance(results[0], ValueError)
    assert_own_rows(requests[1:], results[1:])
    assert batches == [[-1, 0, 1, 2], [20, 21, 30]]


def test_after_an_error_the_next_round_works():
    doubler = Doubler()

    async def go():
        batches = Rebatcher(doubler, 2)
        with pytest.raises(ValueError, match="negative"):
            await batches.submit(items(-1))
        return await asyncio.wait_for(batches.submit(items(1, 2, 3)), 10)

    assert asyncio.run(go()).tolist() == [[1, 2], [2, 4], [3, 6]]


def test_one_who_gave_up_waiting_does_not_upset_the_count():
    # The head of the queue is cancelled just as the batch before it fails.
    started, go_on = threading.Event(), threading.Event()

    def classify(batch):
        started.set()
        go_on.wait(10)
        return Doubler()(batch)

    async def go():
        batches = Rebatcher(classify, 2)
        bad = asyncio.create_task(batches.submit(items(-1, -2)))
        await asyncio.to_thread(started.wait, 10)
        impatient = asyncio.create_task(batches.submit(items(1, 2)))
        await asyncio.sleep(0)
        impatient.cancel()
        go_on.set()
        with pytest.raises(ValueError, match="negative"):
            await bad
        rows = await asyncio.wait_for(batches.submit(items(3)), 10)
        await asyncio.sleep(0.2)
        return rows, batches._waiting

    rows, waiting = asyncio.run(go())
    assert rows.tolist() == [[3, 6]]
    assert waiting == 0


def test_a_model_that_gives_too_few_rows_is_told_rather_than_waited_for():
    async def go():
        await asyncio.wait_for(Rebatcher(lambda x: x[:1], 4).submit(items(1, 2, 3)), 10)

    with pytest.raises(ModelError, match="gave 1 rows for 3 crops"):
        asyncio.run(go())


def test_one_thread_does_all_the_work():
    doubler = Doubler()
    submit_all([items(n) for n in range(20)], 3, doubler)
    assert len(doubler.threads) == 1
    assert threading.current_thread().name not in doubler.threads
