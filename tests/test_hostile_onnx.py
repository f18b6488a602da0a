"""ONNX files made to lead elsewhere, to fill memory, to compute for ever or to lie: none is given to a runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_models import SIDE, network, saved

from braintumor_kit.errors import InputError
from braintumor_kit.export import onnx_check
from braintumor_kit.export.onnx_check import read_onnx
from braintumor_kit.export.wire import has_more_parts

BEYOND = 2**40


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What btkit writes of a network of two layers."""
    from braintumor_kit.commands.main import run_command_line

    folder = tmp_path_factory.mktemp("plain")
    assert run_command_line(["export", str(saved(folder, network()))]) == 0
    return (folder / "m.onnx").read_bytes()


@pytest.fixture
def refusal(plain: bytes, tmp_path: Path, btkit: Callable) -> Callable[[Callable[[Any], object]], str]:
    """What `btkit predict` says of the file with something in it changed."""

    def given(change: Callable[[Any], object]) -> str:
        model = onnx.ModelProto.FromString(plain)
        change(model)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        Image.new("L", (SIDE, SIDE)).save(tmp_path / "a.png")
        ended = btkit("predict", tmp_path / "m.onnx", tmp_path / "a.png")
        assert ended.status == 2
        assert ended.err.count("btkit:") == 1
        assert "Traceback" not in ended.err
        assert f"'{tmp_path / 'm.onnx'}'" in ended.err
        return str(ended.err)

    return given


def first(model: Any, kind: str) -> Any:
    return next(node for node in model.graph.node if node.op_type == kind)


def before_the_end(model: Any, *nodes: Any) -> None:
    """Puts nodes from `x` to `y` between the softmax and the output."""
    last = first(model, "Softmax")
    last.output[0] = "x"
    model.graph.node.extend(nodes)
    nodes[-1].output[0] = "y"
    model.graph.node.append(helper.make_node("Identity", ["y"], ["probabilities"]))


def numbers(model: Any, name: str, values: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def test_the_file_as_it_is(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(plain)
    found = read_onnx(tmp_path / "m.onnx")
    assert (found.shape, found.outputs, found.about.classes) == (
        (SIDE, SIDE, 3),
        ("probabilities",),
        ("class_0", "class_1"),
    )


def test_a_file_of_others(refusal: Callable) -> None:
    said = refusal(lambda model: model.ClearField("metadata_props"))
    assert "was not written by `btkit export`: nobody knows how pictures become what it takes" in said


def test_another_format(refusal: Callable) -> None:
    said = refusal(lambda model: helper.set_model_props(model, {"btkit_format": "2"}))
    assert "is of format '2', which this btkit does not know: it reads 1." in said


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("classes", "nonsense", "of its metadata: Expecting value"),
        ("classes", '["a", "a"]', "classes that are no different names"),
        ("classes", '["a", 1]', "classes that are no different names"),
        ("classes", '["\\ud800", "b"]', "surrogates not allowed"),
        ("classes", "[" * 100_000, "of its metadata: maximum recursion depth"),
        ("pixels", '{"image_size": 1}', "pixels.image_size of its metadata: Input should be greater than"),
        ("pixels", '{"image_size": 64}', "it takes pictures (0, 32, 32, 3), not pictures (N, 64, 64, C)."),
        ("certainty", '{"temperature": NaN, "abstain_below": 0, "ood_threshold": null}', "that none can be"),
        ("certainty", '{"temperature": 1, "abstain_below": 0, "ood_threshold": 1}', "it gives probabilities, not"),
        ("model_digest", None, "of its metadata: 'model_digest'"),
    ],
)  # fmt: skip
def test_words_that_are_damaged(key: str, value: str | None, words: str, refusal: Callable) -> None:
    def change(model: Any) -> None:
        props = {item.key: item.value for item in model.metadata_props} | {key: value}
        model.ClearField("metadata_props")
        helper.set_model_props(model, {name: text for name, text in props.items() if text is not None})

    assert words in refusal(change)


def test_weights_in_another_file(refusal: Callable) -> None:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../../etc/passwd")

    assert "point at another file, which btkit does not follow" in refusal(change)


def test_weights_in_another_file_within_a_node(refusal: Callable) -> None:
    def change(model: Any) -> None:
        tensor = TensorProto(name="t", dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="/etc/passwd")
        before_the_end(
            model, helper.make_node("Constant", [], ["t"], value=tensor), helper.make_node("Add", ["x", "t"], ["y"])
        )

    assert "its weights 't' point at another file" in refusal(change)


def test_operators_of_others(refusal: Callable) -> None:
    def change(model: Any) -> None:
        model.opset_import.append(helper.make_opsetid("com.evil", 1))
        before_the_end(model, helper.make_node("Run", ["x"], ["y"], domain="com.evil"))

    assert "it needs operators of 'com.evil', which are not ONNX's own" in refusal(change)


@pytest.mark.parametrize("kind", ["Loop", "If", "Scan", "RandomNormal", "StringNormalizer", "NonZero", "x\x1b[2J"])
def test_operators_that_no_classifier_has(kind: str, refusal: Callable) -> None:
    said = refusal(lambda model: before_the_end(model, helper.make_node(kind, ["x"], ["y"])))
    assert "which is none of a classifier's" in said
    assert "\x1b" not in said


def test_a_graph_within_an_operator(refusal: Callable) -> None:
    graph = helper.make_graph([], "inner", [], [])
    said = refusal(lambda model: before_the_end(model, helper.make_node("Identity", ["x"], ["y"], body=graph)))
    assert "its operator Identity holds a graph of its own" in said


