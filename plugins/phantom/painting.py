"""The ideal picture of a slice, and its tumour's mask, computed on the slice's own points."""

from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import numpy as np
from btkit_plugins.phantom import head
from btkit_plugins.phantom.head import Tones, blend, inside
from btkit_plugins.phantom.lesions import Surroundings
from btkit_plugins.phantom.patients import Body, Patient
from btkit_plugins.phantom.planes import Slice
from btkit_plugins.phantom.randomness import Floats, smoothstep
from btkit_plugins.phantom.template import load_template
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """The points to be painted and where in the head they are; everything is float32.

    Attributes:
        points: template coordinates, (3, N) in mm.
        folded: the template coordinates at which the brain is read, (3, N) in mm.
        inner, skin: signed distances to the inner table and to the skin, (N) in mm, negative inside.
        skull, scalp: their thicknesses there, (N) in mm.
    """

    points: Floats
    folded: Floats
    inner: Floats
    skin: Floats
    skull: Floats
    scalp: Floats

    def at(self, indices: NDArray[np.intp]) -> Self:
        """Some of the points."""
        return type(self)(*(getattr(self, field.name).take(indices, axis=-1) for field in fields(self)))


@dataclass(frozen=True)
class Brain:
    """What the template says at some points, each (N).

    Attributes:
        present: 1 in brain tissue, 0 in fluid and outside.
        white: 1 in white matter, 0 in grey.
        detail: deviation of the T1 template from its tissue's usual intensity, roughly -1..1.
    """

    present: Floats
    white: Floats
    detail: Floats


def tumour_mask(patient: Patient, geometry: Slice, size: int) -> NDArray[np.bool_]:
    """The tumour's pixels, (size, size); all False for a patient without one."""
    mask = np.zeros(size * size, bool)
    if patient.lesion is not None:
        points = to_template(patient.body, geometry, size)
        near = patient.lesion.near(points)
        mask[near] = patient.lesion.level(points[:, near], inner_distance(points[:, near])) < 0
    return mask.reshape(size, size)


def ideal_slice(patient: Patient, geometry: Slice, size: int) -> Floats:
    """Tissue tones on the slice, 0 black to 1 bright fat, float32 (size, size)."""
    tones = patient.body.tones
    seen, place = head_points(patient.body, geometry, size)
    values = paint_surroundings(patient.body, place)
    paint_brain(values, patient, place)
    paint_lesion(values, patient, place)
    blend(values, tones.air, 1 - inside(place.skin))
    picture = np.full(size * size, tones.air, np.float32)
    picture[seen] = values
    return picture.reshape(size, size)


def head_points(body: Body, geometry: Slice, size: int) -> tuple[NDArray[np.intp], Place]:
    """The flat indices of the pixels within the skin, and where in the head they are."""
    skull, scalp, skin = geometry.smooth(partial(layers, body), size).reshape(3, -1)
    seen = np.flatnonzero(skin < 1)
    points = to_template(body, geometry, size).take(seen, axis=1)
    folded = points + geometry.smooth(body.folding, size).reshape(3, -1).take(seen, axis=1)
    return seen, Place(points, folded, inner_distance(points), skin[seen], skull[seen], scalp[seen])


def to_template(body: Body, geometry: Slice, size: int) -> Floats:
    """Template coordinates of a slice's pixels, row by row, float32 (3, size * size) in mm."""
    return (geometry.pixels(size) + geometry.smooth(body.displacement, size)).reshape(3, -1)


def inner_distance(points: Floats) -> Floats:
    """Signed distance in mm to the inner table, or to the spinal canal, of template points (3, N)."""
    return head.with_canal(load_template().inner_table(points), points)


def layers(body: Body, points: Floats) -> Floats:
    """Thickness of skull, of scalp, and signed distance to the skin, (3, ...) in mm, at patient `points`.

    They are smooth enough for a coarse lattice: four pixels of a millimetre miss the surface of a ball of 10
    mm radius by 0.2 mm.
    """
    skull_change, scalp_change = body.thickness(points)
    skull = body.skull * np.clip(1 + 0.12 * skull_change, 0.6, 1.5)
    scalp = body.scalp * np.clip(1 + 0.15 * scalp_change, 0.5, 1.6)
    flat = (points + body.displacement(points)).reshape(3, -1)
    skin = head.skin_distance(flat, load_template().cranium(flat), (skull + scalp).reshape(-1))
    return np.stack([skull, scalp, skin.reshape(skull.shape)])


