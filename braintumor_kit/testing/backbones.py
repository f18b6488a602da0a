"""Checks of what a backbone promises."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braintumor_kit.contracts import Backbone, Trunk
from braintumor_kit.contracts import backbones as contract
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.model.build import LOGITS, Classifier, classifier_around, layer_faults
from braintumor_kit.model.fast import Program
from braintumor_kit.model.precision import keras_device
from braintumor_kit.testing.check import expect, holds_to, in_order
from braintumor_kit.testing.subject import CHANNELS, SEED, SIDE, BackboneSubject

import keras  # isort: skip  (after what puts it on torch)

SIZES = (96, 224, 225)
WITHIN = 16.0
"""What pixels come to before the first weights: caffe's scaling, 0..255 less a mean, is far outside."""

_CLASSES = 3
_SECONDS = 120.0
_OPENS = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""
"""Opens a model in a process where neither btkit nor the plugin has registered anything."""

_TOLERANCE = 1e-5
_FALLS = (1e-2, 1e-3, 1e-4)
"""By how much of itself the loss should fall with a step, to first order; the curvature may ask for a smaller one."""


@holds_to(contract, "has_example")
def builds(subject: BackboneSubject) -> None:
    for size in SIZES:
        for channels in (1, 3):
            with subject.made() as backbone, seeded(SEED):
                trunk = backbone.build(size, channels)
            saw = f"of {size} pixels and {channels} channels `build` gave"
            expect(isinstance(trunk, Trunk), f"{saw} {type(trunk).__name__}, no Trunk")
            taken, given = tuple(trunk.model.input_shape), tuple(trunk.model.output_shape)
            expect(taken == (None, size, size, channels), f"{saw} a trunk that takes {taken}")
            expect(len(given) == 4 and all(given[1:]), f"{saw} a trunk whose output is {given}")
            for name, values in (("scale", trunk.scale), ("offset", trunk.offset)):
                expect(len(values) in (1, channels), f"{saw} {len(values)} values of {name}")


@holds_to(contract, "builds")
def plain_layers(subject: BackboneSubject) -> None:
    faults = list(layer_faults(subject.trunk.model))
    expect(not faults, " ".join(faults))


@holds_to(contract, "builds")
def explained_layer_spatial(subject: BackboneSubject) -> None:
    trunk = subject.trunk
    expect(trunk.explain_layer in _names(trunk), f"the trunk has no layer '{trunk.explain_layer}'")
    shape = tuple(trunk.model.get_layer(trunk.explain_layer).output.shape)
    spatial = len(shape) == 4 and shape[1] > 1 and shape[2] > 1
    expect(spatial, f"of {SIDE} pixels the output of '{trunk.explain_layer}' is {shape}")


@holds_to(contract, "builds")
def stages_in_order(subject: BackboneSubject) -> None:
    names, stages = _names(subject.trunk), subject.trunk.stages
    missing = [layer for layer in stages.values() if layer not in names]
    expect(not missing, f"the trunk has no layer {', '.join(missing)}")
    places = [names.index(layer) for layer in stages.values()]
    expect(places == sorted(set(places)), f"the layers of {', '.join(stages)} stand at places {places} of the trunk")


def _names(trunk: Trunk) -> list[str]:
    return [layer.name for layer in trunk.model.layers]


@holds_to(contract, "builds")
def pixels_scaled(subject: BackboneSubject) -> None:
    trunk = subject.trunk
    leaves = [layer for layer in trunk.model._flatten_layers() if not isinstance(layer, keras.Model)]
    weighted = [layer for layer in leaves if layer.weights]
    expect(weighted, "the trunk has no layer with weights")
    first = weighted[0]
    taken: list[Tensor] = []
    hook = first.register_forward_pre_hook(lambda layer, inputs: taken.append(inputs[0]))
    try:
        _computed(trunk.model, _scaled(trunk, _pictures()))
    finally:
        hook.remove()
    reached = float(taken[0].abs().max())
    expect(reached <= WITHIN, f"before layer '{first.name}' pixels come to {reached:.1f}")


