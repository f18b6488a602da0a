"""Explanations: what a method sees of a model, the maps it makes, and how right they are.

Importing this package puts Keras on torch.
"""

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
