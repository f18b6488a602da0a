"""What surrounds the brain: skull, scalp, face, neck and the skull base, none of which the template has.

A glance wants a smooth outline, a dark skull, bright fat and a busy, mirror-symmetric skull base with eyes
and air in the right places. So the base is a table of ellipsoids over a texture of muscle and fat, symmetric
in x.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from btkit_plugins.phantom.randomness import Floats, smoothstep
from numpy.typing import NDArray
from scipy import ndimage

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Tones:
    """The brightness of each tissue on contrast-enhanced T1, 0 black, 1 bright fat."""

    air: float = 0.012
    bone: float = 0.07
    marrow: float = 0.42
    fat: float = 0.95
    skin: float = 0.60
    muscle: float = 0.30
    mucosa: float = 0.58
    fluid: float = 0.10
    grey: float = 0.29
    white: float = 0.34
    vessel: float = 0.62


@dataclass(frozen=True)
class Blob:
    """An ellipsoid of one tissue, in template mm.

    Attributes:
        tissue: a field of `Tones`.
        centre, radii: in mm.
        pitch: degrees by which its front is turned up.
        paired: mirrored to the left; the centre's x is positive.
        texture: how strongly the muscle-and-fat texture shows through, 0..1.
    """

    tissue: str
    centre: Triple
    radii: Triple
    pitch: float = 0.0
    paired: bool = False
    texture: float = 0.0

    def distance(self, points: Floats) -> Floats:
        """Roughly the signed distance in mm from points (3, N) to the surface, negative inside."""
        x, y, z = points - np.array(self.centre, np.float32)[:, None]
        if self.paired:
            x = np.abs(points[0]) - np.float32(self.centre[0])
        cosine, sine = np.float32(np.cos(np.radians(self.pitch))), np.float32(np.sin(np.radians(self.pitch)))
        along, across = y * cosine + z * sine, z * cosine - y * sine
        a, b, c = (np.float32(radius) for radius in self.radii)
        return (np.sqrt((x / a) ** 2 + (along / b) ** 2 + (across / c) ** 2) - 1) * min(a, b, c)

    @cached_property
    def box(self) -> tuple[Floats, Floats]:
        """The lowest and the highest corner, (3,) each in mm, of a box around it and its soft edge."""
        reach = np.array(self.radii, np.float32) + 1
        if self.pitch:
            reach[1:] = max(reach[1:])
        return self.centre - reach, self.centre + reach

    def meets(self, low: Floats, high: Floats) -> bool:
        """Whether it may meet the box between two corners, (3,) each in mm."""
        bottom, top = self.box
        aside = bottom[0] < max(high[0], -low[0]) if self.paired else bottom[0] < high[0] and top[0] > low[0]
        return bool(aside and (bottom[1:] < high[1:]).all() and (top[1:] > low[1:]).all())

    def near(self, points: Floats) -> NDArray[np.intp]:
        """The indices of the points (3, N) that may lie inside; few, so that a large table stays cheap."""
        low, high = self.box
        x = np.abs(points[0]) if self.paired else points[0]
        found = np.flatnonzero((x > low[0]) & (x < high[0]))
        for axis in (1, 2):
            along = points[axis, found]
            found = found[(along > low[axis]) & (along < high[axis])]
        return found


OUTLINE = (
    Blob("skin", (0, 34, -58), (66, 64, 68)),
    Blob("skin", (0, 44, -100), (58, 54, 42)),
    Blob("skin", (0, 0, -84), (70, 66, 74)),
    Blob("skin", (0, 97, -52), (14, 24, 15), pitch=25),
    Blob("skin", (0, 94, -84), (24, 10, 14)),
    Blob("skin", (0, -40, -130), (64, 64, 150)),
    Blob("skin", (86, -18, -38), (7, 12, 24), paired=True),
)
"""Face, jaw, cheeks, nose, lips, neck and ears; with the cranium they make the skin's surface."""

