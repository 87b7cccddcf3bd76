"""Paired comparison of models, and performance by subgroup."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from adpet.errors import InputError
from adpet.evaluation.aggregation import POSITIVE
from adpet.evaluation.bootstrap import (
    NEAR_END,
    BoolArray,
    FloatArray,
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
    "regions": "region",
    "voxels": "voxel",
    "age_sex": "age and sex",
    "scanner": "scanner",
    "site": "site",
}
# Nothing of the brain: where these separate the groups, the network may use them too.
NUISANCES = ("age_sex", "scanner", "site")
CHANCE = 0.5


class _Area(NamedTuple):
    """An AUC with its resamples and its analytic interval."""

    value: float
    samples: FloatArray
    low: float
    high: float
    at_end: bool

    @classmethod
    def of(cls, subjects: pd.DataFrame, truth: BoolArray, counts: FloatArray) -> Self:
        probability = subjects["probability"].to_numpy(np.float64)
        sums = subject_sums(truth, np.arange(truth.size), probability, threshold=CHANCE)
        samples = resampled_metrics(sums, counts)["auc"]
        value = float(resampled_metrics(sums, np.ones((1, truth.size)))["auc"][0])
        interval = score_interval_auc(value, n_ad=int(truth.sum()), n_cn=int((~truth).sum()))
        low, high = percentile_interval(samples)
        return cls(value, samples, *interval, low <= NEAR_END or high >= 1 - NEAR_END)


def auc_difference(
    network: pd.DataFrame, baseline: pd.DataFrame, *, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> Interval:
    """Return the AUC difference with its paired interval.

    Both get the same resamples of subjects. If resamples of either reach 0 or 1, the interval is widened to
    that of two independent areas (Newcombe 1998, Statistics in Medicine 17:873-890, method 10, on
    `score_interval_auc`), which is conservative for areas on the same subjects.

    Parameters
    ----------
    network, baseline : DataFrame
        `subject`, `diagnosis`, `probability`, one row a subject, as of `subject_probabilities`.

    Raises
    ------
    InputError
        The tables have different subjects.
    """
    if list(network["subject"]) != list(baseline["subject"]):
        raise InputError(
            f"a difference needs the same subjects in both tables; received {len(network)} and "
            f"{len(baseline)} that differ: run evaluate again"
        )
    truth = network["diagnosis"].to_numpy() == POSITIVE
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    first, second = (_Area.of(table, truth, counts) for table in (network, baseline))
    difference = first.value - second.value
    low, high = percentile_interval(first.samples - second.samples)
    if first.at_end or second.at_end:
        below = np.hypot(first.value - first.low, second.high - second.value)
        above = np.hypot(first.high - first.value, second.value - second.low)
        low, high = min(low, difference - below), max(high, difference + above)
    return {"value": difference, "low": float(min(low, difference)), "high": float(max(high, difference))}


def findings(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return sentences that follow from ``metrics.json``.

    Returns
    -------
    dict
        `warnings` about nuisances that separate AD from CN; `not_beaten` and `beaten`, a sentence a baseline.
    """
    differences = metrics["differences"]
    names = [name for name in BASELINES if name in differences]
    return {
        "warnings": [
            _warning(name, metrics["baselines"][name]["auc"]) for name in names if _warns(name, metrics)
        ],
        "not_beaten": [
            comparison_sentence(name, differences[name]) for name in names if differences[name]["low"] <= 0
        ],
        "beaten": [
            comparison_sentence(name, differences[name]) for name in names if differences[name]["low"] > 0
        ],
    }


def comparison_sentence(name: str, difference: Mapping[str, float]) -> str:
    """Return whether the network beats a baseline."""
    verb = "does not beat"
    if difference["low"] > 0:
        verb = "beats"
    elif difference["high"] < 0:
        verb = "is worse than"
    return (
        f"The network {verb} the {BASELINES[name]} baseline (AUC difference {difference['value']:.2f}, "
        f"95 % interval {difference['low']:.2f} to {difference['high']:.2f})"
    )


def _warns(name: str, metrics: Mapping[str, Any]) -> bool:
    return name in NUISANCES and metrics["baselines"][name]["auc"]["low"] > CHANCE


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

    Parameters
    ----------
    scans : DataFrame
        `subject`, `age` (years, NaN if unknown), `sex`, `site`, `scanner` ("" if unknown).

    Returns
    -------
    DataFrame
        `subject` and `FACTS`; "several" if a subject's scans are of several sites or scanners.
    """
    grouped = scans.groupby("subject", sort=True)
    table = pd.DataFrame({"age": grouped["age"].min().map(_age_band)})
    for name in ("sex", "site", "scanner"):
        table[name] = grouped[name].agg(_common)
    return table.reset_index()


def subgroup_table(subjects: pd.DataFrame, facts: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """Return AUC and balanced accuracy by subgroup, with intervals.

    Intervals are analytic (`bootstrap.analytic_intervals`), since subgroups are often too small to resample.
    Cells are empty without both diagnoses. Subgroups are many and post hoc: an odd one is a question, not a
    result.

    Parameters
    ----------
    subjects : DataFrame
        `subject`, `diagnosis`, `probability`.
    facts : DataFrame
        As of `subject_facts`.
    threshold : float

    Returns
    -------
    DataFrame
        `SUBGROUP_COLUMNS`; the first row is of all subjects.
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
