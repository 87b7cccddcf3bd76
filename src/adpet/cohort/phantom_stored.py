"""How a scan of the phantom is stored: as it should be, or in one of the ways that readers stumble over.

A pitfall of geometry also turns the truth beside the scan, so that both stay on one grid.
"""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np

from adpet.artifacts import written_aside
from adpet.imaging.volume import Volume, write_volume

# Where scl_slope lies in a header of NIfTI-1.
SLOPE_BYTES = slice(112, 116)
# NIfTI's codes of extensions that may hold text: DICOM, AFNI, comment, unknown to most.
TEXT_EXTENSIONS = (2, 4, 6, 32)
# Nobody's name, in every place of a header that real ones stand in.
NAME = b"ROE^JANE^1931"
OBLIQUE_DEGREES = 12.0


def write_scan(path: Path, volume: Volume, *, pitfall: str = "") -> None:
    """Write a scan of whole Bq/mL as int16 NIfTI-1, or in the way that `pitfall` (of `ENCODINGS`) says."""
    if pitfall not in ENCODINGS:
        write_volume(path, volume, dtype=np.int16)
        return
    content = ENCODINGS[pitfall](volume)
    with written_aside(path) as aside:
        aside.write_bytes(gzip.compress(content, 6, mtime=0) if path.name.endswith(".gz") else content)


def turned(volume: Volume, pitfall: str) -> Volume:
    """Return the volume in the geometry that `pitfall` (of `GEOMETRIES`) says; as it is for all others."""
    return GEOMETRIES[pitfall](volume) if pitfall in GEOMETRIES else volume


def _flipped(volume: Volume) -> Volume:
    """Store the first axis backwards; no voxel moves in the world."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.data.shape[0] - 1)
    affine[:3, 0] *= -1
    return Volume(volume.data[::-1], affine)


def _oblique(volume: Volume) -> Volume:
    """Turn the head about the vertical axis."""
    angle = np.radians(OBLIQUE_DEGREES)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.data, turn @ volume.affine)


def _thick(volume: Volume) -> Volume:
    """Average neighbouring slices: voxels are twice as long in z as they were."""
    data = volume.data[:, :, : volume.data.shape[2] // 2 * 2]
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] / 2
    affine[:3, 2] *= 2
    return Volume(np.asarray((data[:, :, ::2] + data[:, :, 1::2]) / 2, dtype=np.float32), affine)


def _image(volume: Volume) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.round(volume.data).astype(np.int16), volume.affine)
    image.header.set_xyzt_units("mm")
    return image


def _big_endian(volume: Volume) -> bytes:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(np.round(volume.data).astype(">i2"), volume.affine, header)
    return bytes(image.to_bytes())


def _nifti_2(volume: Volume) -> bytes:
    return bytes(nib.Nifti2Image(np.round(volume.data).astype(np.int16), volume.affine).to_bytes())


def _trailing_axis(volume: Volume) -> bytes:
    return bytes(_image(Volume(volume.data[..., None], volume.affine)).to_bytes())


def _slope_nan(volume: Volume) -> bytes:
    content = bytearray(_image(volume).to_bytes())
    content[SLOPE_BYTES] = np.array(np.nan, dtype="<f4").tobytes()
    return bytes(content)


def _nan_voxels(volume: Volume) -> bytes:
    """Mark the first slice as outside of the field of view."""
    data = volume.data.copy()
    data[0] = np.nan
    return bytes(nib.Nifti1Image(data, volume.affine).to_bytes())


def _names(volume: Volume) -> bytes:
    image = _image(volume)
    for name in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[name] = NAME
    for code in TEXT_EXTENSIONS:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"PatientName " + NAME))
    return bytes(image.to_bytes())


GEOMETRIES: Final[dict[str, Callable[[Volume], Volume]]] = {
    "left-right flipped storage": _flipped,
    "oblique affine": _oblique,
    "anisotropic voxels": _thick,
}
ENCODINGS: Final[dict[str, Callable[[Volume], bytes]]] = {
    "big-endian": _big_endian,
    "NIfTI-2": _nifti_2,
    "trailing axis of 1": _trailing_axis,
    "scl_slope NaN": _slope_nan,
    "NaN voxels": _nan_voxels,
    "names in header and extensions": _names,
}
ODD_NAME = "file name with comma, space and umlaut"
# All of these are read, and read right.
READABLE: Final = (*ENCODINGS, *GEOMETRIES, ODD_NAME)
