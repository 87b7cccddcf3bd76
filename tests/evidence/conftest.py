"""Predictions as a network would make them: subjects differ, slices of a subject are alike."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

MakePredictions = Callable[..., pd.DataFrame]


def predictions_table(
    *,
    subjects: int = 36,
    slices: int = 16,
    seed: int = 0,
    separation: float = 2.0,
    within: float = 0.5,
    prefix: str = "sub-",
    visits: int = 1,
) -> pd.DataFrame:
    """Every second subject has AD; `separation` is in standard deviations of the subjects' logits."""
    rng = np.random.default_rng(seed)
    has_ad = np.arange(subjects) % 2 == 1
    logit = rng.normal(size=subjects) + separation * (has_ad - 0.5)
    logits = logit[:, None, None] + within * rng.normal(size=(subjects, visits, slices))
    keys = [
        (f"{prefix}{subject:04d}", f"{visit + 1}", index)
        for subject in range(subjects)
        for visit in range(visits)
        for index in range(slices)
    ]
    table = pd.DataFrame(keys, columns=["subject", "session", "index"])
    table.insert(0, "scan", table["subject"] + "_ses-" + table["session"])
    table["diagnosis"] = np.where(np.repeat(has_ad, visits * slices), "AD", "CN")
    table["part"] = "test"
    table["probability"] = 1 / (1 + np.exp(-logits.ravel()))
    return table


@pytest.fixture(scope="session")
def make_predictions() -> MakePredictions:
    return predictions_table
