"""The three tumours, as radiologists describe them on contrast-enhanced T1.

Each is a signed level in template space, in mm and negative inside. Its mask is `level < 0` at the pixels'
centres: ring and core of a glioma without its oedema, a meningioma without its dural tail, a whole adenoma.
That is also what the outlines of the figshare set enclose.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from btkit_plugins.phantom.head import Tones, Triple, blend, inside, texture
from btkit_plugins.phantom.randomness import Floats, Waves, smoothstep
from numpy.typing import NDArray

FINE: Triple = (2.4, 2.4, 2.4)
"""The grain of the tumours' texture, in mm."""


@dataclass(frozen=True)
class Surroundings:
    """What a lesion may ask of the points it is painted on, each (N).

    Attributes:
        inner: signed distance to the inner table, in mm.
        white: probability of white matter, 0..1.
        tones: the patient's tissue tones.
    """

    inner: Floats
    white: Floats
    tones: Tones


@dataclass(frozen=True)
class Lesion(ABC):
    """A tumour in template space.

    Attributes:
        centre: in mm.
        radii: along x, y and z, in mm; the irregular surface stays near this ellipsoid.
        shape: the irregularity of its surface.
        tone: brightness of its enhancing part.
        push: by how much it displaces the brain, as a fraction of its radius.
    """

    centre: Triple
    radii: Triple
    shape: Waves
    tone: float
    push: float

    @abstractmethod
    def level(self, points: Floats, inner: Floats) -> Floats:
        """Roughly the signed distance in mm to the tumour's surface, (N), negative inside.

        Args:
            points: template coordinates, (3, N) in mm.
            inner: their signed distance to the inner table, (N) in mm.
        """

    @abstractmethod
    def paint(self, values: Floats, points: Floats, around: Surroundings) -> None:
        """Paints the tumour and what it does to the tissue beside it over `values` (N) in place."""

    def near(self, points: Floats) -> NDArray[np.intp]:
        """The indices of the points (3, N) that `paint` may change."""
        reach = np.float32(1.5 * max(self.radii) + self.beyond)
        return np.flatnonzero((np.abs(points - column(self.centre)) < reach).all(axis=0))

    @property
    def beyond(self) -> float:
        """How far in mm the tumour changes the tissue beside it."""
        return 2.0

    def ellipsoid(self, points: Floats, roughness: float) -> Floats:
        """The rough ellipsoid's level in mm; `roughness` is the relative standard deviation of its radius."""
        scaled = (points - column(self.centre)) / column(self.radii)
        stretch = 1 + np.float32(roughness) * np.clip(self.shape(points)[0], -2, 2)
        return (np.sqrt((scaled**2).sum(0)) - stretch) * np.float32(np.mean(self.radii))

    def displaced(self, points: Floats) -> Floats:
        """Where the brain tissue now at `points` (3, N) lay before the tumour grew: nearer to its centre."""
        away = points - column(self.centre)
        distance = np.sqrt((away**2).sum(0)) + np.float32(1e-3)
        radius = np.float32(np.mean(self.radii))
        moved = self.push * radius * np.exp(-np.maximum(distance - radius, 0) / radius)
        return points - away / distance * np.minimum(moved, distance)


@dataclass(frozen=True)
class Glioma(Lesion):
    """Intra-axial, irregular, a ring that enhances around a dark core, oedema along the white matter.

    Attributes:
        ring: the ring's thickness, in mm.
        oedema: how far the oedema reaches, in mm.
        patches: how the ring's brightness, its thickness and the core's darkness vary.
    """

    ring: float = 4.0
    oedema: float = 14.0
    patches: Waves = field(kw_only=True)

    @property
    def beyond(self) -> float:
        return self.oedema

    def level(self, points: Floats, inner: Floats) -> Floats:
        return np.maximum(self.ellipsoid(points, roughness=0.13), inner + 3)

    def paint(self, values: Floats, points: Floats, around: Surroundings) -> None:
        level, tones = self.level(points, around.inner), around.tones
        brightness, thickness, necrosis = self.patches(points)
        fine = texture(points, FINE) - 0.5
        swollen = smoothstep(self.oedema, 0, level + 3 * thickness) * (0.3 + 0.7 * around.white)
        blend(values, 0.5 * (tones.grey + tones.fluid), 0.8 * swollen * inside(around.inner + 2))
        enhancement = np.clip(0.85 + 0.3 * brightness + 0.6 * fine, 0.4, 1.25)
        body = tones.white + (self.tone - tones.white) * enhancement
        core = tones.fluid + (tones.grey - tones.fluid) * np.clip(0.4 + 0.3 * necrosis + 0.4 * fine, 0.1, 0.9)
        depth = level + self.ring * np.clip(1 + 0.45 * thickness, 0.5, 2.2)
        blend(body, core, smoothstep(1.2, -1.2, depth))
        blend(values, body, inside(level, edge=0.8))


@dataclass(frozen=True)
class Meningioma(Lesion):
    """Extra-axial, a ball cut off by the dura that it grows from, evenly bright, with a tail along the dura.

    Attributes:
        tail: how far the tail reaches along the dura, in mm.
    """

    tail: float = 14.0

    @property
    def beyond(self) -> float:
        return self.tail

    def level(self, points: Floats, inner: Floats) -> Floats:
        return np.maximum(self.ball(points), inner + 0.5)

    def ball(self, points: Floats) -> Floats:
        """The level of the tumour as if there were no dura."""
        return self.ellipsoid(points, roughness=0.055)

    def paint(self, values: Floats, points: Floats, around: Surroundings) -> None:
        ball = self.ball(points)
        level = np.maximum(ball, around.inner + 0.5)
        cleft = inside(np.abs(ball - 0.9) - 0.6) * (around.inner < -1)
        blend(values, around.tones.fluid, 0.5 * cleft)
        thickness = np.float32(4.5) * np.clip(1 - ball / np.float32(self.tail), 0, 1)
        along_dura = np.maximum(around.inner, -around.inner - thickness)
        blend(values, self.tone, inside(along_dura) * (ball < self.tail))
        blend(values, self.tone + 0.16 * (texture(points, FINE) - 0.5), inside(level))


@dataclass(frozen=True)
class Adenoma(Lesion):
    """Pituitary, midline in the sella, with a waist where it grows up through the diaphragm.

    Attributes:
        waist: height of the waist above the centre, in mm.
        cysts: how much of it does not enhance, 0..1.
        patches: where the cysts are.
    """

    waist: float = 1.0
    cysts: float = 0.0
    patches: Waves = field(kw_only=True)

    def level(self, points: Floats, inner: Floats) -> Floats:
        height = points[2] - np.float32(self.centre[2] + self.waist)
        pinch = 1.6 * np.exp(-((height / np.float32(2.5)) ** 2))
        return self.ellipsoid(points, roughness=0.06) + pinch

    def paint(self, values: Floats, points: Floats, around: Surroundings) -> None:
        level = self.level(points, around.inner)
        patches = smoothstep(0.7, 1.5, self.patches(points)[0])
        body = self.tone + 0.12 * (texture(points, FINE) - 0.5)
        blend(body, around.tones.grey, self.cysts * patches * smoothstep(-1.5, -3, level))
        blend(values, around.tones.bone, 0.6 * inside(np.abs(level - 0.8) - 0.4))
        blend(values, body, inside(level))


def column(triple: Triple) -> Floats:
    """(3, 1), to stand beside points (3, N)."""
    return np.array(triple, np.float32)[:, None]
