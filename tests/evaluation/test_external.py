"""External validation: decision curves count by hand, and a shifted model is brought back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from adpet.errors import InputError
from adpet.evaluation.external import DECISIONS, decision_table, net_benefit, recalibrated


def _site(*, off=0.0, ad=200, cn=300, seed=0):
    """Subjects whose probabilities are calibrated, but for `off` in log-odds."""
    rng = np.random.default_rng(seed)
    truth = np.arange(ad + cn) < ad
    # Equal normals in the log-odds, whose likelihood ratio they are.
    odds = rng.normal(size=ad + cn) * 2 + np.where(truth, 2, -2) + np.log(ad / cn)
    return pd.DataFrame(
        {
            "subject": [f"sub-{number:04d}" for number in range(ad + cn)],
            "diagnosis": np.where(truth, "AD", "CN"),
            "probability": expit(odds + off),
        }
    )


class TestNetBenefit:
    def test_it_is_true_positives_less_false_ones_at_the_odds(self):
        truth = np.array([True, True, False, False])
        probability = np.array([0.9, 0.3, 0.6, 0.1])
        found = dict(zip(DECISIONS.tolist(), net_benefit(truth, probability), strict=True))
        assert found[0.5] == pytest.approx((1 - 1) / 4)
        assert found[0.2] == pytest.approx((2 - 0.25) / 4)
        assert found[0.8] == pytest.approx(1 / 4)

    def test_predicting_ad_for_all_gains_nothing_at_the_prevalence(self):
        truth = np.arange(10) < 4
        table = decision_table(truth, {"network": truth.astype(float)}).set_index("probability")
        assert table.loc[0.4, "all"] == pytest.approx(0)
        assert (table["network"] == 0.4).all()


class TestRecalibration:
    @given(st.floats(-3, 3), st.integers(10, 60), st.integers(10, 60))
    def test_shift_to_all_makes_the_mean_probability_the_share_of_ad(self, off, ad, cn):
        site = _site(off=off, ad=ad, cn=cn)
        _, shift = recalibrated(site, usual_cn=None, seed=0)
        assert expit(logit(site["probability"]) + shift).mean() == pytest.approx(ad / (ad + cn), abs=1e-6)

    @pytest.mark.parametrize("reference", ["all", "cn"])
    def test_a_shifted_model_is_brought_back(self, reference):
        usual = float(_site()["probability"][200:].median()) if reference == "cn" else None
        after, shift = recalibrated(_site(off=1.5), usual_cn=usual, seed=0)
        assert shift == pytest.approx(-1.5, abs=0.2)
        np.testing.assert_allclose(after["probability"], _site()["probability"], atol=0.06)

    def test_no_subject_decides_its_own_shift(self):
        site = _site(ad=10, cn=10)
        turned = site.assign(probability=site["probability"].where(site.index != 3, 1e-6))
        before, _ = recalibrated(site, usual_cn=None, seed=0)
        after, _ = recalibrated(turned, usual_cn=None, seed=0)
        moved = logit(after["probability"]) - logit(turned["probability"])
        stayed = logit(before["probability"]) - logit(site["probability"])
        assert moved[3] == pytest.approx(stayed[3])
        assert (~np.isclose(moved, stayed)).sum() == 16

    def test_too_few_subjects_of_a_diagnosis_are_refused(self):
        with pytest.raises(InputError, match="required 5 subjects of AD and of CN; received 4 of one"):
            recalibrated(_site(ad=4, cn=20), usual_cn=None, seed=0)
