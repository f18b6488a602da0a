"""How much an ONNX graph makes and computes of one picture, told from its shapes before any runtime sees it."""

import math
from collections.abc import Mapping

import onnx

from braintumor_kit.errors import is_out_of_memory
from braintumor_kit.model.size import MAX_ACTIVATION, MAX_ACTIVATIONS, MAX_PRODUCTS

MAX_ALL_PRODUCTS = 16 * MAX_PRODUCTS
"""Multiplications of all nodes together; a ResNet-152 at 1,024 pixels has a quarter of them."""

Shapes = Mapping[str, tuple[int, ...]]

_WORDS = 200


def fault_of_graph(model: onnx.ModelProto) -> str | None:
    """What is too much about a graph, or does not fit together; None where nothing is."""
    try:
        shapes = _shapes(model)
    except Exception as error:  # of many kinds, by the node that does not fit
        if is_out_of_memory(error):
            return "it takes more memory than there is"
        return f"its shapes do not fit together: {' '.join(str(error).split())[:_WORDS]}"
    made = products = 0
    for node in model.graph.node:
        unknown = next((name for name in node.output if name and name not in shapes), None)
        if unknown is not None:
            return f"nobody can tell how large '{unknown[:_WORDS]}' is"
        numbers = sum(math.prod(shapes[name]) for name in node.output if name)
        work = _products(node, shapes, numbers)
        said = f"a {node.op_type} to {[list(shapes[name]) for name in node.output if name]}"[:_WORDS]
        if numbers > MAX_ACTIVATION:
            return f"{said} makes more than {MAX_ACTIVATION:,} numbers"
        if work > MAX_PRODUCTS:
            return f"{said} takes more than {MAX_PRODUCTS:,} multiplications"
        made, products = made + numbers, products + work
    if made > MAX_ACTIVATIONS:
        return f"its nodes make {made:,} numbers, more than {MAX_ACTIVATIONS:,}"
    if products > MAX_ALL_PRODUCTS:
        return f"its nodes take {products:,} multiplications, more than {MAX_ALL_PRODUCTS:,}"
    return None


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of every value of one picture, as far as they are known."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    del single.graph.value_info[:]  # the file's own words on what lies between
    for value in (*single.graph.input, *single.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].HasField("dim_value"):
            dimensions[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(single, check_type=True, strict_mode=True, data_prop=True).graph
    known = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(
            part.HasField("dim_value") and part.dim_value >= 0 for part in kind.shape.dim
        ):
            known[value.name] = tuple(part.dim_value for part in kind.shape.dim)
    return known


def _products(node: onnx.NodeProto, shapes: Shapes, numbers: int) -> int:
    """Multiplications of a node that makes so many numbers, or additions of one that sums; at most."""
    given = [shapes.get(name, ()) for name in node.input]
    most = max((math.prod(shape) for shape in given), default=0)
    match node.op_type:
        case "Conv" | "ConvTranspose":
            kernel = math.prod(given[1][1:]) if len(given) > 1 else 0
            return kernel * (numbers if node.op_type == "Conv" else math.prod(given[0]))
        case "MatMul" | "Gemm":
            return numbers * max((side for shape in given[:2] for side in shape), default=0)
        case "Einsum":
            return math.prod({side for shape in given for side in shape}) * max(numbers, most)
        case "AveragePool" | "MaxPool" | "LRN":
            area = next((math.prod(item.ints) or item.i for item in node.attribute if item.name in _AREAS), 1)
            return numbers * abs(area)
    return numbers + most


_AREAS = ("kernel_shape", "size")