BASE = (
    # Bones of the base; the petrous bones stand between the temporal lobes and the cerebellum.
    Blob("bone", (38, -20, -45), (28, 9, 9), paired=True),
    Blob("air", (52, -30, -48), (9, 9, 11), paired=True, texture=0.35),
    Blob("bone", (0, 10, -44), (22, 24, 12)),
    Blob("marrow", (0, -17, -51), (13, 4, 19), pitch=-31, texture=0.15),
    Blob("bone", (0, 36, -30), (24, 30, 5), pitch=8),
    # Eyes in their fat.
    Blob("fat", (29, 48, -36), (15, 20, 14), paired=True, texture=0.4),
    Blob("muscle", (16, 44, -36), (2.2, 20, 4), paired=True),
    Blob("muscle", (41, 46, -36), (2.2, 18, 4), paired=True),
    Blob("muscle", (24, 42, -36), (2.6, 20, 2.6), paired=True),
    Blob("mucosa", (31, 66, -37), (13.4, 13.4, 13.4), paired=True),
    Blob("fluid", (31, 66, -37), (12, 12, 12), paired=True),
    Blob("muscle", (31, 75.5, -37), (5, 2.2, 5), paired=True),
    # Air and mucosa of nose and sinuses.
    Blob("air", (0, 50, -40), (12, 22, 13), texture=0.25),
    Blob("air", (0, 58, -54), (15, 32, 16)),
    Blob("mucosa", (8, 50, -60), (3.6, 27, 6), paired=True, texture=0.15),
    Blob("mucosa", (7, 46, -47), (3.0, 22, 4.5), paired=True, texture=0.15),
    Blob("mucosa", (0, 58, -50), (1.3, 32, 18), texture=0.25),
    Blob("air", (31, 50, -62), (13, 16, 15), paired=True),
    Blob("air", (8, 79, -8), (8, 3.5, 8), paired=True),
    Blob("air", (0, 16, -44), (12, 12, 8)),
    Blob("bone", (2, 16, -44), (0.8, 12, 8)),
    # Mouth, tongue and pharynx.
    Blob("bone", (0, 60, -75), (26, 32, 3)),
    Blob("fat", (0, 60, -75), (20, 26, 1.2)),
    Blob("muscle", (0, 46, -97), (24, 33, 19), pitch=8, texture=0.12),
    Blob("air", (0, 62, -80), (17, 24, 1.6), pitch=4),
    Blob("bone", (0, 84, -82), (22, 6, 9)),
    Blob("bone", (0, 80, -112), (12, 7, 11)),
    Blob("marrow", (0, 80, -112), (9, 4.5, 8)),
    Blob("bone", (46, 30, -92), (6, 17, 24), paired=True),
    Blob("marrow", (46, 30, -92), (3, 13, 20), paired=True, texture=0.2),
    Blob("muscle", (56, 30, -84), (6, 16, 26), paired=True, texture=0.1),
    Blob("muscle", (33, 20, -72), (8, 16, 18), paired=True, texture=0.15),
    Blob("air", (0, 6, -70), (9, 7, 14), pitch=20),
    Blob("air", (0, -2, -104), (10, 5, 26)),
    Blob("muscle", (0, 8, -82), (7, 10, 3.5), pitch=-35),
    # The spine in front of the cord: dens and bodies, with their discs between.
    Blob("bone", (0, -33, -80), (7, 6.5, 15)),
    Blob("marrow", (0, -33, -80), (5.5, 5, 13), texture=0.1),
    Blob("marrow", (0, -29, -106), (11, 8, 9), texture=0.1),
    Blob("marrow", (0, -29, -126), (11, 8, 8.5), texture=0.1),
    Blob("marrow", (0, -29, -146), (11, 8, 8.5), texture=0.1),
)
"""Painted in this order, later over earlier, wherever there is no brain."""

SELLA = (
    Blob("vessel", (13, 0, -32), (4, 9, 5), paired=True, texture=0.3),
    Blob("bone", (13.5, 3, -33), (2.2, 4.5, 2.2), paired=True),
    Blob("vessel", (0, 2, -31), (7, 5, 3.5)),
    Blob("vessel", (0, 0, -24), (1.1, 1.1, 6), pitch=10),
)
"""Cavernous sinuses with the carotids' flow voids, the healthy pituitary gland and its stalk: all enhance."""

SINUSES = (
    Blob("vessel", (0, -50, 6), (2.2, 22, 2.2), pitch=-38),
    Blob("vessel", (0, -40, 8), (2.4, 3.5, 7), pitch=0),
    Blob("vessel", (34, -84, -26), (34, 4, 3.5), paired=True),
    Blob("vessel", (56, -56, -34), (4, 26, 4), paired=True),
)
"""Straight, great cerebral, transverse and sigmoid veins; the sagittal sinus follows the skull instead."""

