"""Fused layers: the same function up to rounding, whatever the network."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from geosweep.models import load_detector
from geosweep.models._architectures import ARCHITECTURES
from geosweep.models._backbones import build_backbone
from geosweep.models._fused import FusedConv, fuse
from geosweep.models._tilenet import TileNet
from geosweep.models.detector import TorchDetector


class Wrapped(nn.Module):
    """A backbone that returns a tuple."""

    def __init__(self, name):
        super().__init__()
        self.body = build_backbone(name, (8, 16, 32))

    def forward(self, images):
        return tuple(self.body(images).values())


def lively(network):
    """Batch norms as after a training, not as at its start."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return network.eval()


NETWORKS = ["efficientnet-lite0", "resnet18", "resnet50", "mobilenet-v3-large", "tile filter"]


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "layer by layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_is_the_same(name, onednn):
    torch.manual_seed(0)
    network = lively(TileNet(2) if name == "tile filter" else Wrapped(name))
    fused = fuse(network)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Conv2d) for m in fused.modules())
    if not onednn:
        fused = fused.plain()
    images = torch.rand(1, 3, 96, 128)
    before = images.clone()
    with torch.inference_mode():
        wanted, found = network(images), fused(images)
    wanted, found = (w if isinstance(w, tuple) else (w,) for w in (wanted, found))
    for one, other in zip(wanted, found, strict=True):
        scale = one.abs().max()
        torch.testing.assert_close(other / scale, one / scale, atol=1e-5, rtol=0)
    assert torch.equal(images, before)


def test_the_original_stays_as_it_is():
    network = lively(Wrapped("resnet18"))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    fuse(network, torch.bfloat16)
    after = network.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], value) for name, value in state.items())


class Reused(nn.Module):
    """Maps that are wanted again after an addition to them must not be overwritten."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        shared = self.first(x)
        added = self.second(shared) + shared
        return added, shared * 2


class Twice(nn.Module):
    """A layer that is called twice, once with an activation after it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.layer(torch.relu(self.layer(x)))


@pytest.mark.parametrize("make", [Reused, Twice])
def test_maps_and_layers_that_are_used_twice(make):
    torch.manual_seed(0)
    network = make().eval()
    images = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(fuse(network)(images), network(images), atol=1e-5, rtol=0)


def test_additions_and_activations_are_taken_over():
    """A residual block is its convolutions and nothing else."""
    graph = fuse(lively(Wrapped("resnet18"))).graph.graph
    kinds = [node.target for node in graph.nodes if node.op == "call_function"]
    assert kinds == []
    layers = [m for m in fuse(lively(Wrapped("resnet18"))).modules() if isinstance(m, FusedConv)]
    assert len(layers) == 20
    assert sum(layer.activation is not None for layer in layers) == 17


def test_a_network_of_torchvisions_as_a_detector(window):
    """With thresholds changed afterwards, too."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES["retinanet"]
    network = architecture.build(
        architecture.config(num_classes=2, min_size=128, max_size=256),
        score_threshold=0.0,
        nms_iou=0.5,
    ).eval()
    info = load_detector("geosweep/tree", device="cpu").info
    image = np.ascontiguousarray(window[:, :120, :160])
    with torch.inference_mode():
        (wanted,) = network([torch.from_numpy(image).float() / 255])
    detector = TorchDetector(network, info, device="cpu")
    found = detector.detect(image[None])[0]
    assert len(found) == len(wanted["scores"]) > 10
    np.testing.assert_allclose(found.scores, wanted["scores"], atol=1e-5)
    limit = float(np.median(found.scores))
    strict = detector.with_thresholds(limit, None).detect(image[None])[0]
    assert 0 < len(strict) < len(found)


class Choosy(nn.Module):
    """A backbone that looks at values, which can't be traced."""

    out_channels = 256

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 256, 8, stride=8)

    def forward(self, x):
        y = self.conv(x)
        return {"0": y if y.mean() > 0 else y * 2}


def test_a_backbone_that_can_not_be_traced_is_computed_as_it_is(window, caplog):
    anchors = AnchorGenerator(((32,),), ((1.0,),))
    network = RetinaNet(Choosy(), 2, min_size=64, max_size=64, anchor_generator=anchors).eval()
    info = load_detector("geosweep/tree", device="cpu").info
    with caplog.at_level("INFO", logger="geosweep"):
        detector = TorchDetector(network, info, device="cpu")
    assert "can't be fused" in caplog.text
    assert detector.network is network
    assert len(detector.detect(window[None])) == 1
