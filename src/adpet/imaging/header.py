"""Open a scan's file and judge its header; whatever is wrong becomes one line for the user.

The line never quotes what stands in the file: text, extensions and names in a header are of the participant.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeImage
from nibabel.imageglobals import LoggingOutputSuppressor

from adpet.errors import InputError

Affine: TypeAlias = npt.NDArray[np.float64]

SPATIAL_AXES = 3
MIN_AXIS_VOXELS = 8
# NIfTI-1 holds no more. A NIfTI-2 header can claim 2^63, whose weights alone would not fit into memory.
MAX_FRAMES = 2**15 - 1
# Voxel edges of any PET or atlas image of a head; others mean a wrong unit (metres) or a broken header.
VOXEL_MM = (0.1, 30.0)
# Volume that the three axes' unit vectors enclose: 1 at right angles, 0 in one plane.
MIN_AXES_VOLUME = 0.01
CHUNK_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a file's header says of it, in storage order.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along each axis of one frame.
    zooms : (float, float, float)
        Voxel edges in mm.
    n_frames : int
        1 for a static image.
    affine : (4, 4) float64 ndarray
        Voxel indices -> RAS+ mm.
    oriented : bool
        False where the file has neither sform nor qform (ANALYZE), so that left and right are a convention.
    """

    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]
    n_frames: int
    affine: Affine
    oriented: bool


@contextmanager
def opened(path: Path) -> Iterator[AnalyzeImage]:
    """Yield the image; whatever goes wrong inside becomes one line for the user."""
    try:
        # nibabel prints its remarks on odd headers, which the checks here turn into verdicts.
        with LoggingOutputSuppressor(), np.errstate(all="ignore"):
            # Kept open, the frames of a compressed file are read in one pass; not mapped, a file that shrinks
            # meanwhile is an error and not a crash.
            image = nib.load(path, mmap=False, keep_file_open=True)
            if isinstance(image, AnalyzeImage):
                yield image
                return
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename or path).name
        raise InputError(f"{path}: {missing} not found: check the path (a pair has two files)") from error
    # Damaged files make nibabel, zlib and numpy raise nearly anything.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as a NIfTI image ({_discreet(error)}): copy, decompress or convert the "
            "scan again"
        ) from error
    raise InputError(f"{path}: expected a NIfTI image, received another format: convert it to NIfTI")


def _discreet(error: Exception) -> str:
    """Say what kind of error it is; only zlib's and the system's words are known to quote no header."""
    match error:
        case EOFError() | zlib.error():
            return " ".join(str(error).split())
        case gzip.BadGzipFile():
            return "no gzip file, or its checksum is wrong"
        case OSError(strerror=str(words)):
            return words
    return type(error).__name__


def check_header(path: Path, image: AnalyzeImage, max_voxels: int) -> VolumeHeader:
    """Check all that a header can tell, in the order in which one mistake causes the next."""
    shape = tuple(int(n) for n in image.shape)
    axes, (n_frames, *rest) = shape[:SPATIAL_AXES], (*shape[SPATIAL_AXES:], 1)
    if len(axes) < SPATIAL_AXES or any(n != 1 for n in rest):
        raise InputError(
            f"{path}: expected 3 axes, or 4 with frames, received shape {shape}: give one image a scan"
        )
    if min(axes) < MIN_AXIS_VOXELS or n_frames < 1:
        raise InputError(
            f"{path}: expected at least {MIN_AXIS_VOXELS} voxels along each axis, received shape {shape}:"
            " give the whole volume, not single slices"
        )
    if n_frames > MAX_FRAMES:
        raise InputError(
            f"{path}: the header claims {n_frames} frames, more than the {MAX_FRAMES} allowed:"
            " export the scan again"
        )
    x, y, z = axes
    if x * y * z > max_voxels:
        raise InputError(
            f"{path}: the header claims {x * y * z} voxels a frame, more than the {max_voxels} allowed:"
            " export the scan again"
        )
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise InputError(f"{path}: expected real voxels, received {dtype}: export one number a voxel")
    _check_length(path, image, x * y * z * n_frames * dtype.itemsize)
    affine, oriented = _best_affine(path, image)
    i, j, k = (float(zoom) for zoom in voxel_sizes(affine))
    return VolumeHeader((x, y, z), (i, j, k), n_frames, affine, oriented)


def _check_length(path: Path, image: AnalyzeImage, claimed: int) -> None:
    """Refuse a file that is shorter than its header claims, before its voxels are asked for."""
    voxels = Path(str(image.file_map["image"].filename))
    offset = int(cast("Any", image.dataobj).offset)
    match voxels.suffix.lower():
        case ".nii" | ".img":
            present = voxels.stat().st_size - offset
        case ".gz":
            present = _unpacked_bytes(voxels, expected=offset + claimed) - offset
        case _:
            return
    if present < claimed:
        raise InputError(
            f"{path}: truncated: the header claims {claimed} bytes of voxels, {max(present, 0)} are there:"
            " copy or export the scan again"
        )


def _unpacked_bytes(voxels: Path, *, expected: int) -> int:
    """Return how long a gzip file is unpacked.

    Its last four bytes say it, modulo 2^32 (RFC 1952). Where they do not say `expected`, the file was cut
    short or packed in several pieces: then it is unpacked, and gzip raises where an end is missing.
    """
    with voxels.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(), "little") == expected % 2**32:
            return expected
    return _unpack(voxels)


def check_sum(image: AnalyzeImage) -> None:
    """Read a gzip file to its end, where its checksum stands: damaged voxels would pass for voxels."""
    voxels = Path(str(image.file_map["image"].filename))
    if voxels.suffix.lower() == ".gz":
        _unpack(voxels)


def _unpack(voxels: Path) -> int:
    """Unpack a gzip file, keep nothing, and return its length."""
    with gzip.open(voxels) as stream:
        return sum(len(block) for block in iter(lambda: stream.read(CHUNK_BYTES), b""))


def _best_affine(path: Path, image: AnalyzeImage) -> tuple[Affine, bool]:
    """Return the first usable affine of sform, qform, and the voxel sizes where there is neither."""
    candidates: list[Any] = []
    if isinstance(image, nib.Nifti1Pair):
        candidates = [found for found in (image.get_sform(coded=True)[0], _qform(image)) if found is not None]
    oriented = bool(candidates)
    for candidate in candidates or [image.affine]:
        affine = np.asarray(candidate, dtype=np.float64)
        if _usable(affine):
            return affine, oriented
    raise InputError(
        f"{path}: no usable affine: expected finite axes that span space, with voxel edges of"
        f" {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm: export the scan again with its orientation"
    )


def _qform(image: nib.Nifti1Pair) -> Affine | None:
    try:
        affine: Affine | None = image.get_qform(coded=True)[0]
    except Exception:  # noqa: BLE001 - a broken quaternion does not matter where there is an sform
        return None
    return affine


def _usable(affine: Affine) -> bool:
    if not np.isfinite(affine).all():
        return False
    zooms = voxel_sizes(affine)
    if zooms.min() < VOXEL_MM[0] or zooms.max() > VOXEL_MM[1]:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / zooms)) > MIN_AXES_VOLUME)
