"""All images of a batch at once: the boxes that torchvision gives for each."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet, fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from geosweep.models import _together
from geosweep.models._netconfig import SingleShotConfig
from geosweep.models._singleshot import build_singleshot
from geosweep.models._together import Together, can_be_together
from geosweep.models.backends.dense import fused_for_cpu
from geosweep.models.detector import set_limits


def lively(network):
    """With logits and offsets that differ from place to place, as after a training."""
    network.eval()
    layers = [m for m in network.head.modules() if isinstance(m, nn.Conv2d)]
    for module in layers:
        nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    images, _ = network.transform(list(pictures(1)))
    outputs = network.head(list(network.backbone(images.tensors).values()))
    classes = outputs["cls_logits"].shape[2]
    anchors = network.anchor_generator.num_anchors_per_location()[0]
    for module in layers:
        if module.out_channels == anchors * classes:
            module.weight.data *= 1.5 / outputs["cls_logits"].std()
        elif module.out_channels == anchors * 4:
            module.weight.data *= 0.2 / outputs["bbox_regression"].std()
    return network


def torchvisions():
    """Scaled to other sizes than they come in, three classes."""
    torch.manual_seed(3)
    backbone = _resnet_fpn_extractor(resnet18(weights=None), 5, returned_layers=[3, 4])
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3)
    network = RetinaNet(backbone, 3, min_size=120, max_size=150, anchor_generator=anchors)
    return lively(network)


def ours():
    """At their own scale, two classes, layers fused."""
    torch.manual_seed(4)
    network = lively(build_singleshot(SingleShotConfig(num_classes=2)))
    fused = fused_for_cpu(network)
    assert fused is not network
    return fused


NETWORKS = {"torchvision's": torchvisions, "ours": ours}
LIMITS = {
    "all of it": ({"score": 0.6, "nms": 0.4}, range(30, 500)),
    "the best few": ({"score": 0.5, "nms": 0.9, "detections": 7}, [7]),
    "the sure ones": ({"score": 0.95, "nms": 0.4}, range(1, 100)),
    "nothing": ({"score": 1.0, "nms": 0.4}, [0]),
}
"""And how many detections of an image they leave."""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def pictures(number, high=72, wide=110):
    noise = torch.rand(number, 3, high // 4, wide // 4, generator=torch.Generator().manual_seed(5))
    return nn.functional.interpolate(noise, size=(high, wide), mode="bicubic").clamp(0, 1)


def assert_same(found, wanted):
    """Up to rounding, in which neighbours may change places."""
    assert len(found) == len(wanted["scores"])
    assert (np.diff(found.scores) <= 0).all()
    if not len(found):
        return
    cost = torch.cdist(torch.from_numpy(found.boxes), wanted["boxes"], p=torch.inf)
    cost += (torch.from_numpy(found.labels)[:, None] != wanted["labels"]).float()
    cost += (torch.from_numpy(found.scores)[:, None] - wanted["scores"]).abs()
    assert cost.min(1).values.max() < 1e-3
    assert len(cost.argmin(1).unique()) == len(found)


@pytest.mark.parametrize(("limits", "number"), LIMITS.values(), ids=LIMITS)
def test_a_batch_gives_what_its_images_give_one_by_one(network, limits, number):
    limited = set_limits(network, **limits)
    images = pictures(3)
    with torch.inference_mode():
        wanted, found = limited(list(images)), Together(limited)(images)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)
        assert len(one) in number
    if len(number) > 200:
        assert len(set(np.concatenate([each.labels for each in found]))) > 1


def test_images_that_are_too_many_for_one_nms(network, monkeypatch):
    limited = set_limits(network, score=0.6, nms=0.4)
    images = pictures(3)
    with torch.inference_mode():
        at_once = Together(limited)(images)
        monkeypatch.setattr(_together, "MOST_AT_ONCE", 10)
        by_image = Together(limited)(images)
    for one, other in zip(by_image, at_once, strict=True):
        assert len(one) > 20
        assert (one.boxes == other.boxes).all() and (one.labels == other.labels).all()


def test_sizes_may_change_from_batch_to_batch(network, monkeypatch):
    monkeypatch.setattr(_together, "SIZES", 2)
    limited = set_limits(network, score=0.9, nms=0.4)
    together = Together(limited)
    with torch.inference_mode():
        for side in (64, 80, 64, 136, 64):
            images = pictures(1, side, 100)
            assert_same(together(images)[0], limited(list(images))[0])
    assert len(together._anchors) == 2


class _Counted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(work, images):
    with torch.inference_mode(), _Counted() as counted:
        work(images)
    return counted.calls


def test_a_batch_takes_no_more_operations_than_an_image(network):
    """Which is what it is for; a GPU waits for each of them, and for those that need an answer most."""
    # Few boxes: with many, torchvision's NMS goes through the classes one by one on a CPU.
    limited = set_limits(network, score=0.95, nms=0.4)
    together = Together(limited)
    operations(together, pictures(1))  # anchors are made
    one, six = (operations(together, pictures(number)) for number in (1, 6))
    assert one == six
    for asks_the_device in ("aten.nonzero.default", "torchvision.nms.default"):
        assert six[asks_the_device] == 1
    theirs = operations(lambda images: limited(list(images)), pictures(6))
    assert theirs["aten.where.default"] >= 12  # which is its `nonzero`
    assert theirs.total() > 2.5 * six.total()


def test_other_networks_are_left_alone(network):
    assert can_be_together(network)
    two_stages = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    assert not can_be_together(two_stages)

    class Special(RetinaNet):
        pass

    special = torchvisions()
    special.__class__ = Special
    assert not can_be_together(special)
