"""Summary: evidence against the model first, open questions named."""

import pytest

from adpet.reporting.summary import PURPOSE, summary

AHEAD = {"value": 0.1, "low": 0.02, "high": 0.2}
LEVEL = {"value": 0.0, "low": -0.04, "high": 0.05}
BEHIND = {"value": -0.2, "low": -0.3, "high": -0.1}


def by_label(documents):
    return {line.label: line for line in summary(documents)}


def test_it_has_five_lines_and_ends_with_what_the_model_is_for(make_documents):
    lines = summary(make_documents())
    assert len(lines) == 5
    assert lines[-1].text.endswith(PURPOSE)


class TestBaselines:
    def test_a_network_that_beats_them_says_so_after_its_figure(self, make_documents):
        lines = summary(make_documents(lead=AHEAD))
        assert [line.label for line in lines[:2]] == ["Performance", "Baselines"]
        assert lines[1].tone == "good"

    @pytest.mark.parametrize(("lead", "said"), [(LEVEL, "does not beat"), (BEHIND, "is worse than")])
    def test_one_that_does_not_says_so_first(self, make_documents, lead, said):
        first = summary(make_documents(lead=lead))[0]
        assert (first.label, first.tone) == ("Baselines", "doubt")
        assert f"The network {said} the region baseline" in first.text

    def test_a_label_that_needs_no_brain_is_a_doubt(self, make_documents):
        found = {"warnings": ["Site alone tells AD from CN"], "not_beaten": [], "beaten": []}
        line = by_label(make_documents(findings=found))["Baselines"]
        assert line.tone == "doubt"
        assert line.text.startswith("Site alone tells AD from CN.")


class TestLeakage:
    def test_clean_leakage_test_gives_the_gain_of_a_slice_split(self, make_documents):
        line = by_label(make_documents())["Leakage"]
        assert line.tone == "good"
        assert "18 points (95 % interval 6 to 30)" in line.text
        assert "40 points (95 % interval 27 to 52)" in line.text

    def test_invalid_leakage_test_comes_first(self, make_documents, make_audit):
        documents = make_documents(audit=make_audit("invalid", "new subjects are above chance"))
        first = summary(documents)[0]
        assert (first.label, first.tone) == ("Leakage", "bad")
        assert first.text.startswith("Leakage test invalid: new subjects are above chance.")

    def test_inconclusive_leakage_test_gives_its_reason(self, make_documents, make_audit):
        audit = make_audit("inconclusive", "too few subjects")
        line = by_label(make_documents(audit=audit))["Leakage"]
        assert line.tone == "doubt"
        assert "inconclusive: too few subjects" in line.text

    def test_missing_leakage_test_names_the_command(self, make_documents):
        line = by_label(make_documents(audit=None))["Leakage"]
        assert (line.tone, line.text) == ("doubt", "The leakage test was not run; run: dvc repro leakage.")

    def test_a_leaky_split_voids_the_figures(self, make_documents):
        first = summary(make_documents(leaky=True))[0]
        assert (first.label, first.tone) == ("Performance", "bad")
        assert first.text.startswith("LEAKY")


class TestMaps:
    def test_maps_that_find_the_deficit_better_than_an_untrained_network(self, make_documents):
        line = by_label(make_documents())["Explainability"]
        assert line.tone == "good"
        assert "0.700 (95 % interval 0.600 to 0.800)" in line.text

    def test_without_a_truth_the_share_in_the_known_pattern_is_told(self, make_documents, make_cam):
        line = by_label(make_documents(cam=make_cam(truth={"scans": 0})))["Explainability"]
        assert "20 % of the AD group's z-scored attribution map" in line.text
        assert "2.5 times" in line.text

    def test_an_alarm_is_a_doubt(self, make_documents, make_cam):
        line = by_label(make_documents(cam=make_cam(alarms=["ad_exact: 30%"])))["Explainability"]
        assert line.tone == "doubt"
        assert "1 alarm" in line.text

    def test_without_maps_it_says_how_to_make_them(self, make_documents):
        assert "dvc repro explain" in by_label(make_documents(cam=None))["Explainability"].text


@pytest.mark.parametrize(("is_simulated", "said"), [(True, "36 simulated scans"), (False, "36 scans")])
def test_simulated_scans_are_called_so(make_documents, is_simulated, said):
    assert by_label(make_documents(is_simulated=is_simulated))["Data and use"].text.startswith(said)


def test_a_site_that_is_not_known_is_not_counted(make_documents, make_ingest):
    documents = make_documents(ingest=make_ingest(sites={"": 36}))
    assert "unknown sites and 1 scanner model" in by_label(documents)["Data and use"].text
