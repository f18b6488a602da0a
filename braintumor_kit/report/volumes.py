"""Maps of a volume's slices in the forms that viewers lay over the scan: a NIfTI volume, DICOM secondary captures."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from braintumor_kit import __version__
from braintumor_kit.contracts.volumes.dicom import position_of, spacing_of
from braintumor_kit.contracts.volumes.nifti import NiftiVolume
from braintumor_kit.files import whole
from braintumor_kit.notice import NOTICE

if TYPE_CHECKING:
    from pydicom import Dataset

_PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName", "FrameOfReferenceUID",
)  # fmt: skip
"""What a capture has in common with its scan, so that viewers put the two together."""

_EVEN_IF_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Of those, what every image has to have, with or without a value (type 2)."""

_ALIGNED = 2
"""NIfTI's code of coordinates that agree with some other file's."""

_DICOM_UID = "1.2.826.0.1.3680043.8.498."  # pydicom's root, free for what is made with it


def write_nifti(path: Path, volume: NiftiVolume, maps: NDArray[np.float32]) -> None:
    """Writes maps on the voxels of their scan: same grid, same affine, float32.

    What the scan's header says beside, which may tell who the patient is, is left out.

    Args:
        path: ends in .nii or .nii.gz.
        maps: (slices, H, W), in the order and view of the volume's pictures.

    Raises:
        WorkError: where it cannot be written.
    """
    stored = apply_orientation(maps.transpose(2, 1, 0), volume.back)
    source = volume.image
    image = type(source)(np.ascontiguousarray(stored), source.affine)
    image.header["xyzt_units"] = source.header["xyzt_units"]
    image.set_sform(source.affine, int(source.header["sform_code"]) or _ALIGNED)
    image.set_qform(*_qform(source))
    image.header["descrip"] = f"btkit {__version__}: maps. Research use only"[:79].encode("ascii")
    with whole(path) as beside:
        named = beside.with_name(f"{beside.name}{''.join(path.suffixes[-2:])}")  # nibabel goes by the ending
        nibabel.save(image, named)
        named.replace(beside)


def _qform(image: Any) -> tuple[Any, int]:
    """The second affine of a file with its code; none where the file has none, or one that means nothing."""
    try:
        affine, code = image.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        return None, 0
    return (affine, int(code)) if affine is not None and np.isfinite(affine).all() else (None, 0)


def secondary_capture(
    scan: "Dataset", frame: int, number: int, picture: NDArray[np.uint8], method: str, target: str, moment: datetime
) -> "Dataset":
    """A picture of a slice and its map as DICOM (PS3.3, A.8.1), which belongs to the patient and study of its scan,
    refers to the slice that it shows, and lies where that does.

    Args:
        scan: header of the slice's file.
        frame: of the file, from 0.
        number: of the slice in its volume, from 1.
        picture: (H, W, 3), of the slice's own size.
        method, target: what the map is; all captures of one series have the same.
        moment: of making the series.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name in _PATIENT_AND_STUDY:
        if name in scan:
            made.add(scan[name])
        elif name in _EVEN_IF_EMPTY:
            setattr(made, name, "")
    series = str(scan.get("SeriesInstanceUID", ""))
    made.SeriesInstanceUID = generate_uid(_DICOM_UID, [series, method, target, moment.isoformat()])
    made.SOPInstanceUID = generate_uid(_DICOM_UID, [made.SeriesInstanceUID, str(number)])
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.Modality, made.ConversionType = "OT", "WSD"
    made.SeriesNumber, made.InstanceNumber = None, number
    made.SeriesDescription = f"btkit {method}: {target}"[:64]
    made.Manufacturer, made.SoftwareVersions = "btkit", __version__
    made.SecondaryCaptureDeviceManufacturer = "btkit"
    made.SecondaryCaptureDeviceManufacturerModelName = f"btkit {__version__}"
    made.ContentDate = made.InstanceCreationDate = moment.strftime("%Y%m%d")
    made.ContentTime = made.InstanceCreationTime = moment.strftime("%H%M%S")
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation = "NO"
    made.DerivationDescription = f"Slice with the map of {method} for {target} laid over it. {NOTICE}"
    made.ImageComments = NOTICE
    made.SourceImageSequence = [_reference(scan, frame)]
    if series:
        made.ReferencedSeriesSequence = [_series(series, scan, frame)]
    _place(made, scan, frame)
    _set_pixels(made, picture)
    return made


def write_dicom(path: Path, made: "Dataset") -> None:
    """Writes a data set as a DICOM file.

    Raises:
        WorkError: where it cannot be written.
    """
    with whole(path) as beside:
        made.save_as(beside, enforce_file_format=True)


def _reference(scan: "Dataset", frame: int) -> "Dataset":
    from pydicom.dataset import Dataset

    source = Dataset()
    source.ReferencedSOPClassUID = scan.get("SOPClassUID", "")
    source.ReferencedSOPInstanceUID = scan.get("SOPInstanceUID", "")
    if scan.get("NumberOfFrames"):
        source.ReferencedFrameNumber = frame + 1
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    source.PurposeOfReferenceCodeSequence = [purpose]
    return source


def _series(uid: str, scan: "Dataset", frame: int) -> "Dataset":
    from pydicom.dataset import Dataset

    series = Dataset()
    series.SeriesInstanceUID = uid
    series.ReferencedInstanceSequence = [_reference(scan, frame)]
    return series


def _place(made: "Dataset", scan: "Dataset", frame: int) -> None:
    """Where the slice lies, for viewers that show scans side by side."""
    corner, directions = position_of(scan, frame)
    if corner is None or directions is None:
        return
    made.ImagePositionPatient = [float(f"{value:.9g}") for value in corner]
    made.ImageOrientationPatient = [float(f"{value:.9g}") for value in directions]
    for name, value in spacing_of(scan, frame).items():
        setattr(made, name, value)


def _set_pixels(made: "Dataset", picture: NDArray[np.uint8]) -> None:
    made.Rows, made.Columns = picture.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    content = np.ascontiguousarray(picture).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
