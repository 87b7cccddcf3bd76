"""ADNI metadata: collection CSV, XML files and diagnoses by visit."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.parsers.expat import ErrorString

from adpet.cohort.tables import (
    DateOrder,
    Table,
    Visit,
    date_order,
    parse_date,
    plain,
    read_table,
    require_columns,
    require_inside,
    table_columns,
)
from adpet.errors import InputError

PTID: Final = re.compile(r"(?<!\d)\d{3}_S_\d{4,5}(?!\d)")
IMAGE_ID: Final = re.compile(r"[ID]?(\d+)(?:\.0*)?", re.IGNORECASE)

# Two descriptions of one image must agree in these: label, scan and time follow from them.
DECIDING: Final = ("subject", "group", "modality", "description", "date", "tracer")

# The columns' names in today's exports, and as keys those of other exports.
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

# DIAGNOSIS in DXSUM, in words that cohort.diagnosis_map knows; a negative number is a missing one.
NUMBERS: Final = {1: "CN", 2: "MCI", 3: "Dementia"}
NUMBER: Final = re.compile(r"(-?\d+)(?:\.0*)?")
# The number at a PTID's end, which other tables call RID.
RID: Final = re.compile(r"(?:\d{3}_?S_?)?0*(\d+)(?:\.0*)?", re.IGNORECASE)

DIAGNOSIS_COLUMNS: Final = {
    "PTID": ("ptid", "subjectid", "subject"),
    "RID": ("rid",),
    "VISCODE": ("viscode",),
    "VISCODE2": ("viscode2",),
    "EXAMDATE": ("examdate", "visdate"),
}
# Diagnoses of all phases: ADNI 3 and later, GO and 2, 1 (ADNI's data dictionary of DXSUM).
DIAGNOSIS_VARIANTS: Final = ("diagnosis", "dx", "dxchange", "dxcurren")
# DXCHANGE tells a change too; its last digit's meaning is the diagnosis afterwards.
CHANGES: Final = NUMBERS | {4: "MCI", 5: "Dementia", 6: "Dementia", 7: "CN", 8: "MCI", 9: "CN"}
# Day of an exam whose date cannot be read, for instance 5/11/2021 in an order that nothing tells.
UNREAD: Final = "?"
# Half a year: exams are a year apart, and of two diagnoses the nearer one holds.
MAX_DAYS: Final = 180

XML: Final = re.compile(r".*\.xml", re.IGNORECASE | re.DOTALL)
IMAGE_IN_NAME: Final = re.compile(r".*_I(\d+)\.xml", re.IGNORECASE | re.DOTALL)
ROOT: Final = "idaxs"
# The archive's files have some ten thousand bytes.
MAX_BYTES: Final = 2**20


@dataclass(frozen=True)
class ImageFacts:
    """Image in the words of the archive; `date` is YYYYMMDD."""

    number: str
    subject: str
    group: str
    description: str
    sex: str = ""
    age: str = ""
    visit: str = ""
    modality: str = ""
    date: str = ""
    tracer: str = ""


@dataclass(frozen=True)
class Listing:
    """Images and problems by image number; files without; unread cells."""

    source: str
    images: dict[str, ImageFacts] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    strays: list[tuple[Path, str]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, facts: ImageFacts) -> None:
        """Add an image; repeated descriptions must agree."""
        first = self.images.setdefault(facts.number, facts)
        pairs = {name: {getattr(first, name), getattr(facts, name)} - {""} for name in DECIDING}
        differing = [name for name, values in pairs.items() if len(values) > 1]
        if differing:
            self.problems[facts.number] = (
                f"{self.source}: image I{facts.number} is described twice, with another "
                f"{' and '.join(differing)}; remove what is wrong"
            )


@dataclass(frozen=True)
class Exam:
    """Visit: codes (casefolded), day (YYYYMMDD, ``""`` or `UNREAD`), diagnosis."""

    codes: frozenset[str]
    day: str
    diagnosis: str


@dataclass(frozen=True)
class VisitDiagnoses:
    """Exams of all subjects, by RID."""

    name: str
    exams: Mapping[str, Sequence[Exam]]

    def known(self, subject: str) -> set[Visit]:
        """Return all diagnosed visits of a subject (PTID)."""
        exams = self.exams.get(_rid(subject), ())
        return {Visit(exam.day.strip(UNREAD), math.nan, exam.diagnosis) for exam in exams}

    def at(self, subject: str, *, visit: str, day: str) -> str:
        """Return the diagnosis at a scan's visit or day (YYYYMMDD)."""
        exams = self.exams.get(_rid(subject), ())
        if not exams:
            raise InputError(f"{self.name} has no diagnosis of {subject}; add one")
        same = [exam for exam in exams if visit and visit.casefold() in exam.codes]
        unread = any(exam.day == UNREAD for exam in same or exams)
        if unread and not same:
            raise InputError(
                f"{self.name}: dates of {subject} cannot be read; write YYYY-MM-DD, or set cohort.date_order"
            )
        matching = same if unread else _nearest(same, day) or same or _nearest(exams, day, most=MAX_DAYS)
        diagnoses = sorted({exam.diagnosis for exam in matching})
        when = " ".join(filter(None, (visit and f"visit {visit}", day))) or "a scan without visit and date"
        if not diagnoses:
            raise InputError(
                f"{self.name} has no visit of {subject} with the scan's code or within {MAX_DAYS} days "
                f"({when}); add it"
            )
        if len(diagnoses) > 1:
            raise InputError(f"{self.name} says {' and '.join(diagnoses)} of {subject} ({when}); mend it")
        return diagnoses[0]


