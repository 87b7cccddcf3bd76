"""Does it work for everybody: performance by age, sex, site and scanner, and honest where few are."""

import numpy as np
import pandas as pd

from adpet.evidence.aggregation import POSITIVE
from adpet.evidence.intervals import analytic_intervals
from adpet.evidence.metrics import classification_metrics

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
    """Return one row a subject: age band, sex, site and scanner of its scans, as words.

    Parameters
    ----------
    scans : DataFrame
        `subject`, `age` (years, NaN if unknown), `sex`, `site`, `scanner` ("" if unknown).

    Returns
    -------
    DataFrame
        `subject` and `FACTS`; "several" where a subject's scans are of several sites or scanners.
    """
    grouped = scans.groupby("subject", sort=True)
    table = pd.DataFrame({"age": grouped["age"].min().map(_age_band)})
    for name in ("sex", "site", "scanner"):
        table[name] = grouped[name].agg(_common)
    return table.reset_index()


def subgroup_table(subjects: pd.DataFrame, facts: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """Return AUC and balanced accuracy per subject in every subgroup, with 95 % intervals.

    Subgroups are often a handful, whose resamples repeat the same few subjects: intervals are analytic
    (`intervals.analytic_intervals`), which subjects, being independent, allow. Without both diagnoses there
    is nothing to compare, and the cells are empty. Subgroups are looked at after the fact and are many: an
    odd one is a question, no result.

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
