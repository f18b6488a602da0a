"""Functional models, flat or nested, as torch calls: the trunk without gradients, only what follows with them."""

from functools import cached_property

import keras
import torch
from torch import Tensor

from braintumor_kit.errors import InputError
from braintumor_kit.explanation.layers import (
    affine_beginning,
    divided_at,
    ends_in_dense,
    explained_value,
    other_activations,
    rectifiers_apart,
    up_to_scores,
)
from braintumor_kit.explanation.network import Layout, Network, batches, log_probabilities, no_scores, two_classes
from braintumor_kit.explanation.receptive_field import Cells, Tracing
from braintumor_kit.model.fast import Graph, Program

PATHS = 16
"""Images whose paths are held at once: what is linear in them is many times as large as they are."""


class GraphNetwork(Network):
    """A functional (or sequential) model.

    Normalisation is folded into convolutions, which run in `dtype`. What the weights are later is not seen.

    Args:
        graph: `graph_of(model)`.
        dtype: of convolutions.
        layer: name of the layer to explain, None to find it.

    Raises:
        InputError: where it has several inputs or outputs, gives no class scores, or has no such layer.
    """

    def __init__(
        self, model: keras.Model, graph: Graph, layout: Layout, dtype: torch.dtype, layer: str | None = None
    ) -> None:
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise InputError(f"model '{model.name}' must have one input and one output to be explained.")
        if len(model.output_shape) != 2:
            raise InputError(no_scores(model))
        super().__init__(layout, max(2, int(model.output_shape[-1])))
        self._graph, self._dtype, self._asked = up_to_scores(graph), dtype, layer
        if layer is not None:
            explained_value(self._graph, layer)
        if self._graph is graph and not ends_in_dense(graph) and self._gives_probabilities():
            self.score = "log-probability"

    def _gives_probabilities(self) -> bool:
        """Whether a model that does not end in a softmax as far as one can see gives probabilities all the same."""
        beginning, rest = self._programs
        random = torch.rand(2, *self.layout.side, self.layout.channels, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            given = rest(beginning(self._pictures(255 * random.to(self.device)))).float()
        return bool((given >= 0).all()) and torch.allclose(
            given.sum(dim=1), torch.ones(2, device=given.device), atol=1e-2
        )

    def _as_scores(self, given: Tensor) -> Tensor:
        return log_probabilities(given) if self.score == "log-probability" else two_classes(given)

    @property
    def layer(self) -> str:
        return self._explained[0]

    def _scores(self, pictures: Tensor) -> Tensor:
        beginning, rest = self._programs
        return self._as_scores(rest(beginning(pictures)))

    def _guided_scores(self, pictures: Tensor) -> Tensor:
        return self._as_scores(self._guided(pictures))

    def _capture(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        trunk, head, place = self._around_layer
        with torch.no_grad():
            values = trunk(pictures)
        values = list(values) if isinstance(values, tuple) else [values]
        activations = self._channels_first(values[place]).float().requires_grad_()
        values[place] = self._model_layout(activations)
        return activations, self._as_scores(head(*values))

    def _trace(self, pictures: Tensor, rows: int, columns: int) -> Cells | None:
        trunk, _, place = self._around_layer
        with Tracing(pictures, rows, columns) as tracing:
            values = trunk(pictures)
        return tracing.cells(values[place] if isinstance(values, tuple) else values)

    def path_gradients(
        self, starts: Tensor, ends: Tensor, targets: Tensor, nodes: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As for all networks, with what is linear in the picture done once an image and not once a node.

        Up to the first ReLU the network is affine, z = L x + c. Along the path z runs straight from z(start) to
        z(end), and the mean of dy/dx is L^T times the mean of dy/dz.
        """
        if len(starts) > PATHS:
            groups = zip(starts.split(PATHS), ends.split(PATHS), targets.split(PATHS), strict=True)
            found = [self.path_gradients(a, b, wanted, nodes, weights) for a, b, wanted in groups]
            gradients, at_starts, at_ends = (torch.cat(of) for of in zip(*found, strict=True))
            return gradients, at_starts, at_ends
        beginning, exact_rest = self._exact_programs
        _, rest = self._programs
        with torch.no_grad():
            z0, z1 = beginning(self._pictures(starts)), beginning(self._pictures(ends))
            y0, y1 = ((self._as_scores(exact_rest(z)) * targets).sum(dim=1) for z in (z0, z1))
        total = torch.zeros_like(z0)
        for parts in batches(len(starts), len(nodes), self.batch_size):
            rows = [torch.lerp(z0[i : i + 1], z1[i : i + 1], _column(nodes[at], z0)) for i, at in parts]
            # In float32, the first ReLU too: steps of a path are so small that rounding them to bfloat16 shows.
            between = torch.cat(rows).requires_grad_()
            wanted = torch.cat([targets[i] * weights[at].to(targets)[:, None] for i, at in parts])
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad((self._as_scores(rest(between)) * wanted).sum(), between)
            for (i, _), some in zip(parts, gradient.split([len(some) for some in rows]), strict=True):
                total[i] += some.sum(dim=0)
        with torch.enable_grad():
            leaf = ends.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(beginning(self._pictures(leaf)), leaf, total)
        return gradient, y0, y1

    # Programs, made when they are first needed

    @cached_property
    def _explained(self) -> tuple[str, int]:
        return explained_value(self._graph, self._asked)

    @cached_property
    def _divided(self) -> tuple[Graph, Graph]:
        return self._graph.divided(affine_beginning(self._graph))

    @cached_property
    def _programs(self) -> tuple[Program, Program]:
        """The affine beginning and the rest."""
        beginning, rest = self._divided
        return Program(beginning, self._dtype, frozen=True), Program(rest, self._dtype, frozen=True)

    @cached_property
    def _exact_programs(self) -> tuple[Program, Program]:
        """The same in float32."""
        beginning, rest = self._divided
        if self._dtype == torch.float32:
            return self._programs
        return Program(beginning, frozen=True), Program(rest, frozen=True)

    @cached_property
    def _guided(self) -> Program:
        others = list(other_activations(self._graph))
        if others:
            raise InputError(
                f"guided gradients are defined for networks of ReLUs; layer '{others[0]}' is another activation or "
                "cannot be looked into. smoothgrad and integrated_gradients take any network."
            )
        return Program(rectifiers_apart(self._graph), self._dtype, frozen=True, rectifier=GuidedReLU.apply)

    @cached_property
    def _around_layer(self) -> tuple[Program, Program, int]:
        """Up to the explained layer, after it, and its place among what the first gives the second."""
        value = self._explained[1]
        first, rest = divided_at(self._graph, value)
        trunk, head = (Program(graph, self._dtype, frozen=True) for graph in (first, rest))
        return trunk, head, first.outputs.index(value)

    def _channels_first(self, value: Tensor) -> Tensor:
        return value if self._graph.channels_first else value.permute(0, 3, 1, 2)

    def _model_layout(self, value: Tensor) -> Tensor:
        return value if self._graph.channels_first else value.permute(0, 2, 3, 1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (K,) as a tensor (K, 1, 1, 1) of the rank, dtype and device of another."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


class GuidedReLU(torch.autograd.Function):
    """ReLU that passes backwards only what is positive, where its input was positive too (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        y = x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient.relu() * (y > 0)
