"""Read a download of ADNI's Image and Data Archive.

Of each scan one processing level is taken, in the order of `cohort.adni_level`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from adpet.cohort.adni_metadata import (
    PTID,
    REQUIRED,
    ImageFacts,
    Listing,
    VisitDiagnoses,
    files_under,
    is_collection_table,
    read_collection_table,
    read_visit_diagnoses,
    read_xml_files,
)
from adpet.cohort.tables import (
    IMAGE,
    SKIPPED,
    UNKNOWN,
    UNUSABLE,
    Candidate,
    DateOrder,
    Findings,
    Kind,
    column_key,
    parse_age,
    parse_date,
    parse_sex,
    require_inside,
    scanner_stated,
)
from adpet.errors import InputError
from adpet.imaging.nifti import scan_files
from adpet.imaging.sidecar import FDG, PET, read_facts, tracer_name

# ADNI's descriptions of FDG images by our names of their levels, in the default order of preference: the
# most processed first, as it is the most alike over scanners (8 mm before 6 mm, because every phase of ADNI
# has it). Other tracers have the same descriptions with their name before.
LEVELS: Final = {
    "uniform-8mm": "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution",
    "uniform-6mm": "Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res",
    "standardized": "Coreg, Avg, Standardized Image and Voxel Size",
    "averaged": "Co-registered, Averaged",
    "dynamic": "Co-registered Dynamic",
    "raw": "ADNI Brain PET: Raw FDG",
}
# Levels whose images have frames, which may be files of their own.
WITH_FRAMES: Final = ("dynamic", "raw")

RAW: Final = re.compile(r"ADNI Brain PET: Raw (.+)", re.IGNORECASE)

READ: Final = re.compile(r".*\.(nii(\.gz)?|dcm|v)", re.IGNORECASE | re.DOTALL)
IMAGE_IN_NAME: Final = re.compile(r"_S\d+_I(\d+)\.(nii(\.gz)?|dcm|v)$", re.IGNORECASE)
IMAGE_IN_FOLDER: Final = re.compile(r"I(\d+)")

ACQUISITION: Final = re.compile(r"(\d{4}-\d{2}-\d{2})_\d{2}_\d{2}_\d{2}.*")


def find_adni(
    root: Path,
    *,
    table: Path | None = None,
    diagnosis_table: Path | None = None,
    levels: Sequence[str] = tuple(LEVELS),
    declared: DateOrder = "auto",
    link_targets: Sequence[str] = (),
) -> Findings:
    """List the FDG scans of an ADNI download.

    Without `table` the only collection CSV in `root` itself counts, else the XML files anywhere in it;
    `diagnosis_table` overrides the group; the wanted `levels` are in the order of preference.
    """
    listing = _listing(root, table, declared, link_targets)
    diagnoses = read_visit_diagnoses(diagnosis_table, declared=declared) if diagnosis_table else None
    findings = Findings(unread=+listing.unread)
    for file, reason in listing.strays:
        findings.reject(file, reason)
    files = files_by_image(root, listing, findings)
    for number, reason in listing.problems.items():
        findings.reject(_scan_path(files.get(number, ())) or root / f"I{number}", reason)
    inside = partial(require_inside, root=root, link_targets=link_targets)
    acquisitions: dict[tuple[str, str], list[_Image]] = defaultdict(list)
    for image in _wanted_images(root, listing, files, levels, findings, inside=inside):
        acquisitions[image.facts.subject, image.date or image.facts.visit].append(image)
    usable = (_best_images(same, root, listing, levels, findings) for same in acquisitions.values())
    chosen = {images[0]: images[1:] for images in usable if images}
    for image, session in _with_sessions(chosen):
        try:
            diagnosis = _diagnosis(image, diagnoses, findings)
        except InputError as error:
            findings.reject(image.path, str(error))
        else:
            made = _candidate(image, session, diagnosis, findings)
            others = (_version(made, other) for other in chosen[image])
            findings.candidates.append(replace(made, others=tuple(others)))
    for file in files_under(root, IMAGE):
        if not READ.fullmatch(file.name) and PTID.search(file.as_posix()):
            findings.reject(file, "its ending is not read; decompress it, or convert it to NIfTI (.nii.gz)")
    return findings


def has_adni_folders(root: Path) -> bool:
    """True if `root` has folders named by subjects."""
    return any(PTID.fullmatch(path.name) for pattern in ("*/", "*/*/") for path in root.glob(pattern))


def level_of(description: str) -> str:
    """Return the processing level of an FDG image, or ``""``."""
    wanted = column_key(description).removeprefix("fdg")
    return next((level for level, text in LEVELS.items() if column_key(text) == wanted), "")


def tracer_of(facts: ImageFacts) -> str:
    """Return the tracer, or the modality if not PET."""
    if facts.modality and column_key(facts.modality) not in PET:
        return facts.modality
    stated = tracer_name(facts.tracer)
    if level_of(facts.description):
        return stated or FDG
    return _named_before(facts.description) or stated or UNKNOWN


def files_by_image(root: Path, listing: Listing, findings: Findings) -> dict[str, list[Path]]:
    """Return the files by listed image; reject copies and others.

    A folder of DICOM stands for its files.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    images = {
        file.parent if file.suffix.lower() == ".dcm" else file: file for file in files_under(root, READ)
    }
    for file, part in images.items():
        try:
            number = _known_number(part, listing)
        except InputError as error:
            findings.reject(file, str(error))
            continue
        if number in listing.images:
            findings.tracers[tracer_of(listing.images[number])] += 1
        name = file.name.lower().removesuffix(".gz")
        repeated = (
            other
            for other in files[number]
            if other.parent != file.parent or other.name.lower().removesuffix(".gz") == name
        )
        if copied := next(repeated, None):
            where = "the same folder" if file.parent == copied.parent else "another folder"
            findings.reject(file, f"a copy of {copied.name} in {where}", SKIPPED)
        else:
            files[number].append(file)
    return files


