"""Bins of equal mass: each holds the same number of scores, so that none stands nearly empty."""

import numpy as np
import numpy.typing as npt

# A bin of fewer subjects says little about their share of AD; more bins than these say no more.
SUBJECTS_A_BIN = 10
MIN_BINS, MAX_BINS = 2, 10


def bins_for(subjects: int) -> int:
    """Return how many bins so many subjects can fill: one for each ten of them, from 2 to 10."""
    return min(max(subjects // SUBJECTS_A_BIN, MIN_BINS), MAX_BINS)


def equal_mass_bins(probability: npt.NDArray[np.float64], *, bins: int) -> npt.NDArray[np.intp]:
    """Return the bin of each score, from 0 to `bins` - 1; equal scores share one, so some may stay empty."""
    edges = np.quantile(probability, np.arange(1, bins) / bins)
    return np.asarray(np.searchsorted(edges, probability, side="right"), dtype=np.intp)
