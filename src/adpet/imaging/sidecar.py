"""Tracer, correction and frames by name and JSON sidecars.

Of two sidecars the one nearer to the scan wins, as BIDS has it. Names of tracers match whole, by a table.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

from adpet.errors import InputError
from adpet.imaging.nifti import scan_files

SUFFIXES: Final = (
    ".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img", ".mgh", ".mgz", ".mnc", ".par", ".rec",
)  # fmt: skip
# Minutes after injection that are averaged: ADNI's protocol, in which uptake changes little.
FRAMES_MINUTES: Final = (30.0, 60.0)

FDG: Final = "FDG"
# FDG's names without case, marks and isotope, and its codes in DICOM PS3.16, CID 4021 (SRT, SNOMED CT, UMLS).
FDG_NAMES: Final = re.compile(
    "(?:2|d|pet)?fdg(?:pet|fluorodeoxyglucose)?|2?flu(?:oro?)?2?des?oxyd?glu[ck]ose|"
    "(?:2deoxy2|deoxy)fluorod?glucose|cb1031|35321007|c0046056"
)
# Other tracers of the brain, by which a file's name says what it is; a `trc-` label always counts. After
# those that no surname begins with another word may follow, as in `acq-AV45late`.
OTHER_TRACERS: Final = re.compile(
    "(?:av45|fav45|florbeta|amyvid|neuraceq|flutemetamol|vizamyl|nav4694|azd4694|flutafuranol|av1451|"
    "flortau|tauvid|t807|mk6240|pi2620|ro948|gtp1|thk5317|thk5351|apn1607|pmpbb3|fddnp|fdgal|fdopa|"
    "fmiso|raclopride|fallypride|ucbj|pbr28|dpa714|ge180|flumazenil|altanserin|hmpao|exametazime|ceretec|"
    "bicisate|neurolite|ioflupane|datscan|fpcit).*|pib|fbb|ecd|h2o|dota(?:tate|toc|noc)?|dopa|dasb|"
    "psma(?:11|617|1007)?|choline"
)
FLUORINE: Final = ("18f", "f18", "fluorine18", "18fluorine", "fluorinef18", "fluor18", "18")
MARKS: Final = (*FLUORINE, "srt", "sct", "umls")
ISOTOPES: Final = (*FLUORINE, "11c", "c11", "15o", "o15", "99mtc", "tc99m", "123i", "i123")
# Of scanners that do PET too.
CT_OR_MR: Final = ("ct", "mr", "mri")
# Fluorine-18 in DICOM PS3.16, CID 4020 (SRT, SNOMED CT).
FLUORINE_CODES: Final = (*FLUORINE, "c111a1", "77004003")
UNSAID: Final = frozenset(("", "na", "nan", "none", "null", "unknown", "unspecified", "undefined"))
# Words of a name or description, and values of the fields below, of images not corrected for attenuation.
NAC: Final = frozenset(("nac", "noac", "nonac", "uncorrected", "uncorr"))
NO: Final = re.compile(
    "none|no|false|off|0|without|not(?:applied|performed|done)|.*(?:uncorr|no[nt]?att).*|no[nt]?corr.*"
)
UNCORRECTED: Final = re.compile("(?:n|no|non)ac(?!c).*|.*nac|.*(?:uncorrected|no[nt]?att).*|no[nt]?corr.*")
# The last is DICOM's, as dcm2niix writes it.
CORRECTION: Final = ("AttenuationCorrection", "AttenuationCorrected", "AttenuationCorrectionMethod")
PET: Final = ("pt", "pet", "petct", "petmr", "petmri")

# Characters of a field that a message quotes.
LONGEST: Final = 40
FLUORINE_S: Final = (6000, 7200)  # around its half-life; carbon-11 has 1224, gallium-68 4070
# Frames over a longer time are not in seconds: a hundredth of the tracer would be left.
LONGEST_SCAN_H: Final = 12
# Labels of a name that stand for person, visit or place, and labels that tell how it was reconstructed.
_WHO: Final = ("sub", "ses", "run", "space")
_HOW: Final = ("rec", "acq", "desc", "proc")


# A source, and the tracer that it states: `FDG`, or another as given.
Statement: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Facts:
    """What name and sidecars say: tracer, correction, metadata.

    `statements` begin with the one that weighs most; `uncorrected` is what says that attenuation was not
    corrected, or ``""``; `metadata` has the values of the nearest sidecar.
    """

    statements: tuple[Statement, ...]
    uncorrected: str
    metadata: Mapping[str, Any]


def tracer_name(text: str) -> str:
    """Return ``FDG`` for all its names, others as given."""
    name = " ".join(text.split())
    if _key(name) in {*UNSAID, *MARKS}:
        return ""
    parts = [part for part in re.split(r"--|[(),;/|]", name) if _key(part) not in {"", *CT_OR_MR, *MARKS}]
    known = bool(parts) and all(_matches(FDG_NAMES, part, MARKS) for part in parts)
    return FDG if known or _matches(FDG_NAMES, name, MARKS) else name


def weigh(statements: Sequence[Statement]) -> tuple[str, str]:
    """Return the weightiest tracer, and a contradiction or ``""``."""
    if not statements:
        return "", ""
    source, tracer = statements[0]
    other = next((one for one in statements if (one[1] == FDG) != (tracer == FDG)), None)
    return tracer, f"{source} says {tracer}, but {other[0]} {other[1]}" if other else ""


def require_fdg(facts: Facts) -> None:
    """Refuse what name or sidecar call another tracer, or uncorrected."""
    tracer, clash = weigh(facts.statements)
    if clash or tracer not in {"", FDG}:
        said = clash or f"{facts.statements[0][0]} says {tracer}"
        raise InputError(f"required FDG; {said}; correct what is wrong, or give a scan of FDG")
    if facts.uncorrected:
        raise InputError(
            f"required an image corrected for attenuation; {facts.uncorrected} says otherwise; give the other"
        )


def facts_of(names: Sequence[str], sidecars: Sequence[tuple[str, Mapping[str, Any]]]) -> Facts:
    """Return what names and sidecars, nearest first, say."""
    stated = [("its name", tracer) for name in names for tracer in tracers_in(name)]
    stated += next(filter(None, (list(_stated(source, content)) for source, content in sidecars)), [])
    metadata = {key: value for _, content in reversed(sidecars) for key, value in content.items()}
    named = (f"its name ({word})" for name in names for word in _uncorrected_in(name))
    given = [field for field in CORRECTION if metadata.get(field) not in (None, "")]
    denying = [field for field in given if denies_correction(metadata[field])]
    if not given and _names_nac(str(metadata.get("SeriesDescription"))):
        denying = ["SeriesDescription"]
    return Facts(tuple(stated), next(named, f"{denying[0]} in its sidecar" if denying else ""), metadata)


def read_facts(scan: Path, inside: Callable[[Path], None] = lambda _: None) -> Facts:
    """Read the facts of a scan, as far as readable.

    `inside` refuses sidecars by their place.
    """
    try:
        files = scan_files(scan)
    except OSError:
        files = [scan]
    found = [[*_sidecars(file, inside)] for file in files]
    facts = facts_of(
        list(dict.fromkeys([scan.name, *(file.name for file in files)])), [*chain.from_iterable(found)]
    )
    if len(files) < 2 or not scan.is_dir():
        return facts
    times = {}
    for key in ("FrameTimesStart", "FrameDuration"):
        # Each file's sidecar has the time of its own frame, or that of all.
        own = [_numbers(facts_of([], pairs).metadata.get(key)) for pairs in found]
        either = own[0], [*chain.from_iterable(own)]
        times[key] = next((one for one in either if len(one) == len(files)), [])
    return replace(facts, metadata={**facts.metadata, **times})


# Keys of a sidecar that name the scanner.
SCANNER = ("Manufacturer", "ManufacturersModelName")


def scanner_of(metadata: Mapping[str, Any]) -> str:
    """Return a sidecar's manufacturer and model, as far as known."""
    maker, model = (" ".join(str(metadata.get(key) or "").split()) for key in SCANNER)
    is_named = bool(model) and model.casefold().startswith(maker.casefold())
    return model if is_named else f"{maker} {model}".strip()