def test_functions_of_its_own(refusal: Callable) -> None:
    def change(model: Any) -> None:
        model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [], [helper.make_opsetid("", 18)]))

    assert "it holds functions, training or sparse weights" in refusal(change)


def test_much_from_little(refusal: Callable) -> None:
    def change(model: Any) -> None:
        shape = numbers(model, "s", np.array([2**20, 2**20], np.int64))
        before_the_end(
            model,
            helper.make_node("ConstantOfShape", [shape], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0),
            helper.make_node("Add", ["x", "m"], ["y"]),
        )

    assert "makes more than 33,554,432 numbers" in refusal(change)


def test_work_without_end(refusal: Callable) -> None:
    def change(model: Any) -> None:
        shape = numbers(model, "s", np.array([5000, 5000], np.int64))
        nodes = [helper.make_node("ConstantOfShape", [shape], ["m0"])]
        nodes += [helper.make_node("MatMul", ["m0", f"m{number}"], [f"m{number + 1}"]) for number in range(3)]
        nodes.append(helper.make_node("ReduceMax", ["m3"], ["r"], keepdims=0))
        before_the_end(model, *nodes, helper.make_node("Add", ["x", "r"], ["y"]))

    assert "a MatMul to [[5000, 5000]] takes more than 68,719,476,736 multiplications" in refusal(change)


def test_sizes_that_nobody_can_tell(refusal: Callable) -> None:
    def change(model: Any) -> None:
        model.graph.node.extend([
            helper.make_node("ReduceMax", ["pictures"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["side"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["side", numbers(model, "one", np.array([1], np.int64))], ["sides"]),
        ])  # fmt: skip
        before_the_end(
            model,
            helper.make_node("Expand", [numbers(model, "z", np.zeros(1, np.float32)), "sides"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0),
            helper.make_node("Add", ["x", "m"], ["y"]),
        )

    assert "nobody can tell how large 'big' is" in refusal(change)


def test_weights_that_claim_more(refusal: Callable) -> None:
    def change(model: Any) -> None:
        model.graph.initializer[0].dims[:] = [BEYOND, BEYOND]

    assert "claim to be more than the file holds" in refusal(change)


def test_weights_that_are_not_finite(refusal: Callable) -> None:
    def change(model: Any) -> None:
        kernel = next(item for item in model.graph.initializer if item.name == first(model, "Conv").input[1])
        kernel.raw_data = np.full(list(kernel.dims), np.nan, np.float32).tobytes()

    assert "makes numbers that are not finite: its weights are damaged or too large." in refusal(change)


def test_answers_that_are_no_probabilities(refusal: Callable) -> None:
    said = refusal(lambda model: before_the_end(model, helper.make_node("Neg", ["x"], ["y"])))
    assert "what it gives as probabilities are no probabilities." in said


def test_answers_of_another_shape(refusal: Callable) -> None:
    said = refusal(
        lambda model: helper.set_model_props(
            model, {item.key: item.value for item in model.metadata_props} | {"classes": '["a", "b", "c"]'}
        )
    )
    assert "what it gives as probabilities is not float32 (1, 3)." in said


def test_shapes_that_do_not_fit(refusal: Callable) -> None:
    said = refusal(
        lambda model: before_the_end(
            model, helper.make_node("Add", ["x", numbers(model, "seven", np.zeros(7, np.float32))], ["y"])
        )
    )
    assert "its shapes do not fit together" in said


def test_many_parts_in_few_bytes(tmp_path: Path) -> None:
    def within(field: int, content: bytes) -> bytes:
        size, length = len(content), []
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([field << 3 | 2, *length, size]) + content

    empty_nodes = within(7, within(1, b"") * 600_000)  # of a graph
    (tmp_path / "m.onnx").write_bytes(empty_nodes)
    with pytest.raises(InputError, match="has more than 500,000 parts, which no classifier has; it is not opened"):
        read_onnx(tmp_path / "m.onnx")
    nested = b""
    for _ in range(40):  # a graph in an attribute of a node of a graph
        nested = within(1, within(5, within(6, nested)))
    (tmp_path / "m.onnx").write_bytes(within(7, nested))
    with pytest.raises(InputError, match="which no classifier has"):
        read_onnx(tmp_path / "m.onnx")


def test_the_count_of_parts(plain: bytes) -> None:
    def counted(message: Any) -> int:
        total = 0
        for field, value in message.ListFields():
            alone = isinstance(value, bytes | str | int | float) or hasattr(value, "ListFields")
            values = [value] if alone else list(value)
            total += 1 if field.GetOptions().packed else len(values)
            total += sum(counted(item) for item in values) if field.message_type is not None else 0
        return total

    model = onnx.ModelProto.FromString(plain)
    exact = counted(model)
    assert exact > 100
    assert not has_more_parts(plain, onnx.ModelProto.DESCRIPTOR, exact)
    assert has_more_parts(plain, onnx.ModelProto.DESCRIPTOR, exact - 1)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x00" * 100, b"\xff" * 100])
def test_no_onnx_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is no ONNX file, or a damaged one"):
        read_onnx(tmp_path / "m.onnx")


def test_places_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no model file '.*none\.onnx'"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"zero\.onnx' cannot be read"):
        read_onnx(tmp_path / "zero.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=r"folder\.onnx' cannot be read: Is a directory"):
        read_onnx(tmp_path / "folder.onnx")
    monkeypatch.setattr(onnx_check, "LARGEST", 10)
    (tmp_path / "large.onnx").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="has more than 10 bytes"):
        read_onnx(tmp_path / "large.onnx")
