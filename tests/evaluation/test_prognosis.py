"""Prognosis: converters, survival and slopes are those counted by hand."""

import numpy as np
import pandas as pd
import pytest

from adpet.evaluation.prognosis import (
    baseline_subjects,
    change_per_year,
    conversion,
    group_summaries,
    kaplan_meier,
)

OPTIONS = {"resamples": 100, "seed": 0}
NEVER = np.nan


def first_scans(*people):
    """Baseline scans: probability, years to AD, years to the last diagnosis."""
    columns = ["probability", "ad_years", "followed_years"]
    table = pd.DataFrame(people, columns=columns, dtype=float)
    table["subject"] = [f"person-{number:02d}" for number in range(len(people))]
    return table.assign(group="MCI", baseline=True, years=0.0)


class TestConversion:
    def test_window_tells_converters_stable_and_censored_apart(self):
        found = conversion(
            first_scans((0.9, 1, 5), (0.8, 3, 3), (0.7, 4, 6), (0.2, NEVER, 3), (0.1, NEVER, 2.9), (0.5, NEVER, NEVER)),
            years=3.0, **OPTIONS,
        )  # fmt: skip
        counts = [found[name] for name in ("followed", "converters", "stable", "censored")]
        assert counts == [5, 2, 2, 1]
        assert found["auc"] is None
        assert found["curves"] == []

    def test_area_counts_pairs_and_leaves_the_censored_out(self):
        converters = [(probability, 1, 4) for probability in (0.9, 0.8, 0.7, 0.6, 0.3)]
        stable = [(probability, NEVER, 4) for probability in (0.5, 0.4, 0.2, 0.2, 0.1)]
        found = conversion(first_scans(*converters, *stable, (0.99, NEVER, 1)), years=3.0, **OPTIONS)
        # 0.3 loses to 0.5 and 0.4; all other pairs are won.
        assert found["auc"]["value"] == pytest.approx(23 / 25)
        assert found["auc"]["low"] < 23 / 25 <= found["auc"]["high"] <= 1
        assert found["log_rank_p"] is None

    def test_without_later_visits_it_says_why_there_is_none(self):
        found = conversion(first_scans((0.5, NEVER, NEVER)), years=3.0, **OPTIONS)
        assert "no subject has a later visit" in found["reason"]
        assert found["auc"] is None


class TestKaplanMeier:
    def test_curves_are_the_product_of_the_shares_that_stay(self):
        # In each third: AD at 1 and 2 years, one lost at 1.5, two followed to 3.
        times = np.tile([1, 1.5, 2, 3, 3], 3).astype(float)
        converted = np.tile([True, False, True, False, False], 3)
        converted[:5] = False
        curves, p = kaplan_meier(np.repeat([0.1, 0.5, 0.9], 5), times, converted)
        lowest, middle, highest = (
            [*zip(curve["years"], curve["without_ad"], strict=True)] for curve in curves
        )
        survival = [(0, 1), (1, 4 / 5), (1.5, 4 / 5), (2, 4 / 5 * 2 / 3), (3, 4 / 5 * 2 / 3)]
        assert np.array(middle) == pytest.approx(np.array(survival))
        assert highest == middle
        assert {share for _, share in lowest} == {1.0}
        # Observed 2, expected 1/2 + 3/6 = 1, variance 1/4 + 1/4: chi-square 2.
        assert p == pytest.approx(0.1573, abs=1e-3)

    def test_thirds_that_were_never_followed_together_have_no_test(self):
        times = np.repeat([0.5, 1.0, 1.5], 5)
        curves, p = kaplan_meier(np.repeat([0.1, 0.5, 0.9], 5), times, times > 1)
        assert (len(curves), p) == (3, None)

    def test_few_or_tied_people_have_no_curves(self):
        for probability in (np.linspace(0, 1, 14), np.full(30, 0.5)):
            times = np.ones(probability.size)
            assert kaplan_meier(probability, times, times > 0) == ([], None)


def visits(slope, *, people=6, rng):
    """Three visits a person, on a line of their own height."""
    rows = []
    for number in range(people):
        height = rng.normal()
        for years in (0.0, 1.0, 2.5):
            odds = height + slope * years
            rows.append((f"person-{number}", "MCI", years == 0, years, 1 / (1 + np.exp(-odds))))
    table = pd.DataFrame(rows, columns=["subject", "group", "baseline", "years", "probability"])
    return table.assign(ad_years=np.nan, followed_years=2.5)


def test_change_is_the_slope_within_people():
    found = change_per_year(visits(0.4, rng=np.random.default_rng(0)), **OPTIONS)
    assert (found["subjects"], found["scans"]) == (6, 18)
    assert list(found["log_odds_per_year"].values()) == pytest.approx([0.4] * 3)


def test_change_needs_times_and_several_people():
    table = visits(0.4, rng=np.random.default_rng(0))
    assert change_per_year(table.assign(years=np.nan), **OPTIONS)["subjects"] == 0
    assert change_per_year(table[table["subject"] < "person-4"], **OPTIONS)["log_odds_per_year"] is None


def test_group_counts_each_person_at_baseline_and_refused_scans_apart():
    table = visits(0.0, rng=np.random.default_rng(0))
    table.loc[[0, 4], "probability"] = np.nan
    group = group_summaries(table, threshold=0.5, years=2.0, **OPTIONS)["MCI"]
    first = baseline_subjects(table)
    assert len(first) == 5
    assert (group["subjects"], group["scans"], group["refused"]) == (5, 16, 2)
    assert group["predicted_ad"] == (first["probability"] >= 0.5).mean()
    assert group["quartiles"] == np.quantile(first["probability"], [0.25, 0.5, 0.75]).tolist()
    assert group["conversion"]["stable"] == 5
