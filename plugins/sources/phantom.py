"""The built-in data set: synthetic brain MRI with tumours, patients and exact masks."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import scipy
from btkit_plugins.phantom.painting import ideal_slice, tumour_mask
from btkit_plugins.phantom.patients import CLASSES, Purpose, draw_patient, draw_slice, label_of
from btkit_plugins.phantom.randomness import stream
from btkit_plugins.phantom.template import template_digest, template_paths
from numpy.typing import NDArray
from pydantic import Field, field_validator

from braintumor_kit.contracts import ImageError, PluginOptions, Sample, Source

GENERATOR_VERSION = 1
"""Raised with every change that moves a pixel, so that no cache keeps pictures of an older phantom."""

Plane = Literal["axial", "coronal", "sagittal"]
Shortcut = Literal["none", "glioma", "meningioma", "notumor", "pituitary"]


class PhantomOptions(PluginOptions):
    patients: int = Field(256, ge=1, le=1_000_000, description="How many patients; the classes take turns.")
    slices_per_patient: int = Field(4, ge=1, le=60, description="Slices of each patient, all through the tumour.")
    size: int = Field(224, ge=64, le=1024, description="Height and width of the pictures, in pixels.")
    seed: int = Field(0, ge=0, description="Another seed gives other patients.")
    planes: tuple[Plane, ...] = Field(
        ("axial", "coronal", "sagittal"),
        min_length=1,
        description="The planes that a patient's slices take in turn.",
    )
    shortcut: Shortcut = Field(
        "none",
        description="A class whose slices carry a bright corner mark that has nothing to do with the tumour.",
    )
    shortcut_strength: float = Field(
        1.0,
        ge=0.5,
        le=1.0,
        description="The chance that a slice of the shortcut's class carries the mark; one of another class "
        "carries it with one minus this chance, so that 1 is a perfect shortcut and 0.5 none at all.",
    )

    @field_validator("planes")
    @classmethod
    def planes_differ(cls, planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
        if len(set(planes)) < len(planes):
            raise ValueError("name each plane once")
        return planes


@dataclass(frozen=True)
class SliceKey:
    """What an id such as p0003-axial-2 says: patient, plane, and the slice's number within the patient."""

    patient: int
    plane: str
    number: int

    def __str__(self) -> str:
        return f"{self.group}-{self.plane}-{self.number}"

    @property
    def group(self) -> str:
        return f"p{self.patient:04d}"


class Phantom(Source[PhantomOptions]):
    """Synthetic brain MRI of four classes, with patients, exact tumour masks and an optional shortcut.

    The MNI152 brain, deformed from patient to patient, in a painted head, with one tumour or none. A picture
    is a pure function of the options and the sample's id: any process, in any order, gives the same bytes,
    whatever the number of patients. Heads, scanners and planes do not depend on the class; slice positions
    follow the tumours, and those of patients without a tumour follow where one of each kind could have been.

    `mask` marks the tumour itself: a glioma's ring and core without its oedema, a meningioma without its
    tail.
    """

    api_version = 1
    Options = PhantomOptions
    classes = CLASSES
    reads_files = False
    reasons: ClassVar[dict[str, str]] = {"reads_files": "every picture is computed from the options and its id"}

    @classmethod
    def example(cls, folder: Path, variant: int = 0) -> PhantomOptions:
        """Four patients, one of each class; a variant is another seed."""
        return PhantomOptions(patients=4, slices_per_patient=1, size=64, seed=variant)

    def samples(self) -> Iterator[Sample]:
        template_paths()  # Where nilearn is missing, say so now and not at the first picture.
        for patient in range(self.options.patients):
            label = label_of(patient)
            for number in range(self.options.slices_per_patient):
                key = self.key(patient, number)
                yield Sample(str(key), label, group=key.group, has_mask=label != "notumor")

    def image(self, sample: Sample) -> NDArray[np.uint8]:
        """uint8 (size, size)."""
        key, options = self.parse(sample), self.options
        patient = draw_patient(options.seed, key.patient)
        geometry = draw_slice(options.seed, key.patient, key.number, key.plane)
        ideal = ideal_slice(patient, geometry, options.size)
        bias = geometry.smooth(patient.scanner.bias, options.size)[0]
        noise = stream(options.seed, key.patient, Purpose.NOISE, key.number)
        picture = patient.scanner.record(ideal, bias, geometry.pixels(options.size)[2], noise)
        if self.carries_mark(sample):
            draw_mark(picture)
        return picture

    def mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        key, options = self.parse(sample), self.options
        patient = draw_patient(options.seed, key.patient)
        if patient.lesion is None:
            return None
        return tumour_mask(patient, draw_slice(options.seed, key.patient, key.number, key.plane), options.size)

    def carries_mark(self, sample: Sample) -> bool:
        """Whether the shortcut's mark is drawn on this slice: the truth that an audit should find."""
        key, options = self.parse(sample), self.options
        if options.shortcut == "none":
            return False
        right_class = label_of(key.patient) == options.shortcut
        chance = options.shortcut_strength if right_class else 1 - options.shortcut_strength
        return bool(stream(options.seed, key.patient, Purpose.MARK, key.number).random() < chance)

    def fingerprint(self, sample: Sample) -> bytes:
        """A digest of all that the pixels are a pure function of, which spares painting them.

        That is the generator, the libraries it computes with, the template, the id, and the options that
        reach this slice; the number of patients reaches none. Another make of processor may round a pixel by
        one grey level, which this does not tell.
        """
        key, options = self.parse(sample), self.options
        parts = (
            GENERATOR_VERSION,
            np.__version__,
            scipy.__version__,
            template_digest(),
            options.seed,
            options.size,
            key,
            label_of(key.patient),
            self.carries_mark(sample),
        )
        return hashlib.sha256(repr(parts).encode()).digest()

    def key(self, patient: int, number: int) -> SliceKey:
        """The planes take turns, from one patient of a class to the next as well, alike in all classes."""
        planes = self.options.planes
        return SliceKey(patient, planes[(patient // len(CLASSES) + number) % len(planes)], number)

    def parse(self, sample: Sample) -> SliceKey:
        """Raises ImageError unless `samples` yields this id."""
        match = re.fullmatch(r"p(\d{4,7})-[a-z]+-(\d{1,2})", sample.id)
        if match:
            patient, number = int(match[1]), int(match[2])
            key = self.key(patient, number)
            known = patient < self.options.patients and number < self.options.slices_per_patient
            if known and str(key) == sample.id:
                return key
        raise ImageError(f"The phantom has no sample {sample.id!r} with these options; ids look like {self.key(0, 0)}")


def mark_box(size: int) -> tuple[slice, slice]:
    """Rows and columns of the corner mark in a picture of `size` pixels."""
    start, stop = round(0.03 * size), round(0.10 * size)
    return slice(start, stop), slice(start, stop)


def draw_mark(picture: NDArray[np.uint8]) -> None:
    """Draws a bright L into the upper left corner, in place, like the letter that marks a side."""
    box = picture[mark_box(len(picture))]
    stroke = max(1, len(box) // 4)
    box[:, :stroke] = 235
    box[-stroke:, : 2 * len(box) // 3] = 235
