"""The report counts everything that was found, and its table fits a terminal."""

import json

import pytest

from adpet.cohort.scans import Collection, rejected_table, scans_table
from adpet.cohort.summary import COLUMNS, ingest_report, report_text


def row(number, diagnosis, session="1", **values):
    scan = f"sub-{number}_ses-{session}"
    return {
        "scan": scan, "subject": str(number), "session": session, "diagnosis": diagnosis,
        "age": 60.0 + number % 20, "sex": "FM"[number // 2 % 2], "site": "AB"[number // 2 % 2],
        "scanner": "HR+", "level": "averaged", "path": scan, "frame_seconds": "", "content": f"{number:064x}",
        **values,
    }  # fmt: skip


def collection(change=lambda number, diagnosis: {}, *, reasons=()):
    rows = [row(n, d, **change(n, d)) for n in range(40) for d in [("AD", "CN")[n % 2]]]
    rows += [row(0, "AD", "2", age=62.0), row(1, "CN", "2", age=63.0), row(1, "CN", "3", age=64.0)]
    rejected = [
        {"file": f"{n}.nii", "reason": reason, "kind": kind} for n, (kind, reason) in enumerate(reasons)
    ]
    return Collection(
        scans_table(rows), rejected_table(rejected), tracers={"FDG": 43, "AV45": 7}, levels={"averaged": 43, "raw": 9}
    )  # fmt: skip


@pytest.fixture
def report():
    reasons = [("skipped", "tracer AV45 is not FDG")] * 7 + [
        ("unusable", "truncated: " + "it is short " * 20)
    ]
    return ingest_report(collection(reasons=reasons))


def scanner_of_the_group(_, diagnosis):
    return {"scanner": {"AD": "Siemens Biograph 64 TruePoint", "CN": "GE Discovery 690"}[diagnosis]}


class TestReport:
    def test_levels_and_tracers_are_those_used_and_those_there_are(self, report):
        assert report["levels"] == {"used": {"averaged": 43}, "seen": {"averaged": 43, "raw": 9}}
        assert report["tracers"] == {"AV45": 7, "FDG": 43}

    def test_the_groups_are_compared_per_subject_at_the_first_scan(self, report):
        assert report["balance"]["sex"]["AD"] == {"F": 10, "M": 10}
        assert report["balance"]["age"]["AD"] == {"known": 20, "unknown": 0, "mean": 69.0, "sd": 5.9}
        assert "scanner" not in report["balance"]
        assert report["warnings"] == []

    def test_a_scanner_that_gives_the_diagnosis_away_is_warned_of(self):
        first, *others = ingest_report(collection(scanner_of_the_group))["warnings"]
        assert "told apart by scanner alone (AUC 1.00 beyond chance, p <0.001)" in first
        assert [text.partition(" has subjects of one group alone")[0] for text in others] == [
            "scanner GE Discovery 690",
            "scanner Siemens Biograph 64 TruePoint",
        ]

    def test_it_is_json_and_the_same_each_time(self, report):
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        json.dumps(ingest_report(Collection(scans_table([]), rejected_table([]))), allow_nan=False)


class TestText:
    def test_it_says_what_was_found(self, report):
        text = report_text(report)
        for part in (
            "43 used, of 40 subjects (20 AD, 20 CN)",
            "38 with 1, 1 with 2, 1 with 3",
            "43 averaged (there are: 43 averaged, 9 raw)",
            "7 AV45, 43 FDG",
            "        7  skipped   tracer AV45 is not FDG",
            "        1  unusable  truncated: it is short",
            "69.0 (SD 5.9)",
        ):
            assert part in text
        assert "WARNING" not in text

    def test_warnings_begin_a_line(self):
        text = report_text(ingest_report(collection(scanner_of_the_group)))
        assert text.count("\nWARNING: ") == 3

    @pytest.mark.parametrize(
        "change", [lambda *_: {}, scanner_of_the_group, lambda n, d: {"site": "x" * 50 + str(n)}]
    )
    def test_no_line_is_wider_than_a_terminal(self, change):
        reasons = [("unusable", "a word " * 40), ("unusable", "x" * 300)]
        text = report_text(ingest_report(collection(change, reasons=reasons)))
        assert max(map(len, text.splitlines())) <= COLUMNS

    def test_columns_are_aligned(self, report):
        lines = report_text(report).splitlines()
        (header,) = (line for line in lines if line.startswith("subjects"))
        (age,) = (line for line in lines if line.startswith("age"))
        assert age.index("70.0") == header.index("CN")
        assert header.index("AUC") == age.index(age.split()[-2])

    def test_nothing_set_aside_is_said(self):
        assert "nothing was set aside" in report_text(ingest_report(collection()))

    def test_an_empty_collection_has_a_text_too(self):
        text = report_text(ingest_report(Collection(scans_table([]), rejected_table([]))))
        assert "0 used, of 0 subjects (0 AD, 0 CN)" in text