@holds_to(contract, "builds", "plain_layers", "explained_layer_spatial")
def survives_saving(subject: BackboneSubject) -> None:
    model, pictures = _classifier(subject).model, _pictures()
    with tempfile.TemporaryDirectory(prefix="btkit-example-") as folder:
        path, taken, given = (Path(folder) / name for name in ("model.keras", "pictures.npy", "probabilities.npy"))
        model.save(path)
        np.save(taken, pictures)
        command = [sys.executable, "-c", _OPENS, str(path), str(taken), str(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        expect(given.exists(), f"the file does not open where Keras alone is: {last}")
        again = np.load(given)
    difference = float(np.abs(_computed(model, pictures) - again).max())
    expect(difference <= _TOLERANCE, f"probabilities differ by {difference:.2g}")


@holds_to(contract, "builds", "plain_layers", "explained_layer_spatial")
def learns(subject: BackboneSubject) -> None:
    logits = _classifier(subject).logits
    layers = [layer for layer in logits.layers if layer.name != LOGITS]
    weights = [weight.value for layer in layers for weight in layer.trainable_weights]
    expect(weights, "no weight of the trunk can be trained")
    pictures, labels = torch.from_numpy(_pictures()).to(keras_device()), (torch.arange(4) % _CLASSES).to(keras_device())

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(logits([pictures], training=False), labels)

    start = loss()
    expect(start.requires_grad, "the loss does not depend on any weight of the trunk")
    gradients = torch.autograd.grad(start, weights, allow_unused=True)
    before = float(start.detach())
    steps = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)]
    size = float(sum(step.square().sum() for step in steps))
    expect(0 < size < float("inf"), f"the squared length of the gradient is {size}")
    after = min(_loss_after(loss, weights, steps, fall * before / size) for fall in _FALLS)
    expect(after < before, f"the loss was {before:.6g}, and {after:.6g} after a step")


def _loss_after(loss: Any, weights: list[Tensor], steps: list[Tensor], rate: float) -> float:
    """The loss at the end of a step, which is then taken back."""
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, step in zip(weights, steps, strict=True):
            weight -= rate * step
        end = float(loss())
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    return end


@holds_to(contract, "builds", "plain_layers", "explained_layer_spatial")
def stays_frozen(subject: BackboneSubject) -> None:
    model = _classifier(subject).model
    frozen = [layer for layer in model.layers if layer.name != LOGITS]
    for layer in frozen:
        layer.trainable = False
    before = {layer.name: layer.get_weights() for layer in frozen}
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with seeded(SEED):
        model.train_on_batch(_pictures(), np.arange(4) % _CLASSES)
    changed = [layer.name for layer in frozen if not _same(before[layer.name], layer.get_weights())]
    expect(not changed, f"a step of training changed the frozen layer(s) {', '.join(changed)}")


def _same(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@holds_to(contract, "builds", "plain_layers")
def ignores_data_format(subject: BackboneSubject) -> None:
    usual = subject.trunk.model
    with subject.made() as backbone, seeded(SEED), _odd_settings():
        odd = backbone.build(SIDE, CHANNELS).model
    settings = "when Keras' data format is channels_first and its dtype policy mixed_bfloat16,"
    faults = list(layer_faults(odd))
    expect(not faults, f"{settings} {' '.join(faults[:3])}")
    shapes = [tuple(model.output_shape) for model in (usual, odd)]
    expect(shapes[0] == shapes[1], f"{settings} features are {shapes[1]}, otherwise {shapes[0]}")
    odd.set_weights(usual.get_weights())
    scaled = _scaled(subject.trunk, _pictures())
    with torch.no_grad():
        apart = float((_forward(usual, scaled) - _forward(odd, scaled)).abs().max())
        size = float(_forward(usual, scaled).abs().max())
    expect(apart <= _TOLERANCE * max(size, 1.0), f"{settings} features differ by {apart:.2g}")


@contextmanager
def _odd_settings() -> Iterator[None]:
    before = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before[0])
        keras.config.set_dtype_policy(before[1])


@holds_to(contract, "builds")
def finite_in_bfloat16(subject: BackboneSubject) -> None:
    trunk = subject.trunk
    program = Program(trunk.model, torch.bfloat16, frozen=True)
    with torch.inference_mode():
        features = program(torch.from_numpy(_scaled(trunk, _pictures())).to(keras_device()))
    lost = int((~features.isfinite()).sum())
    expect(lost == 0, f"{lost} of {features.numel()} features are not finite")


# Shared


def _pictures() -> NDArray[np.float32]:
    """Four pictures, 0..255: noise, finer and coarser, and all of the range."""
    random = np.random.default_rng(SEED)
    grey = [np.kron(random.uniform(0, 255, (SIDE // cell,) * 2), np.ones((cell, cell))) for cell in (1, 2, 8, 16)]
    return np.repeat(np.stack(grey)[..., None], CHANNELS, axis=3).astype(np.float32)


def _scaled(trunk: Trunk, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    return (pictures * np.array(trunk.scale) + np.array(trunk.offset)).astype(np.float32)


def _computed(model: keras.Model, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return _forward(model, pictures).cpu().numpy()


def _forward(model: keras.Model, pictures: NDArray[np.float32]) -> Tensor:
    given: Tensor = model(pictures, training=False)
    return given.float()


def _classifier(subject: BackboneSubject) -> Classifier:
    """A classifier of its own, which a check may change."""
    with subject.made() as backbone, seeded(SEED):
        plugin: Backbone[Any] = backbone
        return classifier_around(plugin.build(SIDE, CHANNELS), _CLASSES, SIDE, CHANNELS)


CHECKS = in_order(contract, globals())
