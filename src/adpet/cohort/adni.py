"""Read ADNI scans as the Image and Data Archive (IDA) delivers them: its tree and its collection CSV.

Files are ``.../<PTID>/<description>/<acquisition>/<I image or S series>/*_S<series>_I<image>.nii[.gz]``,
parsed from the end; the CSV has one row an image and decides on what an image is.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adpet.cohort.candidates import SKIPPED, UNUSABLE, Candidate, Findings
from adpet.cohort.tables import Table, parse_age, parse_sex, plain, read_table, require_columns
from adpet.errors import InputError

# ADNI's descriptions of FDG scans, in the order of preference: the most processed first, as it is the most
# alike over scanners (8 mm before 6 mm, because every phase of ADNI has it). Other tracers have the same
# descriptions with their name before, so that only the whole text tells.
FDG_DESCRIPTIONS: Final = (
    "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution",
    "Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res",
    "Coreg, Avg, Standardized Image and Voxel Size",
    "Co-registered, Averaged",
    "Co-registered Dynamic",
    "ADNI Brain PET: Raw FDG",
)

# Names of the CSV's columns in the archive's exports.
IMAGE, SUBJECT, GROUP, DESCRIPTION = "Image Data ID", "Subject", "Group", "Description"
COLUMN_VARIANTS: Final = {
    IMAGE: ("imagedataid", "imageid", "imageuid", "image"),
    SUBJECT: ("subject", "subjectid", "ptid"),
    GROUP: ("group", "researchgroup"),
    DESCRIPTION: ("description", "imagedescription"),
    "Sex": ("sex", "gender"),
    "Age": ("age",),
    "Visit": ("visit", "viscode"),
    "Modality": ("modality",),
    "Acq Date": ("acqdate", "acquisitiondate", "studydate"),
}
REQUIRED: Final = (IMAGE, SUBJECT, GROUP, DESCRIPTION)

NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
IMAGE_IN_NAME = re.compile(r"_S\d+_I(\d+)\.nii(\.gz)?$", re.IGNORECASE)
IMAGE_IN_FOLDER = re.compile(r"I(\d+)")
IMAGE_IN_CSV = re.compile(r"[ID]?(\d+)", re.IGNORECASE)
PTID = re.compile(r"(?<!\d)\d{3}_S_\d{4,5}(?!\d)")
ACQUISITION = re.compile(r"(\d{4})-(\d{2})-(\d{2})_\d{2}_\d{2}_\d{2}.*")


@dataclass(frozen=True)
class _Image:
    """One row of the collection CSV with its files."""

    number: str
    row: dict[str, str]
    files: tuple[Path, ...]

    @property
    def subject(self) -> str:
        return self.row[SUBJECT]

    @property
    def date(self) -> str:
        """The acquisition's date as YYYYMMDD, from the CSV or else from the folder; ``""`` if unknown."""
        found = (ACQUISITION.fullmatch(part) for file in self.files for part in file.parts)
        folders = ("".join(match.groups()) for match in found if match)
        return parse_date(self.row["Acq Date"]) or next(folders, "")

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The smaller, the better: whatever has a file, then the level, then the newest image."""
        return not self.files, FDG_DESCRIPTIONS.index(self.row[DESCRIPTION]), -int(self.number)


def find_adni(root: Path, *, table: Path | None = None) -> Findings:
    """List the FDG scans of an ADNI download, one processing level a scan.

    Parameters
    ----------
    root : Path
        The unpacked folder; ``ADNI/`` or what holds it.
    table : Path, optional
        The collection CSV; without it the only one in `root` or, if none is there, beside it.

    Raises
    ------
    InputError
        If the CSV is missing, ambiguous, unreadable, or lacks a required column.
    """
    listing = read_table(table or _only_table(root))
    rows = _rows(listing)
    findings = Findings()
    files = _files_by_image(root, rows, findings, listing.path.name)
    images = [_Image(number, row, tuple(files.get(number, ()))) for number, row in rows.items()]
    wanted = [image for image in images if _is_wanted(image, root, findings)]
    chosen = list(_one_level(wanted, root, findings))
    for image, session in _with_sessions(chosen):
        findings.candidates.append(_candidate(image, session))
    return findings


def is_collection_table(path: Path) -> bool:
    """Say whether a CSV has the columns of the archive's collection CSV."""
    try:
        listing = read_table(path)
    except InputError:
        return False
    return all(_spelling(listing, column) for column in REQUIRED)


def has_adni_folders(root: Path) -> bool:
    """Say whether a folder named by an ADNI subject lies in `root` or one folder deeper."""
    return any(PTID.fullmatch(path.name) for pattern in ("*/", "*/*/") for path in root.glob(pattern))


def parse_date(text: str) -> str:
    """Return ``8/10/2021`` (month first, padded or not) or ``2021-08-10`` as ``20210810``, else ``""``."""
    if match := re.match(r"(\d{1,2})/(\d{1,2})/(\d{4})(?!\d)", text):
        month, day, year = match.groups()
    elif match := re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)", text):
        year, month, day = match.groups()
    else:
        return ""
    return f"{year}{int(month):02d}{int(day):02d}"


