"""The groups of rows of `btkit bench`: who races whom, and what each ratio has to be."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from braintumor_kit.bench.explaining import write_network
from braintumor_kit.bench.material import write_recipe
from braintumor_kit.bench.ours import prepared_task
from braintumor_kit.bench.race import Entry, Laps, race
from braintumor_kit.bench.rows import Row
from braintumor_kit.contracts.pictures import read_picture
from braintumor_kit.data.pixels import prepare
from braintumor_kit.errors import WorkError
from braintumor_kit.model.precision import multiplies_bfloat16_matrices
from braintumor_kit.recipe.tables import PixelsTable
from braintumor_kit.runs import installed_version

IG = "integrated_gradients"

PROMISED = {
    ("gradcam", "float32"): 2.5, ("gradcampp", "float32"): 2.5, (IG, "float32"): 1.3,
    ("gradcam", "bfloat16"): 8.0, ("gradcampp", "bfloat16"): 8.0, (IG, "bfloat16"): 3.0,
}  # fmt: skip
"""Explanations, over peers in float32; of CAMs in bfloat16 where the processor multiplies matrices of it."""


@dataclass(frozen=True)
class Course:
    """What a benchmark runs on.

    Attributes:
        folder: with the pictures; recipes and caches are put there too.
        depths: of the ResNets.
        precision: what "auto" means here.
    """

    folder: Path
    depths: Sequence[int]
    precision: str
    image_size: int
    batch_size: int
    rounds: int
    say: Callable[[str], None]

    def settings(self, depth: int, dtype: str, steps: int, **more: Any) -> dict[str, Any]:
        """What a contender is told; three steps warm it up."""
        recipe = write_recipe(self.folder, depth, dtype, self.image_size, self.batch_size)
        return {
            "recipe": str(recipe),
            "folder": str(self.folder / "pictures"),
            "depth": depth,
            "dtype": dtype,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "steps": steps,
            "warm_up": 3,
            **more,
        }

    def race(self, entries: Sequence[Entry], rounds: int | None = None) -> list[Laps]:
        """A race whose caches are its own."""
        own = {"BTKIT_CACHE": str(self.folder / "cache")}
        return race([Entry(e.name, e.settings, {**own, **e.environment}) for e in entries], rounds or self.rounds)


def fit_rows(course: Course) -> Iterator[Row]:
    """Training: btkit's whole fit beside hand-tuned torch, the notebooks' loop and keras-hub as it comes."""
    for depth in course.depths:
        for dtype in dict.fromkeys((course.precision, "float32")):
            yield from _fit_rows(course, depth, dtype)


def _fit_rows(course: Course, depth: int, dtype: str) -> Iterator[Row]:
    settings = course.settings(depth, dtype, steps=4 if depth == 18 else 2)
    course.say(f"fit, ResNet-{depth}, {dtype}")
    entries = {
        "ours": Entry("btkit_fit", settings),
        "tuned": Entry("torch_fit", settings),
        "kept": Entry("torch_fit", {**settings, "kept_memory": True}),
    }
    if dtype == course.precision:
        entries["reference"] = Entry("reference_fit", settings)
        entries["hub"] = Entry("keras_hub_fit", settings)
    laps = dict(zip(entries, course.race(list(entries.values())), strict=True))
    ours, name = laps["ours"], f"fit/resnet{depth}/{dtype}"
    yield _faster(name, f"torch channels_last {dtype}", ours, laps["tuned"], 0.95)
    yield _faster(name, f"torch channels_last {dtype}, freed memory kept", ours, laps["kept"], None)
    if dtype == course.precision:
        yield _faster(name, "torch float32 NCHW, files decoded each epoch", ours, laps["reference"], 2.5)
        mixed = "mixed_bfloat16" if dtype == "bfloat16" else dtype
        yield _faster(name, f"keras-hub as it comes, {mixed}", ours, laps["hub"], 2.0)
        yield _overhead(name, ours)
    if ours.memory and laps["tuned"].memory:
        theirs = laps["tuned"].memory
        yield Row(f"memory/{name}", f"torch channels_last {dtype}", ours.memory, theirs, "MiB", theirs / ours.memory)


def _overhead(name: str, ours: Laps) -> Row:
    """The share of a warm epoch that is not spent in training steps; 3 % is promised."""
    shares = [max(1 - lap["in_steps"] / lap["seconds"], 1e-4) for lap in ours.facts]
    share = median(shares)
    return Row(
        f"overhead/{name}", "3 % of an epoch outside of its steps", share, 0.03, "share", 0.03 / share, at_least=1.0
    )


def inference_rows(course: Course) -> Iterator[Row]:
    """Inference on slices in memory beside torch's evaluation loop."""
    for depth in course.depths:
        for dtype in dict.fromkeys((course.precision, "float32")):
            course.say(f"inference, ResNet-{depth}, {dtype}")
            settings = course.settings(depth, dtype, steps=8 if depth == 18 else 4)
            ours, theirs = course.race([Entry("btkit_inference", settings), Entry("torch_inference", settings)])
            promise = 1.1 if dtype == "bfloat16" else None
            yield _faster(
                f"inference/resnet{depth}/{dtype}", f"torch eval channels_last {dtype}", ours, theirs, promise
            )


def frozen_rows(course: Course) -> Iterator[Row]:
    """Training on a frozen trunk: its third epoch beside its first."""
    for depth in course.depths:
        course.say(f"frozen trunk, ResNet-{depth}")
        overrides = ["training.trainable=head", "training.epochs=3"]
        settings = course.settings(depth, course.precision, steps=0, overrides=overrides)
        (laps,) = course.race([Entry("btkit_frozen", settings)], rounds=1)
        first, _, third = laps.facts[0]["epochs"]
        name = f"frozen/resnet{depth}/{course.precision}"
        yield Row(name, "its own first epoch", third, first, "s", first / third, at_least=20)


