"""Could the groups be told apart without looking at the images? Age, sex, site, scanner and level alone.

A network finds such a way out: it learns the scanner instead of the disease, and scores well. Every factor
is a category of a subject at the first scan; ages are cut into fifths, and what is not known is a category
of its own, so that a value that one group lacks stands out as well. The AUC is that of guessing by each
category's share of AD. Such a guess has seen the answers, and many small sites look informative by chance:
what the same guess reaches on shuffled diagnoses is taken off, and gives the p-value.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.cohort.scans import DIAGNOSES, subject_table

FACTORS = ("age", "sex", "site", "scanner", "level")
UNKNOWN = "unknown"
AGE_PARTS = 5
# A warning needs an effect that a network could live on, and one that chance hardly gives. With both, less
# than one sound cohort in 100 is warned of for each factor, and large ones practically never.
MIN_AUC = 0.65
MAX_P = 0.01
SHUFFLES = 5000


@dataclass(frozen=True)
class Factor:
    """How well one factor alone tells AD from CN.

    Attributes
    ----------
    auc : float
        Beyond chance: 0.5 as good as shuffled diagnoses, 1 tells all subjects apart.
    p : float
        Share of shuffled diagnoses that are told apart as well.
    one_group : tuple of str
        Categories that hold one group alone and more subjects than chance would leave so.
    """

    name: str
    auc: float
    p: float
    one_group: tuple[str, ...]

    @property
    def tells_apart(self) -> bool:
        """Whether a network could live on this factor."""
        return self.auc > MIN_AUC and self.p < MAX_P


def first_visits(scans: pd.DataFrame) -> pd.DataFrame:
    """Return one row a subject: `subject_table`, with scanner and level of the first scan."""
    first = scans.sort_values(["subject", "age", "scan"]).drop_duplicates("subject")
    return subject_table(scans).merge(first[["subject", "scanner", "level"]], on="subject")


def judge_factors(subjects: pd.DataFrame) -> list[Factor]:
    """Judge every factor on which subjects differ.

    Parameters
    ----------
    subjects : DataFrame
        Of `first_visits`.
    """
    is_ad = (subjects["diagnosis"] == DIAGNOSES[0]).to_numpy()
    if is_ad.all() or not is_ad.any():
        return []
    categories = {name: _categories(subjects, name) for name in FACTORS}
    return [
        _judged(name, values, is_ad) for name, values in categories.items() if len(set(values.tolist())) > 1
    ]


def _categories(subjects: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    if name != "age":
        return subjects[name].replace("", UNKNOWN).to_numpy(dtype=object)
    # Ranks, so that fifths are equal in size wherever ages lie.
    ranks = subjects["age"].rank(method="average", pct=True)
    parts = [UNKNOWN if np.isnan(rank) else f"fifth {np.ceil(rank * AGE_PARTS):.0f}" for rank in ranks]
    return np.array(parts, dtype=object)


def _judged(name: str, values: npt.NDArray[np.object_], is_ad: npt.NDArray[np.bool_]) -> Factor:
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
    return Factor(name, round(auc, 3), round(p, 4), _one_group(names, ad, sizes, shuffled))


def _aucs(ad: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the AUC, (n,), of guessing by each category's share of AD, for (n, categories) numbers of AD."""
    order = np.argsort(ad / sizes, axis=1, kind="stable")
    cases = np.take_along_axis(ad, order, axis=1).astype(np.float64)
    controls = np.take_along_axis(sizes - ad, order, axis=1).astype(np.float64)
    below = np.cumsum(controls, axis=1) - controls
    # Pairs within a category are ties, and those of categories with equal shares count the same either way.
    right = (cases * (below + controls / 2)).sum(axis=1)
    return np.asarray(right / (cases.sum(axis=1) * controls.sum(axis=1)))


def _one_group(
    names: npt.NDArray[np.str_],
    ad: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    shuffled: npt.NDArray[np.int64],
) -> tuple[str, ...]:
    """Return the categories of one group alone that are larger than any such one of shuffled diagnoses.

    Of sound cohorts a share of `MAX_P` has such a category, however many categories there are.
    """
    pure = np.where((shuffled == 0) | (shuffled == sizes), sizes, 0)
    allowed = np.quantile(pure.max(axis=1), 1 - MAX_P, method="higher")
    alone = ((ad == 0) | (ad == sizes)) & (sizes > allowed)
    return tuple(str(name) for name in names[alone])
