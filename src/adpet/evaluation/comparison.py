"""Paired comparison of models, and performance by subgroup."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from adpet.errors import InputError
from adpet.evaluation.aggregation import POSITIVE
from adpet.evaluation.bootstrap import (
    NEAR_END,
    analytic_intervals,
    percentile_interval,
    resampled_metrics,
    score_interval_auc,
    subject_resamples,
    subject_sums,
)
from adpet.evaluation.metrics import DEFAULT_RESAMPLES, Interval, classification_metrics

# In reporting order: first what a network must beat, then what must not work at all.
BASELINES = {
    "atlas": "anatomical atlas",
    "meta_roi": "meta-ROI",
    # Its regions are those that the disease, and the simulated cohort, lose uptake in.
    "regions": "disease-informed region",
    "voxels": "voxel",
    "age_sex": "age and sex",
    "scanner": "scanner",
    "site": "site",
}
# Nothing of the brain: where these separate the groups, the network may use them too.
NUISANCES = ("age_sex", "scanner", "site")
CHANCE = 0.5


def auc_difference(
    network: pd.DataFrame, baseline: pd.DataFrame, *, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> Interval:
    """Return the AUC difference with its paired interval.

    If resamples of either model reach 0 or 1, the interval is widened to that of two independent areas
    (Newcombe 1998, Statistics in Medicine 17:873-890, method 10, on `score_interval_auc`), which is
    conservative for areas on the same subjects. Tables are as of `subject_probabilities`.
    """
    if list(network["subject"]) != list(baseline["subject"]):
        raise InputError(
            f"a difference needs the same subjects in both tables; received {len(network)} and "
            f"{len(baseline)} that differ: run evaluate again"
        )
    truth = network["diagnosis"].to_numpy() == POSITIVE
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    sums = [
        subject_sums(
            truth, np.arange(truth.size), table["probability"].to_numpy(np.float64), threshold=CHANCE
        )
        for table in (network, baseline)
    ]
    first, second = (float(resampled_metrics(each, np.ones((1, truth.size)))["auc"][0]) for each in sums)
    samples = [resampled_metrics(each, counts)["auc"] for each in sums]
    ends = [end for sample in samples for end in percentile_interval(sample)]
    difference = first - second
    low, high = percentile_interval(samples[0] - samples[1])
    if min(ends) <= NEAR_END or max(ends) >= 1 - NEAR_END:
        sizes = {"n_ad": int(truth.sum()), "n_cn": int((~truth).sum())}
        (low_1, high_1), (low_2, high_2) = (score_interval_auc(value, **sizes) for value in (first, second))
        low = min(low, difference - np.hypot(first - low_1, high_2 - second))
        high = max(high, difference + np.hypot(high_1 - first, second - low_2))
    return {"value": difference, "low": float(min(low, difference)), "high": float(max(high, difference))}


def findings(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return sentences on nuisances and baselines from ``metrics.json``."""
    differences = metrics["differences"]
    names = [name for name in BASELINES if name in differences]
    areas = {name: metrics["baselines"][name]["auc"] for name in names if name in NUISANCES}
    found: dict[str, list[str]] = {
        "warnings": [_warning(name, auc) for name, auc in areas.items() if auc["low"] > CHANCE],
        "not_beaten": [],
        "beaten": [],
    }
    for name in names:
        outcome = "beaten" if differences[name]["low"] > 0 else "not_beaten"
        found[outcome].append(comparison_sentence(name, differences[name]))
    return found


def comparison_sentence(name: str, difference: Mapping[str, float]) -> str:
    """Return whether the network beats a baseline."""
    worse = "is worse than" if difference["high"] < 0 else "does not beat"
    verb = "beats" if difference["low"] > 0 else worse
    return (
        f"The network {verb} the {BASELINES[name]} baseline (AUC difference {difference['value']:.2f}, "
        f"95 % interval {difference['low']:.2f} to {difference['high']:.2f})"
    )


def _warning(name: str, auc: Mapping[str, float]) -> str:
    return (
        f"{BASELINES[name][0].upper()}{BASELINES[name][1:]} alone tells AD from CN (AUC {auc['value']:.2f}, "
        f"95 % interval {auc['low']:.2f} to {auc['high']:.2f}): the network may have learned that instead of "
        "the disease; balance the groups, or test within one group"
    )


UNKNOWN, SEVERAL = "unknown", "several"
# Decades, in years at the subject's first scan; the ends are open.
AGE_BOUNDS = (65, 75, 85)
AGE_NAMES = ("under 65", "65 to 74", "75 to 84", "85 and over", UNKNOWN)
SUBGROUP_COLUMNS = (
    "fact", "group", "n", "n_ad", "n_cn", "auc", "auc_low", "auc_high",
    "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high",
)  # fmt: skip
FACTS = ("age", "sex", "site", "scanner")


def subject_facts(scans: pd.DataFrame) -> pd.DataFrame:
    """Return age band, sex, site and scanner of each subject.

    Cells are "several" if a subject's scans differ, "unknown" if all are empty.
    """
    grouped = scans.groupby("subject", sort=True)
    table = pd.DataFrame({"age": grouped["age"].min().map(_age_band)})
    for name in ("sex", "site", "scanner"):
        table[name] = grouped[name].agg(_common)
    return table.reset_index()


def subgroup_table(subjects: pd.DataFrame, facts: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """Return AUC and balanced accuracy by subgroup, with intervals.

    Intervals are analytic, since subgroups are often too small to resample. Cells are empty without both
    diagnoses. Subgroups are many and post hoc: an odd one is a question, not a result. The first row is of
    all subjects.
    """
    table = subjects.merge(facts, on="subject", how="left", validate="one_to_one")
    rows = [("all", "all", *_scores(table, threshold))]
    for fact in FACTS:
        groups = dict(iter(table.groupby(fact, sort=True)))
        names = [name for name in AGE_NAMES if name in groups] if fact == "age" else list(groups)
        rows += [(fact, name, *_scores(groups[name], threshold)) for name in names]
    return pd.DataFrame(rows, columns=list(SUBGROUP_COLUMNS))


def _scores(members: pd.DataFrame, threshold: float) -> tuple[float, ...]:
    truth = members["diagnosis"].to_numpy() == POSITIVE
    n_ad, n_cn = int(truth.sum()), int((~truth).sum())
    if not n_ad or not n_cn:
        return truth.size, n_ad, n_cn, *[np.nan] * 6
    values = classification_metrics(truth, members["probability"].to_numpy(np.float64), threshold=threshold)
    intervals = analytic_intervals(values, n_ad=n_ad, n_cn=n_cn)
    cells = [(values[name], *intervals[name]) for name in ("auc", "balanced_accuracy")]
    return truth.size, n_ad, n_cn, *cells[0], *cells[1]


def _age_band(age: float) -> str:
    return UNKNOWN if np.isnan(age) else AGE_NAMES[int(np.searchsorted(AGE_BOUNDS, age, side="right"))]


def _common(values: "pd.Series[str]") -> str:
    known = sorted(set(values) - {""})
    return SEVERAL if len(known) > 1 else known[0] if known else UNKNOWN
