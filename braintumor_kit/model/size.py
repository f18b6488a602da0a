"""How much a model makes and computes of one picture, told from its shapes before anything of it is filled."""

import math
from collections.abc import Iterator

import keras
from keras import layers

UNSAID = 224
"""The side of pictures that a model which takes any is thought to get."""

MAX_ACTIVATION = 2**25
"""Numbers that one layer may make of one picture; a ResNet at 1,024 pixels makes half as many."""

MAX_ACTIVATIONS = 2**30
"""Those of all layers together; a ResNet-50 at 700 pixels makes half as many."""

MAX_PRODUCTS = 2**36
"""Multiplications of one layer; the largest of a ResNet-152 at 1,024 pixels has a tenth of them."""

MAX_STEPS = 4096
"""Steps of a recurrent layer."""

MAX_SCORES = 2**26
"""Of an attention layer: each place with each other."""

Shape = tuple[int | None, ...]


def operations_of(whole: keras.Operation) -> Iterator[keras.Operation]:
    """Every layer and operation inside of a model or layer, and inside of those."""
    if hasattr(whole, "operations"):
        inside = whole.operations
    else:  # Keras' wrappers may hold any layer
        inside = whole._flatten_layers(include_self=False, recursive=False) if isinstance(whole, keras.Layer) else ()
    for operation in inside:
        yield operation
        yield from operations_of(operation)


def fault_of_size(operation: keras.Operation) -> str | None:
    """What is too much about one layer; None where nothing is."""
    for given, made in _shapes(operation):
        said = f"layer '{operation.name}' of {given} to {made}"
        if numbers(made) > MAX_ACTIVATION:
            return f"{said} makes more than {MAX_ACTIVATION:,} numbers"
        if _products(operation, given, made) > MAX_PRODUCTS:
            return f"{said} takes more than {MAX_PRODUCTS:,} multiplications"
        if isinstance(operation, layers.RNN) and (given[1] or UNSAID) > MAX_STEPS:
            return f"{said} has more than {MAX_STEPS:,} steps"
        if (
            "attention" in type(operation).__module__
            and (math.prod(side or UNSAID for side in given[1:-1]) ** 2) > MAX_SCORES
        ):
            return f"{said} compares more than {MAX_SCORES:,} pairs"
    return None


def fault_of_all(model: keras.Model) -> str | None:
    """What is too much about all layers together; None where nothing is."""
    total = sum(numbers(made) for operation in operations_of(model) for _, made in _shapes(operation))
    return f"its layers make {total:,} numbers, more than {MAX_ACTIVATIONS:,}" if total > MAX_ACTIVATIONS else None


def numbers(shape: Shape) -> int:
    """Of one picture: the first side counts where it is said."""
    return (shape[0] or 1) * math.prod(side or UNSAID for side in shape[1:]) if shape else 1


def _shapes(operation: keras.Operation) -> Iterator[tuple[Shape, Shape]]:
    """What an operation takes and gives, each time that it is called."""
    for node in operation._inbound_nodes:
        given = tuple(node.input_tensors[0].shape) if node.input_tensors else ()
        for tensor in node.outputs:
            if tensor.shape is not None:
                yield given, tuple(tensor.shape)


def _products(operation: keras.Operation, given: Shape, made: Shape) -> int:
    """Multiplications, or additions of what pools."""
    weights = getattr(operation, "weights", ()) if isinstance(operation, keras.Layer) else ()
    kernel = max((math.prod(weight.shape) for weight in weights), default=0)
    places = math.prod(side or UNSAID for side in made[1:-1])
    pooled = getattr(operation, "pool_size", None)
    area = math.prod(pooled) if isinstance(pooled, tuple) else 0
    return max(kernel * places, area * numbers(made))
