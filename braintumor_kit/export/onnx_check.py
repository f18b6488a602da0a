"""What an ONNX file may hold, read before any runtime sees it: ordinary operators, weights of its own, sane sizes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx

from braintumor_kit.contracts.pictures import printable
from braintumor_kit.errors import InputError, is_out_of_memory
from braintumor_kit.export.about import About
from braintumor_kit.export.answer import CALIBRATED, PICTURES, PROBABILITIES, SCORE
from braintumor_kit.export.onnx_sizes import fault_of_graph
from braintumor_kit.export.wire import has_more_parts
from braintumor_kit.files import reason_of
from braintumor_kit.regular import open_regular

LARGEST = 2**31 - 1
"""Bytes; protobuf holds no more."""

MAX_NODES = 20_000
"""A ResNet-152 has some four hundred."""

MAX_PARTS = 500_000
"""Nodes, names, numbers that stand alone and the like."""

_WORDS = 200

_OPERATORS = {
    # number by number
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round",
    "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
    # of shape
    "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Resize",
    "Shape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    # over an axis
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LogSoftmax", "MaxPool", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Softmax",
    # with weights
    "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "GroupNormalization", "InstanceNormalization",
    "LRN", "LayerNormalization", "MatMul",
}  # fmt: skip
"""None runs another graph, draws at random, holds text or asks for anything outside."""


class Checked(NamedTuple):
    """An ONNX file that may be computed.

    Attributes:
        content: the very bytes that were checked.
        about: what it says of itself.
        shape: of a picture, (S, S, C).
        outputs: their names.
    """

    content: bytes
    about: About
    shape: tuple[int, int, int]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> Checked:
    """Reads a file that `btkit export` wrote, or that says so.

    Raises:
        InputError: where it is missing, damaged, unsafe or none.
    """
    return check_onnx(_content(path), f"'{printable(path)}'")


def check_onnx(content: bytes, name: str) -> Checked:
    """The same of the content of a file; `name` is how messages call it."""
    if has_more_parts(content, onnx.ModelProto.DESCRIPTOR, MAX_PARTS):
        raise InputError(f"{name} has more than {MAX_PARTS:,} parts, which no classifier has; it is not opened.")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's, of several kinds
        if is_out_of_memory(error):
            raise InputError(f"{name} takes more memory than there is.") from error
        raise InputError(f"{name} is no ONNX file, or a damaged one.") from error
    if not model.HasField("graph") or not model.graph.node:
        raise InputError(f"{name} is no ONNX file, or a damaged one: it holds no graph.")
    about = About.of_properties({item.key: item.value for item in model.metadata_props}, name)
    fault = _fault_of_parts(model) or _fault_of_tensors(model, len(content))
    if fault is None:
        fault = _fault_of_form(model) or fault_of_graph(model)
    if fault is not None:
        raise InputError(f"{name} is not opened: {fault}.")
    shape, outputs = _ends(model, about, name)
    return Checked(content, about, shape, outputs)


def _content(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"there is no model file '{printable(path)}'.")
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"'{printable(path)}' cannot be read: {reason_of(error)}.") from error
    if len(content) > LARGEST:
        raise InputError(f"'{printable(path)}' has more than {LARGEST:,} bytes, which no ONNX file has.")
    return content


def _fault_of_parts(model: onnx.ModelProto) -> str | None:
    """What no exported classifier holds."""
    if model.functions or model.training_info or model.graph.sparse_initializer:
        return "it holds functions, training or sparse weights, which no exported classifier does"
    if len(model.graph.node) > MAX_NODES:
        return f"it has more than {MAX_NODES:,} nodes"
    foreign = next((item.domain for item in model.opset_import if item.domain not in ("", "ai.onnx")), None)
    for node in model.graph.node:
        if foreign is not None or node.domain not in ("", "ai.onnx"):
            return f"it needs operators of '{printable(foreign or node.domain)[:_WORDS]}', which are not ONNX's own"
        if node.op_type not in _OPERATORS:
            return f"it holds the operator '{printable(node.op_type)[:_WORDS]}', which is none of a classifier's"
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            return f"its operator {node.op_type} holds a graph of its own"
    return None


def _fault_of_tensors(model: onnx.ModelProto, size: int) -> str | None:
    """What is wrong with numbers that the file says it holds; `size` is that of the file in bytes."""
    for tensor in _tensors(model):
        named = f"'{printable(tensor.name)[:_WORDS]}'"
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
            return f"its weights {named} point at another file, which btkit does not follow"
        if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
            return f"its weights {named} are no numbers"
        if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > 8 * size:
            return f"its weights {named} claim to be more than the file holds"
    return None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for item in node.attribute:
            if item.HasField("t"):
                yield item.t
            yield from item.tensors
            for sparse in (*([item.sparse_tensor] if item.HasField("sparse_tensor") else []), *item.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _fault_of_form(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # of many kinds, by what is wrong
        return f"it breaks ONNX's rules: {' '.join(str(error).split())[:_WORDS]}"
    return None


def _ends(model: onnx.ModelProto, about: About, name: str) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape of a picture that it takes, and the names of what it gives."""
    taken, given = list(model.graph.input), list(model.graph.output)
    shape = _sides(taken[0])[1:] if len(taken) == 1 else ()
    side = about.pixels.image_size
    if [value.name for value in taken] != [PICTURES] or shape not in ((side, side, 1), (side, side, 3)):
        said = ", ".join(f"{printable(value.name)[:40]} {_sides(value)}" for value in taken[:3])
        raise InputError(f"{name} is damaged: it takes {said or 'nothing'}, not {PICTURES} (N, {side}, {side}, C).")
    outputs = tuple(value.name for value in given)
    wanted = [PROBABILITIES]
    if about.certainty is not None:
        wanted += [CALIBRATED, *([SCORE] if about.certainty.threshold is not None else [])]
    if list(outputs) != wanted:
        said = printable(", ".join(outputs))[:_WORDS]
        raise InputError(f"{name} is damaged: it gives {said or 'nothing'}, not {', '.join(wanted)}.")
    return (side, side, shape[2]), outputs


def _sides(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """A shape; what is not said is 0."""
    return tuple(part.dim_value for part in value.type.tensor_type.shape.dim)
