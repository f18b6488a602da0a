"""Draws everything that differs from patient to patient and from slice to slice.

Each purpose has its own random stream, keyed by seed, patient and purpose. So a patient is the same however
many others there are, and what a scanner or a skull looks like cannot depend on the class: its stream never
sees it.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache

import numpy as np
from btkit_plugins.phantom.head import Tones, Triple
from btkit_plugins.phantom.lesions import Adenoma, Glioma, Lesion, Meningioma
from btkit_plugins.phantom.planes import NORMAL_AXIS, Slice
from btkit_plugins.phantom.randomness import Floats, Waves, stream
from btkit_plugins.phantom.scanner import Scanner, draw_scanner
from btkit_plugins.phantom.template import load_template
from scipy import ndimage

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
STEP = 2**0.5 - 1
"""From slice to slice of a patient, as a part of their range; multiples of it keep well apart."""


class Purpose(IntEnum):
    """The random streams of one patient. A new purpose goes to the end: the others keep their numbers."""

    BODY = 0
    LESION = 1
    SCANNER = 2
    SLICE = 3
    NOISE = 4
    MARK = 5


@dataclass(frozen=True)
class Body:
    """One head: a smooth map onto the template, and what the template lacks.

    Attributes:
        scale: template mm a patient mm, along x, y and z.
        warp, warp_mm: the smooth displacement of the whole head, and its standard deviation in mm.
        folds, folds_mm: the finer one of the brain alone, which gives gyri of its own.
        atrophy: how wide the sulci and ventricles are, as the share of tissue below which there is fluid.
        skull, scalp: thicknesses, in mm.
        thickness: how they vary over the head.
        tones: the tissues' brightness.
        grain_shift: where in the texture's lattice this patient's textures begin.
    """

    scale: Triple
    warp: Waves
    warp_mm: float
    folds: Waves
    folds_mm: float
    atrophy: float
    skull: float
    scalp: float
    thickness: Waves
    tones: Tones
    grain_shift: Triple

    def displacement(self, points: Floats) -> Floats:
        """From patient coordinates (3, ...) to the template's less the patient's, (3, ...), both in mm."""
        stretch = np.array(self.scale, np.float32).reshape(3, *[1] * (points.ndim - 1)) - 1
        return points * stretch + np.float32(self.warp_mm) * self.warp(points)

    def folding(self, points: Floats) -> Floats:
        """The further displacement of the brain within the skull, of the same form."""
        return np.float32(self.folds_mm) * self.folds(points)

    def to_patient(self, point: Triple) -> Floats:
        """The patient coordinates of one template point, (3,) in mm, by fixed-point iteration."""
        target = np.array(point, np.float32)
        found = target.copy()
        for _ in range(8):
            found[:] = target - self.displacement(found[:, None])[:, 0]
        return found


@dataclass(frozen=True)
class Patient:
    """One patient.

    Attributes:
        body: the head.
        scanner: what recorded it.
        site: the tumour that the slices go through; a patient without tumour has the site of one, so that the
            slices' positions do not tell.
        lesion: the tumour, or None.
    """

    body: Body
    scanner: Scanner
    site: Lesion
    lesion: Lesion | None


def label_of(index: int) -> str:
    """Classes take turns, so that any multiple of four patients is balanced."""
    return CLASSES[index % len(CLASSES)]


@lru_cache(maxsize=64)
def draw_patient(seed: int, index: int) -> Patient:
    """Patient number `index` of this seed."""
    label = label_of(index)
    rng = stream(seed, index, Purpose.LESION)
    kind = str(rng.choice([name for name in CLASSES if name != "notumor"]))
    site = DRAW_LESION[kind if label == "notumor" else label](rng)
    return Patient(
        body=draw_body(stream(seed, index, Purpose.BODY)),
        scanner=draw_scanner(stream(seed, index, Purpose.SCANNER)),
        site=site,
        lesion=None if label == "notumor" else site,
    )


def draw_body(rng: np.random.Generator) -> Body:
    """A head: size and form, gyri of its own, bone and fat, and the contrast between its tissues."""
    size = rng.normal(1, 0.025)
    grey = rng.uniform(0.25, 0.33)
    tones = Tones(
        bone=rng.uniform(0.04, 0.10),
        marrow=rng.uniform(0.28, 0.60),
        fat=rng.uniform(0.75, 1.05),
        skin=rng.uniform(0.45, 0.65),
        muscle=rng.uniform(0.22, 0.34),
        mucosa=rng.uniform(0.45, 0.68),
        fluid=rng.uniform(0.08, 0.14),
        grey=grey,
        white=grey * rng.uniform(1.06, 1.25),
        vessel=rng.uniform(0.50, 0.75),
    )
    return Body(
        scale=triple(np.clip(size * rng.normal(1, 0.02, size=3), 0.92, 1.09)),
        warp=Waves.draw(rng, (90, 200), channels=3),
        warp_mm=rng.uniform(1.5, 3.5),
        folds=Waves.draw(rng, (22, 45), channels=3),
        folds_mm=rng.uniform(1.2, 2.2),
        atrophy=rng.uniform(0.28, 0.52),
        skull=rng.uniform(4.5, 7.5),
        scalp=rng.uniform(4.5, 8.5),
        thickness=Waves.draw(rng, (60, 160), channels=2),
        tones=tones,
        grain_shift=triple(rng.uniform(0, 48, size=3)),
    )


def draw_glioma(rng: np.random.Generator) -> Glioma:
    """Anywhere in deep white matter, 26 to 46 mm across."""
    radius = rng.uniform(13, 23)
    sites = deep_white_matter()
    return Glioma(
        centre=triple(sites[rng.integers(len(sites))] + rng.uniform(-1.5, 1.5, size=3)),
        radii=triple(radius * rng.uniform(0.85, 1.18, size=3)),
        shape=Waves.draw(rng, (0.8 * radius, 4 * radius), waves=16),
        tone=rng.uniform(0.62, 0.90),
        push=rng.uniform(0.1, 0.35),
        ring=rng.uniform(3.0, 5.5),
        oedema=rng.uniform(8, 22),
        patches=Waves.draw(rng, (9, 26), channels=3),
    )


def draw_meningioma(rng: np.random.Generator) -> Meningioma:
    """Anywhere on the dura of the vault or the back of the posterior fossa, 24 to 44 mm across."""
    radius = rng.uniform(12, 22)
    sites = dura()
    root = sites[rng.integers(len(sites))]
    centre = root + inward(root) * radius * rng.uniform(0.60, 0.85)
    return Meningioma(
        centre=triple(centre),
        radii=triple(radius * rng.uniform(0.92, 1.08, size=3)),
        shape=Waves.draw(rng, (1.2 * radius, 4 * radius), waves=16),
        tone=rng.uniform(0.60, 0.85),
        push=rng.uniform(0.4, 0.7),
        tail=rng.uniform(9, 18),
    )


def draw_adenoma(rng: np.random.Generator) -> Adenoma:
    """A macroadenoma standing on the sella's floor, 20 to 30 mm across."""
    height = rng.uniform(10, 15)
    floor = -39 + rng.normal(0, 1)
    return Adenoma(
        centre=(rng.normal(0, 1.2), 3 + rng.normal(0, 1.2), floor + height),
        radii=(rng.uniform(10, 14.5), rng.uniform(10, 12.5), height),
        shape=Waves.draw(rng, (10, 25)),
        tone=rng.uniform(0.52, 0.75),
        push=rng.uniform(0.4, 0.7),
        waist=rng.uniform(-2, 3),
        cysts=rng.choice([0.0, 0.8], p=[0.65, 0.35]),
        patches=Waves.draw(rng, (10, 20)),
    )


