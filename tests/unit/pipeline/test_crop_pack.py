"""Crops between processes: the same classes as without the way, and never more bytes than announced."""

import math
import pickle

import numpy as np
import pytest
import torch

from geosweep.models import CropModel
from geosweep.pipeline.crop_pack import CropPack
from tests.cropmodels import tiny


def crops(*shapes, kind=np.uint8):
    rng = np.random.default_rng(0)
    # As windows have them: band by band.
    return [(rng.random((b, h, w)) * 255).astype(kind).transpose(1, 2, 0) for h, w, b in shapes]


def mean_colour(pixels):
    return torch.from_numpy(pixels).float().mean((0, 1))[:, None, None].expand(3, 32, 32) / 255


def own():
    network = tiny().model
    return CropModel(2, model=network, resize=(32, 32), crop_transform=mean_colour)


SMALL = [(20, 33, 3), (1, 1, 3), (64, 64, 3)]
CASES = {
    "as they were cut": (tiny, crops(*SMALL), False),
    "floats": (tiny, crops((20, 13, 3), (4, 4, 3), kind=np.float32), False),
    "floats that take more than the input": (tiny, crops((64, 64, 3), kind=np.float32), True),
    "larger than tables go": (tiny, crops((65, 3, 3), (5, 5, 3)), True),
    "a transform of one's own": (own, crops(*SMALL), True),
    "none": (tiny, [], False),
}


@pytest.mark.parametrize("case", CASES)
def test_classes_are_those_of_the_crops(case):
    make, cuts, prepared = CASES[case]
    model = make()
    pack = CropPack.of(cuts, model)
    assert pack.prepared == prepared
    assert pack.nbytes == pack.pixels.nbytes <= len(cuts) * 4 * math.prod(model.input_shape)
    if not prepared:
        assert pack.nbytes == sum(cut.nbytes for cut in cuts)
    there = pickle.loads(pickle.dumps(pack))
    there.pixels.flags.writeable = False  # as the object store gives them
    np.testing.assert_array_equal(model.classify(there.crops()), model.classify(cuts))
