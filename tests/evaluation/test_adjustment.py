"""Adjustment: effects of scanner, age and sex go, the disease's stay, and no tested diagnosis is used."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adpet.errors import InputError
from adpet.evaluation.adjustment import Adjustment, fit_combat
from adpet.evaluation.baselines import baseline_predictions, region_model

COMBAT = {"harmonize": True, "residualise": ()}


def _cohort(*, effect=0.05, offset=0.1, confounded=0.0, older=0.0, subjects=200, regions=20, seed=0):
    """SUVR by region, with the facts: scanner B is `offset` higher, and sees more of the CN if `confounded`."""
    rng = np.random.default_rng(seed)
    ad = np.arange(subjects) % 2 == 1
    at_b = rng.random(subjects) < np.where(ad, 0.5 - confounded, 0.5 + confounded)
    sex, age = rng.choice(["F", "M"], subjects), rng.normal(75, 6, subjects)
    values = 1 + 0.1 * rng.normal(size=(subjects, regions)) + offset * at_b[:, None]
    values[:, :5] -= effect * ad[:, None]
    values += older * (age - 75)[:, None] + 0.05 * (sex == "M")[:, None] * (older != 0)
    table = pd.DataFrame(values).assign(batch=np.where(at_b, "B", "A"), age=age, sex=sex)
    return table, ad


def _scans(ad, training):
    subject = [f"sub-{number:03d}" for number in range(len(ad))]
    table = pd.DataFrame({"scan": subject, "subject": subject, "session": "1"})
    table["part"] = np.where(training, "fold-0", "test")
    return table.assign(diagnosis=np.where(ad, "AD", "CN"))


def _predicted(table, ad, training, model):
    test, held_out = baseline_predictions(table, _scans(ad, training), training=training, model=model)
    return test["probability"].to_numpy(), held_out["probability"].to_numpy()


class TestComBat:
    def test_effects_are_those_of_neurocombat(self):
        t = np.arange(36)
        values = 1 + 0.1 * np.sin(np.outer(t, [1.0, 2.3, 3.1]) ** 1.3)
        scanner = np.array(["A", "B", "C"])[t % 3]
        values[scanner == "B"] = 1.1 + 1.5 * (values[scanner == "B"] - 1)
        found = fit_combat(values, scanner, np.column_stack([t % 2, 70 + t % 7 - np.mean(70 + t % 7)]))
        # By the package neurocombat-sklearn 0.1.3: gamma_star in the values' unit, the root of delta_star.
        shift = [[-0.04023, -0.01516, -0.00617], [0.05831, 0.05778, 0.05462], [-0.02864, -0.04178, -0.039]]
        scale = [[0.87542, 0.89271, 0.86913], [1.33958, 1.34115, 1.34028], [0.85514, 0.75101, 0.84755]]
        np.testing.assert_allclose(found.shift, shift, atol=1e-5)
        np.testing.assert_allclose(found.scale, scale, atol=1e-5)

    @pytest.mark.parametrize("regions", [1, 20])
    def test_scanners_differ_no_more_and_diagnoses_as_before(self, regions):
        table, ad = _cohort(effect=0.2, confounded=0.2, regions=regions, subjects=600)
        adjusted = Adjustment(**COMBAT).fit(table, ad).transform(table)
        at_b = (table["batch"] == "B").to_numpy()
        for rows in (ad, ~ad):
            assert adjusted[rows & at_b].mean() == pytest.approx(adjusted[rows & ~at_b].mean(), abs=0.01)
        assert adjusted[~ad, 0].mean() - adjusted[ad, 0].mean() == pytest.approx(0.2, abs=0.03)

    def test_values_of_a_single_scanner_stay_as_they_are(self):
        table, ad = _cohort()
        table = table.assign(batch="A")
        found = Adjustment(**COMBAT).fit(table, ad)
        np.testing.assert_array_equal(found.transform(table), table[list(range(20))])
        assert found.left(table) == {"not_harmonized": len(table), "unknown": 0}

    def test_fact_that_the_larger_scanners_share_is_no_effect_of_theirs(self):
        table, ad = _cohort()
        table.loc[:3, "batch"] = "few"
        table["sex"] = np.where(table["batch"] == "few", "M", "F")
        at_b = (table["batch"] == "B").to_numpy()
        adjusted = Adjustment(**COMBAT).fit(table, ad).transform(table)
        assert adjusted[at_b].mean() == pytest.approx(adjusted[~at_b][3:].mean(), abs=0.02)

    def test_scan_of_a_scanner_with_few_training_scans_is_left_and_counted(self):
        table, ad = _cohort()
        table.loc[:3, "batch"] = "few"
        found = Adjustment(**COMBAT).fit(table, ad)
        new = table.assign(batch=["few", "new", "", *table["batch"][3:]])
        np.testing.assert_array_equal(found.transform(new)[:3], table.loc[:2, list(range(20))])
        assert found.left(new)["not_harmonized"] == 4

    def test_hidden_region_stays_hidden_and_the_others_count(self):
        table, ad = _cohort()
        table.loc[table["batch"] == "B", 3] = np.nan
        table.loc[:20, 7] = np.nan
        adjusted = Adjustment(**COMBAT).fit(table, ad).transform(table)
        np.testing.assert_array_equal(np.isnan(adjusted), table[list(range(20))].isna())
        np.testing.assert_allclose(adjusted[:, 3], np.where(table["batch"] == "A", table[3], np.nan))

    def test_scanner_that_is_the_diagnosis_is_refused(self):
        table, ad = _cohort()
        with pytest.raises(InputError, match="cannot be told apart; received 2"):
            Adjustment(**COMBAT).fit(table.assign(batch=np.where(ad, "A", "B")), ad)


class TestHarmonizedBaseline:
    def test_unseen_subjects_are_told_apart_better_without_the_scanners_offset(self):
        table, ad = _cohort(offset=-0.15, confounded=0.2, subjects=1_000)
        training = np.arange(1_000) < 300
        # Among the tested, scanners are as common in either group: what was learned of them misleads.
        other, _ = _cohort(offset=-0.15, subjects=1_000, seed=1)
        table = pd.concat([table[training], other[~training]])
        plain, _ = _predicted(table[list(range(20))], ad, training, region_model())
        found, _ = _predicted(table, ad, training, region_model(Adjustment(**COMBAT)))
        truth = ad[~training]
        assert roc_auc_score(truth, found) > roc_auc_score(truth, plain) + 0.05

    def test_tested_diagnoses_change_nothing(self):
        table, ad = _cohort(confounded=0.2)
        training = np.arange(200) < 120
        both = Adjustment(harmonize=True, residualise=("age", "sex"))
        first = _predicted(table, ad, training, region_model(both))
        again = _predicted(table, np.where(training, ad, ~ad), training, region_model(both))
        np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))

    def test_each_fold_is_adjusted_by_the_others_alone(self):
        fits = []

        class Recorded(Adjustment):
            def fit(self, table, y):
                fits.append(set(table.index))
                return super().fit(table, y)

        table, ad = _cohort(subjects=100)
        training = np.arange(100) < 60
        _predicted(table, ad, training, region_model(Recorded(**COMBAT)))
        *folds, last = fits
        assert last == set(range(60))
        assert len(folds) == 5
        assert set.intersection(*folds) == set()


class TestResidualise:
    def test_healthy_age_and_sex_go_and_the_disease_stays(self):
        table, ad = _cohort(effect=0.2, offset=0, older=-0.01, subjects=600)
        adjustment = Adjustment(harmonize=False, residualise=("age", "sex"))
        adjusted = adjustment.fit(table, ad).transform(table)
        # So does cross-validation call it.
        np.testing.assert_array_equal(adjustment.fit(table, ad.astype(int)).transform(table), adjusted)
        assert np.corrcoef(table[10], table["age"])[0, 1] < -0.3
        assert abs(np.corrcoef(adjusted[~ad, 10], table["age"][~ad])[0, 1]) < 1e-6
        male = (table["sex"] == "M").to_numpy()
        assert adjusted[~ad & male, 10].mean() == pytest.approx(adjusted[~ad & ~male, 10].mean(), abs=0.01)
        assert adjusted[~ad, 0].mean() - adjusted[ad, 0].mean() == pytest.approx(0.2, abs=0.03)
        assert adjusted[~ad].mean() == pytest.approx(table.loc[~ad, list(range(20))].to_numpy().mean())

    def test_unknown_age_counts_as_the_mean_if_enough_are_known(self):
        table, ad = _cohort(older=-0.01)
        adjustment = Adjustment(harmonize=False, residualise=("age",))
        new = table.assign(age=[np.nan, *table["age"][1:]], sex="")
        found = adjustment.fit(table, ad)
        np.testing.assert_allclose(found.transform(new)[0], table.loc[0, list(range(20))].astype(float))
        assert found.left(new) == {"not_harmonized": 0, "unknown": 1}
        with pytest.raises(InputError, match="20 CN training scans with known age; received 15"):
            adjustment.fit(table[:30], ad[:30])
