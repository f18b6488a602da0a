"""Volumes for tests, as DICOM series and as NIfTI, with what is in them known."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

AXIAL = [1.0, 0, 0, 0, 1, 0]
SPACING = (1.5, 1.25, 4.0)
CORNER = (-40.0, -30.0, -20.0)
"""Of the first voxel, in mm: to the left, back and up, as DICOM counts."""


def phantom(count: int, size: int = 64) -> NDArray[np.uint8]:
    """Phantom slices (count, size, size), no two alike and none symmetric."""
    from btkit_plugins.sources.phantom import Phantom

    source = Phantom(Phantom.Options(patients=12, size=size))
    slices = [source.image(sample) for sample in list(source.samples())[:count]]
    return np.stack(slices)


def as_nifti(slices: NDArray[Any], codes: str = "LPS", **header: float) -> nibabel.Nifti1Image:
    """Axial slices (N, H, W), seen from below with the front up and ordered upwards, stored along other axes."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])  # NIfTI counts to the right and to the front
    affine[:3, 3] = -CORNER[0], -CORNER[1], CORNER[2]
    image = nibabel.Nifti1Image(slices.transpose(2, 1, 0), affine)
    for name, value in header.items():
        image.header[name] = value
    return image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))


def dicom(values: NDArray[Any], **words: Any) -> Dataset:
    """A DICOM image of stored values, with what `words` say beside."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = MRImageStorage
    made.StudyInstanceUID, made.SeriesInstanceUID = "2.25.1", "2.25.2"
    made.Modality, made.PatientID, made.PatientName = "MR", "P1", "Somebody^Else"
    colour = values.ndim == 3 and values.shape[-1] == 3
    frames = values.shape[0] if values.ndim == 3 and not colour else None
    made.Rows, made.Columns = values.shape[:2] if frames is None else values.shape[1:3]
    if frames is not None:
        made.NumberOfFrames = frames
    made.SamplesPerPixel = 3 if colour else 1
    if colour:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = values.dtype.itemsize * 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(values.dtype.kind == "i")
    made.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    for name, value in words.items():
        setattr(made, name, value)
    if "SOPInstanceUID" not in made:
        names = (
            "SeriesInstanceUID",
            "PatientID",
            "InstanceNumber",
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "Rows",
        )
        text = " ".join(str(made.get(name)) for name in names)
        made.SOPInstanceUID = f"2.25.{int(hashlib.sha256(text.encode()).hexdigest()[:20], 16)}"
    return made


def save(made: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def save_series(slices: NDArray[Any], folder: Path, seed: int = 3, **words: Any) -> list[str]:
    """Axial slices, ordered upwards, under shuffled names and instance numbers; gives the names in order of place."""
    names = [f"IM{number:04d}.dcm" for number in np.random.default_rng(seed).permutation(len(slices))]
    for place, (name, values) in enumerate(zip(names, slices, strict=True)):
        position = [CORNER[0], CORNER[1], CORNER[2] + SPACING[2] * place]
        made = dicom(
            values,
            ImageOrientationPatient=AXIAL,
            ImagePositionPatient=position,
            PixelSpacing=[SPACING[1], SPACING[0]],
            InstanceNumber=len(slices) - place,  # against the order, as scanners may have it
            **words,
        )
        save(made, folder / name)
    return names
