"""Read and write NIfTI volumes in RAS+ world millimetres.

Headers are checked before voxels are allocated; orientation comes from the affine alone.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeImage
from nibabel.arrayproxy import ArrayProxy
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.openers import ImageOpener
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from adpet.errors import InputError
from adpet.storage import atomic_write

Affine: TypeAlias = npt.NDArray[np.float64]
Array: TypeAlias = npt.NDArray[np.float32]

SPATIAL_AXES = 3
MIN_AXIS_VOXELS = 8
# NIfTI-1 holds no more. A NIfTI-2 header can claim 2^63, whose weights alone would not fit into memory.
MAX_FRAMES = 2**15 - 1
# Voxel edges of any PET or atlas image of a head; others mean a wrong unit (metres) or a broken header.
VOXEL_MM = (0.1, 30.0)
# Volume that the three axes' unit vectors enclose: 1 at right angles, 0 in one plane.
MIN_AXES_VOLUME = 0.01
CHUNK_BYTES = 2**20

# Voxels of one frame: 512 x 512 x 256. The largest PET matrices in use (400 x 400 x 109) have a quarter
# of it; a header that claims more is broken or a trap.
MAX_VOXELS = 2**26
# In grey matter the last of FDG's frames from 30 to 60 min after injection has 1.2 times the uptake of the
# first, from 30 to 90 min 1.3, from 0 to 60 min 2.9 (frames of 5 min; rate constants of Huang et al. 1980,
# blood curve of Feng et al. 1993).
MAX_RISE = 1.4
# The affines of one image's frames differ by what programs round, and by no more.
FRAMES_APART_MM = 0.01
# NIfTI's codes for the space of an affine: 1 scanner, 4 MNI.
SPACE_CODES = {"scanner": 1, "mni": 4}
# Bytes before the voxels of a single-file NIfTI-1: header 348, "no extension" 4.
DATA_OFFSET = 352

NIFTI: Final = re.compile(r"[^.].*\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
PAIR: Final = re.compile(r"(.*\.)(hdr|img)(\.\w+)?", re.IGNORECASE | re.DOTALL)
PAR_REC: Final = re.compile(r"(.*\.)(par|rec)()", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Volume:
    """Image: `data`, (i, j, k), and `affine` to RAS+ mm."""

    data: Array
    affine: Affine


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """Checked header of a scan, in storage order.

    `shape` is that of one frame, `zooms` are in mm, `affine` leads from voxel indices to RAS+ mm. Without
    sform and qform (ANALYZE), left and right are a convention.
    """

    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]
    n_frames: int
    affine: Affine


def scan_files(path: Path) -> list[Path]:
    """Return the files of a scan, existing or not.

    The file itself, both files of a pair (header first; also PAR and REC) and SPM's matrix, or the NIfTI
    files of a folder in the natural order of their names, in which ``_2`` comes before ``_10``; without any,
    all files in and below it (DICOM).
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if NIFTI.fullmatch(file.name)]
        files = files or [file for file in path.rglob("[!.]*") if not file.is_dir()]
        return sorted(files, key=lambda file: (natural_key(str(file)), str(file)))
    pair = PAIR.fullmatch(path.name) or PAR_REC.fullmatch(path.name)
    if not pair:
        return [path]
    stem, kind, packed = pair.groups(default="")
    parts = ("par", "rec") if pair.re is PAR_REC else ("hdr", "img", "mat")
    files = [path.with_name(f"{stem}{part.upper() if kind.isupper() else part}{packed}") for part in parts]
    # An ANALYZE image that SPM wrote or reoriented has its affine in a .mat, which nibabel reads.
    return files[:2] + [file for file in files[2:] if file.is_file()]


def content_hash(path: Path) -> str:
    """Return the SHA-256 of all files of a scan."""
    digest = hashlib.sha256()
    for part in scan_files(path):
        with part.open("rb", buffering=0) as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def natural_key(text: str) -> tuple[str | int, ...]:
    """Return a sort key: numbers by value, letters without case."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text.casefold()))


def read_header(path: Path, *, max_voxels: int = MAX_VOXELS) -> VolumeHeader:
    """Read and check a scan's header, or raise InputError."""
    frames = _frames(path)
    headers = []
    for frame in frames:
        with _errors_of_scan(path, frame), _open_image(frame) as image:
            headers.append(_check_header(frame, image, max_voxels))
    if not path.is_dir():
        return headers[0]
    _require_alike(path, frames, headers)
    return replace(headers[0], n_frames=sum(header.n_frames for header in headers))


