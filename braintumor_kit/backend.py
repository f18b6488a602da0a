"""Sets the libraries underneath up: Keras on torch, no tensorflow, a torchvision that imports.

Importing this module imports neither torch nor Keras. `use_torch_backend` has to run before the first
`import keras` of a process; `braintumor_kit.model` and `btkit_plugins.backbones` see to that.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from braintumor_kit.errors import InputError


def use_torch_backend() -> None:
    """Makes Keras run on torch and keeps tensorflow out of the process.

    May be called any number of times. Tensorflow is left alone where it is already imported, and where the
    environment variable `BTKIT_ALLOW_TENSORFLOW` is 1.

    Raises:
        InputError: if Keras is already imported with another backend, which cannot be changed any more.
    """
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() != "torch":
        raise InputError(
            f"Keras already runs on {keras.config.backend()} in this process and btkit needs torch: set the "
            "environment variable KERAS_BACKEND=torch, or import braintumor_kit.model before keras"
        )
    os.environ["KERAS_BACKEND"] = "torch"
    if "tensorflow" not in sys.modules and os.environ.get("BTKIT_ALLOW_TENSORFLOW") != "1":
        _keep_tensorflow_out()


def _keep_tensorflow_out() -> None:
    if not any(isinstance(finder, _NoTensorflow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoTensorflow())


class _NoTensorflow(MetaPathFinder, Loader):
    """Finds tensorflow, and then refuses to load it.

    keras-hub imports tensorflow wherever it is installed, at 6 seconds and 1 GB, and btkit needs none of it.
    The refusal has to come from the loader: a finder that raises breaks `torch._dynamo`, and a `None` in
    `sys.modules` breaks Keras' preprocessing layers.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "tensorflow" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ModuleNotFoundError(
            "btkit keeps tensorflow out of its process; set BTKIT_ALLOW_TENSORFLOW=1 to let it in",
            name=spec.name,
        )

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError("create_module always raises")


_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # the torch.library.Library of the schemas: once it is collected, they are gone


def import_torchvision() -> ModuleType:
    """Imports torchvision, whether or not its compiled operators match torch's build.

    A torchvision that was compiled for another build of torch (CUDA beside CPU) stops while it is imported,
    because two operators for detection are unknown. Its models and transforms use neither, so the operators'
    schemas are declared and the import is tried again. After that timm, too, can import torchvision.

    Raises:
        ImportError: if torchvision is not installed.
        RuntimeError: if it does not import for another reason.
    """
    try:
        return _torchvision()
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _forget("torchvision")
    _declare_schemas()
    return _torchvision()


def torchvision_operators() -> str:
    """Says in words whether torchvision's compiled operators work, for `btkit doctor`."""
    try:
        import_torchvision()
    except ImportError:
        return "torchvision is not installed"
    if _declared:
        return "compiled operators do not match torch's build; models and transforms work"
    return "compiled operators load"


def _torchvision() -> ModuleType:
    with warnings.catch_warnings():
        # That image.so does not load either is no news, and btkit reads pictures with Pillow.
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        return importlib.import_module("torchvision")


def _forget(package: str) -> None:
    """Drops what a failed import left behind, so that the next one starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _declare_schemas() -> None:
    import torch  # here alone: importing this module stays cheap

    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