def used_seconds(
    metadata: Mapping[str, Any], n_frames: int, *, minutes: Sequence[float] | None = None
) -> list[float] | None:
    """Return the averaged seconds of each frame, or None.

    Those between `minutes` after injection, where FrameTimesStart tells; else FrameDuration. Times count
    from injection, or from the scan's start where a frame would begin before it. Frames that all come later
    are all used.
    """
    given, starts = metadata.get("FrameDuration"), _numbers(metadata.get("FrameTimesStart"))
    durations = _numbers(given)
    if n_frames == 1:
        return None
    # The middles of frames, which is what dcm2niix wrote before 2025.
    middles = _numbers(metadata.get("FrameReferenceTime"))
    starts = starts or [time - length / 2 for time, length in zip(middles, durations, strict=False)]
    if len(starts) != n_frames or starts != sorted(set(starts)):
        starts = []
    if given in (None, []) and starts:
        steps = [end - start for start, end in pairwise(starts)]
        durations = [*steps, steps[-1]]
    elif given in (None, []):
        return None
    if len(durations) != n_frames or min(durations) <= 0:
        listed = " ".join(map(str, given)) if isinstance(given, list) else given
        raise InputError(f"required FrameDuration in s for {n_frames} frames; received '{listed}'; mend it")
    injection, scan = (_numbers(metadata.get(key)) for key in ("InjectionStart", "ScanStart"))
    if not starts:
        return durations
    shift = (scan[0] if scan and starts[0] < scan[0] else 0) - (injection[0] if injection else 0)
    first, last = minutes or FRAMES_MINUTES
    low, high = 60 * first, 60 * last
    spans = [(start + shift, start + shift + length) for start, length in zip(starts, durations, strict=True)]
    inside = [
        length if low <= begin and end <= high else max(min(end, high) - max(begin, low), 0.0)
        for (begin, end), length in zip(spans, durations, strict=True)
    ]
    if (hours := (spans[-1][1] - spans[0][0]) / 3600) > LONGEST_SCAN_H:
        raise InputError(f"required frame times in s; received {hours:.0f} h; divide milliseconds by 1000")
    if any(inside):
        return inside
    if spans[0][0] < low and injection:
        raise InputError(
            f"its frames end {spans[-1][1] / 60:.0f} min after injection, before the {first:g} to "
            f"{last:g} min of cohort.frames_minutes; give later frames"
        )
    return durations