def read_volume(
    path: Path,
    *,
    frame_seconds: Sequence[float] | None = None,
    steady: bool = False,
    max_voxels: int = MAX_VOXELS,
) -> Volume:
    """Read a scan as one RAS+ volume; average its frames.

    Parameters
    ----------
    path : Path
        A NIfTI-1, NIfTI-2 or ANALYZE image, single file or pair, compressed or not; or a folder with the
        frames of one image, each a NIfTI file.
    frame_seconds : sequence of float, optional
        Durations that weight the frames; equal weights without it. A single frame ignores it.
    steady : bool
        Refuse frames whose uptake grows by more than `MAX_RISE`, as in the first minutes after injection.

    Returns
    -------
    Volume
        Voxels in the file's unit, non-finite ones set to 0; memory holds one frame at a time.
    """
    header = read_header(path, max_voxels=max_voxels)
    weights = _frame_weights(path, header.n_frames, frame_seconds)
    data, means = _averaged(path, header, weights)
    if steady:
        _require_steady(path, means)
    if data.min() == data.max():
        value = float(data.flat[0])
        raise InputError(f"{path}: the image is constant (every voxel is {value:g}): export the scan again")
    return to_ras(data, header.affine)


def to_ras(data: Array, affine: Affine) -> Volume:
    """Reorder axes to the closest RAS+, without interpolation."""
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
    """Write a volume as NIfTI-1 with a fresh header.

    The same volume gives the same bytes. `dtype` is float32, int16 or uint8; integers that fit are stored as
    they are, other values with one scale factor and no offset.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"a volume's name must end in .nii or .nii.gz. Received: {path}")
    voxels, slope = _encoded(volume.data, np.dtype(dtype))
    header = _fresh_header(voxels, slope, volume.affine, SPACE_CODES[space]).binaryblock
    content = header + bytes(DATA_OFFSET - len(header)) + voxels.tobytes(order="F")
    with atomic_write(path) as aside, aside.open("wb") as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as compressed:
                compressed.write(content)
        else:
            file.write(content)


def _frames(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder."""
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


@contextmanager
def _open_image(path: Path) -> Iterator[AnalyzeImage]:
    """Yield the image; any error inside becomes one line."""
    try:
        # nibabel prints remarks on odd headers; the checks here decide about them.
        with LoggingOutputSuppressor(), np.errstate(all="ignore"):
            image = nib.load(path)
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
            f"{path}: cannot be read as a NIfTI image ({_error_kind(error)}): copy, decompress or convert "
            "the scan again"
        ) from error
    raise InputError(f"{path}: expected a NIfTI image, received another format: convert it to NIfTI")


def _error_kind(error: Exception) -> str:
    """Return the kind of error, without text from the file."""
    match error:
        # Of these alone the messages quote no header.
        case EOFError() | zlib.error():
            return " ".join(str(error).split())
        case gzip.BadGzipFile():
            return "no gzip file, or its checksum is wrong"
        case OSError(strerror=str(words)):
            return words
    return type(error).__name__


@contextmanager
def _errors_of_scan(path: Path, frame: Path) -> Iterator[None]:
    """Begin a frame's error with the path of its scan."""
    try:
        yield
    except InputError as error:
        if frame == path:
            raise
        raise InputError(f"{path}: {frame.name}: {str(error).removeprefix(f'{frame}: ')}") from error


def _require_alike(path: Path, frames: Sequence[Path], headers: Sequence[VolumeHeader]) -> None:
    """Refuse files of a folder that are not one image."""
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


def _check_header(path: Path, image: AnalyzeImage, max_voxels: int) -> VolumeHeader:
    """Check a header, causes before consequences."""
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
    affine = _best_affine(path, image)
    i, j, k = (float(zoom) for zoom in voxel_sizes(affine))
    return VolumeHeader((x, y, z), (i, j, k), n_frames, affine)


