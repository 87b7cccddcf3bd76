"""Read the XML files that the archive delivers with images: the same facts as in the collection CSV.

They lie beside the images or above them, so that the image's number in the file tells what it describes.
Only the facts that are needed are taken; no other text of a file goes anywhere, nor into an error.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

# An XML file with a document type is refused before an entity can be declared: see `_NoDoctype`.
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser
from xml.parsers.expat import ErrorString

from adpet.cohort.adni_facts import ImageFacts, Listing, files_under, image_number
from adpet.cohort.tables import parse_date, plain
from adpet.errors import InputError

XML: Final = re.compile(r".*\.xml", re.IGNORECASE | re.DOTALL)
IMAGE_IN_NAME: Final = re.compile(r".*_I(\d+)\.xml", re.IGNORECASE | re.DOTALL)
ROOT: Final = "idaxs"
# The archive's files have some ten thousand bytes.
MAX_BYTES: Final = 2**20


def read_xml_files(root: Path) -> Listing:
    """Read all XML files under `root`; one that is broken is a problem of its own image alone."""
    listing = Listing("the XML files")
    broken: list[tuple[Path, str]] = []
    for path in files_under(root, XML):
        try:
            _require_inside(path, root)
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


class _NoDoctype(TreeBuilder):
    """Stops at a document type: without one there are no entities, neither external ones nor bombs."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise InputError("required XML without a document type; received one; download the file again")


def _require_inside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"leads out of {root} by a link; put the file itself there")


def _parse(path: Path) -> Element:
    """Parse a file of bounded size."""
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
        raise InputError("declares an encoding that is none; download the file again") from error
    return document


def _described(document: Element) -> Iterator[ImageFacts]:
    """Yield the images of one file; XML of another kind describes none.

    The root has a namespace and its children have none, which ``{*}`` does not mind.
    """
    if document.tag.rpartition("}")[2] != ROOT:
        return
    for subject in document.iterfind("{*}project/{*}subject"):
        visits = [plain(visit.text or "") for visit in subject.iterfind("{*}visit/{*}visitIdentifier")]
        for study in subject.iterfind("{*}study"):
            for series in study.iterfind("{*}series"):
                # Of several visits it is not said which one a series is of.
                yield from _in_series(subject, study, series, visit=visits[0] if len(visits) == 1 else "")


def _in_series(subject: Element, study: Element, series: Element, *, visit: str) -> Iterator[ImageFacts]:
    """Yield the images of a series: derived ones, and the original one, described by its protocol.

    The tracer is known where the series names one only.
    """
    terms = (protocol for protocol in series.iterfind(".//{*}protocol") if protocol.text)
    tracers = {plain(term.text or "") for term in terms if term.get("term") == "Radiopharmaceutical"} - {""}
    tracer = tracers.pop() if len(tracers) == 1 else ""
    images = chain(
        ((image, "processedDataLabel") for image in series.iterfind("{*}seriesLevelMeta/{*}derivedProduct")),
        ((image, "description") for image in series.iterfind("{*}imagingProtocol")),
    )
    for image, label in images:
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
