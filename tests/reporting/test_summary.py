"""Summary: evidence against the model first, open questions named."""

import re

import pytest

from adpet.reporting.report import PURPOSE, summary

LEVEL = {"value": 0.0, "low": -0.04, "high": 0.05}
BEHIND = {"value": -0.2, "low": -0.3, "high": -0.1}
CONFOUNDED = {"warnings": ["Site alone tells AD from CN"], "not_beaten": [], "beaten": []}
INVALID, INCONCLUSIVE = ({"verdict": verdict, "reason": "so"} for verdict in ("invalid", "inconclusive"))
GAINS = r".*18 points \(95 % interval 6 to 30\).*40 points \(95 % interval 27 to 52\)"
PATTERN = ".*20 % of the AD group's z-scored attribution map.*2.5 times"
UNKNOWN_TRUTH = {"truth": {"scans": 0}}


def test_summary_has_five_lines_and_ends_with_the_purpose(make_documents):
    lines = summary(make_documents())
    assert len(lines) == 5
    assert lines[-1].text.endswith(PURPOSE)


@pytest.mark.parametrize(
    ("changes", "place", "line", "said"),
    [
        ({}, 1, ("Baselines", "good"), ""),
        (
            {"lead": LEVEL},
            0,
            ("Baselines", "doubt"),
            ".*The network does not beat the disease-informed region baseline",
        ),
        (
            {"lead": BEHIND},
            0,
            ("Baselines", "doubt"),
            ".*The network is worse than the disease-informed region baseline",
        ),
        ({"findings": CONFOUNDED}, 0, ("Baselines", "doubt"), "Site alone tells AD from CN[.]"),
        ({}, 2, ("Leakage", "good"), GAINS),
        ({"leakage": INVALID}, 0, ("Leakage", "bad"), "Leakage test invalid: so[.]"),
        ({"leakage": INCONCLUSIVE}, 2, ("Leakage", "doubt"), "Leakage test inconclusive: so[.]"),
        (
            {"leakage": None},
            2,
            ("Leakage", "doubt"),
            "The leakage test was not run; run: dvc repro leakage[.]$",
        ),
        ({"leaky": True}, 0, ("Performance", "bad"), "LEAKY"),
        ({}, 0, ("Performance", "plain"), "AUC"),
        # The fixture's maps add nothing to the group mean.
        (
            {},
            3,
            ("Explainability", "doubt"),
            r".*0.700 \(95 % interval 0.600 to 0.800\).*adds nothing measurable",
        ),
        ({"cam": UNKNOWN_TRUTH}, 3, ("Explainability", "plain"), PATTERN),
        ({"cam": {"alarms": ["ad_exact: 30%"]}}, 3, ("Explainability", "doubt"), ".*1 alarm"),
        ({}, 4, ("Data and use", "plain"), "36 simulated scans"),
        ({"is_simulated": False}, 4, ("Data and use", "plain"), "36 scans"),
    ],
)
def test_line_has_place_tone_and_numbers(make_documents, changes, place, line, said):
    found = summary(make_documents(**changes))[place]
    assert (found.label, found.tone) == line
    assert re.match(said, found.text)
