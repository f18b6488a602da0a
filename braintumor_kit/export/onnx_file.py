"""The model as an ONNX file, made of torch's graph of it."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch.export import ExportedProgram

from braintumor_kit.errors import InputError, WorkError
from braintumor_kit.export.answer import PICTURES
from braintumor_kit.export.torch_file import untraced

OPSET = 18
"""The oldest that torch's exporter writes."""

IR_VERSION = 8
"""The layout of files that came with it: onnxruntime from 1.14 on reads it."""

LARGEST = 2**31 - 1
"""Bytes; protobuf holds no more, and weights in files beside it would get lost."""


def onnx_content(program: ExportedProgram, outputs: Sequence[str], about: Mapping[str, str], title: str) -> bytes:
    """The content of an ONNX file of a program.

    Args:
        outputs: names of what the program gives.
        about: what the file says of itself.
        title: one line on what it is.

    Raises:
        InputError: where it is too large for an ONNX file.
        WorkError: where an operator of it has no form in ONNX.
    """
    size = sum(values.nbytes for values in [*program.state_dict.values(), *program.constants.values()])
    if size > LARGEST - 2**24:
        raise InputError(f"the model has {size / 2**30:.1f} GiB of weights; an ONNX file holds 2 at most.")
    try:
        with _quiet(), untraced():
            made = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, input_names=[PICTURES], output_names=list(outputs),
                verbose=False, optimize=True,
            )  # fmt: skip
    except Exception as error:  # of many kinds, by the operator that is missing
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkError(f"the model cannot be said in ONNX: {first}") from error
    assert made is not None
    model = _cleaned(made.model_proto)
    model.producer_name, model.producer_version = "btkit", about["btkit_version"]
    model.doc_string = title
    onnx.helper.set_model_props(model, dict(about))
    return model.SerializeToString()


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter notes of its own work, names of files on this machine among it, and with N for the
    number of pictures."""
    model.ir_version = IR_VERSION
    graph = model.graph
    graph.name = "btkit"
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporter keeps its progress and its advice to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