def _check_length(path: Path, image: AnalyzeImage, claimed: int) -> None:
    """Refuse voxels in the header, or fewer than it claims."""
    voxels = Path(str(image.file_map["image"].filename))
    offset = int(cast("Any", image.dataobj).offset)
    if isinstance(image, nib.Nifti1Image) and offset < image.header.single_vox_offset:
        raise InputError(
            f"{path}: the header says that the voxels begin at byte {offset} (vox_offset), within the header:"
            f" set it to {image.header.single_vox_offset}, or convert the scan again"
        )
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
    # Its last four bytes have the length, modulo 2^32 (RFC 1952). If that is not `expected`, the file was cut
    # short or packed in several pieces: then it is unpacked, and gzip raises where an end is missing.
    with voxels.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(), "little") == expected % 2**32:
            return expected
    with gzip.open(voxels) as stream:
        return sum(len(block) for block in iter(lambda: stream.read(CHUNK_BYTES), b""))


def _best_affine(path: Path, image: AnalyzeImage) -> Affine:
    """Return the first usable affine."""
    candidates: list[Any] = []
    if isinstance(image, nib.Nifti1Pair):
        candidates = [found for found in (image.get_sform(coded=True)[0], _qform(image)) if found is not None]
    for candidate in candidates or [image.affine]:
        affine = np.asarray(candidate, dtype=np.float64)
        if _usable(affine):
            return affine
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


def _frame_weights(path: Path, n_frames: int, seconds: Sequence[float] | None) -> npt.NDArray[np.float64]:
    if n_frames == 1 or seconds is None:
        return np.full(n_frames, 1 / n_frames)
    weights = np.asarray(seconds, dtype=np.float64)
    fits = weights.shape == (n_frames,) and bool(np.isfinite(weights).all())
    if not fits or weights.min() < 0 or weights.sum() <= 0:
        raise InputError(
            f"{path}: expected {n_frames} frame durations in seconds, none negative, received"
            f" {[float(w) for w in weights.flat]}: correct FrameDuration in its sidecar"
        )
    return np.asarray(weights / weights.sum())


def _require_steady(path: Path, means: Sequence[float]) -> None:
    """Refuse frames while the tracer is being taken up."""
    if any(mean > MAX_RISE * least for mean, least in zip(means, accumulate(means, min), strict=True)):
        raise InputError(
            f"{path}: uptake grows more than {MAX_RISE:g}-fold from frame to frame, as just after injection:"
            " add FrameTimesStart and FrameDuration to its sidecar, or keep late frames alone"
        )


def _averaged(
    path: Path, header: VolumeHeader, weights: npt.NDArray[np.float64]
) -> tuple[Array, list[float]]:
    """Average the frames in storage order; return their means too."""
    frames, means = _frames(path), []
    total = np.zeros(header.shape, dtype=np.float64 if len(weights) > 1 else np.float32)
    for frame, own_weights in zip(frames, np.split(weights, len(frames)), strict=True):
        with _errors_of_scan(path, frame), _open_image(frame) as image:
            further_axes = len(image.shape) - SPATIAL_AXES
            with ImageOpener(image.file_map["image"].filename) as stream:
                voxels_in = _proxy(image, stream)
                for number in np.flatnonzero(own_weights):
                    further = (int(number), *(0,) * further_axes)[:further_axes]
                    voxels = np.array(voxels_in[(slice(None),) * SPATIAL_AXES + further], dtype=np.float32)
                    total += own_weights[number] * np.nan_to_num(voxels, copy=False, posinf=0, neginf=0)
                    means.append(float(np.abs(voxels).mean(dtype=np.float64)))
                # To its end, where its checksum stands: damaged voxels would pass for voxels.
                while stream.read(CHUNK_BYTES):
                    pass
    return total.astype(np.float32), means


def _proxy(image: AnalyzeImage, stream: ImageOpener) -> ArrayProxy:
    """Return the image's voxels, to be read from `stream`.

    One stream reads the frames of a compressed file in one pass; not mapped, a file that shrinks meanwhile is
    an error and not a crash.
    """
    stored = cast("ArrayProxy", image.dataobj)
    place = (stored.shape, stored.dtype, stored.offset, stored.slope, stored.inter)
    return ArrayProxy(stream, place, mmap=False)


def _encoded(data: Array, dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], float]:
    """Return voxels as `dtype`, and their scale factor."""
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
