"""Adjust regional values for scanner, age and sex.

Fitted to training scans with their diagnosis, applied to any scan without it: ComBat first, then a line by
age and sex. NaN is a region that a scan does not show, and stays NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from adpet.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]
Words: TypeAlias = npt.NDArray[np.str_]

# Columns next to the regions: the scanner, or site, and what a diagnosis may be confounded with.
BATCH: Final = "batch"
COVARIATES: Final = ("age", "sex")
# Scanners with fewer training scans are left as they are; to fewer healthy scans no line is fitted.
FEWEST_SCANS: Final = 5
FEWEST_HEALTHY: Final = 20
# Largest change of a converged estimate, in standard deviations.
CONVERGED: Final = 1e-6


@dataclass(frozen=True, eq=False)
class ScannerEffects:
    """Additive and multiplicative effects of scanners.

    `shift`, (scanners, regions), is in the values' unit; `scale`, (scanners, regions), a ratio of standard
    deviations about `mean`, (regions,).
    """

    scanners: tuple[str, ...]
    mean: Floats
    shift: Floats
    scale: Floats

    def removed(self, values: Floats, scanner: Words) -> Floats:
        """Return values without the effects; other scanners' as they are."""
        found = values.copy()
        for name, shift, scale in zip(self.scanners, self.shift, self.scale, strict=True):
            rows = scanner == name
            found[rows] = (values[rows] - self.mean - shift) / scale + self.mean
        return found


def fit_combat(values: Floats, scanner: Words, preserved: Floats) -> ScannerEffects:
    """Fit ComBat by parametric empirical Bayes.

    Johnson et al. 2007, Biostatistics 8:118-127; Fortin et al. 2018, NeuroImage 167:104-120. Unlike there, a
    scale is about the mean of CN scans: a new scan has no diagnosis to say which mean is its own.

    Parameters
    ----------
    values : (scans, regions) float64 ndarray
    scanner : (scans,) str ndarray
        "" and those with fewer than `FEWEST_SCANS` scans take no part.
    preserved : (scans, covariates) float64 ndarray
        What is no effect of the scanner: diagnosis, age, sex; no NaN.
    """
    names, counts = np.unique(scanner, return_counts=True)
    names = names[(counts >= FEWEST_SCANS) & (names != "")]
    if len(names) < 2:
        none = np.zeros((0, values.shape[1]))
        return ScannerEffects((), np.zeros(values.shape[1]), none, none)
    used = np.isin(scanner, names)
    own, values = scanner[used, np.newaxis] == names, values[used]
    # A region that a single scanner shows says nothing of scanners.
    values = np.where((own.T.astype(int) @ np.isfinite(values) > 1).sum(axis=0) > 1, values, np.nan)
    preserved = preserved[used]
    design = np.column_stack([own, preserved[:, np.ptp(preserved, axis=0) > 0]]).astype(np.float64)
    varied = design[:, design.any(axis=0)]
    if np.linalg.matrix_rank(varied) < varied.shape[1]:
        raise InputError(
            "evaluate.harmonize: required scanners that share diagnoses, ages and sexes, or their effects "
            f"cannot be told apart; received {len(names)} that differ wholly; set evaluate.harmonize: none"
        )
    fitted, seen = _coefficients(values, design), own.T.astype(np.float64) @ np.isfinite(values)
    total = np.maximum(seen.sum(axis=0), 1)
    mean = (seen * fitted[: len(names)]).sum(axis=0) / total
    variance = np.nansum((values - design @ fitted) ** 2, axis=0) / total
    sd = np.sqrt(np.where(variance > 0, variance, 1))
    standardised = (values - mean - design[:, len(names) :] @ fitted[len(names) :]) / sd
    shift, scale = map(np.stack, zip(*(_shrunken(standardised[rows]) for rows in own.T), strict=True))
    return ScannerEffects(tuple(map(str, names)), mean, shift * sd, scale)


