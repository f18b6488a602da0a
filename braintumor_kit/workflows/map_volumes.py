"""Maps of volumes in the scans' own forms, from the folder of explanations in the making."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from braintumor_kit.contracts import ImageError
from braintumor_kit.contracts.volumes.nifti import NiftiVolume
from braintumor_kit.contracts.volumes.series import DicomSeries
from braintumor_kit.contracts.volumes.volume import Volume
from braintumor_kit.data.pixels import restore, to_display
from braintumor_kit.files import make_folder
from braintumor_kit.progress import Reporter
from braintumor_kit.report.overlays import heat, in_colour
from braintumor_kit.report.volumes import secondary_capture, write_dicom, write_nifti
from braintumor_kit.workflows.explain import Drawing, Planned
from braintumor_kit.workflows.explanation_folder import ExplanationFolder, Row, file_name
from braintumor_kit.workflows.named import FilePictures, volumes_among


@dataclass
class _Stack:
    """The maps of one volume, method and target."""

    planned: Planned
    volume: Volume
    target: str
    rows: dict[int, Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        several = len(self.planned.targets) > 1
        target = f".{file_name(self.target)}" if several else ""
        return f"{file_name(self.volume.name)}.{self.planned.method.name}{target}"


def write_map_volumes(
    folder: ExplanationFolder, planned: Sequence[Planned], drawing: Drawing, reporter: Reporter
) -> None:
    """Writes `volumes/<volume>.<method>.nii.gz` for NIfTI, `dicom/<volume>.<method>/<slice>.dcm` for DICOM. Slices that
    could not be read are 0 in the first and missing in the second.

    Raises:
        WorkError: where they cannot be written.
    """
    stacks = _stacks(folder, planned)
    if not stacks:
        return
    moment = datetime.now(UTC)
    with reporter.bar("writing maps of volumes") as progress:
        for done, stack in enumerate(stacks, start=1):
            if isinstance(stack.volume, NiftiVolume):
                _write_nifti(folder, stack, stack.volume, drawing)
            elif isinstance(stack.volume, DicomSeries):
                _write_dicom(folder, stack, stack.volume, drawing, moment)
            progress(done, len(stacks))


def _stacks(folder: ExplanationFolder, planned: Sequence[Planned]) -> list[_Stack]:
    """By volume, method and target; single slices are none, as are volumes of which nothing could be read."""
    several = {
        item.number: volumes_among(item.request.pictures.named)
        for item in planned
        if isinstance(item.request.pictures, FilePictures)
    }
    found: dict[tuple[int, str, str], _Stack] = {}
    if not any(several.values()):
        return []
    for batch in folder.batches():
        for row in batch["rows"]:
            item = planned[row["plan"]]
            if not isinstance(item.request.pictures, FilePictures):
                continue
            one = item.request.pictures.named[row["place"]]
            if one.volume is None or one.volume.name not in several[row["plan"]]:
                continue
            target = row["target"] if len(item.targets) > 1 else item.request.target
            key = (row["plan"], one.volume.name, target)
            found.setdefault(key, _Stack(item, one.volume, target)).rows[one.place] = row
    return list(found.values())


def _own_size(folder: ExplanationFolder, stack: _Stack, row: Row, original: NDArray, drawing: Drawing) -> NDArray:
    values = folder.read_map(row["map"])
    return values if drawing.original_size else restore(values, original, stack.planned.request.trained.pixels)


def _write_nifti(folder: ExplanationFolder, stack: _Stack, volume: NiftiVolume, drawing: Drawing) -> None:
    make_folder(folder.beside / "volumes", parents=False)
    columns, rows, slices = volume.grid
    maps = np.zeros((slices, rows, columns), np.float32)
    for place, row in stack.rows.items():
        with suppress(ImageError):  # read a moment ago, and gone since
            maps[place] = _own_size(folder, stack, row, volume.picture(place), drawing)
    write_nifti(folder.beside / "volumes" / f"{stack.name}.nii.gz", volume, maps)


def _write_dicom(
    folder: ExplanationFolder, stack: _Stack, series: DicomSeries, drawing: Drawing, moment: datetime
) -> None:
    """One scale of colours for the whole series, so that its captures can be compared."""
    inside = folder.beside / "dicom" / stack.name
    make_folder(inside)
    method = stack.planned.method
    top = max(row["scale_end"] for row in stack.rows.values())
    for place, row in stack.rows.items():
        try:
            original, scan = series.picture(place), series.header(place)
        except ImageError:  # read a moment ago, and gone since
            continue
        shown = in_colour(np.rint(to_display(original)).astype(np.uint8))
        values = _own_size(folder, stack, row, original, drawing)
        drawn = heat(shown, values, top, method.signed) if top else shown
        made = secondary_capture(scan, series.places[place].frame, place + 1, drawn, method.name, stack.target, moment)
        write_dicom(inside / f"{place + 1:04d}.dcm", made)
