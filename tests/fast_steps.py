"""Steps of a model by Keras and on the fast path, what they are compared by, and torch's calls in them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from braintumor_kit.model.fast import Program

Built = Callable[[Any], Any]


def stir(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives normalisation layers statistics and weights that make a difference."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if any(name in weight.path for name in ("gamma", "variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif any(name in weight.path for name in ("beta", "mean", "bias")):
            weight.assign(random.normal(0, 0.2, weight.shape))
    return model


@dataclass(frozen=True)
class Step:
    """What one step gives.

    Attributes:
        outputs: of the model.
        gradients: of a weighted sum of the outputs, by path of the weight or "input" and its place.
        state: variables that are not trained, after the step.
    """

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def step(model: keras.Model, forward: Callable[..., Any], inputs: tuple[Tensor, ...], training: bool) -> Step:
    """One step, after which the model is as it was."""
    before = [variable.value.detach().clone() for variable in model.variables]
    torch.manual_seed(0)
    for variable in model.variables:
        variable.value.grad = None
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = keras.tree.flatten(forward(*leaves, training=training))
    draws = torch.Generator().manual_seed(3)
    sum((output.float() * torch.randn(output.shape, generator=draws)).sum() for output in outputs).backward()
    gradients = {variable.path: variable.value.grad for variable in model.trainable_variables}
    gradients |= {f"input {place}": leaf.grad for place, leaf in enumerate(leaves)}
    state = {variable.path: variable.value.detach().clone() for variable in model.non_trainable_variables}
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    present = {path: value.float() for path, value in gradients.items() if value is not None}
    return Step([output.detach() for output in outputs], present, state)


def by_keras(model: keras.Model) -> Callable[..., Any]:
    return lambda *inputs, training: model(list(inputs) if len(inputs) > 1 else inputs[0], training=training)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, least: float = 0.0) -> None:
    """Within `tolerance` of the largest entry, or `least` where that is more."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= max(tolerance * float(theirs.abs().max()), least)


def assert_same_steps(ours: Step, theirs: Step, tolerance: float) -> None:
    for mine, other in zip(ours.outputs, theirs.outputs, strict=True):
        assert_near(mine, other, tolerance)
    assert ours.state.keys() == theirs.state.keys()
    for path, value in theirs.state.items():
        assert_near(ours.state[path], value, tolerance)
    assert ours.gradients.keys() == theirs.gradients.keys()
    largest = max(float(value.abs().max()) for value in theirs.gradients.values())
    for path, value in theirs.gradients.items():  # some are zero but for rounding: a bias before a normalisation's
        assert_near(ours.gradients[path], value, tolerance, least=1e-5 * largest)


def assert_same_inference(model: keras.Model, inputs: tuple[Tensor, ...], tolerance: float) -> None:
    with torch.no_grad():
        expected = keras.tree.flatten(by_keras(model)(*inputs, training=False))
        for frozen in (False, True):
            ours = keras.tree.flatten(Program(model, frozen=frozen)(*inputs))
            for mine, other in zip(ours, expected, strict=True):
                assert_near(mine, other, tolerance)


def built(build: Built, shape: tuple[int, ...]) -> keras.Model:
    """The model that `build` makes of an input."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(shape)
    return stir(keras.Model(inputs, build(inputs)))


def batch(model: keras.Model, count: int = 4) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(1)
    return tuple(torch.randn(count, *value.shape[1:], generator=draws) for value in model.inputs)


def conv(filters: int = 8, size: int = 3, **options: Any) -> layers.Layer:
    return layers.Conv2D(filters, size, **{"padding": "same", **options})


def normed(x: Any, axis: int = -1, **options: Any) -> Any:
    return layers.BatchNormalization(axis=axis, momentum=0.8)(conv(**options)(x))


def gate(x: Any) -> Any:
    """Squeeze and excite."""
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, conv(8, 1, activation="sigmoid")(conv(4, 1, activation="silu")(squeezed))])


class Calls(TorchDispatchMode):
    """Counts torch's calls by name, such as "convolution", and notes the shapes of what each is given first."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().split("::")[1].split(".")[0]
        self.count[name] += 1
        if args and isinstance(args[0], Tensor):
            self.shapes.setdefault(name, []).append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))
