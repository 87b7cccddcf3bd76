"""Decide on the diagnosis of scans whose subject has more than one over the years.

``visit``: each scan has that of its own visit. ``baseline``: all have that of the subject's first scan.
``stable-only``: subjects whose diagnosis changes are left out, whatever the change.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from adpet.cohort.candidates import SKIPPED, Candidate, Findings
from adpet.imaging.volume import natural_key

Policy: TypeAlias = Literal["visit", "baseline", "stable-only"]

# Sessions with these names are the first ones, wherever the alphabet puts them (ADNI's sc comes before bl).
FIRST_SESSIONS: Final = ("sc", "screening", "init", "initial", "bl", "baseline")


def follow_policy(found: Findings, *, policy: Policy, diagnosis_map: Mapping[str, str]) -> list[Candidate]:
    """Return the candidates with the diagnoses that `policy` gives them; those left out become rejections.

    Parameters
    ----------
    found : Findings
        `candidates` and, for ``stable-only``, what else is known of the subjects: `diagnoses`.
    policy : "visit", "baseline" or "stable-only"
        See the module.
    diagnosis_map : mapping of str to str
        Words of one class are one diagnosis: from ``AD`` to ``Dementia`` is no change.
    """
    if policy == "visit":
        return found.candidates
    subjects: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in found.candidates:
        subjects[candidate.subject].append(candidate)
    kept = []
    for subject, scans in subjects.items():
        if policy == "baseline":
            kept += _as_at_first(scans, found)
        else:
            kept += _if_stable(subject, scans, found, diagnosis_map)
    return kept


def in_order_of_time(scans: Sequence[Candidate]) -> list[Candidate]:
    """Order one subject's scans: by dates or else by ages if all scans have them, then by session's label.

    Labels are in natural order (``m6`` before ``m12``), names of a first session before all others.
    """
    dated = all(scan.date for scan in scans)
    aged = all(scan.age > 0 for scan in scans)

    def key(scan: Candidate) -> tuple[str, float, int, tuple[str | int, ...], tuple[str | int, ...]]:
        label = scan.session.casefold()
        rank = FIRST_SESSIONS.index(label) if label in FIRST_SESSIONS else len(FIRST_SESSIONS)
        age = scan.age if aged and not dated else 0.0
        return scan.date if dated else "", age, rank, natural_key(label), natural_key(scan.run)

    return sorted(scans, key=key)


def _as_at_first(scans: Sequence[Candidate], found: Findings) -> list[Candidate]:
    """Give all scans the diagnosis of the first; where it is not known, no later one stands in for it."""
    first = in_order_of_time(scans)[0]
    if first.diagnosis:
        return [replace(scan, diagnosis=first.diagnosis) for scan in scans]
    for scan in scans:
        reason = "no diagnosis of the subject's first scan, which cohort.diagnosis baseline takes; fill it in"
        found.reject(scan.file, reason)
    return []


def _if_stable(
    subject: str, scans: Sequence[Candidate], found: Findings, diagnosis_map: Mapping[str, str]
) -> list[Candidate]:
    """Return all scans or none: other visits count as well, and what is not known is no change."""
    words = {word.casefold(): diagnosis for word, diagnosis in diagnosis_map.items()}
    known = {scan.diagnosis for scan in scans} | found.diagnoses.get(subject, set())
    by_class = {words.get(word.casefold(), word.casefold()): word for word in sorted(known - {""})}
    if len(by_class) <= 1:
        return list(scans)
    listed = ", ".join(sorted(by_class.values()))
    for scan in scans:
        reason = f"the subject's diagnosis changes ({listed}), and cohort.diagnosis is stable-only"
        found.reject(scan.file, reason, SKIPPED)
    return []
