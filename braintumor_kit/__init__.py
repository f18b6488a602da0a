"""btkit: train, evaluate and explain brain-tumour MRI classifiers with Keras 3 over PyTorch.

Research software, not a medical device.

Importing this package imports nothing heavy: torch and keras come in with the first module that needs them.
"""

__version__ = "0.1.0"
