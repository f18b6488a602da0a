"""Depthwise convolutions in bfloat16 whose gradients a processor computes at the speed of the convolution itself."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None, strides: Pair, padding: int | Pair) -> Tensor:
    """Each channel convolved by kernels of its own, as `torch.nn.functional.conv2d` with as many groups as channels.

    On a processor, torch 2.13 computes two gradients of such a convolution far slower in bfloat16 than in float32: that
    of the input of a strided one (32 pictures of 96 channels, 112 x 112, two cores: 92 ms beside 10), and that of
    kernels larger than 3 x 3 (16 beside 6). Those alone are computed in float32, from the same bfloat16 numbers.

    Args:
        x: (N, C, H, W).
        kernel: (C m, 1, height, width).
        bias: (C m,).
        strides: down and across.
        padding: before and after, the same on both sides of an axis.

    Returns:
        (N, C m, H', W'), of the dtype of `x`.
    """
    slow = x.dtype is torch.bfloat16 and x.device.type == "cpu"
    learns = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
    if slow and learns and (max(strides) > 1 or max(kernel.shape[2:]) > 3):
        y: Tensor = _Depthwise.apply(x, kernel, bias, strides, padding)
        return y
    return F.conv2d(x, kernel, bias, strides, padding, 1, x.shape[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, strides: Pair, padding: int | Pair) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.strides, ctx.padding = strides, padding
        return F.conv2d(x, kernel, bias, strides, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, kernel = ctx.saved_tensors
        (grad,) = grads
        strides, padding = ctx.strides, ctx.padding
        of_x = of_kernel = of_bias = None
        if ctx.needs_input_grad[0]:
            dtype = torch.float32 if max(strides) > 1 else x.dtype
            shape_alone = torch.empty_like(x, dtype=dtype)  # its numbers are not read
            of_x = _backward(grad.to(dtype), shape_alone, kernel.to(dtype), strides, padding)[0]
            of_x = of_x.to(x.dtype)
        if ctx.needs_input_grad[1]:
            dtype = torch.float32 if max(kernel.shape[2:]) > 3 else x.dtype
            of_kernel = _backward(grad.to(dtype), x.to(dtype), kernel.to(dtype), strides, padding, of_x=False)[1]
            of_kernel = of_kernel.to(kernel.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum(dim=(0, 2, 3), dtype=torch.float32).to(grad.dtype)
        return of_x, of_kernel, of_bias, None, None


def _backward(
    grad: Tensor, x: Tensor, kernel: Tensor, strides: Pair, padding: int | Pair, of_x: bool = True
) -> tuple[Tensor, Tensor]:
    """One of torch's own two gradients. `torch.nn.grad` calls the same, but forgets the order of numbers in memory."""
    pad = [padding, padding] if isinstance(padding, int) else list(padding)
    made: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, list(strides), pad, [1, 1], False, [0, 0], x.shape[1], [of_x, not of_x, False]
    )
    return made[0], made[1]
