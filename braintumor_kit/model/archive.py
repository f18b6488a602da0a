"""What a `.keras` file may hold, read before anything of it is built: ordinary layers, plain weights, sane sizes."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from braintumor_kit.contracts import InputError
from braintumor_kit.contracts.pictures import printable
from braintumor_kit.model.ordinary import is_ordinary, is_ordinary_function
from braintumor_kit.model.weights_file import MAX_EXPANSION, check_weights

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {"metadata.json", CONFIG, WEIGHTS, "README.md"}

MAX_CONFIG = 2**23
"""Bytes; that of a ResNet-152 has half a million."""

MAX_WEIGHTS = 2**32
"""Bytes."""

MAX_DEPTH = 128
"""Of a configuration: models in models in models."""

MAX_OBJECTS = 100_000
"""Layers, initialisers and the like, each as often as it is called, also by models that are called themselves; a
ResNet-152 has some six thousand."""

MAX_PARTS = 1_000_000
"""Lists and tables of a configuration."""

MAX_NUMBER = 2**24
"""Of widths, shapes and the like: more is no network."""

MAX_STEP = 1024
"""Of what reaches over a picture."""

_NUMBERS = {"float32", "float64", "float16", "int32", "int64", "int16", "int8", "uint8", "bool"}
"""What constants in a configuration may be of."""

_STEPS = {"kernel_size", "pool_size", "strides", "dilation_rate", "padding", "size", "cropping"}
_FREE = {"seed", "shared_object_id", "value", "steps", "decay_steps", "iterations"}
_PLAIN = {"__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__"}
_UNPACKING_ERRORS = (OSError, ValueError, LookupError, EOFError, RuntimeError, RecursionError, zipfile.BadZipFile,
                     zlib.error)  # fmt: skip


def check_archive(path: Path) -> tuple[dict[str, Any], int]:
    """Reads a `.keras` file without building anything.

    Returns:
        Its configuration, without what it was compiled with, and how many numbers its weights are.

    Raises:
        InputError: where it is damaged, or holds what no ordinary classifier does.
    """
    name = f"'{printable(path)}'"
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, name)
            config = json.loads(_member(archive, CONFIG, MAX_CONFIG, name))
            weights = _member(archive, WEIGHTS, MAX_WEIGHTS, name)
    except InputError:
        raise
    except _UNPACKING_ERRORS as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"{name} cannot be loaded as a Keras model: {reason}.") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise InputError(f"{name} cannot be loaded as a Keras model: its {CONFIG} describes none.")
    config.pop("compile_config", None)  # which is never looked at
    _check_config(config, name)
    return config, check_weights(io.BytesIO(weights), f"{WEIGHTS} in {name}", len(weights))


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    names = archive.namelist()
    odd = next((item for item in names if item not in _MEMBERS), None)
    if odd is not None:
        raise InputError(f"{name} holds '{printable(odd)}', which no saved classifier does; it is not opened.")
    if len(set(names)) < len(names):
        raise InputError(f"{name} holds a file twice; it is not opened.")
    missing = next((item for item in (CONFIG, WEIGHTS) if item not in names), None)
    if missing is not None:
        raise InputError(f"{name} cannot be loaded as a Keras model: it holds no {missing}.")


def _member(archive: zipfile.ZipFile, member: str, most: int, name: str) -> bytes:
    """A file of the archive. No more of it is unpacked than it says: where that is too little, its checksum fails."""
    info = archive.getinfo(member)
    size, most = info.file_size, min(most, MAX_EXPANSION * info.compress_size + MAX_CONFIG)
    if size > most:
        raise InputError(f"{name}: {member} has more than {most:,} bytes; it is not opened.")
    with archive.open(member) as file:
        return file.read(size + 1)


def _check_config(config: dict[str, Any], name: str) -> None:
    for value in _dictionaries(config, name):
        if "class_name" in value:
            _check_object(value, name)
        for key, number in _numbers(value):
            most = MAX_STEP if key in _STEPS else MAX_NUMBER
            if key not in _FREE and abs(number) > most:
                raise InputError(f"{name} asks for a {printable(key)[:80]} above {most}; that is no network.")
    if _calls(config) > MAX_OBJECTS:
        raise InputError(f"{name} calls more than {MAX_OBJECTS:,} layers and the like; it is not opened.")


def _calls(value: Any) -> int:
    """How many objects a configuration makes, each as often as it is called. The depth has been checked."""
    if isinstance(value, list):
        return sum(map(_calls, value))
    if not isinstance(value, dict):
        return 0
    inside = sum(map(_calls, value.values()))
    if "class_name" not in value:
        return inside
    nodes = value.get("inbound_nodes")
    return (1 + inside) * max(1, len(nodes) if isinstance(nodes, list) else 1)


def _dictionaries(config: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Every mapping within a configuration. Not by recursion: its depth is the file's to choose."""
    waiting: list[tuple[Any, int]] = [(config, 0)]
    parts = 0
    while waiting:
        value, depth = waiting.pop()
        parts += isinstance(value, dict | list)
        if parts > MAX_PARTS:
            raise InputError(f"{name} has more than {MAX_PARTS:,} lists and tables; it is not opened.")
        if depth > MAX_DEPTH:
            raise InputError(f"{name} is nested more than {MAX_DEPTH} deep; it is not opened.")
        if isinstance(value, dict):
            yield value
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _check_object(value: Mapping[str, Any], name: str) -> None:
    kind, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
    if any(item is not None and not isinstance(item, str) for item in (kind, module, registered)):
        raise InputError(f"{name} cannot be loaded as a Keras model: the name of a class in it is no text.")
    if kind in _PLAIN:
        inner = value.get("config")
        dtype = inner.get("dtype") if isinstance(inner, dict) else None
        if kind in ("__tensor__", "__numpy__") and dtype not in _NUMBERS:
            raise InputError(f"{name} holds a constant of {printable(str(dtype))[:80]}, which is no kind of number.")
        return
    if kind == "function":
        kind, known = value.get("config"), is_ordinary_function(str(value.get("config")), module)
    else:
        known = is_ordinary(str(kind), module, registered)
    if not known:
        raise InputError(
            f"{name} holds '{printable(str(kind))[:80]}' of {printable(str(module))[:80]}, which is none of Keras' "
            "ordinary layers; btkit opens nothing else, since it could run code. A plugin that registers it has to be "
            "named."
        )


def _numbers(value: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Whole numbers in a mapping, alone and in lists, each with its key."""
    for key, item in value.items():
        waiting = [item]
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, int) and not isinstance(inner, bool):
                yield key, inner
            elif isinstance(inner, list):
                waiting += inner