def paint_surroundings(body: Body, place: Place) -> Floats:
    """Everything but the brain: muscle between thin sheets of fat, skull, skull base, fluid; (N)."""
    tones = body.tones
    grain, bundles = head.symmetric_textures(place.points, place.inner > -3, body.grain_shift)
    values = tones.muscle * (0.5 + bundles)
    sheets = smoothstep(0.12, 0.0, np.abs(bundles - 0.5)) * smoothstep(0.3, 0.7, grain)
    blend(values, 0.7 * tones.fat, 0.75 * np.maximum(sheets, smoothstep(0.7, 0.95, grain)))
    depth = place.skin + place.scalp * (0.8 + 0.4 * grain)
    blend(values, tones.fat * (0.75 + 0.4 * grain), smoothstep(-1.5, 1.5, depth))
    paint_skull(values, tones, place, grain)
    head.paint_blobs(values, place.points, head.BASE, tones, grain)
    blend(values, tones.skin, 0.7 * smoothstep(-2.0, -0.8, place.skin))
    blend(values, tones.fluid, inside(place.inner))
    head.paint_blobs(values, place.points, head.SELLA, tones, grain)
    return values


def paint_skull(values: Floats, tones: Tones, place: Place, grain: Floats) -> None:
    """Two dark tables with marrow between, over `values` (N) in place."""
    blend(values, tones.bone, inside(place.inner - place.skull))
    middle = np.abs(place.inner - 0.52 * place.skull) - 0.30 * place.skull * (0.3 + 1.2 * grain)
    blend(values, tones.marrow * (0.6 + 0.8 * grain), inside(middle))


def paint_brain(values: Floats, patient: Patient, place: Place) -> None:
    """Brain and vessels, over `values` (N) in place."""
    body, lesion = patient.body, patient.lesion
    near = np.flatnonzero(place.inner < 1)
    place, part = place.at(near), values[near]
    brain = brain_at(place.folded if lesion is None else lesion.displaced(place.folded), body.atrophy)
    grain = head.texture(place.points, head.PARENCHYMA, body.grain_shift)
    head.paint_blobs(part, place.points, head.SINUSES, body.tones)
    paint_tissue(part, body.tones, place, brain, grain)
    paint_vessels(part, body.tones, place, brain, grain)
    values[near] = part


def brain_at(points: Floats, atrophy: float) -> Brain:
    """The template's tissues at template points (3, N), with borders sharper than those of an average of 152.

    Where the average is less than `atrophy` tissue, 0..1, this brain has fluid: higher means wider sulci.
    """
    template = load_template()
    volumes = template.t1, template.grey, template.white
    t1, grey, white = (volume(points) / np.float32(255) for volume in volumes)
    present = smoothstep(atrophy, atrophy + 0.3, grey + white)
    return Brain(present, sharpened(white), detail=t1 - (0.26 + 0.36 * grey + 0.62 * white))


def sharpened(share: Floats) -> Floats:
    """A tissue's share of the average of 152 brains, 0..1, as it may be in one of them."""
    return smoothstep(0.25, 0.75, share)


def paint_tissue(values: Floats, tones: Tones, place: Place, brain: Brain, grain: Floats) -> None:
    """Grey and white matter, and the cord that carries the brainstem on below the template."""
    tissue = tones.grey + (tones.white - tones.grey) * brain.white + 0.12 * np.clip(brain.detail, -0.3, 0.3)
    blend(values, tissue * (0.95 + 0.1 * grain), brain.present * inside(place.inner + 1))
    x, y, z = place.points
    cord = np.hypot(x, y - head.CORD_Y) - head.CORD_MM
    blend(values, tones.grey, inside(np.maximum(cord, z - head.CORD_TOP + 6)))


def paint_vessels(values: Floats, tones: Tones, place: Place, brain: Brain, grain: Floats) -> None:
    """What contrast agent brightens in every patient: sagittal sinus, falx, dura, veins in the sulci."""
    inner, fluid = place.inner, 1 - brain.present
    x, y, z = place.points
    upper = smoothstep(0, 12, z - 0.25 * np.abs(y))
    sagittal_sinus = np.maximum(np.abs(x) + 0.9 * np.maximum(-inner - 1, 0) - 4.5, inner)
    blend(values, tones.vessel, upper * inside(sagittal_sinus))
    blend(values, tones.vessel, 0.35 * upper * inside(np.abs(x) - 0.5) * fluid)
    blend(values, tones.vessel, 0.30 * inside(np.abs(inner + 0.4) - 0.5))
    blend(values, tones.vessel, 0.65 * smoothstep(0.72, 0.95, grain) * fluid * inside(inner + 1))


def paint_lesion(values: Floats, patient: Patient, place: Place) -> None:
    """The tumour, where there is one, over `values` (N) in place."""
    lesion = patient.lesion
    if lesion is not None:
        near = lesion.near(place.points)
        place, part = place.at(near), values[near]
        white = sharpened(load_template().white(lesion.displaced(place.folded)) / np.float32(255))
        lesion.paint(part, place.points, Surroundings(place.inner, white, patient.body.tones))
        values[near] = part
