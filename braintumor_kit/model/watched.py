"""Which layers of a network are looked at to tell whether a picture is like those it was trained on."""

import keras


def watched_layers(model: keras.Model) -> list[keras.KerasTensor]:
    """The last output of each spatial size, from the finest to the coarsest, pictures and their scaling aside; empty
    for models that have no flat graph of layers."""
    if not getattr(model, "inputs", None):
        return []
    last: dict[int, keras.KerasTensor] = {}
    for layer in model.layers:
        if isinstance(layer, (keras.layers.InputLayer, keras.layers.Rescaling, keras.Model)):
            continue
        output = getattr(layer, "output", None)
        if not isinstance(output, keras.KerasTensor) or len(output.shape) != 4:
            continue
        first = getattr(layer, "data_format", "channels_last") == "channels_first"
        size = output.shape[2]
        if size is None or first or size == 1:
            continue
        last[size] = output
    return [last[size] for size in sorted(last, reverse=True)]
