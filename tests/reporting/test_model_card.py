"""Model card: the guidelines' headings, and a length that fits MLflow."""

import pytest

from adpet.reporting.model_card import ELSEWHERE, model_card, shortened

HEADINGS = (
    "Summary",
    "Intended use",
    "Source of data and eligibility",
    "Preprocessing",
    "Predictors and model",
    "Outcome",
    "Sample size",
    "Missing data",
    "Training and tuning",
    "Partitions and validation",
    "Performance",
    "Subgroups and fairness",
    "Leakage test",
    "Explainability",
    "Failure analysis",
    "Limitations",
    "Reproducibility",
)


@pytest.fixture(scope="module")
def card(make_documents):
    return model_card(make_documents())


def test_card_has_the_guidelines_headings_in_order(card):
    titles = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert tuple(titles) == HEADINGS


def test_card_escapes_texts_of_the_collection(make_documents):
    warning = "<b>site</b> | *S01* has one group"
    card = model_card(make_documents(ingest={"warnings": [warning]}))
    assert "\\<b\\>site\\</b\\> \\| \\*S01\\*" in card
    assert "<b>" not in card


@pytest.mark.parametrize("absent", [{"leakage": None}, {"cam": None}, {"leaky": True}])
def test_card_is_written_without_optional_results(make_documents, absent):
    assert "## Limitations" in model_card(make_documents(**absent))


def test_validation_elsewhere_stands_next_to_the_own_test(make_documents, evaluated, card):
    found = {"cohort": "clinic", "answered": 40, "refused": 3, "unusable": 0, "training_prevalence": 0.8,
             "leakage_checks": ["copies of 9 training scans"], "evaluation": evaluated[0]}  # fmt: skip
    text = model_card(make_documents(external=found))
    chapter = text.partition("## External validation")[2].partition("## ")[0]
    for said in ("36 subjects of another collection, clinic (18 AD, 18 CN)", "40 scans answered, 3 refused",
                 "Calibration slope", "copies of 9 training scans", "0.80 in training"):  # fmt: skip
        assert said in chapter
    assert ("External validation" in card, "no external test set" in card) == (False, True)
    assert "no external test set" not in text


class TestShortened:
    def test_card_that_fits_is_unchanged(self, card):
        assert shortened(card, most=len(card)) == card

    @pytest.mark.parametrize("most", [1500, 3000, 5000])
    def test_long_card_ends_with_a_whole_chapter_and_a_pointer(self, card, most):
        short = shortened(card, most=most)
        kept = short.removesuffix(ELSEWHERE)
        assert len(short) <= most
        assert short.endswith(ELSEWHERE)
        assert card.startswith(kept)
        assert card[len(kept) :].startswith("\n\n## ")

    def test_long_first_chapter_is_cut_at_a_line(self):
        card = "# Model card\n\n## Summary\n\n" + "- a line\n" * 100 + "\n## Next\n\nmore\n"
        short = shortened(card, most=200)
        assert len(short) <= 200
        assert short.removesuffix(ELSEWHERE).endswith("- a line")
