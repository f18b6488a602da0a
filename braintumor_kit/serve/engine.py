"""The model of a server: one picture to probabilities, flags and maps, as `btkit predict` and `btkit explain` give
them. One thread may use it at a time.
"""

import base64
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintumor_kit import __version__
from braintumor_kit.contracts import PluginError
from braintumor_kit.data.pixels import prepare
from braintumor_kit.errors import ImageError, InputError
from braintumor_kit.explanation.engine import FLAGS, Explained, Method, explain_batch
from braintumor_kit.explanation.open import network_of
from braintumor_kit.explanation.targets import parse_target
from braintumor_kit.model.infer import Predictor
from braintumor_kit.model.precision import PRECISIONS, resolve_precision
from braintumor_kit.notice import NOTICE
from braintumor_kit.recipe.load import load_explainer
from braintumor_kit.registry import Registry
from braintumor_kit.report.overlays import in_colour, layer, scale_end
from braintumor_kit.report.page import embedded
from braintumor_kit.serve.answers import Answer, Explanation, Model, Peak, VolumeAnswer
from braintumor_kit.serve.limits import Limits
from braintumor_kit.serve.scans import Scans
from braintumor_kit.workflows.explain import as_images
from braintumor_kit.workflows.predict import Prediction, answers, as_json
from braintumor_kit.workflows.trained import Trained, plane_of
from braintumor_kit.workflows.whole_volumes import of_volume

SAID = {"out_of_distribution": "Unlike the training slices: do not use this answer.",
        "abstain": "Too unsure: no class is likely enough; do not use this answer."}  # fmt: skip


