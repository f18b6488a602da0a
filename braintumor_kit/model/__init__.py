"""The network: trunk, head, weights, fast layers, precision.

Importing this package puts Keras on torch, so every module below it can `import keras` at its top.
"""

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
