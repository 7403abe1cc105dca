"""The quick way from crops to a classifier's input, against torchvision's; crops in lists; engines."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import transforms

from geosweep.catalog.errors import ModelError
from geosweep.models import CropModel, load_crop_model
from geosweep.models._cropinput import CropInput
from geosweep.models._croptransform import standard_transform
from tests.cropmodels import tiny

CPU = torch.device("cpu")
# Of each other's rounding, where 1 is a standard deviation: 1/60,000 of a grey level of uint8.
CLOSE = {"atol": 2e-6, "rtol": 0}
sides = st.integers(1, 110)


def crop(height, width, bands=3, kind=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if kind == np.uint8:
        return rng.integers(0, 256, (height, width, bands), np.uint8)
    return rng.random((height, width, bands), np.float32)


def both(size, bands=3, interpolation="bilinear"):
    """The quick way and torchvision's."""
    mean, std = (0.485, 0.456, 0.406, 0.5)[:bands], (0.229, 0.224, 0.225, 0.25)[:bands]
    normalize = transforms.Normalize(mean, std)
    quick = CropInput(mean, std, normalize, size, interpolation)
    return quick, standard_transform(normalize, size, interpolation)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(sides, sides, st.sampled_from([1, 3, 4])),
    size=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    interpolation=st.sampled_from(["bilinear", "nearest"]),
    kind=st.sampled_from([np.uint8, np.float32]),
)
def test_inputs_are_torchvisions(shape, size, interpolation, kind):
    quick, usual = both(size, shape[2], interpolation)
    pixels = crop(*shape, kind)
    wanted = usual(pixels)
    torch.testing.assert_close(quick.of_one(pixels), wanted, **CLOSE)
    if quick.is_quick(pixels):
        others = [crop(31, 7, shape[2], np.uint8), crop(2, 40, shape[2], np.float32)]
        many = quick.of_many([others[0], pixels, others[1]], CPU)
        for found, one in zip(many, (others[0], pixels, others[1]), strict=True):
            torch.testing.assert_close(found, usual(one), atol=1e-5, rtol=0)


def test_order_in_a_batch_of_all_kinds():
    quick, usual = both((40, 40))
    cuts = [crop(200, 10), crop(9, 12, seed=1), crop(80, 80, seed=2), crop(5, 81, seed=3)]
    assert [quick.is_quick(one) for one in cuts] == [False, True, True, False]
    wanted = torch.stack([usual(one) for one in cuts])
    mixed = [cuts[0], cuts[1], wanted[2], cuts[3]]
    for crops in (cuts, mixed, cuts[1:3], cuts[:1]):
        start = 0 if len(crops) != 2 else 1
        for together in (True, False):
            found = quick.of_batch(crops, CPU, together=together)
            torch.testing.assert_close(found, wanted[start : start + len(crops)], atol=1e-5, rtol=0)


def model(**arguments):
    torch.manual_seed(0)
    return CropModel(
        label_dict={"a": 0, "b": 1}, model="resnet18", resize=(48, 48), **arguments
    ).eval()


def test_a_list_is_classified_as_what_is_prepared_of_it():
    classifier = model()
    crops = [crop(20, 33), crop(1, 1), crop(300, 20), crop(48, 48)]
    batch = classifier.prepare(crops)
    wanted = classifier.classify(batch)
    np.testing.assert_array_equal(classifier.classify(crops), wanted)
    mixed = [crops[0], torch.from_numpy(batch[1]), *crops[2:]]
    np.testing.assert_array_equal(classifier.classify(mixed), wanted)
    with pytest.raises(ModelError, match="uint16"):
        classifier.classify([crop(4, 4).astype(np.uint16)])


def test_ones_own_transform_prepares_lists_too():
    def mean_colour(pixels):
        assert pixels.flags.c_contiguous
        return torch.from_numpy(pixels).float().mean((0, 1))[:, None, None].expand(3, 48, 48) / 255

    classifier = model(crop_transform=mean_colour)
    crops = [crop(3, 20, 33).transpose(1, 2, 0), crop(10, 9, seed=1)]
    np.testing.assert_array_equal(
        classifier.classify(crops), classifier.classify(classifier.prepare(crops))
    )
    assert not classifier.is_light(crops)


def test_which_crops_are_light():
    classifier = model()
    assert classifier.is_light([crop(96, 96), crop(1, 1)])
    assert not classifier.is_light([crop(97, 2)])
    # Floats take four times as much, as many as the prepared crop at 48 × 48.
    assert classifier.is_light([crop(48, 48, kind=np.float32)])
    assert not classifier.is_light([crop(49, 48, kind=np.float32)])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_engines_give_torchs_classes(backend):
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    classifier = tiny()
    crops = [crop(20, 33, seed=i) for i in range(5)]
    wanted = classifier.classify(crops)
    fast = load_crop_model(classifier, device="cpu", threads=2, backend=backend)
    found = fast.classify(crops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(classifier.classify(crops), wanted)
    computed = []
    assert classifier.model is not None
    classifier.model.register_forward_hook(lambda *_: computed.append(1))
    np.testing.assert_array_equal(fast.classify(crops), found)
    assert computed == []
    classifier.classify(crops)
    assert len(computed) == 5


def test_half_precision():
    classifier = model()
    crops = [crop(20, 33, seed=i) for i in range(3)]
    half = load_crop_model(classifier, device="cpu", precision="bf16")
    found, wanted = half.classify(crops), classifier.classify(crops)
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert not np.array_equal(found, wanted)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "tensorflow"}, "choose one of torch"),
        ({"backend": "onnx", "precision": "bf16"}, "computes in fp32"),
        ({"precision": "fp16"}, "fp16 does not run on a CPU"),
        ({"precision": "int8"}, "precision 'int8' is unknown"),
    ],
)
def test_what_can_not_be_is_refused(settings, says):
    with pytest.raises(ModelError, match=says):
        load_crop_model(model(), device="cpu", **settings)
