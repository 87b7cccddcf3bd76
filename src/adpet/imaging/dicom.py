"""Convert DICOM and other formats to NIfTI, for a moment.

pydicom reads headers to choose one series, dcm2niix converts it. No name of a file or patient is kept.
"""

import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import nibabel as nib
import numpy as np

from adpet.errors import InputError
from adpet.imaging.nifti import MIN_AXIS_VOXELS, NIFTI, PAIR, natural_key, scan_files
from adpet.imaging.sidecar import FDG, denies_correction, tracer_name

# What nibabel reads, and the tool where it cannot (MINC 2 needs h5py, PAR its REC).
READ_BY_NIBABEL: Final = {
    ".mgh": "mri_convert", ".mgz": "mri_convert", ".mnc": "mnc2nii", ".par": "dcm2niix", ".rec": "dcm2niix",
}  # fmt: skip
# What is not read, and the tool. ECAT 7 does not say which side is left: nibabel and dcm2niix turn it apart.
CONVERTED_BY: Final = {
    ".v": "ecat2nii or dcm2niix", ".i": "the scanner's software", ".nrrd": "Slicer", ".mha": "Slicer",
    ".7z": "7z x", ".rar": "unrar x", ".tar": "tar xf", ".tgz": "tar xzf",
}  # fmt: skip
# A dynamic scan of a whole body with its CT has half of either.
MAX_FILES: Final = 20_000
MAX_BYTES: Final = 2**32

TAGS: Final = (
    "Modality", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "NumberOfFrames", "CorrectedImage",
    "AttenuationCorrectionMethod", "AcquisitionTime", "RadiopharmaceuticalInformationSequence",
)  # fmt: skip
# The user's own defaults are ignored; names, ids, dates and comments are left out.
OPTIONS: Final = ("-g", "i", "-z", "n", "-b", "y", "-ba", "y", "-f", "scan", "-c", "")
CLOCK: Final = re.compile(r"(\d\d)(\d\d)(\d\d(?:\.\d+)?)")


@dataclass(frozen=True)
class Series:
    """Files of one series, and what their headers say."""

    label: str
    files: Sequence[Path]
    headers: Sequence[Any]

    @property
    def images(self) -> int:
        """Number of slices, over all frames."""
        return sum(int(header.get("NumberOfFrames") or 1) for header in self.headers)

    @property
    def drug(self) -> Any:
        """Radiopharmaceutical's item of the header, or an empty one."""
        return (self.headers[0].get("RadiopharmaceuticalInformationSequence") or [{}])[0]

    @property
    def tracer(self) -> str:
        """Name of the tracer, empty if not said."""
        code = (self.drug.get("RadiopharmaceuticalCodeSequence") or [{}])[0]
        names = (self.drug.get("Radiopharmaceutical"), code.get("CodeMeaning") or code.get("CodeValue"))
        tracers = [name for name in map(str, filter(None, names)) if tracer_name(name)]
        # That of another tracer, if the two contradict one another.
        return min(tracers, key=lambda name: tracer_name(name) == FDG, default="")

    @property
    def corrected(self) -> bool | None:
        """Whether attenuation is corrected; None if not said."""
        method = str(self.headers[0].get("AttenuationCorrectionMethod") or "")
        steps = self.headers[0].get("CorrectedImage")
        if not method and not steps:
            return None
        return "ATTN" in (steps or ()) or (bool(method) and not denies_correction(method))

    @property
    def summary(self) -> str:
        """Series in a few words; descriptions may hold names."""
        about = [str(self.headers[0].get("Modality", "?")), self.tracer, f"{self.images} slices"]
        about += ["not attenuation-corrected"] if self.corrected is False else []
        return " ".join(f"{self.label} ({', '.join(filter(None, about))})".split())

    def times(self, n_frames: int) -> dict[str, Any]:
        """Return when injection and frames began, as BIDS has it."""
        # dcm2niix counts from SeriesTime, which may be that of the reconstruction.
        begun = sorted({time for header in self.headers for time in _seconds(header.get("AcquisitionTime"))})
        moment = str(self.drug.get("RadiopharmaceuticalStartDateTime") or "")[8:]
        injected = _seconds(self.drug.get("RadiopharmaceuticalStartTime") or moment)
        late = begun and injected and begun[0] > injected[0]
        times: dict[str, Any] = {"InjectionStart": injected[0] - begun[0]} if late else {}
        starts = [time - begun[0] for time in begun]
        return times | ({"FrameTimesStart": starts} if len(starts) == n_frames > 1 else {})


