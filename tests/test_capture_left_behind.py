"""Explaining leaves nothing behind, in a model, in torch or in Keras, also where the explainer or the model fails."""

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from network_forms import (
    SIDE,
    TARGETS,
    Subclassed,
    features,
    flat,
    frozen,
    gradcam,
    head,
    network_of,
    picture_input,
    pictures,
    wrapped,
)
from torch import nn

from braintumor_kit import explain
from braintumor_kit.contracts import InputError, PluginError

pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(model: keras.Model) -> dict[str, Any]:
    """Everything that looking might change."""
    for layer in model._flatten_layers():
        list(layer.parameters())  # Keras makes torch's record of them when it is first asked
    modules = [module for layer in model._flatten_layers() for module in layer.modules()]
    tensors = [*(weight.value for weight in model.weights), *(p for module in modules for p in module.parameters())]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": [[len(getattr(module, name)) for name in hooks] for module in modules],
        "global hooks": [len(getattr(nn.modules.module, f"_global{name}")) for name in hooks],
        "modes": [module.training for module in modules],
        "trainable": [layer.trainable for layer in model._flatten_layers()],
        "flags": [tensor.requires_grad for tensor in tensors],
        "grad": [tensor.grad is None or tensor.grad.tolist() for tensor in tensors],
        "strides": [tensor.stride() for tensor in tensors],
        "values": [tensor.tolist() for tensor in (*tensors, *(b for module in modules for b in module.buffers()))],
        "policies": [layer.dtype_policy.name for layer in model._flatten_layers()],
        "autograd": torch.is_grad_enabled(),
        "torch random": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy random": np.random.get_state()[1].tolist(),
        "keras": [keras.config.image_data_format(), keras.config.dtype_policy().name, keras.config.floatx()],
        "cudnn": [torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "torch": [torch.backends.cudnn.enabled, torch.get_default_dtype(), torch.get_num_threads()],
    }


class Fragile(layers.Layer):
    """Does nothing until it breaks."""

    broken = False

    def call(self, x: Any) -> Any:
        if self.broken:
            raise ArithmeticError("the model breaks")
        return x


class FragileModel(Subclassed):
    def __init__(self) -> None:
        super().__init__()
        self.fragile = Fragile()

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.pool(self.trunk(self.fragile(x), training=training)))


def fragile_graph() -> tuple[Any, keras.Model]:
    fragile, inputs = Fragile(), picture_input()
    return fragile, frozen(keras.Model(inputs, head(features(fragile(inputs)), "softmax")))


def fragile_subclassed() -> tuple[Any, keras.Model]:
    model = FragileModel()
    model(pictures(1))
    return model.fragile, model


FRAGILE = {"graph": fragile_graph, "subclassed": fragile_subclassed, "wrapped": wrapped}

FAILING = '''
from braintumor_kit.contracts import Explainer, NoOptions

class Failing(Explainer[NoOptions]):
    """Looks at everything, then fails."""
    api_version = 1
    Options = NoOptions
    def maps(self, model, images, targets):
        model.activations_and_gradients(images, targets)
        model.gradients(images, targets)
        raise KeyError("no such thing")
'''


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    (tmp_path / "explainers").mkdir()
    (tmp_path / "explainers" / "failing.py").write_text(FAILING)
    return tmp_path


METHODS: dict[str, dict[str, Any]] = {
    "gradcam": {}, "gradcampp": {}, "hirescam": {}, "layercam": {}, "eigencam": {}, "scorecam": {"channels": 2},
    "guided_gradcam": {}, "integrated_gradients": {"steps": 3}, "smoothgrad": {"samples": 2},
    "occlusion": {"patch": 0.5}, "rise": {"masks": 2},
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["flat", *FRAGILE])
def test_explaining_leaves_nothing_behind(form: str, training: bool) -> None:
    model = flat() if form == "flat" else FRAGILE[form]()[1]
    shape = (3, SIDE, SIDE) if form == "wrapped" else (SIDE, SIDE, 3)
    for module in (module for layer in model._flatten_layers() for module in layer.modules()):
        module.training = training
    for weight in model.trainable_weights[:1]:
        weight.value.grad = torch.ones_like(weight.value)  # the user's own, from a step half done
    before = state_of(model)
    images = pictures().reshape(3, *shape).numpy()
    for method, options in METHODS.items():
        refused = method == "guided_gradcam" and form != "flat"
        with pytest.raises(InputError, match="guided gradients") if refused else nullcontext():
            explain(model, images, method, precision="float32", **options)
        assert state_of(model) == before, method
    with torch.no_grad():
        explain(model, images)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("form", FRAGILE)
def test_an_explainer_that_fails_leaves_nothing_behind(form: str, failing: Path) -> None:
    model = FRAGILE[form]()[1]
    before = state_of(model)
    images = pictures().permute(0, 3, 1, 2) if form == "wrapped" else pictures()
    with pytest.raises(PluginError) as caught:
        explain(model, images.numpy(), "failing", plugins=[failing])
    path = failing / "explainers" / "failing.py"
    assert str(caught.value) == f"explainer 'failing' ({path}) failed while explaining: KeyError: 'no such thing'"
    assert state_of(model) == before


@pytest.mark.parametrize("form", FRAGILE)
def test_a_model_that_fails_leaves_nothing_behind(form: str) -> None:
    fragile, model = FRAGILE[form]()
    network = network_of(model, layer="conv" if form == "wrapped" else "last")
    before = state_of(model)
    fragile.broken = True
    images = pictures()
    for look in (network.activations, network.logits, lambda images: network.gradients(images, TARGETS)):
        with pytest.raises(ArithmeticError, match="the model breaks"):
            look(images)
        assert state_of(model) == before
    fragile.broken = False
    gradcam(network, images, TARGETS)
    fragile.broken = True
    with pytest.raises(ArithmeticError, match="the model breaks"):
        network.enlarge(torch.ones(3, *network.activations(images).shape[2:]), (SIDE, SIDE))
    assert state_of(model) == before
