"""timm's networks as backbones of btkit."""

from braintumor_kit.contracts import use_torch_backend

use_torch_backend()  # before the modules of this package import Keras