class Engine:
    """A trained model that answers for single pictures.

    Args:
        trained: the model.
        name: shown as its name.
        registry: where explainers are found.
        precision: of convolutions of explanations, as `btkit explain --precision`; probabilities are of float32.
    """

    def __init__(self, trained: Trained, name: str, registry: Registry, precision: str = "auto") -> None:
        self._trained, self._name, self._registry = trained, name, registry
        self._predictor = Predictor(trained.model, watch=trained.certainty is not None and trained.certainty.detects)
        dtype = PRECISIONS[resolve_precision(precision)]
        self._network = network_of(trained.model, dtype, trained.explain_layer, trained.pixels.shape)
        self._methods: dict[str, Method] = {}
        self._scans = Scans()

    def model(self, limits: Limits) -> Model:
        """What is served."""
        height, width, _ = self._trained.pixels.shape
        return Model(
            name=self._name,
            classes=list(self._trained.classes),
            methods=self._registry.names("explainer"),
            targets=["predicted", *self._trained.classes],
            image_size=[height, width],
            calibrated=self._trained.certainty is not None,
            warning=self._trained.warning,
            upload_bytes=limits.upload_bytes,
            notice=NOTICE,
            version=__version__,
        )

    def warm_up(self) -> None:
        """Answers once for a black picture, so that the first who asks need not wait longer than others."""
        pixels = np.zeros((1, *self._trained.pixels.shape), np.uint8)
        self._said(pixels)
        with suppress(InputError, PluginError):  # a model that the method does not fit
            self._explained(pixels, self._method("gradcam"), "predicted")

    def predict(self, content: bytes, slice: int | None = None, plane: str | None = None) -> Answer:
        """What the model says of a picture file, or of one slice of a volume.

        Args:
            slice: of a volume, from 1; the middle one where none is asked for.
            plane: that a NIfTI volume is cut in; the model's own where none is asked for.

        Raises:
            ImageError: where it cannot be read.
            InputError: where there is no such slice.
        """
        pixels, place = self._read(content, slice, plane)
        return Answer(**self._said(pixels)[0], **place)

    def explain(
        self, content: bytes, method: str, target: str, slice: int | None = None, plane: str | None = None
    ) -> Explanation:
        """The same with a map.

        Raises:
            ImageError: where it cannot be read.
            InputError: where there is no such method, target or slice, or the method does not fit the model.
        """
        chosen = self._method(method)
        pixels, place = self._read(content, slice, plane)
        said, explained = self._explained(pixels, chosen, target)
        values = explained.maps[0]
        return Explanation(
            **said,
            **place,
            method=method,
            target=explained.targets.names[0],
            layer=explained.layer,
            signed=chosen.signed,
            flags={flag: FLAGS[flag] for flag in explained.flags[0]},
            peak=float(np.abs(values).max()),
            map=_npy(values),
            slice=embedded(in_colour(pixels[0])),
            layer_picture=embedded(_layer(values, chosen.signed)),
        )

    def volume(self, content: bytes, plane: str | None = None) -> VolumeAnswer:
        """What the model says of a volume: of each slice, and of all together.

        Raises:
            ImageError: where none of it can be read.
        """
        scan = self._scans.opened(content, plane or plane_of(self._trained.run))
        said: list[Prediction] = []
        numbers: list[int] = []
        for start in range(0, scan.slices or 1, self._predictor.batch_size):
            places = range(start, min(start + self._predictor.batch_size, scan.slices or 1))
            read = [self._prepared(scan.picture, place) for place in places]
            good = [(place + 1, pixels) for place, pixels in zip(places, read, strict=True) if pixels is not None]
            if good:
                observed = self._predictor.observed(np.stack([pixels for _, pixels in good]))
                said += answers([str(number) for number, _ in good], *observed, self._trained.certainty)
                numbers += [number for number, _ in good]
        if not said:
            raise ImageError("none of its slices can be read")
        whole = of_volume("volume", said, numbers, self._trained.limits)
        found = as_json(whole.summary, self._trained.classes)
        del found["path"]
        peaks = {
            name: Peak(slice=number, probability=probability)
            for name, (number, probability) in zip(self._trained.classes, whole.peaks, strict=True)
        }
        return VolumeAnswer(
            **found, caution=_caution(found), notice=NOTICE, slice_number=None, slices=scan.slices, note=scan.note,
            slices_used=whole.used, peaks=peaks,
        )  # fmt: skip

    def check(self, method: str, target: str) -> None:
        """Finds before a picture is taken what is wrong with a wish.

        Raises:
            PluginError: where there is no such method.
            InputError: where there is no such target.
        """
        self._registry.find("explainer", method)
        if target in ("all", "label"):
            raise InputError(f"target '{target}' is none of one picture whose class nobody knows: name a class.")
        parse_target(target, self._trained.classes)

    def _method(self, name: str) -> Method:
        if name not in self._methods:
            plugin = load_explainer(name, {}, self._registry)
            self._methods[name] = Method(name, plugin.make(), plugin.info)
        return self._methods[name]

    def _read(self, content: bytes, number: int | None, plane: str | None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The picture as the network takes it, uint8 (1, S, S, C), and what slice of what it is."""
        scan = self._scans.opened(content, plane or plane_of(self._trained.run))
        place = scan.place(number)
        pixels = np.array([prepare(scan.picture(place), self._trained.pixels)])
        return pixels, {"slice_number": scan.slices and place + 1, "slices": scan.slices, "note": scan.note}

    def _prepared(self, picture: Callable[[int], NDArray[Any]], place: int) -> NDArray[np.uint8] | None:
        try:
            return prepare(picture(place), self._trained.pixels)
        except ImageError:
            return None

    def _said(self, pixels: NDArray[np.uint8]) -> tuple[dict[str, Any], NDArray[np.float32]]:
        rows, features = self._predictor.observed(pixels)
        (prediction,) = answers(["picture"], rows, features, self._trained.certainty)
        said = as_json(prediction, self._trained.classes)
        del said["path"]
        return {**said, "caution": _caution(said), "notice": NOTICE}, rows

    def _explained(self, pixels: NDArray[np.uint8], method: Method, target: str) -> tuple[dict[str, Any], Explained]:
        said, rows = self._said(pixels)
        images = as_images(pixels, self._network)
        (choose,) = parse_target(target, self._trained.classes)
        try:
            found = explain_batch(self._network, method, images, choose(rows.argmax(axis=1), None), rows)
        finally:
            self._network.forget()
        return said, found


def _caution(said: dict[str, Any]) -> str | None:
    return next((words for key, words in SAID.items() if said[key]), None)


def _npy(values: NDArray[np.float32]) -> str:
    file = BytesIO()
    np.save(file, values, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _layer(values: NDArray[np.float32], signed: bool) -> NDArray[np.uint8]:
    top = scale_end(values, signed)
    return layer(values, top, signed) if top else np.zeros((*values.shape, 4), np.uint8)
