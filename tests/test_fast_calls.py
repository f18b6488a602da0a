"""The fast path makes few calls, writes over what nobody else reads, and holds no more than it needs."""

import weakref
from typing import Any

import keras
import pytest
import torch
from btkit_plugins.backbones.resnet import ResNet
from fast_steps import Calls, batch, built, conv, normed
from keras import layers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from braintumor_kit.model.build import build_classifier
from braintumor_kit.model.fast import Program

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_step_of_a_resnet_makes_few_calls() -> None:
    """Counted, since a count does not depend on the machine; each call costs its start on a GPU, each copy of an
    activation its time in memory. ResNet-18: 20 convolutions with a normalisation each, 17 ReLUs, 8 sums, 5 paddings.
    """
    model = build_classifier(ResNet(ResNet.Options(depth=18, weights="none")), 4, 64).logits
    program, pictures = Program(model, torch.bfloat16), 255 * torch.rand(2, 64, 64, 3)
    for weight in model.weights:
        weight.value.grad = None
    with Calls() as forward:
        logits = program(pictures, training=True)
    with Calls() as backward:
        logits.sum().backward()

    assert forward.count["convolution"] == backward.count["convolution_backward"] == 20
    assert forward.count["native_batch_norm"] == backward.count["native_batch_norm_backward"] == 20
    assert forward.count["relu_"] == backward.count["threshold_backward"] == 17  # all in place
    assert forward.count["add_"] == 9  # 8 sums in place, and pixel scaling
    assert backward.count["add"] == 8  # where a shortcut's gradient joins
    # Paddings, pictures of zeros and copies to another order in memory have no place in a step: convolutions and the
    # pooling pad, kernels lie as torch reads them, and gradients of kernels as the kernels do.
    for name in ("constant_pad_nd", "relu", "clone", "copy_", "contiguous", "cat", "add"):
        assert not forward.count[name], name
    for name in ("constant_pad_nd", "clone", "copy_", "contiguous"):
        assert not backward.count[name], name
    # Changes of dtype: each kernel to bfloat16 and its gradient back; of activations only the scaled pictures and, on
    # the way back, what the global average (float32) hands to the last sum.
    kernels = {tuple(weight.shape[place] for place in (3, 2, 0, 1)) for weight in model.weights if weight.ndim == 4}
    for calls, odd in ((forward, (2, 3, 64, 64)), (backward, (2, 512, 2, 2))):
        shapes = calls.shapes["_to_copy"]
        assert len(shapes) == 21
        assert [shape for shape in shapes if shape not in kernels] == [odd]
    # A normalisation's moving averages cost 5 small calls, a kernel's views 2; in all 271 calls forward, and backward
    # 223, of which 79 are torch's own handles on what forward kept.
    assert forward.count.total() <= 275
    assert backward.count.total() <= 230


def test_inference_of_a_frozen_resnet_makes_fewer() -> None:
    model = build_classifier(ResNet(ResNet.Options(depth=18, weights="none")), 4, 64).model
    program, pictures = Program(model, torch.bfloat16, frozen=True), 255 * torch.rand(2, 64, 64, 3)
    with torch.no_grad(), Calls() as calls:
        program(pictures)
    assert calls.count["convolution"] == 20
    assert calls.count["relu_"] == 17
    assert calls.count["_to_copy"] == 1  # the scaled pictures: kernels are kept in bfloat16
    assert not [name for name in calls.count if "batch_norm" in name]
    # 20 convolutions, 17 ReLUs, 8 sums; 2 calls of pixel scaling, 1 of pooling, a handful for the head.
    assert calls.count.total() <= 60


@pytest.mark.parametrize("frozen", [False, True])
def test_rectifiers_write_over_what_nobody_else_reads(frozen: bool) -> None:
    model = built(
        lambda x: layers.ReLU()(
            layers.Add()([conv(activation="relu")(layers.ReLU(6.0)(conv()(x))), layers.Activation("relu")(normed(x))])
        ),
        (12, 12, 8),
    )
    with torch.no_grad(), Calls() as calls:
        Program(model, frozen=frozen)(*batch(model))
    found = {name: count for name, count in calls.count.items() if "relu" in name or "hardtanh" in name}
    assert found == {"relu_": 3, "hardtanh_": 1}


def test_inference_holds_what_is_still_needed_and_no_more() -> None:
    class Held(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.made: list[weakref.ref[Tensor]] = []
            self.most = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.most = max(self.most, sum(tensor() is not None for tensor in self.made))
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.made.append(weakref.ref(result))
            return result

    names = ["tanh", "sigmoid", "silu", "elu"] * 5
    model = built(
        lambda x: keras.Sequential([keras.Input((12, 12, 8)), *map(layers.Activation, names)])(x), (12, 12, 8)
    )
    with torch.no_grad(), Held() as held:
        Program(model)(*batch(model))
    assert len(held.made) >= 20
    assert held.most <= 3  # a view of the input, and what a call reads