def read_collection_table(path: Path, *, declared: DateOrder = "auto") -> Listing:
    """Read the images of a collection CSV."""
    table = read_table(path)
    spellings = {column: _spelling(table, column) for column in COLUMN_VARIANTS}
    missing = [column for column in REQUIRED if not spellings[column]]
    require_columns(table, missing, hint="download the CSV of the collection from the archive")
    listing = Listing(path.name)
    order = date_order(table, spellings["Acq Date"], declared)
    # Without a proof, as the archive writes them; the folders' dates must agree.
    order = "month-first" if order == "auto" else order
    for cells in table.rows:
        row = {column: plain(cells.get(key, "")) for column, key in spellings.items()}
        image, written = row.pop(IMAGE), row.pop("Acq Date")
        day = parse_date(written, order)
        listing.unread["date"] += bool(written and not day)
        if number := image_number(image):
            facts = {column.lower(): cell for column, cell in row.items()}
            listing.add(ImageFacts(number, date=day, **facts))
        else:
            reason = f"a row has the image id '{image}', which is no number; mend it"
            listing.strays.append((path, reason))
    return listing


def is_collection_table(path: Path) -> bool:
    """True if a CSV has the archive's columns."""
    try:
        table = Table(path, table_columns(path), ())
    except InputError:
        return False
    return all(_spelling(table, column) for column in REQUIRED)


def read_xml_files(root: Path, link_targets: Sequence[str] = ()) -> Listing:
    """Read all XML files; broken ones affect their own image."""
    listing = Listing("the XML files")
    broken: list[tuple[Path, str]] = []
    for path in files_under(root, XML):
        try:
            require_inside(path, root, link_targets)
            for facts in _described(_parse(path)):
                listing.add(facts)
        except InputError as error:
            broken.append((path, str(error)))
    for path, reason in broken:
        name = IMAGE_IN_NAME.fullmatch(path.name)
        number = str(int(name[1])) if name else ""
        # An image that another file describes as well can be used.
        if number and number not in listing.images:
            listing.problems[number] = f"{path.name}: {reason}"
        else:
            listing.strays.append((path, reason))
    return listing


def read_visit_diagnoses(path: Path, *, declared: DateOrder = "auto") -> VisitDiagnoses:
    """Read a table of diagnoses by visit, without empty ones."""
    table = read_table(path)
    keys = {column: next(filter(table.has, variants), "") for column, variants in DIAGNOSIS_COLUMNS.items()}
    told = [column for column in DIAGNOSIS_VARIANTS if table.has(column)]
    groups = (("PTID", "RID"), ("VISCODE", "VISCODE2", "EXAMDATE"))
    missing = [" or ".join(group) for group in groups if not any(keys[column] for column in group)]
    missing += [] if told else ["DIAGNOSIS"]
    require_columns(table, missing, hint="set cohort.diagnosis_table to ADNI's DXSUM")
    exams: dict[str, list[Exam]] = {}
    order = date_order(table, keys["EXAMDATE"], declared)
    for cells in table.rows:
        row = {column: plain(cells.get(key, "")) for column, key in keys.items()}
        rid, day = _rid(row["PTID"]) or _rid(row["RID"]), row["EXAMDATE"]
        day = parse_date(day, order) or ("" if NUMBER.fullmatch(day) or not day else UNREAD)
        if rid != (_rid(row["RID"]) or rid):
            raise InputError(f"{path}: PTID {row['PTID']} and RID {row['RID']} of one row differ; mend it")
        codes = frozenset({row["VISCODE"].casefold(), row["VISCODE2"].casefold()} - {""})
        # Columns that contradict one another are two diagnoses of the visit.
        for diagnosis in {_in_words(plain(cells.get(column, "")), path, column) for column in told} - {""}:
            if rid:
                exams.setdefault(rid, []).append(Exam(codes, day, diagnosis))
    return VisitDiagnoses(path.name, exams)