@contextmanager
def as_nifti(path: Path, *, series: str = "", max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """Yield a scan as NIfTI or ANALYZE, converted if needed.

    Of DICOM (a file, a folder with all below it, or a ZIP) the FDG-PET series is taken, or the `series` of
    that number; an archive or image may unpack to `max_bytes`. A conversion and its sidecar in BIDS' words
    are removed after the block, whose errors name `path` instead.
    """
    if not needs_conversion(path):
        yield path
        return
    kind = path.suffix.casefold() if path.is_file() else ""
    if kind in CONVERTED_BY:
        raise InputError(
            f"{path}: required NIfTI, DICOM or a ZIP; received {kind}; first use {CONVERTED_BY[kind]}"
        )
    with tempfile.TemporaryDirectory(prefix="adpet-converted-") as name:
        image = Path(name, "scan.nii")
        try:
            if kind in READ_BY_NIBABEL:
                _convert_image(path, image, max_bytes)
            else:
                files = _unpacked(path, image.parent, max_bytes) if kind == ".zip" else scan_files(path)
                chosen = chosen_series(path, series_of(files), wanted=series)
                _convert_series(path, chosen, image)
            yield image
        except InputError as error:
            raise InputError(str(error).replace(str(image), str(path))) from error


def needs_conversion(path: Path) -> bool:
    """True if a path is neither NIfTI nor ANALYZE."""
    if path.is_dir():
        return not any(NIFTI.fullmatch(file.name) for file in path.iterdir())
    if not path.is_file() or NIFTI.fullmatch(path.name) or PAIR.fullmatch(path.name):
        return False
    return path.suffix.casefold() in {".zip", *READ_BY_NIBABEL, *CONVERTED_BY} or is_dicom(path)


def is_dicom(file: Path) -> bool:
    """True if a file begins like DICOM."""
    try:
        with file.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:2] == b"\x08\x00"


def dicom_scans(folder: Path) -> list[Path]:
    """Return the folders of PET studies below a folder.

    The folder itself stands for DICOM without PET.
    """
    places: dict[str, list[Path]] = defaultdict(list)
    found = series_of(file for file in folder.rglob("[!.]*") if file.is_file())
    for series in found:
        header = series.headers[0]
        if header.get("Modality") == "PT":
            places[str(header.get("StudyInstanceUID"))] += [file.parent for file in series.files]
    return sorted({Path(os.path.commonpath(own)) for own in places.values()}) or [folder][: len(found)]


def series_of(files: Iterable[Path]) -> list[Series]:
    """Return the series of DICOM images, ordered by number."""
    grouped: dict[tuple[str, ...], list[tuple[Path, Any]]] = defaultdict(list)
    for file in filter(is_dicom, files):
        header = _header(file)
        if "Modality" in header:  # a directory of files (DICOMDIR) has none
            number, *uids = (str(header.get(name) or "") for name in ("SeriesNumber", *TAGS[1:3]))
            grouped[number or "0", *uids].append((file, header))
    numbers: Counter[str] = Counter()
    found = []
    for key in sorted(grouped, key=lambda key: (natural_key(key[0]), key)):
        numbers[key[0]] += 1
        label = key[0] if numbers[key[0]] == 1 else f"{key[0]}.{numbers[key[0]]}"
        found.append(Series(label, *zip(*grouped[key], strict=True)))
    return found


def chosen_series(path: Path, series: Sequence[Series], *, wanted: str = "") -> Series:
    """Return the wanted series, or the only one of FDG."""
    listed = ", ".join(each.summary for each in series)
    if not series:
        raise InputError(
            f"{path}: required images in NIfTI or DICOM (a ZIP: DICOM alone); received none; name others"
        )
    if wanted:
        possible = [each for each in series if each.label == wanted]
        required = f"series {wanted}"
    else:
        pets = [s for s in series if s.headers[0].Modality == "PT" and s.images >= MIN_AXIS_VOXELS]
        fdg = [s for s in pets if tracer_name(s.tracer) == FDG] or [s for s in pets if not s.tracer]
        possible = [s for s in fdg if s.corrected] or [s for s in fdg if s.corrected is None]
        required = "one series of FDG-PET, corrected for attenuation"
    if len(possible) == 1:
        return possible[0]
    raise InputError(
        f"{path}: required {required}; received series {listed}; put the files of one into a folder "
        "of their own, or, with adpet predict, take it with --series NUMBER"
    )


