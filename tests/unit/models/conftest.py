import numpy as np
import pytest
import torch

from geosweep.models import load_detector
from geosweep.models._annotations import deepforest_data, load_labelled

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def held_out():
    """The labelled tile that geosweep/tree was never trained on."""
    data = deepforest_data()
    name = "2019_YELL_2_541000_4977000_image_crop"
    return load_labelled(data / f"{name}.png", data / f"{name}.xml")


@pytest.fixture(scope="session")
def tree():
    return load_detector("geosweep/tree", device="cpu")


@pytest.fixture(scope="session")
def window(held_out):
    """A window of the held-out tile with trees in it, uint8 (3, 400, 400)."""
    return np.ascontiguousarray(held_out.pixels[:, 300:700, 400:800])
