"""btkit: train, evaluate and explain brain-tumour MRI classifiers with Keras 3 over PyTorch.

Research software, not a medical device.

Importing this package imports nothing heavy: torch and keras come in with the first module that needs them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braintumor_kit.api import Explanation, explain

__version__ = "0.1.0"

__all__ = ["Explanation", "__version__", "explain"]


def __getattr__(name: str) -> Any:
    """Imports torch and Keras when one of the functions is asked for, and not before."""
    if name in ("explain", "Explanation"):
        from braintumor_kit import api

        return getattr(api, name)
    raise AttributeError(f"module 'braintumor_kit' has no attribute '{name}'")
