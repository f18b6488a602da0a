"""Depthwise convolutions in bfloat16: torch's numbers, and gradients as near as rounding lets them be."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from braintumor_kit.model.fast.depthwise import depthwise

pytestmark = pytest.mark.usefixtures("one_thread")

FORMS = [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2), (5, 2, 0), (3, 3, 1)]


def drawn(kernel: int, multiplier: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(4, 6, 19, 23, generator=generator).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(6 * multiplier, 1, kernel, kernel, generator=generator)
    return x, weights, torch.randn(6 * multiplier, generator=generator)


def with_gradients(function, x: Tensor, weights: Tensor, bias: Tensor, dtype: torch.dtype) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The result, and the gradients of a sum that weighs its numbers unlike, of bfloat16's numbers in `dtype`."""
    leaves = [value.bfloat16().to(dtype).requires_grad_() for value in (x, weights, bias)]
    y = function(*leaves)
    direction = torch.linspace(-1, 1, y.numel()).reshape(y.shape).bfloat16().to(dtype)
    return [y.detach(), *torch.autograd.grad((y * direction).sum(), leaves)]


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding"), FORMS)
def test_results_and_gradients_are_those_of_double_precision(
    kernel: int, stride: int, padding: int, multiplier: int
) -> None:
    drawn_values = drawn(kernel, multiplier)

    def ours(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        return depthwise(x, weights, bias, (stride, stride), (padding, padding))

    def exact(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weights, bias, stride, padding, 1, 6)

    made = with_gradients(ours, *drawn_values, torch.bfloat16)
    wanted = with_gradients(exact, *drawn_values, torch.float64)
    for mine, right in zip(made, wanted, strict=True):
        assert mine.dtype is torch.bfloat16
        assert float((mine.double() - right).abs().max()) <= 2**-6 * float(right.abs().max())


def test_float32_is_torchs_own() -> None:
    values = drawn(5)
    ours = with_gradients(lambda x, w, b: depthwise(x, w, b, (2, 2), 2), *values, torch.float32)
    theirs = with_gradients(lambda x, w, b: F.conv2d(x, w, b, 2, 2, 1, 6), *values, torch.float32)
    for mine, right in zip(ours, theirs, strict=True):
        assert torch.equal(mine, right)


def test_what_needs_no_gradient_gets_none() -> None:
    x, weights, _ = (value.bfloat16() for value in drawn(5))
    fixed = depthwise(x.requires_grad_(), weights, None, (2, 2), 2)
    (of_x,) = torch.autograd.grad(fixed.float().sum(), x)
    assert of_x.shape == x.shape
    assert fixed.dtype is torch.bfloat16
    assert not depthwise(x.detach(), weights, None, (2, 2), 2).requires_grad


def test_the_memory_stays_channels_last() -> None:
    x, weights, _ = (value.bfloat16() for value in drawn(5))
    y = depthwise(x.requires_grad_(), weights.requires_grad_(), None, (2, 2), 2)
    (of_x,) = torch.autograd.grad(y.float().sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert of_x.is_contiguous(memory_format=torch.channels_last)
