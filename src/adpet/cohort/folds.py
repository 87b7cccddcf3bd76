"""Folds of all subjects for a cross-validation, whatever part of the split they are in."""

import pandas as pd

from adpet.cohort.splits import TEST, fold_name, split_by_subject


def cross_validation_folds(subjects: pd.DataFrame, *, folds: int, seed: int) -> pd.DataFrame:
    """Deal all subjects out to equal folds, balanced as `split_by_subject` balances.

    Parameters
    ----------
    subjects : DataFrame
        One row a subject: subject, diagnosis, age (years, NaN if unknown), sex.
    folds : int
        3 or more: of each fold's rest one part validates, the others train.
    seed : int

    Returns
    -------
    DataFrame
        subject, diagnosis, fold (0 to `folds` - 1); ordered by subject.

    Raises
    ------
    InputError
        If a fold gets no subject of a diagnosis.
    """
    # A test set as large as each of the other folds is the last of them.
    dealt = split_by_subject(subjects, test_fraction=1 / folds, folds=folds - 1, seed=seed)
    numbers = {fold_name(number): number for number in range(folds - 1)} | {TEST: folds - 1}
    return dealt.assign(fold=dealt["part"].map(numbers))[["subject", "diagnosis", "fold"]]


def fold_parts(folds: pd.DataFrame, *, fold: int) -> pd.DataFrame:
    """Return the part of each subject when `fold` is tested: the one after it validates, the rest train.

    Returns
    -------
    DataFrame
        subject, part ("test", "validation" or "train").
    """
    count = int(folds["fold"].max()) + 1
    parts = {fold: "test", (fold + 1) % count: "validation"}
    return folds.assign(part=folds["fold"].map(lambda number: parts.get(number, "train")))[
        ["subject", "part"]
    ]