def stem_of(path: Path) -> str:
    """Return a scan's name without the suffixes of images."""
    name = path.name.casefold()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


def entities_of(name: str) -> dict[str, str]:
    """Return ``{"sub": "01", "trc": "18FFDG"}`` of ``sub-01_trc-18FFDG_pet.nii.gz``."""
    parts = name.split(".", maxsplit=1)[0].split("_")[:-1]
    return dict(part.split("-", 1) for part in parts if "-" in part)


def sidecar_paths(
    file: Path, root: Path, listed: Callable[[Path], list[tuple[Path, dict[str, str]]]] | None = None
) -> Iterator[Path]:
    """Yield a BIDS file's sidecars, own and inherited, nearest first."""
    entities = entities_of(file.name)
    for folder in file.parents:
        if folder.is_relative_to(root):
            for path, keys in reversed((listed or sidecars_in)(folder)):
                if keys.items() <= entities.items():
                    yield path


def sidecars_in(folder: Path) -> list[tuple[Path, dict[str, str]]]:
    """Return a folder's sidecars and entities, most specific last."""
    paths = sorted({*folder.glob("*_pet.json"), *folder.glob("pet.json")})
    return sorted(((path, entities_of(path.name)) for path in paths), key=lambda pair: len(pair[1]))


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise InputError."""
    try:
        raw = path.read_bytes()
        # In UTF-16 as PowerShell writes it, or with the header's letters in Latin-1 as dcm2niix does.
        content = json.loads(raw.decode(json.detect_encoding(raw), "replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not JSON ({error}); mend it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} holds no names and values; mend it")
    return content


def _sidecars(file: Path, inside: Callable[[Path], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    file = file.absolute()
    subject = next((folder for folder in file.parents if folder.name.startswith("sub-")), None)
    inherited = sidecar_paths(file, subject.parent) if subject and file.parent.name == "pet" else ()
    for path in dict.fromkeys([file.with_name(f"{stem_of(file)}.json"), *inherited]):
        if os.path.lexists(path):
            inside(path)
            yield path.name, read_object(path)


def _stated(source: str, sidecar: Mapping[str, Any]) -> Iterator[Statement]:
    for field in ("TracerName", "Radiopharmaceutical", "Tracer", "Radiotracer"):
        if tracer := tracer_name(str(sidecar.get(field, ""))):
            yield f"{field} of {source}", tracer[:LONGEST]
    for field, allowed in (("TracerRadionuclide", FLUORINE_CODES), ("Modality", PET)):
        value = str(sidecar.get(field, ""))
        # dcm2niix writes the tracer's name where the header does not tell the nuclide.
        if _key(value) not in {*UNSAID, *allowed} and tracer_name(value) != FDG:
            yield f"{field} of {source}", value[:LONGEST]
    for seconds in filter(None, _numbers(sidecar.get("RadionuclideHalfLife"))):
        if not FLUORINE_S[0] < seconds < FLUORINE_S[1]:
            yield f"RadionuclideHalfLife of {source}", f"{seconds:g} s"
    # Word by word: the text may have a name, which is not to be quoted.
    for tracer in chain(*map(_named_in, re.split(r"[\s_]+", str(sidecar.get("SeriesDescription", ""))))):
        yield f"SeriesDescription of {source}", tracer[:LONGEST]


def tracers_in(name: str) -> Iterator[str]:
    """Yield the tracers in a name, ``trc-`` first."""
    parts = stem_of(Path(name)).split("_")
    yield from filter(None, (tracer_name(part[4:]) for part in parts if part.startswith("trc-")))
    for part in parts:
        if part.partition("-")[0] not in {*_WHO, "trc"}:
            yield from _named_in(part)


def denies_correction(value: object) -> bool:
    """True if a field says that attenuation was not corrected."""
    # GE's headers have "NONE, 0.000000 cm-1,".
    first = re.split("[,;(]", str(value))[0]
    return bool(NO.fullmatch(_key(first))) or _names_nac(first)


def _named_in(text: str) -> Iterator[str]:
    for word in dict.fromkeys([text, *_words(text)]):
        if _matches(FDG_NAMES, word, FLUORINE):
            yield FDG
        elif _matches(OTHER_TRACERS, word, ISOTOPES):
            yield word


def _names_nac(text: str) -> bool:
    return not NAC.isdisjoint(_words(text.casefold()))


def _words(text: str) -> list[str]:
    return re.split(r"[^A-Za-z0-9]+", text)


def _uncorrected_in(name: str) -> Iterator[str]:
    for part in stem_of(Path(name)).split("_"):
        key, _, label = part.partition("-")
        if is_uncorrected(label) if key in _HOW else key not in {*_WHO, "trc"} and _names_nac(part):
            yield part


def is_uncorrected(label: str) -> bool:
    """True for ``nacstat``, ``NAC``, ``uncorrected`` and the like."""
    return bool(UNCORRECTED.fullmatch(_key(label)))


def _numbers(value: Any) -> list[float]:
    """Return finite numbers as a list, others as ``[]``."""
    values = value if isinstance(value, list) else [value]
    real = all(type(one) in {int, float} and math.isfinite(one) for one in values)
    return [float(one) for one in values] if real else []


def _matches(names: re.Pattern[str], text: str, marks: Sequence[str]) -> bool:
    """True if a text is a name, marks left out."""
    key = _key(text)
    return any(map(names.fullmatch, (key, *(key.replace(mark, "", 1) for mark in marks))))


def _key(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in plain if character.isascii() and character.isalnum())