class Adjustment(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """ComBat and residualisation, a step before a classifier.

    Its table has a column for each region, and `batch`, `age` and `sex`: unknown text is "", an unknown age
    NaN, and either counts as the mean.
    """

    def __init__(self, *, harmonize: bool, residualise: Sequence[str]) -> None:
        self.harmonize = harmonize
        self.residualise = residualise

    def fit(self, table: pd.DataFrame, y: npt.NDArray[np.generic]) -> Self:
        """Fit to training scans; `y` is true for AD."""
        # Cross-validation hands on whole numbers.
        healthy, values, facts = np.asarray(y) == 0, _values(table), _numbers(table, COVARIATES)
        scanner = table[BATCH].to_numpy(str) if self.harmonize else np.full(len(table), "")
        self.effects_ = fit_combat(values, scanner, np.column_stack([y, _about(facts, _means(facts))]))
        values = self.effects_.removed(values, scanner)[healthy]
        facts = _numbers(table, self.residualise)[healthy]
        known = int(np.isfinite(facts).all(axis=1).sum())
        if self.residualise and known < FEWEST_HEALTHY:
            raise InputError(
                f"evaluate.residualise: required {FEWEST_HEALTHY} CN training scans with known "
                f"{' and '.join(self.residualise)}; received {known}; set evaluate.residualise: []"
            )
        self.centre_ = _means(facts)
        line = np.column_stack([np.ones(len(facts)), _about(facts, self.centre_)])
        self.slopes_ = _coefficients(values, line)[1:]
        return self

    def transform(self, table: pd.DataFrame) -> Floats:
        """Return the adjusted values, (scans, regions)."""
        values = self.effects_.removed(_values(table), table[BATCH].to_numpy(str))
        return values - _about(_numbers(table, self.residualise), self.centre_) @ self.slopes_

    def left(self, table: pd.DataFrame) -> dict[str, int]:
        """Count scans of other scanners, of unknown age or sex."""
        other = self.harmonize & ~table[BATCH].isin(self.effects_.scanners)
        unknown = np.isnan(_numbers(table, self.residualise)).any(axis=1)
        return {"not_harmonized": int(other.sum()), "unknown": int(unknown.sum())}


def _values(table: pd.DataFrame) -> Floats:
    return table.drop(columns=[BATCH, *COVARIATES]).to_numpy(np.float64)


def _numbers(table: pd.DataFrame, names: Sequence[str]) -> Floats:
    """Return age in years, sex 1 for male; or NaN."""
    return table.assign(sex=table["sex"].map({"F": 0.0, "M": 1.0}))[list(names)].to_numpy(np.float64)


def _means(facts: Floats) -> Floats:
    return np.asarray(np.ma.masked_invalid(facts).mean(axis=0).filled(0.0))


def _about(facts: Floats, centre: Floats) -> Floats:
    return np.nan_to_num(facts - centre)


def _coefficients(values: Floats, design: Floats) -> Floats:
    """Fit values by least squares, (columns, regions), region by region."""
    found = np.zeros((design.shape[1], values.shape[1]))
    for region, column in enumerate(values.T):
        seen = np.isfinite(column)
        found[:, region] = np.linalg.lstsq(design[seen], column[seen])[0]
    return found


def _shrunken(values: Floats) -> tuple[Floats, Floats]:
    """Return posterior shift and scale of one scanner's standardised values.

    Both are shrunken towards their means over regions; of a single region, there is nothing to shrink to.
    """
    shift, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
    shown = np.isfinite(values).sum(axis=0) > 1
    values, n = values[:, shown], np.isfinite(values[:, shown]).sum(axis=0)
    mean, variance = np.nanmean(values, axis=0), np.nanvar(values, axis=0, ddof=1)
    at, var = mean, variance
    if n.size > 1 and np.ptp(mean) > 0 and np.ptp(variance) > 0:
        between, m, s2 = mean.var(ddof=1), variance.mean(), variance.var(ddof=1)
        change = np.inf
        while change > CONVERGED:
            before = at, var
            at = (n * between * mean + var * mean.mean()) / (n * between + var)
            squares = np.nansum((values - at) ** 2, axis=0)
            var = (m + m**3 / s2 + squares / 2) / (1 + m**2 / s2 + n / 2)
            change = max(np.abs(at - before[0]).max(), np.abs(var - before[1]).max())
    shift[shown], scale[shown] = at, np.sqrt(np.where(var > 0, var, 1))
    return shift, scale
