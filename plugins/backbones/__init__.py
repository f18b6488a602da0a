"""Built-in backbones, one plugin a file."""

from braintumor_kit.contracts import use_torch_backend

use_torch_backend()  # runs before any of these modules imports Keras, in whatever order they import
