"""Models of any form, as Keras runs them: subclassed ones, and torch modules in Keras' wrapper.

The layer is looked at through torch's forward hooks, which fire for Keras layers and torch modules alike. They live as
long as one pass does, whatever happens in it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import torch
from torch import Tensor

from braintumor_kit.errors import InputError
from braintumor_kit.explanation.layers import missing_layer
from braintumor_kit.explanation.network import Layout, Network, log_probabilities, no_scores, two_classes
from braintumor_kit.explanation.receptive_field import Cells, Tracing


@dataclass(frozen=True)
class Part:
    """A layer or torch module inside a model.

    Attributes:
        module: itself.
        channels_first: layout of what it gives.
    """

    module: torch.nn.Module
    channels_first: bool

    def gives_maps(self, output: Tensor) -> bool:
        """Whether what it gave has rows and columns of more than one pixel."""
        rows_and_columns = output.shape[2:4] if self.channels_first else output.shape[1:3]
        return output.ndim == 4 and all(size > 1 for size in rows_and_columns)


@dataclass(frozen=True)
class Survey:
    """What one pass showed.

    Attributes:
        spatial: names of parts that give maps of more than one pixel, in the order in which they were called.
        softmax: the part whose output is the model's probabilities, None where there is none.
        probabilities: whether what the model gives are probabilities.
        classes: how many outputs it has.
    """

    spatial: tuple[str, ...]
    softmax: torch.nn.Module | None
    probabilities: bool
    classes: int


class HookedNetwork(Network):
    """A model of any form.

    Args:
        layer: name of a Keras layer, or of a torch module as torch names it ("layer4.1"); None to find it.

    Raises:
        InputError: where there is no such layer.
    """

    def __init__(self, model: keras.Model, layout: Layout, layer: str | None = None) -> None:
        self._model, self._asked = model, layer
        self._parts = dict(_parts(model, layout.channels_first))
        super().__init__(layout, 0)
        self.classes = max(2, self._survey.classes)
        if self._survey.probabilities and self._logits_of is None:
            self.score = "log-probability"
        if layer is not None:
            self.layer  # noqa: B018  an unknown one is told now

    @cached_property
    def layer(self) -> str:
        """Name of the explained layer."""
        spatial = self._survey.spatial
        if self._asked is not None and self._asked not in spatial:
            raise InputError(missing_layer(self._asked, list(spatial), self._asked in self._parts))
        if not spatial:
            raise InputError(
                "the model has no layer with rows and columns, which this method looks at; methods on pixels need "
                "none (integrated_gradients, smoothgrad, occlusion, rise)."
            )
        return self._asked or spatial[-1]

    def _scores(self, pictures: Tensor) -> Tensor:
        with _modes_kept(self._model), ExitStack() as hooks:
            return self._run(pictures, hooks)

    def _guided_scores(self, pictures: Tensor) -> Tensor:
        raise InputError("guided gradients need a functional Keras model; this one is subclassed or wraps torch.")

    def _capture(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        part = self._parts[self.layer]
        found: list[Tensor] = []

        def cut(module: Any, arguments: Any, output: Tensor) -> Tensor:
            """From here on with gradients, of a leaf; what comes later may write over the copy that it gets."""
            value = output.detach().float()
            found[:] = [(value if part.channels_first else value.permute(0, 3, 1, 2)).contiguous().requires_grad_()]
            torch.set_grad_enabled(True)  # until the end of the pass
            leaf = found[0] if part.channels_first else found[0].permute(0, 2, 3, 1)
            return leaf.to(output.dtype, copy=True)

        with _modes_kept(self._model), ExitStack() as hooks, torch.no_grad():
            hooks.callback(part.module.register_forward_hook(cut).remove)
            scores = self._run(pictures, hooks)
        return found[0], scores

    def _trace(self, pictures: Tensor, rows: int, columns: int) -> Cells | None:
        found: list[Tensor] = []
        part = self._parts[self.layer].module
        with _modes_kept(self._model), ExitStack() as hooks, Tracing(pictures, rows, columns) as tracing:
            hooks.callback(part.register_forward_hook(lambda *given: found.append(given[2])).remove)
            self._model(pictures, training=False)
        return tracing.cells(found[-1])

    def _run(self, pictures: Tensor, hooks: ExitStack) -> Tensor:
        """One pass; gives scores, those before the softmax where the model ends in one."""
        seen: list[Tensor] = []
        survey, logits_of = self._survey, self._logits_of
        if survey.softmax is not None and logits_of is not None:

            def look(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
                seen[:] = [logits_of(arguments[0])]

            hooks.callback(survey.softmax.register_forward_hook(look).remove)
        output = self._model(pictures, training=False)
        if seen:
            return two_classes(seen[0])
        return log_probabilities(output) if survey.probabilities else two_classes(output)

    @cached_property
    def _logits_of(self) -> Callable[[Tensor], Tensor] | None:
        """From what the last layer takes to its scores before the softmax."""
        layer = self._survey.softmax
        if layer is None:
            return None
        if isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.kernel.value, layer.bias.value if layer.use_bias else 0.0
            return lambda x: x.to(kernel.dtype) @ kernel + bias
        return lambda x: x

    @cached_property
    def _survey(self) -> Survey:
        """What the layers give for one black picture."""
        spatial: dict[str, None] = {}
        squashed: list[tuple[torch.nn.Module, Tensor]] = []

        def watch(name: str, part: Part) -> Callable[..., None]:
            def look(module: Any, arguments: Any, output: Any) -> None:
                if isinstance(output, Tensor) and part.gives_maps(output):
                    spatial.pop(name, None)
                    spatial[name] = None
                if isinstance(output, Tensor) and _squashes(part.module):
                    squashed.append((part.module, output))

            return look

        with _modes_kept(self._model), ExitStack() as hooks, torch.no_grad():
            for name, part in self._parts.items():
                hooks.callback(part.module.register_forward_hook(watch(name, part)).remove)
            output = self._model(self._black(), training=False)
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise InputError(no_scores(self._model))
        softmax = next((part for part, made in reversed(squashed) if torch.equal(made, output)), None)
        sums_to_one = bool((output >= 0).all()) and abs(float(output.sum()) - 1) < 1e-5
        probabilities = softmax is not None or sums_to_one
        return Survey(tuple(spatial), softmax, probabilities, output.shape[1])


def _parts(model: keras.Model, channels_first: bool) -> Iterator[tuple[str, Part]]:
    """Every layer by name, and the torch modules that a wrapper holds as torch names them."""
    for layer in model._flatten_layers(include_self=False):
        wraps = isinstance(layer, keras.layers.TorchModuleWrapper)
        own = getattr(layer, "data_format", None)
        yield layer.name, Part(layer, wraps or (own == "channels_first" if own else channels_first))
        if wraps:
            yield from ((name, Part(module, True)) for name, module in layer.module.named_modules() if name)


def _squashes(module: torch.nn.Module) -> bool:
    """Whether a layer ends in a softmax or sigmoid before which its scores can be had."""
    squashing = (keras.activations.softmax, keras.activations.sigmoid)
    if isinstance(module, keras.layers.Dense | keras.layers.Activation):
        return module.activation in squashing
    return isinstance(module, keras.layers.Softmax | torch.nn.Softmax | torch.nn.Sigmoid)


@contextmanager
def _modes_kept(model: keras.Model) -> Iterator[None]:
    """Whether each torch module inside trains or evaluates, put back as it was: Keras' wrapper switches it."""
    modules = [
        module
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.TorchModuleWrapper)
        for module in layer.modules()
    ]
    before = [module.training for module in modules]
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
