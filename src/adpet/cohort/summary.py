"""Summarize a cohort: scans, rejections, confounds of the diagnosis."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.cohort.scans import DIAGNOSES, Collection, count_values, ingest_summary, subject_table

FACTORS = ("age", "sex", "site", "scanner", "level")
# Measures of a normalized scan that the disease does not change, but a scanner or a converter does.
TECHNICAL = (
    "brain_in_view", "field_of_view_mm", "outside_share", "roughness", "stripes", "negative_share",
)  # fmt: skip
UNKNOWN = "unknown"
AGE_PARTS = 5
# A warning needs an effect that a network could live on, and one that chance hardly gives. With both, less
# than one sound cohort in 100 is warned of for each factor, and large ones practically never.
MIN_AUC = 0.65
MAX_P = 0.01
SHUFFLES = 5000
# A group of fewer subjects, and one of more times the other's, are warned of: what to expect of figures.
FEW, LOPSIDED = 20, 3

COLUMNS = 100
# Without the ids, since warnings go into the report and the model card.
SPELLINGS = (
    "{} subjects have ids in several spellings, each taken as one person: see `spellings` in ingest.json"
)
# Most sites, scanners or levels that a line shows; widths of the columns.
MOST_SHOWN = 4
LABEL, GROUP = 9, 36


@dataclass(frozen=True)
class Factor:
    """How well one factor alone separates AD from CN.

    `auc` is beyond chance: 0.5 as good as shuffled diagnoses, 1 separates all subjects. `p` is the share of
    shuffled diagnoses that are separated as well; `one_group` are categories with one group alone.
    """

    name: str
    auc: float
    p: float
    one_group: tuple[str, ...]

    @property
    def tells_apart(self) -> bool:
        """True if a network could live on this factor."""
        return self.auc > MIN_AUC and self.p < MAX_P


def ingest_report(collection: Collection) -> dict[str, Any]:
    """Summarize a collection with levels, tracers and confounds."""
    subjects = first_visits(collection.scans)
    factors = measure_confounds(subjects)
    return {
        **ingest_summary(collection),
        "levels": {
            "used": dict(sorted(count_values(collection.scans["level"]).items())),
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
        "warnings": [
            *(text for factor in factors for text in _warnings(factor)),
            *_expectations(collection.scans, subjects),
            *(_unread(column, number) for column, number in sorted(collection.unread.items())),
            *([SPELLINGS.format(len(collection.spellings))] if collection.spellings else []),
        ],
        "score_only": {
            group: {
                "subjects": int(rows["subject"].nunique()),
                "scans": len(rows),
                "ad_or_cn": int(rows["diagnosis"].isin(DIAGNOSES).sum()),
            }
            for group, rows in collection.score_only.groupby("group")
        },
        "spellings": [list(group) for group in collection.spellings],
        "without_scan": list(collection.without_scan),
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Return a report as aligned text, `COLUMNS` wide."""
    warnings = _wrapped(report["warnings"])
    return "\n".join([*_found(report), *_set_aside(report), *_confounds(report), *warnings])


def first_visits(scans: pd.DataFrame) -> pd.DataFrame:
    """Return `subject_table` with the first scan's scanner and level."""
    first = scans.sort_values(["subject", "age", "scan"]).drop_duplicates("subject")
    return subject_table(scans).merge(first[["subject", "scanner", "level"]], on="subject")


def quality_text(scans: pd.DataFrame) -> str:
    """Count flagged scans by group and site; warn of differences.

    `scans` has a row each: those of ``scans.csv``, `passed`, `flagged` and measures. Of sites only those with
    scans that were set aside or flagged.
    """
    flags = pd.DataFrame({"aside": ~scans["passed"], "flagged": scans["passed"] & (scans["flagged"] != "")})
    lines = []
    for name in ("diagnosis", "site"):
        for value, rows in flags.groupby(scans[name].replace("", UNKNOWN)):
            aside, flagged = rows["aside"].sum(), rows["flagged"].sum()
            if name == "diagnosis" or aside or flagged:
                lines += _line(str(value), f"{len(rows)} scans, {aside} set aside, {flagged} flagged")
    first = scans[scans["passed"]].sort_values(["subject", "age", "scan"]).drop_duplicates("subject")
    factors = measure_confounds(first, TECHNICAL) if len(first) else []
    return "\n".join([*lines, *_wrapped(text for factor in factors for text in _warnings(factor))])


