"""What the extra `onnx` brings, where it is at hand."""

from collections.abc import Sequence
from importlib.util import find_spec

from braintumor_kit.errors import InputError

WRITING = ("onnx", "onnxscript", "onnxruntime")
READING = ("onnx", "onnxruntime")


def require(packages: Sequence[str], what: str) -> None:
    """Makes sure that packages are installed.

    Args:
        what: needs them, such as "exporting to ONNX".

    Raises:
        InputError: which says how to get them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}: pip install 'braintumor-kit[onnx]'.")
