"""The verdict says first what speaks against the model, and calls no open question answered."""

import pytest

from adpet.reporting.summary import PURPOSE, verdict

AHEAD = {"value": 0.1, "low": 0.02, "high": 0.2}
LEVEL = {"value": 0.0, "low": -0.04, "high": 0.05}
BEHIND = {"value": -0.2, "low": -0.3, "high": -0.1}


def by_label(documents):
    return {line.label: line for line in verdict(documents)}


def test_it_has_five_lines_and_ends_with_what_the_model_is_for(make_documents):
    lines = verdict(make_documents())
    assert len(lines) == 5
    assert lines[-1].text.endswith(PURPOSE)


def test_the_figure_stands_with_its_interval_and_the_number_of_subjects(make_documents):
    documents = make_documents()
    auc = documents.metrics["subject"]["auc"]
    text = by_label(documents)["Performance"].text
    assert f"{auc['value']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})" in text
    assert "36 held-out subjects (18 AD, 18 CN)" in text


class TestBaselines:
    def test_a_network_that_beats_them_says_so_after_its_figure(self, make_documents):
        lines = verdict(make_documents(lead=AHEAD))
        assert [line.label for line in lines[:2]] == ["Performance", "Baselines"]
        assert lines[1].tone == "good"

    @pytest.mark.parametrize(("lead", "said"), [(LEVEL, "does not beat"), (BEHIND, "is worse than")])
    def test_one_that_does_not_says_so_first(self, make_documents, lead, said):
        first = verdict(make_documents(lead=lead))[0]
        assert (first.label, first.tone) == ("Baselines", "doubt")
        assert f"The network {said} the region baseline" in first.text

    def test_a_label_that_needs_no_brain_is_a_doubt(self, make_documents):
        found = {"warnings": ["Site alone tells AD from CN"], "not_beaten": [], "beaten": []}
        line = by_label(make_documents(findings=found))["Baselines"]
        assert line.tone == "doubt"
        assert line.text.startswith("Site alone tells AD from CN.")


class TestLeakage:
    def test_a_clean_audit_tells_the_size_of_the_leak(self, make_documents):
        line = by_label(make_documents())["Leakage"]
        assert line.tone == "good"
        assert "18 points (95 % interval 6 to 30)" in line.text
        assert "40 points (95 % interval 27 to 52)" in line.text

    def test_an_invalid_audit_comes_before_everything(self, make_documents, make_audit):
        documents = make_documents(audit=make_audit("invalid", "new subjects are above chance"))
        first = verdict(documents)[0]
        assert (first.label, first.tone) == ("Leakage", "bad")
        assert first.text.startswith("Audit invalid: new subjects are above chance.")

    def test_an_inconclusive_audit_is_a_doubt_with_its_reason(self, make_documents, make_audit):
        audit = make_audit("inconclusive", "too few subjects")
        line = by_label(make_documents(audit=audit))["Leakage"]
        assert line.tone == "doubt"
        assert "inconclusive: too few subjects" in line.text

    def test_without_an_audit_it_says_how_to_make_one(self, make_documents):
        line = by_label(make_documents(audit=None))["Leakage"]
        assert (line.tone, line.text) == ("doubt", "No leakage audit was made; run: dvc repro leakage.")

    def test_a_leaky_split_voids_the_figures(self, make_documents):
        first = verdict(make_documents(leaky=True))[0]
        assert (first.label, first.tone) == ("Performance", "bad")
        assert first.text.startswith("LEAKY")


class TestMaps:
    def test_maps_that_find_the_deficit_better_than_an_untrained_network(self, make_documents):
        line = by_label(make_documents())["What it looks at"]
        assert line.tone == "good"
        assert "0.700 (95 % interval 0.600 to 0.800)" in line.text

    def test_without_a_truth_the_share_in_the_known_pattern_is_told(self, make_documents, make_cam):
        line = by_label(make_documents(cam=make_cam(truth={"scans": 0})))["What it looks at"]
        assert "20 % of the AD group's referenced map" in line.text
        assert "2.5 times" in line.text

    def test_an_alarm_is_a_doubt(self, make_documents, make_cam):
        line = by_label(make_documents(cam=make_cam(alarms=["ad_exact: 30%"])))["What it looks at"]
        assert line.tone == "doubt"
        assert "1 alarm" in line.text

    def test_without_maps_it_says_how_to_make_them(self, make_documents):
        assert "dvc repro explain" in by_label(make_documents(cam=None))["What it looks at"].text


@pytest.mark.parametrize(("is_simulated", "said"), [(True, "36 simulated scans"), (False, "36 scans")])
def test_simulated_scans_are_called_so(make_documents, is_simulated, said):
    assert by_label(make_documents(is_simulated=is_simulated))["For whom"].text.startswith(said)


def test_a_site_that_is_not_known_is_not_counted(make_documents, make_ingest):
    documents = make_documents(ingest=make_ingest(sites={"": 36}))
    assert "unknown sites and 1 scanner model" in by_label(documents)["For whom"].text
