"""What ingest found, as JSON values and as a table of at most 100 columns for whoever keeps the scans."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from adpet.cohort.balance import FACTORS, UNKNOWN, Factor, first_visits, judge_factors
from adpet.cohort.scans import DIAGNOSES, Collection, ingest_summary

COLUMNS = 100
# Of sites, scanners or reasons that are many, the table shows so many.
MOST_SHOWN = 4
LABEL, GROUP = 9, 36


def ingest_report(collection: Collection) -> dict[str, Any]:
    """Return the summary of a collection, with levels, tracers, and how balanced the groups are.

    Notes
    -----
    ``balance`` has, by factor, ``auc`` and ``p`` of `adpet.cohort.balance.Factor`, and each group's values.
    """
    subjects = first_visits(collection.scans)
    factors = judge_factors(subjects)
    used = collection.scans["level"].replace("", UNKNOWN).value_counts()
    return {
        **ingest_summary(collection),
        "levels": {
            "used": {str(name): int(n) for name, n in sorted(used.items())},
            "seen": dict(sorted(collection.levels.items())),
        },
        "tracers": dict(sorted(collection.tracers.items())),
        "balance": {
            factor.name: {
                "auc": factor.auc,
                "p": factor.p,
                "one_group": list(factor.one_group),
                **{group: _values(subjects, factor.name, group) for group in DIAGNOSES},
            }
            for factor in factors
        },
        "warnings": [text for factor in factors for text in _warnings(factor)],
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Return a report as text: aligned, and not wider than `COLUMNS`."""
    return "\n".join([*_found(report), *_set_aside(report), *_balance(report), *_warned(report)])


def _values(subjects: pd.DataFrame, factor: str, group: str) -> dict[str, Any]:
    """Return one group's mean age, or its subjects by category."""
    values = subjects.loc[subjects["diagnosis"] == group, factor]
    if factor == "age":
        known = values.dropna()
        return {
            "known": len(known),
            "unknown": len(values) - len(known),
            "mean": round(float(known.mean()), 1) if len(known) else None,
            "sd": round(float(known.std()), 1) if len(known) > 1 else None,
        }
    counted = values.replace("", UNKNOWN).value_counts()
    return {str(name): int(n) for name, n in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))}


def _warnings(factor: Factor) -> Iterator[str]:
    if factor.tells_apart:
        yield (
            f"AD and CN can be told apart by {factor.name} alone (AUC {factor.auc:.2f} beyond chance, "
            f"p {_shown_p(factor.p)}): a network may learn it instead of the disease; balance the groups"
        )
    for name in factor.one_group:
        yield f"{factor.name} {name} has subjects of one group alone: add the other group, or leave it out"


def _found(report: Mapping[str, Any]) -> Iterator[str]:
    groups = ", ".join(f"{report['diagnosis'][name]['subjects']} {name}" for name in DIAGNOSES)
    visits = ", ".join(f"{n} with {number}" for number, n in _by_visits(report["subjects_by_visits"]))
    used, seen = report["levels"]["used"], report["levels"]["seen"]
    yield from _line("scans", f"{report['scans']} used, of {report['subjects']} subjects ({groups})")
    yield from _line("visits", visits or "none")
    yield from _line("levels", _listed(used) + (f" (there are: {_listed(seen)})" if seen else ""))
    if report["tracers"]:
        yield from _line("tracers", _listed(report["tracers"]))


def _by_visits(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: int(pair[0]))


def _set_aside(report: Mapping[str, Any]) -> Iterator[str]:
    kinds = report["rejected"]
    if not any(kind["files"] for kind in kinds.values()):
        yield "nothing was set aside"
        return
    yield ""
    yield f"{'aside':<{LABEL}}  {'kind':<8}  reason"
    for kind, found in kinds.items():
        for reason, number in found["reasons"].items():
            start = f"{number:>{LABEL}}  {kind:<8}  "
            yield start + textwrap.shorten(reason, COLUMNS - len(start), placeholder=" ...")


def _balance(report: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{'subjects':<{LABEL}}  " + "".join(f"{name:<{GROUP}}" for name in DIAGNOSES) + "AUC   p"
    for name in FACTORS:
        judged = report["balance"].get(name)
        if judged is None:
            yield f"{name:<{LABEL}}  the same for all, or not known"
            continue
        values = "".join(f"{_cell(judged[group]):<{GROUP}}" for group in DIAGNOSES)
        yield f"{name:<{LABEL}}  {values}{judged['auc']:.2f}  {_shown_p(judged['p'])}"


def _warned(report: Mapping[str, Any]) -> Iterator[str]:
    for warning in report["warnings"]:
        yield from textwrap.wrap(f"WARNING: {warning}", COLUMNS, subsequent_indent="  ")


def _line(label: str, text: str) -> list[str]:
    start = f"{label:<{LABEL}}  "
    return textwrap.wrap(text, COLUMNS, initial_indent=start, subsequent_indent=" " * len(start))


def _cell(values: Mapping[str, Any]) -> str:
    if "mean" in values:
        spread = "" if values["sd"] is None else f" (SD {values['sd']:.1f})"
        age = "not known" if values["mean"] is None else f"{values['mean']:.1f}{spread}"
        text = f"{age}, {values['unknown']} unknown" if values["known"] and values["unknown"] else age
    else:
        text = _listed(values)
    return textwrap.shorten(text, GROUP - 2, placeholder=" ...")


def _listed(counts: Mapping[str, int]) -> str:
    """Return the first few counts as text: ``4 A, 2 B, 3 in 2 others``."""
    shown = [f"{number} {name}" for name, number in list(counts.items())[:MOST_SHOWN]]
    rest = list(counts.values())[MOST_SHOWN:]
    return ", ".join([*shown, f"{sum(rest)} in {len(rest)} others"] if rest else shown) or "none"


def _shown_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
