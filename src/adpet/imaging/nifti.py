"""Read and write NIfTI volumes, safely and in RAS+ world millimetres.

Headers are checked before voxels are allocated; orientation comes from the affine alone.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeImage
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from adpet.errors import InputError
from adpet.storage import atomic_write

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


Array: TypeAlias = npt.NDArray[np.float32]

# Voxels of one frame: 512 x 512 x 256. The largest PET matrices in use (400 x 400 x 109) have a quarter
# of it; a header that claims more is broken or a trap.
MAX_VOXELS = 2**26
# The affines of one image's frames differ by what programs round, and by no more.
FRAMES_APART_MM = 0.01
# NIfTI's codes for the space of an affine: 1 scanner, 4 MNI.
SPACE_CODES = {"scanner": 1, "mni": 4}
# Bytes before the voxels of a single-file NIfTI-1: header 348, "no extension" 4.
DATA_OFFSET = 352

NIFTI: Final = re.compile(r"[^.].*\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
PAIR: Final = re.compile(r"(.*\.)(hdr|img)(\.\w+)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Volume:
    """One image: `data`, (i, j, k) float32, and `affine`, (4, 4) float64, voxel indices -> RAS+ mm."""

    data: Array
    affine: Affine


def scan_files(path: Path) -> list[Path]:
    """Return the files that make up a scan, whether they are there or not.

    These are the file itself, both files of a pair (header first; either may be packed), or the NIfTI files
    of a folder in the natural order of their names, in which ``_2`` comes before ``_10``.
    """
    if path.is_dir():
        files = (file for file in path.iterdir() if NIFTI.fullmatch(file.name))
        return sorted(files, key=lambda file: (natural_key(file.name), file.name))
    pair = PAIR.fullmatch(path.name)
    if not pair:
        return [path]
    stem, kind, packed = pair.groups(default="")
    return [
        path.with_name(f"{stem}{part.upper() if kind.isupper() else part}{packed}") for part in ("hdr", "img")
    ]


def natural_key(text: str) -> tuple[str | int, ...]:
    """Return what sorts texts as people do: numbers in them by their value, letters without case."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text.casefold()))


def read_header(path: Path, *, max_voxels: int = MAX_VOXELS) -> VolumeHeader:
    """Read and check a scan's header; no voxel is read.

    Raises
    ------
    InputError
        If the file is not a NIfTI-1, NIfTI-2 or ANALYZE image of 3 or 4 axes, each of at least 8 voxels,
        with a usable affine, if it claims more than `max_voxels` a frame or `MAX_FRAMES` frames, or if it is
        shorter than its header claims; if the files of a folder are not frames of one image.
    """
    frames = _frames(path)
    headers = [_frame_header(path, frame, max_voxels) for frame in frames]
    if not path.is_dir():
        return headers[0]
    _require_alike(path, frames, headers)
    return replace(headers[0], n_frames=sum(header.n_frames for header in headers))


def read_volume(
    path: Path, *, frame_seconds: Sequence[float] | None = None, max_voxels: int = MAX_VOXELS
) -> Volume:
    """Read a scan as one RAS+ volume; the frames of a dynamic scan are averaged.

    Parameters
    ----------
    path : Path
        A NIfTI-1, NIfTI-2 or ANALYZE image, single file or pair, compressed or not; or a folder that holds
        the frames of one image, each a NIfTI file.
    frame_seconds : sequence of float, optional
        Durations that weight the frames, one a frame; equal weights without it. A single frame ignores it.
    max_voxels : int
        A frame of more voxels is refused before memory is taken for it.

    Returns
    -------
    Volume
        Voxels in the file's unit, non-finite ones set to 0; memory holds one frame at a time.

    Raises
    ------
    InputError
        For whatever `read_header` refuses, a truncated or damaged file, frame durations that do not fit,
        and an image that is constant.
    """
    header = read_header(path, max_voxels=max_voxels)
    weights = _frame_weights(path, header.n_frames, frame_seconds)
    data = _averaged(path, header, weights)
    if data.min() == data.max():
        value = float(data.flat[0])
        raise InputError(f"{path}: the image is constant (every voxel is {value:g}): export the scan again")
    return to_ras(data, header.affine)


def to_ras(data: Array, affine: Affine) -> Volume:
    """Flip and swap the axes of `data` to the closest RAS+ order; no voxel is interpolated."""
    orientation = io_orientation(affine)
    turned = apply_orientation(data, orientation)
    closest = affine @ inv_ornt_aff(orientation, data.shape)
    return Volume(np.ascontiguousarray(turned, dtype=np.float32), closest)


