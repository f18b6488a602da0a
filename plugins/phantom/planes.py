"""Where a slice lies in the patient, and its pixels' coordinates."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from btkit_plugins.phantom.randomness import Floats
from scipy.spatial.transform import Rotation

PLANES = ("axial", "coronal", "sagittal")
NORMAL_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The coordinate that is constant over a slice that is not tilted."""

DIRECTIONS = {
    "axial": ((0, -1, 0), (-1, 0, 0)),
    "coronal": ((0, 0, -1), (-1, 0, 0)),
    "sagittal": ((0, 0, -1), (0, -1, 0)),
}
"""Down a column and along a row, as radiologists hang pictures: the patient's left, or back, on the right."""

CENTRES = {"axial": (0.0, -8.0, 0.0), "coronal": (0.0, 0.0, -21.0), "sagittal": (0.0, -2.0, -23.0)}
"""The patient coordinates of the picture's middle, in mm; that of the slice's own axis is replaced."""

COARSE = 4
"""Smooth fields are computed at every fourth pixel and interpolated."""


@dataclass(frozen=True)
class Slice:
    """The geometry of one slice.

    Attributes:
        plane: one of `PLANES`.
        through: a point of the slice in patient coordinates, in mm.
        angles: small rotations about x, y and z, in degrees.
        shift: of the picture's middle within the slice, down and right, in mm.
        width: field of view, in mm.
        mirrored: left and right of the picture exchanged.
    """

    plane: str
    through: tuple[float, float, float]
    angles: tuple[float, float, float]
    shift: tuple[float, float]
    width: float
    mirrored: bool

    def points(self, rows: Floats, columns: Floats) -> Floats:
        """Patient coordinates in mm, (3, rows, columns), of positions given as fractions of the picture."""
        turn = Rotation.from_euler("xyz", self.angles, degrees=True)
        down, right = turn.apply(np.array(DIRECTIONS[self.plane], float))
        down_mm = (rows - 0.5) * self.width + self.shift[0]
        right_mm = ((columns - 0.5) * self.width + self.shift[1]) * (-1 if self.mirrored else 1)
        points = self.middle(np.cross(down, right))[:, None, None] + (
            down[:, None, None] * down_mm[None, :, None] + right[:, None, None] * right_mm[None, None, :]
        )
        return points.astype(np.float32)

    def middle(self, normal: Floats) -> Floats:
        """The usual centre of the picture, moved along the normal axis into the slice's plane."""
        centre, axis = np.array(CENTRES[self.plane]), NORMAL_AXIS[self.plane]
        centre[axis] += normal @ (np.array(self.through) - centre) / normal[axis]
        return centre

    def pixels(self, size: int) -> Floats:
        """Patient coordinates of the pixels' centres, float32 (3, size, size) in mm."""
        fractions = ((np.arange(size) + 0.5) / size).astype(np.float32)
        return self.points(fractions, fractions)

    def smooth(self, field: Callable[[Floats], Floats], size: int) -> Floats:
        """A smooth field (3, ...) -> (channels, ...) on all pixels, float32 (channels, size, size)."""
        nodes = size // COARSE + 3
        at_nodes = (((np.arange(nodes) - 0.5) * COARSE + 0.5) / size).astype(np.float32)
        coarse = field(self.points(at_nodes, at_nodes))
        return interpolated(interpolated(coarse, size).swapaxes(1, 2), size).swapaxes(1, 2)


def interpolated(coarse: Floats, size: int) -> Floats:
    """Rows between those of `coarse` (channels, nodes, N), the first half a step outside: (.., size, N)."""
    position = np.arange(size, dtype=np.float32) / COARSE + 0.5
    below = position.astype(int)
    weight = (position - below)[None, :, None]
    return coarse[:, below] * (1 - weight) + coarse[:, below + 1] * weight
