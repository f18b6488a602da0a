"""Which precision a device computes convolutions in."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_precision(asked: str) -> str:
    """ "float32" or "bfloat16"; "auto" is bfloat16 where the device computes it natively."""
    if asked != "auto":
        return asked
    return "bfloat16" if computes_bfloat16() else "float32"


def computes_bfloat16() -> bool:
    """Whether the device has arithmetic units for bfloat16 (tensor cores, AMX, AVX-512 BF16)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def multiplies_bfloat16_matrices() -> bool:
    """Whether it has units that multiply whole matrices of bfloat16 (tensor cores, AMX), which is faster still."""
    return computes_bfloat16() and (torch.cuda.is_available() or torch.cpu._is_amx_tile_supported())


def keras_device() -> str:
    """Where Keras puts tensors: "cuda", "mps" or "cpu"."""
    return str(keras.ops.zeros(()).device.type)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Inside, float32 is float32: on a GPU torch gives such convolutions ten bits of mantissa unless told otherwise."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def describe_device() -> dict[str, object]:
    """The device that work runs on, for the record: kind, name, threads or memory, and whether it has bfloat16."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {
            "kind": "cuda",
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "bfloat16": computes_bfloat16(),
        }
    return {
        "kind": keras_device(),
        "name": processor_name(),
        "threads": torch.get_num_threads(),
        "bfloat16": computes_bfloat16(),
    }


def processor_name() -> str:
    """As the system calls the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else torch.backends.cpu.get_cpu_capability()
