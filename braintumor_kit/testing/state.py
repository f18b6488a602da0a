"""What a plugin has to leave as it was: settings of the whole process, and a model."""

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_module

from braintumor_kit.backend import use_torch_backend
from braintumor_kit.contracts.randomness import seeded

use_torch_backend()
import keras  # noqa: E402  (after what puts it on torch)
from keras.src.backend.common import global_state  # noqa: E402
from keras.src.random import seed_generator  # noqa: E402
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED  # noqa: E402

RANDOM = ("Python's random numbers", "NumPy's random numbers", "torch's random numbers")
"""The states of random numbers among those of the process."""

_HOOKS = [name for name in vars(torch_module) if name.startswith("_global_") and name.endswith("hooks")]


def process_state() -> dict[str, object]:
    """Every setting of the process that plugins share, by a name that a message can show."""
    return {
        "Keras' data format": keras.config.image_data_format(),
        "Keras' float type": keras.config.floatx(),
        "Keras' dtype policy": keras.config.dtype_policy().name,
        "Keras' epsilon": keras.config.epsilon(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's autocast": torch.is_autocast_enabled("cpu"),
        "torch's matrix precision": torch.get_float32_matmul_precision(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's default device": str(torch.get_default_device()),
        "torch's convolution precision": torch.backends.cudnn.allow_tf32,
        "torch's choice of convolutions": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch's global hooks": sum(len(getattr(torch_module, name)) for name in _HOOKS if _is_full(name)),
        "NumPy's error handling": tuple(np.geterr().items()),
        "the environment": tuple(sorted(os.environ.items())),
        "the working directory": os.getcwd(),
        **random_state(),
    }


def _is_full(name: str) -> bool:
    return bool(getattr(torch_module, name))


def random_state() -> dict[str, object]:
    """Digests of the global random states."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    of_torch = repr([state.tolist() for state in (torch.get_rng_state(), *devices)])
    states = (repr(random.getstate()), repr(np.random.get_state()), of_torch)
    return {name: _digest(state.encode()) for name, state in zip(RANDOM, states, strict=True)}


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


@contextmanager
def keras_seeded(seed: int) -> Iterator[None]:
    """As `seeded`, with Keras' own seed set too; Keras has no public way to put that back."""
    names = (seed_generator.GLOBAL_SEED_GENERATOR, GLOBAL_RANDOM_SEED)
    kept = {name: global_state.get_global_attribute(name) for name in names}
    with seeded(seed):
        keras.utils.set_random_seed(seed)
        try:
            yield
        finally:
            for name, value in kept.items():
                global_state.set_global_attribute(name, value)


@contextmanager
def kept_settings() -> Iterator[None]:
    """Inside, a plugin may change what it likes: settings of the process are as before when the block ends."""
    policy, epsilon = keras.config.dtype_policy(), keras.config.epsilon()
    layout, float_type = keras.config.image_data_format(), keras.config.floatx()
    dtype, threads, precision = torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    convolutions, deterministic = torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
    numbers, folder, variables = np.geterr(), os.getcwd(), dict(os.environ)
    hooks = {name: getattr(torch_module, name).copy() for name in _HOOKS if _is_full(name)}
    draws = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gradients, warns = torch.is_grad_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    device, chosen = torch.get_default_device(), (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    try:
        yield
    finally:
        keras.config.set_image_data_format(layout)
        keras.config.set_floatx(float_type)
        keras.config.set_epsilon(epsilon)
        keras.config.set_dtype_policy(policy)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = chosen
        torch.set_grad_enabled(gradients)
        torch.backends.cudnn.allow_tf32 = convolutions
        np.seterr(**numbers)
        os.chdir(folder)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        for name in _HOOKS:
            _set_hooks(name, hooks.get(name, {}))
        random.setstate(draws[0])
        np.random.set_state(draws[1])
        torch.set_rng_state(draws[2])


def _set_hooks(name: str, hooks: Mapping[int, Any]) -> None:
    held = getattr(torch_module, name)
    if isinstance(held, dict):
        held.clear()
        held.update(hooks)


def model_state(model: keras.Model) -> dict[str, object]:
    """Everything of a model that an explainer could leave changed, by a name that a message can show."""
    state: dict[str, object] = {"training mode": model.training}
    for layer in model._flatten_layers():
        state[f"layer '{layer.name}' trainable"] = layer.trainable
        for number, weight in enumerate(layer.get_weights()):
            state[f"weights of layer '{layer.name}', {number}"] = _digest(weight.tobytes())
    for name, part in model.named_modules():
        state[f"mode of '{name}'"] = part.training
        state[f"hooks of '{name}'"] = sum(len(hooks) for hooks in _hooks_of(part))
    for name, parameter in model.named_parameters():
        state[f"whether '{name}' requires gradients"] = parameter.requires_grad
        state[f"whether '{name}' holds a gradient"] = parameter.grad is not None
    return state


def _hooks_of(part: torch.nn.Module) -> Iterator[Mapping[int, Any]]:
    for name, value in vars(part).items():
        if name.endswith("_hooks") and isinstance(value, Mapping):
            yield value


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Names of what differs."""
    return [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