DRAW_LESION = {"glioma": draw_glioma, "meningioma": draw_meningioma, "pituitary": draw_adenoma}


def draw_slice(seed: int, index: int, number: int, plane: str) -> Slice:
    """Slice `number` of a patient, through the tumour's site.

    The slices of a patient are spread over the middle half of the tumour, however many there are.
    """
    patient = draw_patient(seed, index)
    rng = stream(seed, index, Purpose.SLICE, number)
    along = (STEP * number + stream(seed, index, Purpose.SLICE).uniform()) % 1
    axis = NORMAL_AXIS[plane]
    through = patient.body.to_patient(patient.site.centre)
    through[axis] += (along - 0.5) * patient.site.radii[axis]
    return Slice(
        plane=plane,
        through=triple(through),
        angles=triple(np.clip(rng.normal(0, 3, size=3), -7, 7)),
        shift=(rng.normal(0, 4), rng.normal(0, 4)),
        width=patient.scanner.width,
        mirrored=patient.scanner.mirrored,
    )


@cache
def deep_white_matter() -> Floats:
    """Template points (N, 3) in mm well inside the white matter of the cerebrum, off the midline."""
    template = load_template()
    white = template.white
    density = ndimage.uniform_filter(white.samples[::2, ::2, ::2].astype(np.float32), 5)
    points = 2.0 * np.argwhere(density > 0.62 * 255) + np.array(white.origin)
    depth = template.inner_table(points.T.astype(np.float32))
    x, _, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    return points[(depth < -17) & (x > 15) & (z > -22)]


@cache
def dura() -> Floats:
    """Template points (N, 3) in mm on the inner table, off the busy parts of the skull base."""
    table = load_template().inner_table
    points = table.spacing * np.argwhere(np.abs(table.samples) < 0.8) + np.array(table.origin)
    y, z = points[:, 1], points[:, 2]
    return points[(z > -12) | ((z > -45) & (y < -70))]


def inward(point: Floats) -> Floats:
    """The unit normal of the inner table at a template point (3,), pointing into the head."""
    steps = np.concatenate([2 * np.eye(3), -2 * np.eye(3)]) + point
    distance = load_template().inner_table(steps.T.astype(np.float32))
    gradient = distance[:3] - distance[3:]
    return -gradient / np.linalg.norm(gradient)


def triple(values: Floats) -> Triple:
    """Three numbers as plain floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z
