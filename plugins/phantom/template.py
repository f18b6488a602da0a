"""The MNI152 template from nilearn's package data, and the skull that it must have had.

The files are the ICBM 152 nonlinear symmetric template 2009a (Fonov et al., NeuroImage 54, 2011): T1, grey
and white matter, 1 mm, uint8, skull-stripped.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
from btkit_plugins.phantom.randomness import Floats
from numpy.typing import NDArray
from scipy import ndimage

from braintumor_kit.contracts import InputError

TISSUES = ("t1", "gm", "wm")
FILE_NAME = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
HALF = 2
"""The skull is computed on every second voxel: it is smooth, and distance transforms are slow."""


@dataclass(frozen=True)
class Volume:
    """Samples on a regular grid.

    Attributes:
        samples: (X, Y, Z).
        origin: the template coordinates of the first sample, in mm.
        spacing: in mm.
    """

    samples: NDArray[np.uint8] | Floats
    origin: tuple[float, float, float]
    spacing: float = 1.0

    def __call__(self, points: Floats) -> Floats:
        """Trilinear values at template `points`, (3, N) in mm; beyond the grid, those of its nearest edge."""
        voxels = (points - np.array(self.origin, np.float32)[:, None]) / np.float32(self.spacing)
        found = ndimage.map_coordinates(self.samples, voxels, output=np.float32, order=1, mode="nearest")
        return np.asarray(found, np.float32)


@dataclass(frozen=True)
class Template:
    """The standard brain.

    Attributes:
        t1: T1-weighted intensity, 0..255, 0 outside the brain.
        grey, white: the tissue probabilities, 0..255.
        inner_table: signed distance in mm to the inside of the skull, where the dura lies; negative inside.
        cranium: the same to a fuller surface that bridges temples and base, for the outline of the head.
    """

    t1: Volume
    grey: Volume
    white: Volume
    inner_table: Volume
    cranium: Volume


def template_paths() -> list[Path]:
    """The three files in the installed nilearn, found without importing it, which is slow.

    Raises:
        InputError: where nilearn or one of the files is missing.
    """
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The phantom needs the MNI152 template of nilearn, which is not installed: pip install nilearn"
        )
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    paths = [folder / FILE_NAME.format(tissue) for tissue in TISSUES]
    for path in paths:
        if not path.is_file():
            raise InputError(f"The phantom needs {path}, which is missing: pip install --force-reinstall nilearn")
    return paths


@cache
def template_digest() -> str:
    """SHA-256 of the three template files."""
    digest = hashlib.sha256()
    for path in template_paths():
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def load_template() -> Template:
    """Reads the template once a process, cropped to the brain (13 MB)."""
    images = [nibabel.nifti1.load(path) for path in template_paths()]
    volumes = [np.asarray(image.dataobj) for image in images]
    (box,) = ndimage.find_objects((volumes[0] > 0).view(np.uint8))
    x, y, z = (float(start.start - 1 + shift) for start, shift in zip(box, images[0].affine[:3, 3], strict=True))
    t1, grey, white = (Volume(np.pad(volume[box], 1), (x, y, z)) for volume in volumes)
    return Template(t1, grey, white, inner_table=closed(t1, 10, gap=2.5), cranium=closed(t1, 24, gap=2.5))


def closed(t1: Volume, reach: float, gap: float) -> Volume:
    """Signed distance in mm to the brain closed by a ball of radius `reach` and grown by `gap`, both in mm.

    Closing fills sulci, fissures and the cisterns of the base, as dura and skull do.
    """
    pad = 2 + round(reach) // HALF
    brain = np.pad(t1.samples[::HALF, ::HALF, ::HALF] > 30, pad)
    near = HALF * ndimage.distance_transform_edt(~brain) <= reach
    depth = ndimage.distance_transform_edt(near) - ndimage.distance_transform_edt(~near)
    distance = ndimage.gaussian_filter((reach - gap) - HALF * depth.astype(np.float32), 1.0)
    x, y, z = (first - pad * HALF for first in t1.origin)
    return Volume(distance, (x, y, z), HALF)
