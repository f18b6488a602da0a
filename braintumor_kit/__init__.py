"""btkit: train, evaluate and explain brain-tumour MRI classifiers with Keras 3 over PyTorch.

Research software, not a medical device.

Importing this package imports nothing heavy: torch and keras come in with the first module that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braintumor_kit.api.explaining import Explanation, explain
    from braintumor_kit.api.models import Model, Predictions, load
    from braintumor_kit.api.running import Result, run
    from braintumor_kit.estimator.classifier import BrainTumorClassifier

__version__ = "0.1.0"

__all__ = [
    "BrainTumorClassifier",
    "Explanation",
    "Model",
    "Predictions",
    "Result",
    "__version__",
    "explain",
    "load",
    "run",
]

_PLACES = {
    "BrainTumorClassifier": "braintumor_kit.estimator.classifier",
    "Explanation": "braintumor_kit.api.explaining",
    "explain": "braintumor_kit.api.explaining",
    "Model": "braintumor_kit.api.models",
    "Predictions": "braintumor_kit.api.models",
    "load": "braintumor_kit.api.models",
    "Result": "braintumor_kit.api.running",
    "run": "braintumor_kit.api.running",
}


def __getattr__(name: str) -> Any:
    """Imports torch and Keras when one of the names is asked for, and not before."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'braintumor_kit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