def _only_table(root: Path) -> Path:
    """Return the one collection CSV in `root` itself: DVC versions what lies there with the scans."""
    found = [path for path in sorted(root.glob("*.csv")) if is_collection_table(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{root}: required one collection CSV; received {names}; set cohort.table")
    if not found:
        raise InputError(
            f"{root}: required ADNI's collection CSV (with {', '.join(REQUIRED)}) in it; received none; "
            "download it from the archive's collection page, or set cohort.table"
        )
    return found[0]


def _spelling(listing: Table, column: str) -> str:
    """Return the key under which the rows have a column, ``""`` where they have it not."""
    return next((key for key in COLUMN_VARIANTS[column] if listing.has(key)), "")


def _rows(listing: Table) -> dict[str, dict[str, str]]:
    """Return the rows by image number, with the columns' standard names; the first of equal numbers stays."""
    spellings = {column: _spelling(listing, column) for column in COLUMN_VARIANTS}
    missing = [column for column in REQUIRED if not spellings[column]]
    require_columns(listing, missing, hint="download the CSV of the collection from the archive")
    rows: dict[str, dict[str, str]] = {}
    for cells in listing.rows:
        row = {column: plain(cells.get(key, "")) for column, key in spellings.items()}
        if match := IMAGE_IN_CSV.fullmatch(row[IMAGE]):
            rows.setdefault(str(int(match[1])), row)
    return rows


def _files_by_image(
    root: Path, rows: Iterable[str], findings: Findings, table_name: str
) -> dict[str, list[Path]]:
    """Return the files of every image that has a row; of copies in several folders the first."""
    files: dict[str, list[Path]] = defaultdict(list)
    for file in _nifti_files(root):
        number = _image_number(file)
        if not number:
            findings.reject(
                file, "neither name (_S<series>_I<image>.nii) nor folder (I<image>) tells its image"
            )
        elif number not in rows:
            findings.reject(file, f"image I{number} has no row in {table_name}; add it, or remove the file")
        elif files[number] and files[number][0].parent != file.parent:
            findings.reject(file, f"a copy of {files[number][0].name} in another folder", SKIPPED)
        else:
            files[number].append(file)
    return files


def _nifti_files(root: Path) -> Iterator[Path]:
    """Yield the images under `root` in a fixed order, without hidden ones (macOS leaves ``._`` twins)."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if NIFTI.search(name) and name[0] != ".")


def _image_number(file: Path) -> str:
    match = IMAGE_IN_NAME.search(file.name) or IMAGE_IN_FOLDER.fullmatch(file.parent.name)
    return str(int(match[1])) if match else ""


def _is_wanted(image: _Image, root: Path, findings: Findings) -> bool:
    """Say whether an image is an FDG scan; report why not where there is a file."""
    reason, kind = "", SKIPPED
    modality, description = image.row["Modality"], image.row[DESCRIPTION]
    named = {match for file in image.files for match in _subjects_of(file, root)}
    if modality and modality.upper() != "PET":
        reason = f"modality {modality} is not PET"
    elif description not in FDG_DESCRIPTIONS:
        reason = f"description '{description}' is none of FDG"
    elif not PTID.fullmatch(image.subject):
        reason, kind = f"subject '{image.subject}' is not of the form 941_S_6962; mend the CSV", UNUSABLE
    elif named - {image.subject}:
        reason, kind = f"the CSV says {image.subject}, the path {min(named - {image.subject})}", UNUSABLE
    if reason:
        for file in image.files:
            findings.reject(file, reason, kind)
    return not reason


def _subjects_of(file: Path, root: Path) -> set[str]:
    return set(PTID.findall(file.relative_to(root).as_posix()))


def _one_level(images: Sequence[_Image], root: Path, findings: Findings) -> Iterator[_Image]:
    """Yield the best image of every acquisition (subject and date) that has files; report the others."""
    acquisitions: dict[tuple[str, str], list[_Image]] = defaultdict(list)
    for image in images:
        acquisitions[image.subject, image.date or image.row["Visit"]].append(image)
    for same in acquisitions.values():
        best, *others = sorted(same, key=lambda image: image.rank)
        for other in others:
            for file in other.files:
                findings.reject(file, f"another processing level or copy of image I{best.number}", SKIPPED)
        if not best.files:
            findings.reject(root / f"I{best.number}", "listed in the CSV, but not there; download it again")
        elif len(best.files) > 1:
            reason = f"{len(best.files)} files for one image; join the frames, or download a processed level"
            findings.reject(best.files[0], reason)
        else:
            yield best


def _with_sessions(images: Iterable[_Image]) -> Iterator[tuple[_Image, str]]:
    """Yield each image with its session: the visit where it tells a subject's scans apart, else the date."""
    subjects: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        subjects[image.subject].append(image)
    for own in subjects.values():
        visits = {image.row["Visit"] for image in own} - {""}
        for image in own:
            yield image, image.row["Visit"] if len(visits) == len(own) else image.date


def _candidate(image: _Image, session: str) -> Candidate:
    return Candidate(
        file=image.files[0],
        subject=image.subject,
        session=session,
        diagnosis=image.row[GROUP],
        age=parse_age(image.row["Age"]),
        sex=parse_sex(image.row["Sex"]),
        site=image.subject[:3],
    )
