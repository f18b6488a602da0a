"""Keras runs on torch alone: tensorflow stays out, whatever is imported first, and torchvision's models work."""

import subprocess
import sys

import pytest
import torch

from braintumor_kit import backend
from braintumor_kit.contracts import InputError

# isort: split
# What stands above has put Keras on torch.
import keras

pytestmark = pytest.mark.usefixtures("one_thread")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True).stdout


def test_backbones_keep_tensorflow_out() -> None:
    assert "tensorflow" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="btkit keeps tensorflow out"):
        __import__("tensorflow")


def test_any_plugin_module_can_be_imported_first() -> None:
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "import btkit_plugins.backbones.resnet, keras\n"
        "print(keras.config.backend(), 'tensorflow' in sys.modules)\n"
    )
    assert python(code).split() == ["torch", "False"]


def test_setting_the_backend_up_imports_nothing_heavy_and_repeats() -> None:
    code = (
        "import sys; from braintumor_kit.backend import use_torch_backend\n"
        "use_torch_backend(); use_torch_backend()\n"
        "print(sorted({'torch', 'keras'} & set(sys.modules)))\n"
        "print([type(finder).__name__ for finder in sys.meta_path].count('_NoTensorflow'))\n"
    )
    assert python(code).split() == ["[]", "1"]


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"Keras already runs on jax .* set the environment variable"):
        backend.use_torch_backend()


def test_torchvision_builds_models_and_transforms_whatever_its_operators_do() -> None:
    torchvision = backend.import_torchvision()
    assert torchvision is backend.import_torchvision()
    assert torchvision.transforms.Resize(8)(torch.zeros(3, 16, 16)).shape == (3, 8, 8)
    assert backend.torchvision_operators() in {
        "compiled operators load",
        "compiled operators do not match torch's build; models and transforms work",
    }
