"""Keras' `compile` and `fit` on the torch backend, every random draw a function of (seed, epoch, step)."""

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
