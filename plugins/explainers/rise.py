"""RISE."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.contracts.explainers import Explainer, ModelView
from braintumor_kit.contracts.options import PluginOptions


class RiseOptions(PluginOptions):
    """The random masks."""

    masks: int = Field(500, ge=1, le=1_000_000, description="How many; each costs one pass an image.")
    cells: int = Field(7, ge=2, le=64, description="Cells of a mask along each side, before it is enlarged.")
    shown: float = Field(0.5, gt=0, lt=1, description="The chance that a cell is shown.")
    seed: int = Field(0, ge=0, description="Of the masks, which are the same for every image.")


class Rise(Explainer[RiseOptions]):
    """RISE: the probability averaged over random masks that show a pixel (Petsiuk et al. 2018, arXiv 1806.07421)."""

    api_version: ClassVar[int] = 1
    Options = RiseOptions

    def maps(self, model: ModelView, images: Tensor, targets: Tensor) -> Tensor:
        """1 / (E[M] N) times the sum over masks of p(image M) M (equation 6); for a contrast p is the difference."""
        random = torch.Generator().manual_seed(self.options.seed)
        total = torch.zeros_like(images[..., 0])
        for _ in range(self.options.masks):
            mask = self._mask(random, images.shape[1], images.shape[2]).to(images)
            p = (model.logits(images * mask[..., None]).softmax(dim=1) * targets).sum(dim=1)
            total += p[:, None, None] * mask
        return total / (self.options.shown * self.options.masks)

    def _mask(self, random: torch.Generator, height: int, width: int) -> Tensor:
        """A grid of cells, 1 with the chance `shown`, enlarged bilinearly and cut at a random offset (section 3.2)."""
        cells = self.options.cells
        grid = (torch.rand(cells + 1, cells + 1, generator=random) < self.options.shown).float()
        cell = (-(-height // cells), -(-width // cells))
        size = ((cells + 1) * cell[0], (cells + 1) * cell[1])
        large = F.interpolate(grid[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        top, left = (int(torch.randint(side, (1,), generator=random)) for side in cell)
        return large[top : top + height, left : left + width]