def write_volume(
    path: Path,
    volume: Volume,
    *,
    dtype: npt.DTypeLike = np.float32,
    space: Literal["scanner", "mni"] = "scanner",
) -> None:
    """Write a volume as NIfTI-1 with a fresh header: the same volume gives the same bytes.

    Parameters
    ----------
    path : Path
        Ends in ``.nii`` or ``.nii.gz``.
    dtype : float32, int16 or uint8
        Integers that fit are stored as they are; other values with one scale factor and no offset.
    space : "scanner" or "mni"
        What the world coordinates mean: the codes of sform and qform (no qform where the affine has shears).

    Raises
    ------
    ValueError
        If the name, type or values cannot be written so.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"a volume's name must end in .nii or .nii.gz. Received: {path}")
    voxels, slope = _encoded(volume.data, np.dtype(dtype))
    header = _fresh_header(voxels, slope, volume.affine, SPACE_CODES[space])
    with atomic_write(path) as aside, aside.open("wb") as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as compressed:
                _write_blocks(compressed, header, voxels)
        else:
            _write_blocks(file, header, voxels)


def _frame_weights(path: Path, n_frames: int, seconds: Sequence[float] | None) -> npt.NDArray[np.float64]:
    if n_frames == 1 or seconds is None:
        return np.full(n_frames, 1 / n_frames)
    weights = np.asarray(seconds, dtype=np.float64)
    fits = weights.shape == (n_frames,) and bool(np.isfinite(weights).all())
    if not fits or weights.min() < 0 or weights.sum() <= 0:
        raise InputError(
            f"{path}: expected {n_frames} frame durations in seconds, none negative, received"
            f" {[float(w) for w in weights.flat]}: correct FrameDuration beside the scan"
        )
    return np.asarray(weights / weights.sum())


def _averaged(path: Path, header: VolumeHeader, weights: npt.NDArray[np.float64]) -> Array:
    """Average the frames one by one: (i, j, k) in storage order, non-finite voxels 0."""
    frames = _frames(path)
    total = np.zeros(header.shape, dtype=np.float64 if len(weights) > 1 else np.float32)
    for frame, own_weights in zip(frames, np.split(weights, len(frames)), strict=True):
        with _blaming(path, frame), opened(frame) as image:
            further_axes = len(image.shape) - SPATIAL_AXES
            for number, weight in enumerate(own_weights):
                further = (number, *(0,) * further_axes)[:further_axes]
                total += weight * _finite(image.dataobj[(slice(None),) * SPATIAL_AXES + further])
            check_sum(image)
    return total.astype(np.float32)


def _frames(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder, at least one."""
    if not path.is_dir():
        return [path]
    try:
        frames = scan_files(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be listed ({error.strerror}): check its permissions") from error
    if not frames:
        raise InputError(
            f"{path}: required a NIfTI file, or a folder with one a frame; received a folder without any; "
            "name the file"
        )
    return frames


def _frame_header(path: Path, frame: Path, max_voxels: int) -> VolumeHeader:
    with _blaming(path, frame), opened(frame) as image:
        return check_header(frame, image, max_voxels)


def _require_alike(path: Path, frames: Sequence[Path], headers: Sequence[VolumeHeader]) -> None:
    """Refuse files of one folder that cannot be frames of one image."""
    first = headers[0]
    for frame, header in zip(frames, headers, strict=True):
        if header.n_frames != 1 and len(frames) > 1:
            raise InputError(
                f"{path}: required one frame a file where a folder is a scan; received {header.n_frames} in "
                f"{frame.name}; give each image a folder of its own"
            )
        same_place = np.allclose(header.affine, first.affine, rtol=0, atol=FRAMES_APART_MM)
        if header.shape != first.shape or not same_place:
            raise InputError(
                f"{path}: required frames of one shape and affine; received {frame.name} unlike "
                f"{frames[0].name}; give each image a folder of its own"
            )


@contextmanager
def _blaming(path: Path, frame: Path) -> Iterator[None]:
    """Let an error of a frame begin with the scan's path, as all errors of a scan do."""
    try:
        yield
    except InputError as error:
        if frame == path:
            raise
        raise InputError(f"{path}: {frame.name}: {str(error).removeprefix(f'{frame}: ')}") from error


def _finite(voxels: npt.NDArray[Any]) -> Array:
    data = np.array(voxels, dtype=np.float32)
    data[~np.isfinite(data)] = 0
    return data


def _encoded(data: Array, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], float]:
    """Return the voxels as `dtype` and the factor that brings them back."""
    if not np.isfinite(data).all():
        raise ValueError("voxels to write must be finite")
    if dtype == np.float32:
        return data.astype(dtype), 1.0
    if dtype not in (np.int16, np.uint8):
        raise ValueError(f"`dtype` must be float32, int16 or uint8. Received: dtype={dtype}")
    low, high = float(data.min()), float(data.max())
    if dtype == np.uint8 and low < 0:
        raise ValueError(f"uint8 holds no negative voxels. Received: minimum {low:g}")
    limit = float(np.iinfo(dtype).max)
    largest = max(-low, high)
    whole = largest <= limit and bool((data == np.round(data)).all())
    # NIfTI stores the factor as float32: divide by what a reader will multiply with.
    slope = 1.0 if whole else max(float(np.float32(largest / limit)), float(np.finfo(np.float32).tiny))
    return np.clip(np.round(data / slope), -limit, limit).astype(dtype), slope


def _fresh_header(voxels: npt.NDArray[Any], slope: float, affine: Affine, code: int) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, 0)
    header["vox_offset"] = DATA_OFFSET
    header.set_sform(affine, code=code)
    header.set_qform(affine, code=code)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header.set_qform(None, code=0)
    return header


def _write_blocks(
    file: IO[bytes] | gzip.GzipFile, header: nib.Nifti1Header, voxels: npt.NDArray[Any]
) -> None:
    file.write(header.binaryblock)
    file.write(bytes(DATA_OFFSET - len(header.binaryblock)))
    file.write(voxels.tobytes(order="F"))