def shared_folder(files: Sequence[Path]) -> Path | None:
    """Return the folder of several files if theirs alone."""
    if len(files) > 1 and set(scan_files(files[0].parent)) == set(files):
        return files[0].parent
    return None


@dataclass(frozen=True, eq=False)
class _Image:
    facts: ImageFacts
    files: Sequence[Path]

    @property
    def date(self) -> str:
        """Acquisition date, YYYYMMDD, of description or folder."""
        return self.facts.date or self.folder_date

    @property
    def folder_date(self) -> str:
        found = (ACQUISITION.fullmatch(part) for file in self.files for part in file.parts)
        return next((parse_date(match[1]) for match in found if match), "")

    @property
    def level(self) -> str:
        return level_of(self.facts.description)

    @property
    def path(self) -> Path:
        return _scan_path(self.files) or Path()


def _wanted_images(
    root: Path,
    listing: Listing,
    files: Mapping[str, Sequence[Path]],
    levels: Sequence[str],
    findings: Findings,
    *,
    inside: Callable[[Path], None],
) -> Iterator[_Image]:
    for number, facts in listing.images.items():
        image = _Image(facts, files.get(number, ()))
        if number in listing.problems:
            continue
        if image.files and image.level and tracer_of(facts) == FDG:
            findings.levels[image.level] += 1
        verdict = _why_unwanted(image, root, listing.source, levels)
        if verdict is not None:
            if image.files:
                findings.reject(image.path, *verdict)
        elif _is_fdg(image, inside, findings):
            yield image


def _is_fdg(image: _Image, inside: Callable[[Path], None], findings: Findings) -> bool:
    """True unless name or sidecar contradict the description."""
    if not image.files:
        return True
    try:
        found = read_facts(image.path, inside)
    except InputError as error:
        findings.reject(image.path, str(error))
        return False
    stated = [*found.statements, (f"its description '{image.facts.description}'", FDG)]
    # Its files are counted by tracer already.
    counted = replace(findings, tracers=Counter())
    return counted.takes(image.path, stated, uncorrected=found.uncorrected)


def _why_unwanted(image: _Image, root: Path, source: str, levels: Sequence[str]) -> tuple[str, Kind] | None:
    facts, described = image.facts, f"description '{image.facts.description}'"
    paths = (file.relative_to(root).as_posix() for file in image.files)
    others = {match for path in paths for match in PTID.findall(path)} - {facts.subject}
    reasons: tuple[tuple[bool, str, Kind], ...] = (
        (column_key(facts.modality) not in {*PET, ""}, f"modality {facts.modality} is not PET", SKIPPED),
        (not facts.description, f"{source}: no description tells its tracer and level; fill it in", UNUSABLE),
        (not image.level, f"{described} is not that of an FDG image", SKIPPED),
        (
            tracer_of(facts) != FDG,
            f"{source}: tracer {facts.tracer}, but {described} of FDG; mend it",
            UNUSABLE,
        ),
        (image.level not in levels, f"processing level {image.level} is not in cohort.adni_level", SKIPPED),
        # The subject is not quoted: what stands there may be a name.
        (
            not PTID.fullmatch(facts.subject),
            f"{source}: the subject is not of the form 941_S_6962; mend it",
            UNUSABLE,
        ),
        (
            bool(others),
            f"{source}: subject {facts.subject}, but {min(others, default='')} in the path; mend one",
            UNUSABLE,
        ),
    )
    return next(((reason, kind) for applies, reason, kind in reasons if applies), None)


