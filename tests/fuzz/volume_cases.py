"""Damaged DICOM and NIfTI files, given to `btkit predict`."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pydicom.data
from cases import BATCH, Case, _chosen, _slice, _small_model
from judged import command, refused, sane_predictions
from mutants import Random, bytes_mutated

_DICOM = (
    "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_jpeg.dcm", "rtdose.dcm", "liver_1frame.dcm", "image_dfl.dcm", "examples_palette.dcm",
)  # fmt: skip


def _seeds() -> dict[str, bytes]:
    packaged = Path(pydicom.data.__file__).parent / "test_files"
    made = {name: (packaged / name).read_bytes() for name in _DICOM}
    values = np.stack([_slice(seed) for seed in range(4)]).transpose(2, 1, 0)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    colours = np.zeros((6, 5, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"] = 70
    scaled = nibabel.Nifti1Image(values.astype(np.int16) * 7, affine)
    scaled.header.set_slope_inter(0.5, -3)
    volumes = {
        "bytes": nibabel.Nifti1Image(values, affine),
        "scaled": scaled,
        "real": nibabel.Nifti2Image(values.astype(np.float32), affine),
        "colour": nibabel.Nifti1Image(colours, affine),
        "time": nibabel.Nifti1Image(np.stack([values] * 3, axis=-1).astype(np.uint16), affine),
    }
    for name, volume in volumes.items():
        made[f"{name}.nii"] = volume.to_bytes()
        made[f"{name}.nii.gz"] = gzip.compress(volume.to_bytes())
    return made


def volumes(folder: Path) -> Case:
    """Damaged volumes, and a whole one."""
    seeds, model = _seeds(), _small_model(folder)
    whole = (Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm").read_bytes()
    shared = pydicom.dcmread(io.BytesIO(seeds["MR_small.dcm"])).SOPInstanceUID.encode()

    def damaged(name: str, content: bytes, random: Random) -> bytes:
        if name.endswith(".gz") and random.random() < 0.6:
            return gzip.compress(bytes_mutated(gzip.decompress(content), random))
        return bytes_mutated(content, random, list(seeds.values()))

    def case(random: Random, place: Path) -> str:
        place.mkdir(parents=True)
        (place / "whole.dcm").write_bytes(whole)
        names = ["whole.dcm"]
        for number in range(BATCH):
            name, content = _chosen(seeds, random)
            names.append(f"{number:02}-{name}")
            apart = content.replace(shared, shared[:-2] + f"{number + 10}".encode())  # copies would be passed over
            (place / names[-1]).write_bytes(damaged(name, apart, random))
        ended = command("predict", model, *(place / name for name in names), "--json")
        bad = refused(ended)
        assert ended.out, ended.err
        paths = {item["path"] for item in sane_predictions(ended.out)}
        read = {name for name in names if any(path.split("#")[0] == str(place / name) for path in paths)}
        assert "whole.dcm" in read, ended.err
        unread = {name for name in names if f"{place / name}" in ended.err}
        assert read | unread == set(names), f"neither read nor named: {set(names) - read - unread}"
        assert bad == bool(unread)
        return f"{len(read) - 1} accepted, {len(unread)} refused"

    return case


KINDS: dict[str, Callable[[Path], Case]] = {"volumes": volumes}