def measure_confounds(subjects: pd.DataFrame, names: Sequence[str] = FACTORS) -> list[Factor]:
    """Measure each factor of `first_visits` on which subjects differ."""
    is_ad = (subjects["diagnosis"] == DIAGNOSES[0]).to_numpy()
    if is_ad.all() or not is_ad.any():
        return []
    categories = {name: _categories(subjects, name) for name in names}
    return [
        _measure(name, values, is_ad) for name, values in categories.items() if len(set(values.tolist())) > 1
    ]


def _categories(subjects: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    if not pd.api.types.is_float_dtype(subjects[name]):
        return subjects[name].replace("", UNKNOWN).to_numpy(dtype=object)
    # Ranks, so that fifths are equal in size wherever ages lie.
    ranks = subjects[name].rank(method="average", pct=True)
    parts = [UNKNOWN if np.isnan(rank) else f"fifth {np.ceil(rank * AGE_PARTS):.0f}" for rank in ranks]
    return np.array(parts, dtype=object)


def _measure(name: str, values: npt.NDArray[np.object_], is_ad: npt.NDArray[np.bool_]) -> Factor:
    names, codes = np.unique(values.astype(str), return_inverse=True)
    sizes = np.bincount(codes)
    ad = np.bincount(codes[is_ad], minlength=len(sizes))
    # Shuffled diagnoses give each category a number of AD that follows this law.
    rng = np.random.default_rng(len(values))
    shuffled = rng.multivariate_hypergeometric(sizes, int(is_ad.sum()), size=SHUFFLES, method="marginals")
    (reached,), by_chance = _aucs(ad[None], sizes), _aucs(shuffled, sizes)
    expected = min(float(by_chance.mean()), 1 - 1e-9)
    auc = 0.5 + 0.5 * (float(reached) - expected) / (1 - expected)
    p = (1 + int((by_chance >= reached - 1e-12).sum())) / (1 + SHUFFLES)
    # Larger than any category of one group alone by chance, in all but a share of `MAX_P` of sound cohorts.
    pure = np.where((shuffled == 0) | (shuffled == sizes), sizes, 0)
    allowed = np.quantile(pure.max(axis=1), 1 - MAX_P, method="higher")
    alone = names[((ad == 0) | (ad == sizes)) & (sizes > allowed)]
    return Factor(name, round(auc, 3), round(p, 4), tuple(alone.tolist()))


def _aucs(ad: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the AUC, (n,), of guessing by each category's share."""
    order = np.argsort(ad / sizes, axis=1, kind="stable")
    cases = np.take_along_axis(ad, order, axis=1).astype(np.float64)
    controls = np.take_along_axis(sizes - ad, order, axis=1).astype(np.float64)
    below = np.cumsum(controls, axis=1) - controls
    # Pairs within a category are ties, and those of categories with equal shares count the same either way.
    right = (cases * (below + controls / 2)).sum(axis=1)
    return np.asarray(right / (cases.sum(axis=1) * controls.sum(axis=1)))


def _values(subjects: pd.DataFrame, factor: str, group: str) -> dict[str, Any]:
    values = subjects.loc[subjects["diagnosis"] == group, factor]
    if factor == "age":
        known = values.dropna()
        return {
            "known": len(known),
            "unknown": len(values) - len(known),
            "mean": round(float(known.mean()), 1) if len(known) else None,
            "sd": round(float(known.std()), 1) if len(known) > 1 else None,
        }
    return count_values(values)


def _warnings(factor: Factor) -> Iterator[str]:
    if factor.tells_apart:
        yield (
            f"AD and CN can be told apart by {factor.name} alone (AUC {factor.auc:.2f} beyond chance, "
            f"p {_shown_p(factor.p)}): a network may learn it instead of the disease; balance the groups"
        )
    for name in factor.one_group:
        yield f"{factor.name} {name} has subjects of one group alone: add the other group, or leave it out"


def _expectations(scans: pd.DataFrame, subjects: pd.DataFrame) -> Iterator[str]:
    """Say what a small or lopsided cohort allows."""
    (few, rare), (many, frequent) = sorted((int((subjects["diagnosis"] == g).sum()), g) for g in DIAGNOSES)
    visits = scans.groupby("subject").size()
    if 0 < few < FEW:
        yield (
            f"only {few} {rare} subjects: an AUC of 0.9 is uncertain by {auc_half_width(few, many):.2f} in "
            "cross-validation, more so on a test set; each part of a split needs one (split.folds)"
        )
    if few and many > LOPSIDED * few:
        yield (
            f"{many} {frequent} and {few} {rare}: training weighs them alike (train.balance); "
            f"accuracy is {many / (few + many):.0%} with {frequent} for all, so look at AUC and sensitivity"
        )
    if len(visits) and visits.max() > LOPSIDED * visits.median():
        yield f"one subject has {visits.max()} of {visits.sum()} scans: it weighs as one (train.balance)"


def _wrapped(warnings: Iterable[str]) -> Iterator[str]:
    for warning in warnings:
        yield from textwrap.wrap(f"WARNING: {warning}", COLUMNS, subsequent_indent="  ")


def auc_half_width(ad: int, cn: int, auc: float = 0.9) -> float:
    """Return half the 95 % interval (Hanley and McNeil 1982)."""
    first, second = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    return float(1.96 * np.sqrt((auc * (1 - auc) + (ad - 1) * first + (cn - 1) * second) / (ad * cn)))


def _unread(column: str, number: int) -> str:
    form = {"age": "years (75.3)", "sex": "F or M", "date": "YYYY-MM-DD, or set cohort.date_order"}[column]
    return f"{column}: {number} cells could not be read and count as unknown; write {form}"


def _found(report: Mapping[str, Any]) -> Iterator[str]:
    groups = ", ".join(f"{report['diagnosis'][name]['subjects']} {name}" for name in DIAGNOSES)
    by_visits = sorted(report["subjects_by_visits"].items(), key=lambda pair: int(pair[0]))
    visits = ", ".join(f"{n} with {number}" for number, n in by_visits)
    used, seen = report["levels"]["used"], report["levels"]["seen"]
    yield from _line("scans", f"{report['scans']} used, of {report['subjects']} subjects ({groups})")
    yield from _line("visits", visits or "none")
    for group, people in report["score_only"].items():
        text = (
            f"{people['scans']} scans of {people['subjects']} subjects with {group}, never trained on "
            f"(cohort.score_only); {people['ad_or_cn']} of these scans at visits with AD or CN"
        )
        yield from _line("scored", text)
    yield from _line("levels", _listed(used) + (f" (there are: {_listed(seen)})" if seen else ""))
    if people := report["without_scan"]:
        named = ", ".join([*people[:MOST_SHOWN], *(["..."] if len(people) > MOST_SHOWN else [])])
        text = f"{len(people)} listed in participants.tsv without one ({named}): add it if there is one"
        yield from _line("no scan", text)
    for group in report["spellings"]:
        yield from _line("one of", f"{' and '.join(group)}: taken as one person; spell the id in one way")
    if report["tracers"]:
        yield from _line("tracers", _listed(report["tracers"]))


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


def _confounds(report: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{'subjects':<{LABEL}}  " + "".join(f"{name:<{GROUP}}" for name in DIAGNOSES) + "AUC   p"
    for name in FACTORS:
        confound = report["balance"].get(name)
        if confound is None:
            yield f"{name:<{LABEL}}  the same for all, or not known"
            continue
        values = "".join(f"{_cell(confound[group]):<{GROUP}}" for group in DIAGNOSES)
        yield f"{name:<{LABEL}}  {values}{confound['auc']:.2f}  {_shown_p(confound['p'])}"


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
    """Return ``4 A, 2 B, 3 in 2 others``."""
    shown = [f"{number} {name}" for name, number in list(counts.items())[:MOST_SHOWN]]
    rest = list(counts.values())[MOST_SHOWN:]
    return ", ".join([*shown, f"{sum(rest)} in {len(rest)} others"] if rest else shown) or "none"


def _shown_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