def _seconds(clock: Any) -> list[float]:
    match = CLOCK.match(str(clock))
    return [3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])] if match else []


def _header(file: Path) -> Any:
    """Return a header's elements of `TAGS`; none if damaged."""
    import pydicom

    with warnings.catch_warnings(action="ignore"):
        try:
            found = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(TAGS))
            found.decode()
        except Exception:  # noqa: BLE001 - damaged files make it raise nearly anything
            return {}
    return found


def _convert_image(path: Path, image: Path, max_bytes: int) -> None:
    """Write what nibabel reads as NIfTI, with its sidecar."""
    try:
        found: Any = nib.load(path)
        if math.prod(found.shape) * 4 <= max_bytes:
            data = np.asarray(found.dataobj, dtype=np.float32)
            nib.save(nib.Nifti1Image(data, found.affine), image)
    except Exception as error:  # damaged files make nibabel raise nearly anything
        reason, tool = type(error).__name__, READ_BY_NIBABEL[path.suffix.casefold()]
        raise InputError(f"{path}: cannot be read ({reason}): convert it to NIfTI with {tool}") from error
    if not image.is_file():
        raise InputError(f"{path}: required {max_bytes} bytes at most; received more: export the scan again")
    if path.with_suffix(".json").is_file():
        shutil.copyfile(path.with_suffix(".json"), image.with_suffix(".json"))


def _unpacked(path: Path, folder: Path, max_bytes: int) -> list[Path]:
    """Unpack a ZIP to numbered files."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive, max_bytes)
            for number, member in enumerate(members):
                with archive.open(member) as packed, (folder / str(number)).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except Exception as error:  # damaged archives make zipfile raise nearly anything
        if isinstance(error, InputError) or getattr(error, "errno", None):
            raise
        reason = "encrypted" if "encrypted" in str(error) else "damaged"
        raise InputError(f"{path}: the ZIP is {reason}: unpack it yourself, and name the folder") from error
    return [folder / str(number) for number in range(len(members))]


def _members(path: Path, archive: zipfile.ZipFile, max_bytes: int) -> list[zipfile.ZipInfo]:
    """Return a ZIP's files; refuse large or escaping ones."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    size = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > max_bytes:
        raise InputError(
            f"{path}: required a ZIP of {MAX_FILES} files and {max_bytes} bytes at most; received "
            f"{len(members)} and {size}; pack one scan alone"
        )
    for member in members:
        place = PurePosixPath(member.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in "".join(place.parts[:1]):
            raise InputError(f"{path}: one of its paths leads out of the ZIP; pack the scan again")
    return members


def _convert_series(path: Path, series: Series, image: Path) -> None:
    """Convert a series and its sidecar, without names and dates."""
    import dcm2niix

    inside, out = image.with_name("series"), image.with_name("converted")
    inside.mkdir()
    out.mkdir()
    for number, file in enumerate(series.files):
        (inside / f"{number:06d}.dcm").symlink_to(file.absolute())
    done = subprocess.run(
        [dcm2niix.bin, *OPTIONS, "-o", str(out), str(inside)], capture_output=True, check=False
    )
    found = sorted(out.glob("*.nii"))
    if b"Missing images" in done.stdout + done.stderr or any("_Eq" in file.name for file in found):
        raise InputError(f"{path}: slices of series {series.label} are missing or damaged: export it again")
    if done.returncode or len(found) != 1:
        raise InputError(
            f"{path}: series {series.label} cannot be converted to one image (dcm2niix: status "
            f"{done.returncode}, {len(found)} images): export it again, or convert it to NIfTI yourself"
        )
    found[0].replace(image)
    sidecar = json.loads(found[0].with_suffix(".json").read_text(encoding="utf-8", errors="replace"))
    sidecar |= {"TracerName": series.tracer}
    sidecar |= {"AttenuationCorrection": "none"} if series.corrected is False else {}
    sidecar |= series.times(len(sidecar.get("FrameDuration", [])))
    image.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
