"""Paired comparison of models, findings, subgroups."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from adpet.errors import InputError
from adpet.evaluation.aggregation import Pooling, subject_probabilities
from adpet.evaluation.baselines import FACTS as BASELINE_FACTS
from adpet.evaluation.baselines import baseline_predictions, fact_model
from adpet.evaluation.comparison import COMPARED, findings, paired_differences, subgroup_table, subject_facts
from adpet.evaluation.metrics import evaluation


def _subjects(scores, *, truth=None):
    count = len(scores)
    truth = np.arange(count) % 2 == 1 if truth is None else truth
    return pd.DataFrame(
        {
            "subject": [f"sub-{number:03d}" for number in range(count)],
            "diagnosis": np.where(truth, "AD", "CN"),
            "probability": 1 / (1 + np.exp(-np.asarray(scores, dtype=float))),
        }
    )


def _scores(separation, *, seed, subjects=120):
    return np.random.default_rng(seed).normal(size=subjects) + separation * (np.arange(subjects) % 2)


def _differences(network, baseline):
    return paired_differences(network, baseline, seed=0, resamples=500)


class TestDifference:
    def test_differences_match_scikit_learn(self):
        network, baseline = _subjects(_scores(2.0, seed=0)), _subjects(_scores(1.0, seed=1))
        found = _differences(network, baseline)
        for name, score in zip(COMPARED, (roc_auc_score, brier_score_loss, log_loss), strict=True):
            first, second = (score(t["diagnosis"] == "AD", t["probability"]) for t in (network, baseline))
            assert found[name]["value"] == pytest.approx(first - second)
            assert found[name]["low"] < found[name]["value"] < found[name]["high"]

    @pytest.mark.parametrize("name", COMPARED)
    def test_differences_are_paired(self, name):
        scores = _scores(1.5, seed=0)
        near = scores + 0.3 * np.random.default_rng(9).normal(size=scores.size)
        width = {}
        for kind, other in (("like", near), ("unlike", _scores(1.5, seed=1))):
            found = _differences(_subjects(scores), _subjects(other))[name]
            width[kind] = found["high"] - found["low"]
        assert width["like"] < 0.5 * width["unlike"]

    def test_two_perfect_models_on_few_subjects_keep_a_wide_interval(self):
        perfect = _subjects(_scores(40.0, seed=0, subjects=12))
        found = _differences(perfect, perfect)["auc"]
        assert found["value"] == 0
        assert found["low"] < -0.1
        assert found["high"] > 0.1

    def test_different_subjects_are_refused(self):
        with pytest.raises(InputError, match="the same subjects in both tables; received 120 and 119"):
            _differences(_subjects(_scores(1.0, seed=0)), _subjects(_scores(1.0, seed=0)).iloc[1:])


def _metrics(brier=(0.01, -0.01, 0.03), log_loss=(0.0, -0.1, 0.1), **leads):
    def interval(numbers):
        return dict(zip(("value", "low", "high"), numbers, strict=True))

    proper = {"brier": interval(brier), "log_loss": interval(log_loss)}
    return {
        "counts": {"subjects": 60, "subjects_ad": 29, "subjects_cn": 31},
        "baselines": {name: {"auc": interval((0.6, 0.45, 0.7))} for name in leads},
        "differences": {name: {"auc": interval(lead), **proper} for name, lead in leads.items()},
    }


class TestFindings:
    def test_network_that_does_not_beat_regions_says_so_with_numbers(self):
        found = findings(_metrics(regions=(-0.0001, -0.06, 0.03), scanner=(0.4, 0.2, 0.5)))
        assert "\n".join(found["not_beaten"]) == (
            "The network does not beat the disease-informed region baseline "
            "(AUC difference +0.000, 95 % interval -0.060 to +0.030); no clear difference by Brier score "
            "(+0.010, -0.010 to +0.030) and log loss (+0.000, -0.100 to +0.100)"
        )
        assert found["beaten"][0].startswith("The network beats the scanner baseline")
        assert found["warnings"] == []
        (limits,) = found["limits"]
        assert limits.startswith(
            "On 60 subjects (29 AD, 31 CN) the comparison with the disease-informed region baseline can see "
        )
        assert "AUC differences from 0.04 (half the interval's width), no smaller ones" in limits

    def test_adjusted_values_are_told_with_the_scans_that_were_left(self):
        adjusted = {
            "harmonized_by": "site",
            "residualised": ["age", "sex"],
            "not_harmonized": 3,
            "unknown": 1,
        }
        metrics = _metrics(regions=(0.0, -0.1, 0.1))
        metrics |= {"adjusted": adjusted, "counts": metrics["counts"] | {"scans": 72}}
        assert findings(metrics)["limits"][1] == (
            "Values of the region and meta-ROI baselines are harmonized by site (ComBat; not in 3 of 72 tested "
            "scans, whose site has too few in training) and residualised for age and sex (unknown in 1, which "
            "count as the mean), by training scans alone"
        )

    def test_proper_scores_are_called_better_or_worse_only_if_clear(self):
        metrics = _metrics(brier=(0.07, 0.04, 0.09), log_loss=(-0.1, -0.2, -0.05), site=(0.0, -0.1, 0.1))
        (sentence,) = findings(metrics)["not_beaten"]
        assert sentence.endswith(
            "; worse by Brier score (+0.070, +0.040 to +0.090); better by log loss (-0.100, -0.200 to -0.050)"
        )

    @given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
    def test_network_beats_baseline_only_if_the_interval_is_above_zero(self, value, below, above):
        found = findings(_metrics(regions=(value, value - below, value + above)))
        assert bool(found["beaten"]) == (value - below > 0)
        assert len(found["beaten"]) + len(found["not_beaten"]) == 1


def _scanner_metrics(*, confounded, subjects=120):
    """Metrics of a baseline that knows the scanner alone."""
    rng = np.random.default_rng(0)
    scans = _subjects(np.zeros(subjects)).assign(session="", scan=lambda table: table["subject"])
    scans["part"] = np.where(np.arange(subjects) < 80, "fold-0", "test")
    other = scans["diagnosis"] == "AD" if confounded else rng.random(subjects) < 0.5
    scans["scanner"] = np.where(other, "HRRT", "D690")
    training = (scans["part"] != "test").to_numpy()
    facts = list(BASELINE_FACTS["scanner"])
    test, held_out = baseline_predictions(
        scans[facts], scans.drop(columns="probability"), training=training, model=fact_model(facts)
    )
    scored = evaluation(test, held_out, pooling=Pooling(), seed=0, resamples=200)
    lead = _differences(scans[~training], subject_probabilities(test, Pooling()))
    return scored | {"baselines": {"scanner": scored["subject"]}, "differences": {"scanner": lead}}


def test_only_a_confounded_scanner_gives_a_warning():
    (warning,) = findings(_scanner_metrics(confounded=True))["warnings"]
    assert warning.startswith("Scanner alone tells AD from CN (AUC 1.00, 95 % interval")
    assert findings(_scanner_metrics(confounded=False))["warnings"] == []


@pytest.fixture
def subjects(make_predictions):
    return subject_probabilities(make_predictions(subjects=40), Pooling())


def _scans(subjects):
    """One scan a subject; the first site has one subject, all sites beyond it both diagnoses."""
    count = len(subjects)
    return pd.DataFrame(
        {
            "subject": subjects["subject"],
            "age": np.linspace(60, 90, count),
            "sex": ["F", "F", "M", "M"] * (count // 4),
            "site": ["S0", *["S1"] * (count - 1)],
            "scanner": "HRRT",
        }
    )


class TestFacts:
    def test_age_bands_have_open_ends(self, subjects):
        scans = _scans(subjects).head(6).assign(age=[64.9, 65.0, 74.9, 75.0, 85.0, np.nan])
        bands = subject_facts(scans)["age"].tolist()
        assert bands == ["under 65", "65 to 74", "65 to 74", "75 to 84", "85 and over", "unknown"]

    def test_several_scanners_and_empty_cells_are_named(self, subjects):
        scans = pd.concat([_scans(subjects).head(2)] * 2, ignore_index=True)
        scans["scanner"] = ["HRRT", "", "D690", ""]
        assert subject_facts(scans)["scanner"].tolist() == ["several", "unknown"]
        assert len(subject_facts(scans)) == 2


class TestTable:
    def test_subgroup_auc_matches_scikit_learn(self, subjects):
        scans = _scans(subjects)
        table = subgroup_table(subjects, subject_facts(scans), threshold=0.5).set_index(["fact", "group"])
        women = subjects[(scans["sex"] == "F").to_numpy()]
        expected = roc_auc_score(women["diagnosis"] == "AD", women["probability"])
        assert table.loc[("sex", "F"), "auc"] == pytest.approx(expected)

    def test_subgroup_of_one_diagnosis_has_empty_cells(self, subjects):
        table = subgroup_table(subjects, subject_facts(_scans(subjects)), threshold=0.5)
        alone = table[(table["fact"] == "site") & (table["group"] == "S0")].iloc[0]
        assert (alone["n"], alone["n_cn"]) == (1, 1)
        assert alone[["auc", "auc_low", "balanced_accuracy", "balanced_accuracy_high"]].isna().all()

    def test_tiny_subgroup_has_a_wide_interval(self, subjects):
        facts = subject_facts(_scans(subjects)).assign(sex=["rare", "rare", *["F"] * 38])
        separated = subjects.assign(probability=(subjects["diagnosis"] == "AD") * 0.8 + 0.1)
        table = subgroup_table(separated, facts, threshold=0.5).set_index("group")
        assert table.loc["rare", "auc"] == 1
        assert table.loc["rare", "auc_low"] < 0.5
