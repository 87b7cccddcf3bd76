"""Summary: evidence against the model first, open questions named."""

import pytest

from adpet.reporting.summary import PURPOSE, summary

AHEAD = {"value": 0.1, "low": 0.02, "high": 0.2}
LEVEL = {"value": 0.0, "low": -0.04, "high": 0.05}
BEHIND = {"value": -0.2, "low": -0.3, "high": -0.1}


def by_label(documents):
    return {line.label: line for line in summary(documents)}


def test_summary_has_five_lines_and_ends_with_the_purpose(make_documents):
    lines = summary(make_documents())
    assert len(lines) == 5
    assert lines[-1].text.endswith(PURPOSE)


class TestBaselines:
    def test_beaten_baselines_come_after_the_performance(self, make_documents):
        lines = summary(make_documents(lead=AHEAD))
        assert [line.label for line in lines[:2]] == ["Performance", "Baselines"]
        assert lines[1].tone == "good"

    @pytest.mark.parametrize(("lead", "said"), [(LEVEL, "does not beat"), (BEHIND, "is worse than")])
    def test_unbeaten_baseline_comes_first(self, make_documents, lead, said):
        first = summary(make_documents(lead=lead))[0]
        assert (first.label, first.tone) == ("Baselines", "doubt")
        assert f"The network {said} the region baseline" in first.text

    def test_confounder_is_a_doubt(self, make_documents):
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

    @pytest.mark.parametrize(
        ("verdict", "place", "tone"), [("invalid", 0, "bad"), ("inconclusive", 2, "doubt")]
    )
    def test_leakage_test_gives_its_reason_and_comes_first_if_invalid(
        self, make_documents, verdict, place, tone
    ):
        line = summary(make_documents(audit={"verdict": verdict, "reason": "so"}))[place]
        assert (line.label, line.tone) == ("Leakage", tone)
        assert line.text.startswith(f"Leakage test {verdict}: so.")

    def test_missing_leakage_test_names_the_command(self, make_documents):
        line = by_label(make_documents(audit=None))["Leakage"]
        assert (line.tone, line.text) == ("doubt", "The leakage test was not run; run: dvc repro leakage.")

    def test_leaky_split_invalidates_the_performance(self, make_documents):
        first = summary(make_documents(leaky=True))[0]
        assert (first.label, first.tone) == ("Performance", "bad")
        assert first.text.startswith("LEAKY")


class TestMaps:
    def test_maps_that_beat_untrained_networks_are_good(self, make_documents):
        line = by_label(make_documents())["Explainability"]
        assert line.tone == "good"
        assert "0.700 (95 % interval 0.600 to 0.800)" in line.text

    def test_real_scans_report_the_share_in_the_ad_pattern(self, make_documents):
        line = by_label(make_documents(cam={"truth": {"scans": 0}}))["Explainability"]
        assert "20 % of the AD group's z-scored attribution map" in line.text
        assert "2.5 times" in line.text

    def test_alarm_is_a_doubt(self, make_documents):
        line = by_label(make_documents(cam={"alarms": ["ad_exact: 30%"]}))["Explainability"]
        assert line.tone == "doubt"
        assert "1 alarm" in line.text


@pytest.mark.parametrize(("is_simulated", "said"), [(True, "36 simulated scans"), (False, "36 scans")])
def test_simulated_scans_are_named(make_documents, is_simulated, said):
    assert by_label(make_documents(is_simulated=is_simulated))["Data and use"].text.startswith(said)
