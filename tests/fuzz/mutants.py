"""Files damaged at random, from seeds that are whole: bytes, and what bytes alone seldom reach, PNG chunks with right
checksums, JSON values, members of archives."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

Random = np.random.Generator
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 2**15, 2**20, 2**31, 2**53, 2**63, 10**30, -(2**31), 0.0, -0.5, 0.5, 1e-300,
    1e308, -1e308, float("nan"), float("inf"), "", " ", "x", "x" * 2000, "../../etc/passwd", "/", "~", "-rf", "a\nb",
    "\x00", "\x1b[31mred", "<script>alert(1)</script>", "$\\frac{a$", "%s%n", "{0}", "🧠", "\u202e", "None", "nan",
    "1e5", "2024-01-01", "Lambda", "function", [], [[]], [0], [1, 2, 3], [None], ["a", "a"], [-1, 2**31], {}, {"a": 1},
    {"name": "x"}, {"class_name": "Lambda", "config": {}},
)  # fmt: skip


def bytes_mutated(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four small damages, half of them near the beginning, where headers are."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        if not changed:
            break
        reach = len(changed) if random.random() < 0.5 else min(128, len(changed))
        at = int(random.integers(reach))
        length = int(min(len(changed) - at, random.geometric(0.02)))
        match random.integers(9):
            case 0:
                changed[at] ^= 1 << int(random.integers(8))
            case 1:
                changed[at] = int(random.integers(256))
            case 2:
                width, order = int(random.choice([2, 4, 8])), str(random.choice(["<", ">"]))
                value = int(random.choice(EDGES)) & (256**width - 1)
                letter = {2: "H", 4: "I", 8: "Q"}[width]
                changed[at : at + width] = struct.pack(order + letter, value)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                changed[at:at] = random.bytes(length)
            case 6:
                changed[at : at + length] = bytes(length)
            case 7:
                del changed[at:]
            case _ if others:
                other = others[int(random.integers(len(others)))]
                changed[at:] = other[int(random.integers(len(other))) :]
    return bytes(changed)


def png_mutated(content: bytes, random: Random) -> bytes:
    """Chunks changed, left out, doubled or moved, with checksums that hold: the decoder sees what is wrong in them."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = int(random.integers(len(chunks)))
    kind, body = chunks[place]
    match random.integers(5):
        case 0:
            chunks[place] = (kind, bytes_mutated(body, random))
        case 1:
            del chunks[place]
        case 2:
            chunks.insert(place, (kind, body))
        case 3:
            chunks.insert(int(random.integers(len(chunks))), chunks.pop(place))
        case _:
            name = random.choice([b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"eXIf", b"gAMA", b"sBIT"])
            bomb = b"x\x00\x00" + zlib.compress(bytes(2**22)) if random.random() < 0.3 else random.bytes(20)
            chunks.insert(place, (bytes(name), bomb))
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return content[:8] + b"".join(packed)


def json_mutated(value: Any, random: Random, words: Sequence[Any] = ODD_VALUES) -> Any:
    """A copy with one to three places changed: another value, one from elsewhere in it, none, or twice."""
    changed = deepcopy(value)
    for _ in range(random.integers(1, 4)):
        places = list(_places(changed))
        if not places:
            break
        holder, key = places[int(random.integers(len(places)))]
        match random.integers(6):
            case 0 | 1 | 2:
                holder[key] = deepcopy(words[int(random.integers(len(words)))])
            case 3:
                other, name = places[int(random.integers(len(places)))]
                holder[key] = deepcopy(other[name])
            case 4:
                del holder[key]
            case _ if isinstance(holder, list):
                holder.insert(int(random.integers(len(holder) + 1)), deepcopy(holder[key]))
            case _:
                holder[f"{key}_"] = holder.pop(key)
    return changed


OPERATORS = (
    "Identity", "Relu", "MatMul", "Reshape", "Expand", "Tile", "Pad", "Resize", "ConstantOfShape", "Loop", "If",
    "Einsum", "Softmax", "Transpose", "Concat", "Gather", "Cast", "Split", "Shape", "Unsqueeze", "Range", "MaxPool",
    "Where",
)  # fmt: skip


def onnx_mutated(content: bytes, random: Random) -> bytes:
    """An ONNX file with one to three things in it changed: an operator, who reads what, a number of a node, the shape,
    kind or values of a weight, a shape or name at either end, what it says of itself; or left out, or twice."""
    import onnx

    def one(items: Any) -> Any:
        return items[int(random.integers(len(items)))]

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    edges = [*EDGES, 3, -1, -(2**31), 2**20, 2**40, 2**62]
    for _ in range(random.integers(1, 4)):
        if not graph.node or not graph.initializer:
            break
        node, weight = one(graph.node), one(graph.initializer)
        numbers = [item for other in graph.node for item in other.attribute if item.ints or item.HasField("i")]
        names = [name for other in graph.node for name in (*other.input, *other.output)]
        match random.integers(14):
            case 0:
                node.op_type = one(OPERATORS)
            case 1 if node.input:
                node.input[int(random.integers(len(node.input)))] = one([*names, "", "nowhere"])
            case 2 if node.output:
                node.output[int(random.integers(len(node.output)))] = one([*names, "", "nowhere"])
            case 3 if numbers:
                item = one(numbers)
                if item.ints:
                    item.ints[int(random.integers(len(item.ints)))] = one(edges)
                else:
                    item.i = one(edges)
            case 4 if weight.dims:
                weight.dims[int(random.integers(len(weight.dims)))] = one(edges)
            case 5:
                weight.data_type = int(random.integers(25))
            case 6:
                weight.raw_data = bytes_mutated(weight.raw_data, random)
            case 7:
                values = np.frombuffer(weight.raw_data, np.uint8).copy()
                weight.raw_data = np.full(max(1, len(values) // 8), one(edges), np.int64).tobytes()[: len(values)]
            case 8:
                weight.data_location = 1
                weight.external_data.add(key="location", value=one(["../seed.onnx", "/etc/passwd", ""]))
            case 9:
                end = one([*graph.input, *graph.output])
                if end.type.tensor_type.shape.dim:
                    one(end.type.tensor_type.shape.dim).dim_value = one(edges)
            case 10:
                one([*graph.input, *graph.output]).name = one(["x", *names])
            case 11 if model.metadata_props:
                item = one(model.metadata_props)
                item.value = one([str(value) for value in ODD_VALUES] + ['["a", "b", "c"]', '{"image_size": 32}'])
            case 12:
                del graph.node[int(random.integers(len(graph.node)))]
            case _:
                graph.node.append(node)
    return model.SerializeToString()


def _places(value: Any) -> Any:
    """Every place in a JSON value, as what holds it and the key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def zip_mutated(content: bytes, random: Random, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive with one member changed, its checksum right; or members left out, renamed, doubled, packed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = int(random.integers(len(members)))
    name, body = members[place]
    match random.integers(10):
        case 0:
            del members[place]
        case 1:
            members[place] = (str(random.choice(["../x", "/x", "assets/a.txt", "config.json", "é"])), body)
        case 2:
            members.append((str(random.choice(["README.md", "assets/../../x", "model.weights.npz", name])), b"x"))
        case _:
            members[place] = (name, change(name, body))
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if random.random() < 0.2 else zipfile.ZIP_STORED
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(packed, "w", method) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return packed.getvalue()
