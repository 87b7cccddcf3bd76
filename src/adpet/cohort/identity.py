"""Identity of people and visits: one id in several spellings."""

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Final

from adpet.cohort.tables import Findings, Table, Visit, plain
from adpet.errors import InputError

# Accents of Latin, Greek and Cyrillic letters, decomposed.
ACCENTS: Final = re.compile("[\u0300-\u036f]")
PREFIX: Final = re.compile(r"^((sub(j(ect)?)?|ses(sion)?)([\W_]+|(?=\d)))+")
# A number as a spreadsheet writes one that was an id.
SPREADSHEET_NUMBER: Final = re.compile(r"(\d+)[.,]0+")

Rows = dict[str, dict[str, dict[str, str]]]


def person_key(label: str) -> str:
    """Return what an id's spellings share: ``s1`` for ``S-001``.

    Case, blanks, marks, accents, leading zeros, a prefix ``sub``, ``subject`` or ``ses`` and a spreadsheet's
    ``.0`` do not count, but a mark between two numbers does.
    """
    letters = unicodedata.normalize("NFC", ACCENTS.sub("", unicodedata.normalize("NFKD", label)))
    text = without_decimals(PREFIX.sub("", letters.casefold().strip()))
    parts = re.findall(r"\d+|[^\W\d_]+", text)
    key = "-".join(str(int(part)) if part.isdecimal() else part for part in parts)
    return re.sub(r"(?<!\d)-|-(?!\d)", "", key)


def without_decimals(label: str) -> str:
    """Return ``1`` for a spreadsheet's ``1.0``, other ids as given."""
    match = SPREADSHEET_NUMBER.fullmatch(label)
    return match[1] if match else label


def unify_subjects(found: Findings) -> tuple[Findings, list[list[str]]]:
    """Give each person the most frequent id; return all spellings."""
    counts = Counter(candidate.subject for candidate in found.candidates)
    groups: dict[str, list[str]] = defaultdict(list)
    for subject in sorted(counts, key=lambda subject: (counts[subject], subject), reverse=True):
        groups[person_key(subject) or subject].append(subject)
    chosen = {subject: group[0] for group in groups.values() for subject in group}
    visits: dict[str, set[Visit]] = defaultdict(set)
    for subject, told in found.visits.items():
        visits[chosen.get(subject, subject)] |= told
    candidates = [replace(candidate, subject=chosen[candidate.subject]) for candidate in found.candidates]
    several = [group for group in groups.values() if len(group) > 1]
    return replace(found, candidates=candidates, visits=visits), several


def rows_by_id(table: Table, key: str, visit_key: str = "") -> Rows:
    """Return rows by `person_key`, and by visit (else ``""``).

    Two rows that nothing tells apart are refused.
    """
    rows: Rows = {}
    for row in table.rows:
        label, visit = row.get(key, ""), person_key(plain(row.get(visit_key, "")))
        key_of = person_key(plain(label))
        first = rows.setdefault(key_of, {}).setdefault(visit, row)
        if key_of and first != row:
            received = f"{label} twice" if first[key] == label else f"{first[key]} and {label}"
            raise InputError(
                f"{table.path}: required one row for each {key}; received {received}, and nothing tells them "
                "apart; remove one, or add session_id"
            )
    return rows