def data_rows(course: Course) -> Iterator[Row]:
    """Preparing the data a second time beside the first."""
    course.say("data preparation")
    entry = Entry("btkit_data", course.settings(18, course.precision, 0), {"BTKIT_CACHE": str(course.folder / "fresh")})
    first, second = (course.race([entry], rounds=1)[0].facts[0]["seconds"] for _ in range(2))
    yield Row("data/second run", "its own first run", second, first, "s", first / second, at_least=10)


def start_rows(course: Course) -> Iterator[Row]:
    """`btkit predict` on one picture beside the bare imports of torch and Keras."""
    course.say("start-up")
    settings = course.settings(18, "float32", 0)
    classifier, _ = prepared_task(settings)
    path = course.folder / "resnet18.keras"
    keras.Model(classifier.model.inputs, classifier.model.outputs).save(path)
    picture = next((course.folder / "pictures").rglob("*.jpg"))
    bare = [sys.executable, "-c", "import torch, keras"]
    predict = [sys.executable, "-m", "braintumor_kit", "predict", str(path), str(picture)]
    pairs = [(_seconds(predict), _seconds(bare, {"KERAS_BACKEND": "torch"})) for _ in range(course.rounds + 1)][1:]
    ours, theirs = (median(times) for times in zip(*pairs, strict=True))
    ratios = [b / a for a, b in pairs]
    peer = "import torch, keras"
    yield Row("start/predict one picture", peer, ours, theirs, "s", theirs / ours, min(ratios), max(ratios), 1 / 1.4)


def explain_rows(course: Course) -> Iterator[Row]:
    """Maps of a ResNet-18 beside pytorch-grad-cam and captum, both in float32; and how near the fast maps are."""
    missing = [name for name in ("grad-cam", "captum") if installed_version(name) is None]
    if missing:
        course.say(f"explanations are left out: {' and '.join(missing)} missing; pip install 'braintumor-kit[bench]'")
        return
    write_network(course.folder, 18, *_pictures(course))
    for method, peer in (("gradcam", "pytorch_grad_cam"), ("gradcampp", "pytorch_grad_cam"), (IG, "captum")):
        course.say(f"explanations, {method}")
        images = course.batch_size if method != IG else max(course.batch_size // 4, 1)
        told: dict[str, Any] = {"method": method, "images": images, "folder": str(course.folder)}
        steps = 1 if method == IG else 4
        dtypes = list(dict.fromkeys((course.precision, "float32")))
        ours = [Entry("btkit_explain", course.settings(18, dtype, steps, **told)) for dtype in dtypes]
        theirs = Entry(peer, course.settings(18, "float32", steps, **told))
        *laps, peers = course.race([*ours, theirs])
        for dtype, own in zip(dtypes, laps, strict=True):
            needs_matrices = dtype != "float32" and method != IG
            promise = None if needs_matrices and not multiplies_bfloat16_matrices() else PROMISED[method, dtype]
            yield _faster(f"explain/{method}/resnet18/{dtype}", f"{peer} float32", own, peers, promise)
    if course.precision != "float32":
        yield from _agreement_rows(course)


def _agreement_rows(course: Course) -> Iterator[Row]:
    course.say("explanations, agreement of the fast with float32 maps")
    methods = ["gradcam", "gradcampp", IG]
    more: dict[str, Any] = {"methods": methods, "images": max(course.batch_size // 4, 1), "folder": str(course.folder)}
    (laps,) = course.race([Entry("btkit_agreement", course.settings(18, course.precision, 1, **more))], rounds=1)
    for method in methods:
        alike = laps.facts[0][method]
        name = f"agreement/{method}/resnet18/{course.precision}"
        yield Row(name, "rank correlation of 0.98 with float32", alike, 0.98, "Spearman", alike / 0.98, at_least=1.0)


def _pictures(course: Course) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One batch of prepared slices, evenly spaced over the classes, uint8 (N, S, S, 1), and their classes."""
    files = sorted((course.folder / "pictures").rglob("*.jpg"))
    chosen = np.linspace(0, len(files) - 1, course.batch_size).round().astype(int)
    pixels = PixelsTable(image_size=course.image_size)
    _, labels = np.unique([files[place].parent.name for place in chosen], return_inverse=True)
    return np.stack([prepare(read_picture(files[place]), pixels) for place in chosen]), labels


GROUPS: Mapping[str, Callable[[Course], Iterator[Row]]] = {
    "fit": fit_rows,
    "inference": inference_rows,
    "explain": explain_rows,
    "frozen": frozen_rows,
    "data": data_rows,
    "start": start_rows,
}


def _faster(name: str, peer: str, ours: Laps, theirs: Laps, at_least: float | None) -> Row:
    """Rates compared; the ratio is the median of the rounds' own ratios, in which drift cancels."""
    ratios = [a / b for a, b in zip(ours.rates, theirs.rates, strict=True)]
    return Row(name, peer, ours.rate, theirs.rate, "images/s", median(ratios), min(ratios), max(ratios), at_least)


def _seconds(command: list[str], environment: Mapping[str, str] | None = None) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise WorkError(f"the benchmark's '{' '.join(command[1:4])}' stopped: {done.stderr.strip().splitlines()[-1]}.")
    return time.perf_counter() - began
