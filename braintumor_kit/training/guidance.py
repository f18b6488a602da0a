"""Tumour masks as a teacher: what speaks for a slice's class shall speak from where the tumour is."""

import torch
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.training.batches import Batches

GRID = 56
"""Masks are kept as so many by so many cells, each the share of it that the tumour covers, in 255ths."""

_LEAST = 1e-6
"""Of a cell's cover; keeps the logarithm finite where all evidence lies off the tumour."""


class Guidance:
    """A second term of the loss for slices whose tumour mask is known; it asks nothing of other slices.

    The class activation map of a slice's own class, c_i = sum_k w_k a_ik over the cells i of the last layer (Zhou et
    al. 2016, equation 2), is what each cell adds to that class's score. Its softmax over the cells says where the
    evidence lies. The term is -log sum_i softmax(c)_i m_i, where m_i is how much of what the cell stands for in the
    picture is tumour, over the largest of these: 0 where all evidence lies in the cell that is most of all tumour.
    Weights of the network are all that is taught, and the saved model has none more for it.

    Args:
        masks: uint8 (n, GRID, GRID), of the slices that train, in their order; all 0 where there is none.
        down, across: how much each row and column of the picture counts to each row and column of cells, (S, h) and
            (S, w).
        weight: of the term in the loss.
    """

    def __init__(self, masks: Tensor, down: Tensor, across: Tensor, weight: float) -> None:
        self._masks, self._down, self._across = masks, down, across
        self.weight = weight

    def masks(self, train: Batches, step: int) -> Tensor:
        """Those of a step's slices at the picture's size, (n, 1, S, S) in 0..1."""
        rows = train.rows(step).to(self._masks.device)
        size = (len(self._down), len(self._across))
        return F.interpolate(self._masks[rows, None].float() / 255, size, mode="bilinear", align_corners=False)

    def term(self, activations: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
        """The term, its weight included: the mean over all slices, those without a mask counted as 0.

        Args:
            activations: of the last layer, (n, h, w, C).
            masks: (n, 1, S, S), moved as the slices were.
            weights: of each slice's own class, (n, C).
        """
        of_picture = self._down.sum(0)[:, None] * self._across.sum(0)  # 0 of cells that lie outside of it
        cover = self._down.T @ masks[:, 0] @ self._across / of_picture.clamp_min(_LEAST)
        most = cover.amax(dim=(1, 2), keepdim=True)
        known = most[:, 0, 0] > 0.01  # a mask may have been moved out of the picture
        cover = (cover / most.clamp_min(_LEAST)).clamp_min(_LEAST)
        evidence = torch.einsum("nhwc,nc->nhw", activations.float(), weights).flatten(1)
        found = torch.logsumexp(evidence.log_softmax(dim=1) + cover.flatten(1).log(), dim=1)
        return -self.weight * torch.where(known, found, 0.0).mean()