def _best_images(
    same: Sequence[_Image], root: Path, listing: Listing, levels: Sequence[str], findings: Findings
) -> list[_Image]:
    """Return the usable images of one acquisition, the preferred first."""
    ordered = sorted(same, key=lambda image: (levels.index(image.level), -int(image.facts.number)))
    present = [image for image in ordered if image.files]
    if not present:
        reason = f"described in {listing.source}, but not there; download it again"
        findings.reject(root / f"I{ordered[0].facts.number}", reason)
    usable = []
    for image in present:
        if problem := _problem_with_frames(image) or _problem_with_date(image, listing.source):
            findings.reject(image.path, problem)
        else:
            usable.append(image)
    if not usable:
        return []
    first = usable[0].facts
    if not (usable[0].date or first.visit):
        for other in usable[1:]:
            reason = (
                f"neither date nor visit tells it from image I{first.number} of {first.subject}; fill one in"
            )
            findings.reject(other.path, reason)
        return usable[:1]
    for other in usable[1:]:
        reason = f"another processing level or copy of image I{first.number}"
        findings.reject(other.path, reason, SKIPPED)
    return usable


def _listing(root: Path, table: Path | None, declared: DateOrder, link_targets: Sequence[str]) -> Listing:
    if table is not None:
        return _with_xml(read_collection_table(table, declared=declared), root, link_targets)
    found = [path for path in sorted(root.glob("*.csv")) if is_collection_table(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{root}: required one collection CSV; received {names}; set cohort.table")
    if found:
        require_inside(found[0], root, link_targets)
        return _with_xml(read_collection_table(found[0], declared=declared), root, link_targets)
    listing = read_xml_files(root, link_targets)
    if not listing.images and not listing.problems:
        raise InputError(
            f"{root}: required ADNI's collection CSV (with {', '.join(REQUIRED)}) in it, or its XML files; "
            "received neither; download the CSV from the archive's collection page, or set cohort.table"
        )
    return listing


def _with_xml(listing: Listing, root: Path, link_targets: Sequence[str]) -> Listing:
    """Add the XML files' tracers to a table's images."""
    for number, facts in read_xml_files(root, link_targets).images.items():
        if number in listing.images and tracer_of(facts) != UNKNOWN:
            listing.images[number] = replace(listing.images[number], tracer=tracer_of(facts))
    return listing


def _problem_with_frames(image: _Image) -> str:
    number = len(image.files)
    if number == 1:
        return ""
    if image.level not in WITH_FRAMES:
        return f"{number} files for one image of level {image.level}, which has no frames; keep the right one"
    if shared_folder(image.files) is None:
        return f"{number} frames lie in one folder with other images; give them a folder of their own"
    return ""


def _problem_with_date(image: _Image, source: str) -> str:
    if image.folder_date in {"", image.date}:
        return ""
    return f"{source} says {image.date}, the path {image.folder_date}; mend one, or set cohort.date_order"


def _scan_path(files: Sequence[Path]) -> Path | None:
    return shared_folder(files) or next(iter(files), None)


def _with_sessions(images: Iterable[_Image]) -> Iterator[tuple[_Image, str]]:
    """Yield images with their visit, or date if visits repeat."""
    subjects: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        subjects[image.facts.subject].append(image)
    for own in subjects.values():
        visits = {image.facts.visit for image in own} - {""}
        for image in own:
            yield image, image.facts.visit if len(visits) == len(own) else image.date


def _diagnosis(image: _Image, diagnoses: VisitDiagnoses | None, findings: Findings) -> str:
    facts = image.facts
    if diagnoses is None:
        return facts.group
    findings.visits[facts.subject] = diagnoses.known(facts.subject)
    return diagnoses.at(facts.subject, visit=facts.visit, day=image.date)


def _candidate(image: _Image, session: str, diagnosis: str, findings: Findings) -> Candidate:
    metadata = read_facts(image.path).metadata
    return Candidate(
        file=image.path,
        subject=image.facts.subject,
        session=session,
        diagnosis=diagnosis,
        age=findings.parse("age", parse_age, image.facts.age),
        sex=findings.parse("sex", parse_sex, image.facts.sex),
        site=image.facts.subject[:3],
        scanner=scanner_stated(metadata),
        level=image.level,
        date=image.date,
        frames=metadata,
    )


def _version(made: Candidate, other: _Image) -> Candidate:
    return replace(made, file=other.path, level=other.level, frames=read_facts(other.path).metadata)


def _named_before(description: str) -> str:
    """Return the tracer before a description: ``AV45 Co-registered, Averaged``."""
    if raw := RAW.fullmatch(description):
        return raw[1]
    texts = (" " + text.casefold() for text in LEVELS.values())
    found = (description[: -len(text)] for text in texts if description.casefold().endswith(text))
    return next(found, "")


def _known_number(file: Path, listing: Listing) -> str:
    matches = (IMAGE_IN_NAME.search(file.name), IMAGE_IN_FOLDER.fullmatch(file.parent.name))
    numbers = {str(int(match[1])) for match in matches if match}
    if not numbers:
        raise InputError("neither name (_S<series>_I<image>.nii) nor folder (I<image>) tells its image")
    if len(numbers) > 1:
        raise InputError("its name and its folder give different images; rename what is wrong")
    number = numbers.pop()
    if number not in listing.images and number not in listing.problems:
        raise InputError(f"image I{number} is not described in {listing.source}; add it, or remove the file")
    return number
