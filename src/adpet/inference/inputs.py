"""Scans at a path: file, folder or BIDS-PET tree."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from adpet.errors import InputError
from adpet.imaging.dicom import READ_BY_NIBABEL, dicom_scans, is_dicom, needs_conversion, series_of
from adpet.imaging.nifti import MIN_AXIS_VOXELS, NIFTI, PAIR, content_hash, natural_key, scan_files
from adpet.imaging.sidecar import SUFFIXES, read_facts, require_fdg, stem_of, used_seconds

# Other images that count in a folder; a PAR header stands for its REC.
IN_FOLDERS: Final = {".zip", *READ_BY_NIBABEL} - {".rec"}
# Maps that `adpet predict` wrote, which are not scans; a z-map lies next to its CAM.
CAM_ENDING, Z_ENDING = "_cam.nii.gz", "_z.nii.gz"
_BIDS_SCAN: Final = re.compile(r"sub-.*_pet\.nii(\.gz)?")


@dataclass(frozen=True)
class ScanPath:
    """Path of a scan and unique name of its outputs."""

    path: Path
    stem: str


def scans_at(paths: Iterable[Path], *, frames: bool = False) -> list[ScanPath]:
    """Return the scans at paths, each once, in natural order.

    A folder stands for all images in and below it, and for its studies in DICOM, or, with `frames`, for one
    scan; a BIDS tree for those that end in ``_pet``, outside of ``derivatives`` and ``sourcedata``. A slice
    in DICOM stands for its folder.
    """
    found: dict[Path, None] = {}
    for path in paths:
        is_folder = path.is_dir() and not frames
        found |= dict.fromkeys(_in_folder(path) if is_folder else [path.parent if _is_slice(path) else path])
    return [ScanPath(file, stem) for file, stem in zip(found, _stems(list(found)), strict=True)]


def frame_seconds(
    path: Path, n_frames: int, *, minutes: Sequence[float] | None = None
) -> Sequence[float] | None:
    """Return the averaged seconds of each frame; refuse another tracer.

    What stands in the name and the BIDS sidecars of the scan decides, see `adpet.imaging.sidecar`.
    """
    facts = read_facts(path)
    require_fdg(facts)
    return used_seconds(facts.metadata, n_frames, minutes=minutes)


def _in_folder(folder: Path) -> list[Path]:
    bids = (folder / "dataset_description.json").is_file() or any(folder.glob("sub-*/"))
    files = [file for file in folder.rglob("*") if _is_scan(file, folder, bids=bids)]
    files += [] if bids else [place for place in dicom_scans(folder) if needs_conversion(place)]
    if not files:
        what = (
            "images named sub-*_pet.nii in a BIDS tree" if bids else "a folder with images in NIfTI or DICOM"
        )
        raise InputError(f"{folder}: required {what}; received one without any; name a scan, or its folder")
    return sorted(files, key=lambda file: natural_key(str(file)))


def _is_scan(file: Path, folder: Path, *, bids: bool) -> bool:
    inner = file.relative_to(folder).parts
    if any(part.startswith(".") for part in inner) or _is_ours(file) or not file.is_file():
        return False
    if bids:
        away = {"derivatives", "sourcedata"} & set(inner[:-1])
        return bool(_BIDS_SCAN.fullmatch(file.name)) and not away
    pair = PAIR.fullmatch(file.name)
    if pair:  # the header stands for both
        return pair[2].lower() == "hdr" or not scan_files(file)[0].is_file()
    return bool(NIFTI.fullmatch(file.name)) or file.suffix.casefold() in IN_FOLDERS


def _is_slice(path: Path) -> bool:
    """True for DICOM files that hold no volume."""
    is_file = not path.is_dir() and needs_conversion(path) and is_dicom(path)
    return is_file and all(series.images < MIN_AXIS_VOXELS for series in series_of([path]))


def _is_ours(file: Path) -> bool:
    cam = file.with_name(file.name.removesuffix(Z_ENDING) + CAM_ENDING)
    return file.name.endswith(CAM_ENDING) or (file.name.endswith(Z_ENDING) and cam.is_file())


def _stems(files: Sequence[Path]) -> list[str]:
    """Return unique stems, with folders or a number if needed."""
    places = [_place(file) for file in files]
    ends = Counter(place[start:] for place in set(places) for start in range(len(place)))
    wanted = []
    for place in places:
        unique = (place[at:] for at in reversed(range(len(place))) if ends[place[at:]] == 1)
        wanted.append("_".join(next(unique, place)))
    # In lower case, as some file systems ignore case.
    reserved, taken = {stem.casefold() for stem in wanted}, set[str]()
    stems = []
    for stem in wanted:
        numbered = (f"{stem}_{number}" for number in count(2))
        free = (name for name in numbered if name.casefold() not in reserved)
        stems.append(next(free) if stem.casefold() in taken else stem)
        reserved.add(stems[-1].casefold())
        taken.add(stems[-1].casefold())
    return stems


def _place(file: Path) -> tuple[str, ...]:
    """Return a scan's folders and stem; a hash for DICOM."""
    if file.suffix.casefold() in SUFFIXES or not needs_conversion(file):
        return (*(part for part in file.parts[:-1] if part not in (file.anchor, "..")), stem_of(file))
    # Names of DICOM's files and folders are often those of patients.
    return (f"dicom-{content_hash(file)[:8]}",)
