"""Integrated Gradients."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from braintumor_kit.contracts.baselines import Baseline, baseline_of
from braintumor_kit.contracts.explainers import Explainer, Maps, ModelView
from braintumor_kit.contracts.options import PluginOptions


class IntegratedGradientsOptions(PluginOptions):
    """The path and how the integral along it is worked out."""

    steps: int = Field(50, ge=2, le=100_000, description="Points on the path at which gradients are taken.")
    rule: Literal["gauss_legendre", "trapezoid"] = Field(
        "gauss_legendre", description="Quadrature; Gauss-Legendre is the more exact for as many steps."
    )
    baseline: Baseline = Field(
        "black",
        description="Where the path begins, in pixels: black (black pixels then get no relevance at all), the image's "
        "mean, or the image blurred.",
    )


class IntegratedGradients(Explainer[IntegratedGradientsOptions]):
    """Integrated Gradients: what each pixel adds to the score on the way from a baseline.

    Sundararajan et al. 2017, arXiv 1703.01365.
    """

    api_version: ClassVar[int] = 1
    Options = IntegratedGradientsOptions
    signed: ClassVar[bool] = True

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Maps:
        """(x - b) times the mean gradient on the path from b to x, summed over channels (equation 1).

        The sum over all pixels is F(x) - F(b); how far it is from that is the completeness difference.
        """
        baselines = baseline_of(images, self.options.baseline)
        nodes, weights = quadrature(self.options.rule, self.options.steps)
        gradient, at_baseline, at_image = model.path_gradients(baselines, images, targets, nodes, weights)
        values = ((images - baselines) * gradient).sum(dim=3)
        change = at_image - at_baseline
        missing = values.sum(dim=(1, 2)) - change
        return Maps(values, missing.abs() / change.abs().clamp_min(1e-12))


def quadrature(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes in 0..1 and weights that sum to 1, (steps,) each."""
    if rule == "trapezoid":
        nodes, weights = np.linspace(0, 1, steps), np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)  # on -1..1, weights sum to 2
        nodes, weights = (nodes + 1) / 2, weights / 2
    return torch.as_tensor(nodes), torch.as_tensor(weights)
