"""Prognosis: scores of other diagnoses, conversion to AD, change.

A table of scores has a row a scan: `subject`, `group` (the diagnosis at baseline), `baseline` (True for that
scan), `probability` of AD (NaN if refused), and `years`, `ad_years` and `followed_years` from baseline to the
scan, to the first later diagnosis of AD, and to the last later diagnosis (NaN if unknown or never).
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from adpet.evaluation.aggregation import SMALLEST_PROBABILITY
from adpet.evaluation.bootstrap import BoolArray, FloatArray, percentile_interval, subject_resamples
from adpet.evaluation.metrics import level_intervals

# Fewer people of a kind give no area, curve or slope.
FEWEST = 5
TERTILES = ("lowest third", "middle third", "highest third")
QUARTILES = (0.25, 0.5, 0.75)
NOT_FOLLOWED = "no subject has a later visit with a known time and a diagnosis of its own"
# Digits of the curves' years, so that they tell no visit to the day.
DIGITS = 2


def group_summaries(
    scores: pd.DataFrame, *, threshold: float, years: float, resamples: int, seed: int
) -> dict[str, Any]:
    """Summarize each group: probability, conversion within `years`, change."""
    options = {"resamples": resamples, "seed": seed}
    groups = {}
    for group, scans in scores.groupby("group"):
        answered = scans[scans["probability"].notna()]
        first = answered[answered["baseline"]]
        probability = first["probability"]
        groups[str(group)] = {
            "subjects": len(first),
            "scans": len(answered),
            "refused": len(scans) - len(answered),
            "predicted_ad": float((probability >= threshold).mean()) if len(first) else None,
            "quartiles": probability.quantile(QUARTILES).tolist() if len(first) else None,
            "conversion": conversion(first, years=years, **options),
            "change": change_per_year(answered, **options),
        }
    return groups


def baseline_subjects(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `subject`, `diagnosis` and `probability` at baseline."""
    first = scores[scores["baseline"].astype(bool) & scores["probability"].notna()]
    return first[["subject", "group", "probability"]].rename(columns={"group": "diagnosis"})


def conversion(first: pd.DataFrame, *, years: float, resamples: int, seed: int) -> dict[str, Any]:
    """Compare converters to AD with stable people.

    `first` has the baseline scans. Converters have AD within `years`, stable people are followed at least as
    long without it; who is followed for less time is censored, and counts in the curves alone. The area is
    None with fewer than `FEWEST` converters or stable people, the curves of the thirds with fewer in a third.
    The test (log-rank) compares the highest third with the lowest.
    """
    followed = first[first["followed_years"].notna()]
    converted = (followed["ad_years"] <= years).to_numpy()
    stable = ~converted & (followed["followed_years"] >= years).to_numpy()
    probability = followed["probability"].to_numpy(np.float64)
    known = converted | stable
    auc = None
    if min(converted.sum(), stable.sum()) >= FEWEST:
        truth, scored = converted[known], probability[known]
        counts = subject_resamples(truth, resamples=resamples, seed=seed)
        # The threshold matters to other metrics alone.
        auc = level_intervals(truth, np.arange(truth.size), scored, threshold=0.5, counts=counts)["auc"]
    times = np.where(converted, followed["ad_years"], followed["followed_years"].clip(upper=years))
    curves, p = kaplan_meier(probability, times.astype(np.float64), converted)
    return {
        "reason": "" if len(followed) else NOT_FOLLOWED,
        "followed": len(followed),
        "converters": int(converted.sum()),
        "stable": int(stable.sum()),
        "censored": int((~known).sum()),
        "auc": auc,
        "curves": curves,
        "log_rank_p": p,
    }


def kaplan_meier(
    probability: FloatArray, times: FloatArray, converted: BoolArray
) -> tuple[list[dict[str, Any]], float | None]:
    """Return the Kaplan-Meier curve of each third, and p.

    Curves are shares without AD at and after each time, from 1 at 0 (scipy's `ecdf`); `times` are years to AD
    or to the end of the follow-up, all (subjects,).
    """
    from scipy.stats import CensoredData, ecdf, logrank

    third = np.searchsorted(np.quantile(probability, [1 / 3, 2 / 3]), probability) if times.size else times
    members = [third == number for number in range(len(TERTILES))]
    if min(own.sum() for own in members) < FEWEST:
        return [], None
    samples = [CensoredData.right_censored(times[own], ~converted[own]) for own in members]
    curves = [
        {
            "third": name,
            "subjects": int(own.sum()),
            "converters": int(converted[own].sum()),
            "years": [0.0, *survival.quantiles.round(DIGITS).tolist()],
            "without_ad": [1.0, *survival.probabilities.tolist()],
        }
        for name, own, survival in zip(
            TERTILES, members, (ecdf(sample).sf for sample in samples), strict=True
        )
    ]
    compared = converted[members[0] | members[-1]].any()
    # Undefined if the other third is empty at every conversion.
    with np.errstate(invalid="ignore"):
        p = float(logrank(samples[-1], samples[0]).pvalue) if compared else math.nan
    return curves, p if math.isfinite(p) else None


def change_per_year(answered: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return the change of the log-odds of AD per year.

    One slope within all subjects (each has its own intercept); the interval is of a bootstrap over subjects.
    """
    inside = answered["probability"].clip(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    table = answered.assign(logit=np.log(inside) - np.log1p(-inside))[["subject", "years", "logit"]].dropna()
    own = table.groupby("subject")[["years", "logit"]]
    away = (table[["years", "logit"]] - own.transform("mean")).assign(subject=table["subject"])
    sums = pd.DataFrame({"xx": away["years"] ** 2, "xy": away["years"] * away["logit"]})
    sums = sums.groupby(away["subject"]).sum()
    sums = sums[sums["xx"] > 0]
    found: dict[str, Any] = {
        "subjects": len(sums),
        "scans": int(table["subject"].isin(sums.index).sum()),
        "log_odds_per_year": None,
    }
    if len(sums) >= FEWEST:
        even = np.full(len(sums), 1 / len(sums))
        counts = np.random.default_rng(seed).multinomial(len(sums), even, size=resamples)
        xx, xy = sums["xx"].to_numpy(np.float64), sums["xy"].to_numpy(np.float64)
        low, high = percentile_interval(counts @ xy / (counts @ xx))
        found["log_odds_per_year"] = {"value": float(xy.sum() / xx.sum()), "low": low, "high": high}
    return found