CORD_Y, CORD_TOP, CORD_MM, CANAL_MM = -46.0, -60.0, 5.5, 9.0
"""The spinal cord carries the brainstem on below the template; the radii of cord and canal, in mm."""

FINE: Triple = (2.2, 2.6, 3.2)
BUNDLES: Triple = (5.0, 6.0, 11.0)
PARENCHYMA: Triple = (2.4, 2.4, 2.4)
"""Grains of the textures in mm; bundles of muscle run from top to bottom."""


@cache
def grain() -> Floats:
    """One lattice of random values 0..1 for every texture of every patient."""
    values = np.random.default_rng(1309).normal(size=(48, 48, 48))
    smooth = ndimage.gaussian_filter(values, 0.7, mode="wrap")
    return (0.5 + 0.22 * smooth / smooth.std()).astype(np.float32)


def texture(points: Floats, scale: Triple, shift: Triple = (0, 0, 0)) -> Floats:
    """Grainy values around 0.5, with a spread of about 0.2, at points (3, N); a grain measures `scale` mm."""
    lattice = points / np.array(scale, np.float32)[:, None] + np.array(shift, np.float32)[:, None]
    found = ndimage.map_coordinates(grain(), lattice, output=np.float32, order=1, mode="grid-wrap")
    return np.asarray(found, np.float32)


def symmetric_textures(points: Floats, where: NDArray[np.bool_], shift: Triple) -> tuple[Floats, Floats]:
    """The fine texture and the bundles' at points (3, N), alike left and right; 0.5 where not `where` (N)."""
    wanted = points[:, where]
    wanted[0] = np.abs(wanted[0])
    fine, bundles = np.full((2, points.shape[1]), 0.5, np.float32)
    fine[where], bundles[where] = texture(wanted, FINE, shift), texture(wanted, BUNDLES, shift)
    return fine, bundles


def with_canal(inner: Floats, points: Floats) -> Floats:
    """The inner table's distance (mm) joined with the spinal canal's."""
    below = smoothstep(CORD_TOP + 8, CORD_TOP - 8, points[2])
    canal = np.hypot(points[0], points[1] - CORD_Y) - CANAL_MM
    return np.minimum(inner, canal + 30 * (1 - below))


def skin_distance(points: Floats, cranium: Floats, thickness: Floats | float) -> Floats:
    """Roughly the signed distance in mm to the skin, negative inside, of points (3, N).

    Args:
        points: template coordinates in mm.
        cranium: their distance to the cranium, in mm.
        thickness: of skull and scalp together, in mm.
    """
    distance = cranium - thickness
    for blob in OUTLINE:
        distance = smooth_minimum(distance, blob.distance(points), 3.0 if blob.paired else 12.0)
    return distance


def smooth_minimum(first: Floats, second: Floats, blend: float) -> Floats:
    """The union of two signed distances, its crease rounded over `blend` mm."""
    overlap = np.maximum(blend - np.abs(first - second), 0) / np.float32(blend)
    return np.minimum(first, second) - overlap * overlap * np.float32(blend / 4)


def blend(values: Floats, tone: Floats | float, weight: Floats | float) -> None:
    """Moves `values` in place towards `tone` by `weight`, 0..1."""
    values += weight * (tone - values)


def inside(distance: Floats, edge: float = 0.6) -> Floats:
    """How much of a point lies inside a surface, given its signed distance: 1 to 0 over twice `edge` mm."""
    return np.clip(0.5 - distance / np.float32(2 * edge), 0, 1)


def paint_blobs(
    values: Floats, points: Floats, blobs: tuple[Blob, ...], tones: Tones, grain: Floats | None = None
) -> None:
    """Paints ellipsoids over `values` (N) in place; `grain` (N) is the texture of those that have one."""
    low, high = points.min(axis=1), points.max(axis=1)
    for blob in blobs:
        near = blob.near(points) if blob.meets(low, high) else np.empty(0, np.intp)
        if near.size:
            tone = getattr(tones, blob.tissue)
            if grain is not None:
                tone = np.maximum(tone + 2 * blob.texture * (grain[near] - 0.5), tones.air)
            part = values[near]
            blend(part, tone, inside(blob.distance(points[:, near])))
            values[near] = part
