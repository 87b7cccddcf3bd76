"""What report and card tell of a cross-validation and of the network that is trained after it."""

import numpy as np
import pandas as pd
import pytest

from adpet.evaluation.cross_validation import COLUMNS, pooled_summary
from adpet.reporting.model_card import model_card
from adpet.reporting.performance import cross_validation
from adpet.reporting.report import report_html


def cross_validated(searched=8):
    """Three folds of eight subjects; in the last one a network that is at chance."""
    rng = np.random.default_rng(3)
    subjects = pd.DataFrame({"subject": [f"s{number:02}" for number in range(24)], "threshold": 0.5})
    subjects["diagnosis"] = ["AD", "CN"] * 12
    subjects["fold"] = np.repeat([0, 1, 2], 8)
    told = np.where(subjects["fold"] == 2, 0.0, 0.4) * np.where(subjects["diagnosis"] == "AD", 1, -1)
    subjects["probability"] = 0.5 + told + rng.uniform(-0.05, 0.05, 24)
    subjects["searched"] = np.arange(24) < searched
    return pooled_summary(subjects[list(COLUMNS)], seed=0, resamples=100)


@pytest.fixture(scope="module")
def summary():
    return cross_validated()


def tables(documents):
    return {block.caption: block for block in cross_validation(documents) if block.kind == "table"}


class TestFolds:
    def test_each_fold_has_a_row_with_its_subjects_and_its_area(self, make_documents, summary):
        rows = tables(make_documents(cross_validation=summary))["Fold by fold"].rows
        assert [row[:3] for row in rows] == [(f"Fold {number}", "4", "4") for number in range(3)]
        assert [row[3] for row in rows] == [
            f"{summary['fold'][str(n)]['auc']['value']:.3f}" for n in range(3)
        ]
        assert rows[0][3] == "1.000" > rows[2][3]

    def test_pooled_measures_stand_beside_their_spread_over_folds(self, make_documents, summary):
        auc, spread = summary["pooled"]["auc"], summary["spread"]["auc"]
        row = tables(make_documents(cross_validation=summary))["3 folds of all subjects"].rows[0]
        assert row == (
            "AUC",
            f"{auc['value']:.3f}",
            f"{auc['low']:.3f} to {auc['high']:.3f}",
            f"{spread['mean']:.3f}",
            f"{spread['sd']:.3f}",
            f"{spread['low']:.3f} to {spread['high']:.3f}",
        )

    @pytest.mark.parametrize(
        ("searched", "sentence"),
        [
            (8, "were chosen on 8 of the 24 subjects. On the others alone"),
            (0, "No hyperparameter was chosen"),
        ],
    )
    def test_it_says_on_whom_hyperparameters_were_chosen(self, make_documents, searched, sentence):
        assert sentence in report_html(make_documents(cross_validation=cross_validated(searched)))

    def test_the_card_tells_the_pooled_area_and_the_spread(self, make_documents, summary):
        card = model_card(make_documents(cross_validation=summary))
        auc, spread = summary["pooled"]["auc"], summary["spread"]["auc"]
        assert f"Cross-validation of all 24 subjects: AUC {auc['value']:.3f}" in card
        assert f"from {spread['low']:.3f} to {spread['high']:.3f}." in card

    @pytest.mark.parametrize("absent", [None, {"folds": 0}])
    def test_without_folds_there_is_nothing_to_tell(self, make_documents, absent):
        assert cross_validation(make_documents(cross_validation=absent)) == []


class TestRefit:
    @pytest.fixture
    def refitted(self, make_documents):
        trained = make_documents().trained
        return make_documents(trained=trained | {"before_refit": {"trained_on": ["0123456789abcdef"]}})

    @pytest.mark.parametrize("written", [report_html, model_card])
    def test_it_says_which_network_the_model_is_and_where_epochs_and_threshold_come_from(
        self, refitted, written
    ):
        text = written(refitted)
        assert "stopped after 2 epochs, where the kept one ended" in text
        assert "number of epochs and threshold come from the network before it" in text
        assert "were chosen for a network that was trained without the validation fold" in text

    @pytest.mark.parametrize("written", [report_html, model_card])
    def test_without_one_nothing_is_said_of_it(self, make_documents, written):
        assert "trained anew in the same way" not in written(make_documents())