def image_number(text: str) -> str:
    """Return ``1480670`` for ``I1480670``, else ``""``."""
    match = IMAGE_ID.fullmatch(text.strip())
    return str(int(match[1])) if match else ""


def files_under(root: Path, names: re.Pattern[str]) -> Iterator[Path]:
    """Yield files by name, ordered, without hidden ones (``._``)."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if names.fullmatch(name) and name[0] != ".")


def _spelling(table: Table, column: str) -> str:
    return next((key for key in COLUMN_VARIANTS[column] if table.has(key)), "")


class _NoDoctype(TreeBuilder):
    """Builder that refuses document types, hence entities and bombs."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise InputError("required XML without a document type; received one; download the file again")


def _parse(path: Path) -> Element:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check its permissions") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"required XML of at most {MAX_BYTES} bytes; received more; download the file again")
    parser = XMLParser(target=_NoDoctype())  # noqa: S314 - see `_NoDoctype`
    try:
        parser.feed(content)
        document: Element = parser.close()
    except ParseError as error:
        # The parser's own message may quote the file; its number and place do not.
        line, column = error.position
        raise InputError(
            f"is not XML ({ErrorString(error.code)}, line {line}, column {column}); download the file again"
        ) from error
    except (ValueError, LookupError) as error:
        raise InputError("declares an unknown encoding; download the file again") from error
    return document


def _described(document: Element) -> Iterator[ImageFacts]:
    """Yield the images of one file; other XML has none."""
    if document.tag.rpartition("}")[2] != ROOT:
        return
    for subject in document.iterfind("{*}project/{*}subject"):
        visits = [plain(visit.text or "") for visit in subject.iterfind("{*}visit/{*}visitIdentifier")]
        for study in subject.iterfind("{*}study"):
            for series in study.iterfind("{*}series"):
                # A series does not tell which of several visits it is of.
                yield from _in_series(subject, study, series, visit=visits[0] if len(visits) == 1 else "")


def _in_series(subject: Element, study: Element, series: Element, *, visit: str) -> Iterator[ImageFacts]:
    terms = (protocol for protocol in series.iterfind(".//{*}protocol") if protocol.text)
    tracers = {plain(term.text or "") for term in terms if term.get("term") == "Radiopharmaceutical"} - {""}
    tracer = tracers.pop() if len(tracers) == 1 else ""
    derived = (
        (image, "processedDataLabel") for image in series.iterfind("{*}seriesLevelMeta/{*}derivedProduct")
    )
    original = ((image, "description") for image in series.iterfind("{*}imagingProtocol"))
    for image, label in (*derived, *original):
        if number := image_number(_text(image, "imageUID")):
            yield ImageFacts(
                number=number,
                subject=_text(subject, "subjectIdentifier"),
                group=_text(subject, "researchGroup"),
                description=_text(image, label),
                sex=_text(subject, "subjectSex"),
                age=_text(study, "subjectAge"),
                visit=visit,
                modality=_text(series, "modality"),
                date=parse_date(_text(series, "dateAcquired")),
                tracer=tracer,
            )


def _text(element: Element, name: str) -> str:
    return plain(element.findtext(f"{{*}}{name}") or "")


def _nearest(exams: Sequence[Exam], day: str, *, most: int | None = None) -> list[Exam]:
    """Return the exams of the nearest day, preferably earlier."""
    dated = [exam for exam in exams if exam.day] if day else []
    if not dated:
        return []
    best = min(dated, key=lambda exam: (_days_apart(exam.day, day), exam.day))
    if most is not None and _days_apart(best.day, day) > most:
        return []
    return [exam for exam in dated if exam.day == best.day]


def _days_apart(first: str, second: str) -> int:
    return abs((date.fromisoformat(first) - date.fromisoformat(second)).days)


def _rid(subject: str) -> str:
    match = RID.fullmatch(subject)
    return match[1] if match else ""


def _in_words(diagnosis: str, path: Path, column: str) -> str:
    number, numbers = NUMBER.fullmatch(diagnosis), CHANGES if column == "dxchange" else NUMBERS
    if not number:
        # "Conversion: MCI to Dementia" and "Stable: NL" are diagnoses afterwards.
        word = diagnosis if column == "diagnosis" else re.split(" to |: *", diagnosis)[-1]
        return "CN" if word == "NL" else word
    if int(number[1]) < 0:
        return ""
    if int(number[1]) not in numbers:
        meanings = ", ".join(f"{value} ({word})" for value, word in numbers.items())
        raise InputError(f"{path}: required as diagnosis {meanings} or a word; received {diagnosis}; mend it")
    return numbers[int(number[1])]
