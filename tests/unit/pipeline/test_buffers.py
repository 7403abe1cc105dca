"""Memory is used again when nobody refers to it, and never before."""

import tracemalloc

import numpy as np
import pytest

from geosweep.pipeline._buffers import KEPT, LARGE, Buffers

SHAPE = (4, LARGE // 2000, 500)


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_taken_again_once_it_is_free():
    buffers = Buffers()
    first, second = (buffers.empty(SHAPE, np.float32) for _ in range(2))
    assert place(first) != place(second)
    was = place(first)
    del first
    third = buffers.empty((2, LARGE), np.uint8)
    assert (place(third), third.shape, third.dtype) == (was, (2, LARGE), np.uint8)
    assert third.flags.writeable and third.flags.c_contiguous
    del second, third
    larger = buffers.empty((5, *SHAPE), np.float32)
    larger[:] = 7  # all of it is there
    assert larger.min() == 7


@pytest.mark.parametrize("kind", ["view", "view of a view", "tensor", "other shape"])
def test_memory_that_somebody_sees_is_left_alone(kind):
    buffers = Buffers()
    array = buffers.empty(SHAPE, np.float32)
    array[:] = 1
    if kind == "tensor":
        import torch

        kept = torch.from_numpy(array)[1:]
    else:
        kept = {"view": array[1:], "view of a view": array[1:][:, 2:].T}.get(
            kind, array.reshape(-1)
        )
    del array
    others = [buffers.empty(SHAPE, np.float32) for _ in range(3)]
    for other in others:
        other[:] = 2
    assert kept.min() == kept.max() == 1


def test_few_buffers_wait():
    buffers = Buffers()
    tracemalloc.start()
    try:
        arrays = [buffers.empty((LARGE,), np.uint8) for _ in range(KEPT + 4)]
        del arrays
        assert KEPT <= tracemalloc.get_traced_memory()[0] / LARGE < KEPT + 1
    finally:
        tracemalloc.stop()


def test_arrays_may_outlive_what_made_them():
    array = Buffers().empty(SHAPE, np.float32)
    array[:] = 5
    assert array.min() == array.max() == 5
