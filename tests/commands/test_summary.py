"""Summary: figures beside the baselines', doubts, and the next commands."""

from pathlib import Path

import pytest

from adpet.commands.summary import main
from adpet.contracts import (
    Counts,
    Differences,
    EvaluationDocument,
    LeakageDocument,
    Scores,
    SubjectScores,
    write_contract,
)
from adpet.errors import InputError
from adpet.paths import CROSS_VALIDATION_SUMMARY, EVALUATION, FINDINGS, LEAKAGE, VERSION
from adpet.storage import write_json

INTERVAL = {"value": 0.95, "low": 0.88, "high": 0.99}
FOLDS = {
    "folds": 5,
    "pooled": {"auc": INTERVAL},
    "spread": {"auc": {"low": 0.91, "high": 0.97}},
    "counts": {"subjects": 180, "searched": 136},
    "unsearched": {"auc": INTERVAL},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*, leaky=False, lead=(0.01, -0.02, 0.03), **found):
        write_json(FINDINGS, {key: [] for key in ("warnings", "not_beaten", "beaten", "limits")} | found)
        cells = ("true_positive", "false_negative", "false_positive", "true_negative")
        names = [name for name in SubjectScores.model_fields if name != "confusion"]
        scores = {**dict.fromkeys(names, INTERVAL), "confusion": dict.fromkeys(cells, 1)}
        of_slices = {name: score for name, score in scores.items() if name in Scores.model_fields}
        metrics = {
            "subject": scores,
            "slice": of_slices,
            "threshold": 0.5,
            "counts": dict.fromkeys(Counts.model_fields, 44),
            "baselines": {} if leaky else {"voxels": {**scores, "threshold": 0.5}},
            "differences": {}
            if leaky
            else {"voxels": dict.fromkeys(Differences.model_fields, estimate(*lead))},
            "leakage": {"leaky": int(leaky)},
            "oracle": {"auc": INTERVAL},
        }
        write_contract(EVALUATION, metrics, EvaluationDocument)
        version = {"name": "adpet", "version": 3, "alias": "challenger", "lineage": "0123456789abcdef"}
        write_json(VERSION, version)
        test = {
            "split": "f" * 64,
            "verdict": "inconclusive",
            "valid": 1,
            "conclusive": 0,
            "reason": "the network never fitted",
            "chance": {"p": 0.5, "smallest_p": 0.1, "level": 0.01},
            "gap": {
                "true_labels": {"value": 0.13, "low": 0.1, "high": 0.2},
                "shuffled_labels": {"value": 0.41, "low": 0.3, "high": 0.5},
            },
            "arms": {},
            "cohort": {"subjects": 60, "planes": 16, "step_mm": 3.0},
        }
        write_contract(LEAKAGE, {"leakage": test}, LeakageDocument)

    return write


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def test_summary_compares_the_network_with_the_baselines_and_says_what_is_next(results):
    results(leaky=False)
    text, found = main(), "0.950 (0.880 to 0.990)"
    assert "adpet version 3 (challenger), tested on 44 subjects" in text
    rows = {line[:24].strip(): line[24:].split("  ") for line in text.splitlines()}
    assert [cell.strip() for cell in rows["network"] if cell] == [found] * 3
    assert rows["voxel"][-1].strip() == "+0.010 (-0.020 to +0.030)"
    assert rows["ceiling (true severity)"] == [found]
    assert "inconclusive: the network never fitted" in text
    assert "+13 points with true labels, +41 points with shuffled labels" in text
    assert "results/report/report.html" in text
    # There is no registry here.
    assert "promotion         not judged here: " in text
    assert not Path("mlflow.db").exists()
    assert "LEAKY" not in text


def test_summary_fits_a_terminal_of_140_columns(results):
    long = ["The scanner alone tells AD from CN, and so on and on. " * 5]
    results(lead=(0.0001, -0.02, 0.03), warnings=long, limits=long)
    write_json(CROSS_VALIDATION_SUMMARY, FOLDS)
    assert max(map(len, main().splitlines())) <= 140


def test_leaky_result_says_so_first(results):
    results(leaky=True)
    text = main()
    assert text.strip().startswith("LEAKY")
    assert "has not seen" not in text


@pytest.mark.parametrize(
    ("lead", "said"),
    [
        # The same difference stands for AUC, Brier score and log loss, of which less is better.
        ((0.01, -0.02, 0.03), "not better than   voxel"),
        ((-0.02, -0.03, -0.01), "worse than        voxel (by AUC)"),
        ((0.02, 0.01, 0.03), "worse than        voxel (by Brier score, log loss)"),
        ((0.02, 0.0, 0.03), "not better than   voxel"),
    ],
)
def test_baselines_that_are_not_beaten_are_named(results, lead, said):
    results(lead=lead)
    assert [line for line in main().splitlines() if line.startswith(("not better", "worse"))] == [said]


def test_warnings_come_after_the_figures(results):
    results(warnings=["The scanner is as good"])
    text = main()
    assert text.index("The scanner is as good") > text.index("network  ")


def test_cross_validation_is_shown_with_the_subjects_outside_the_search(results):
    results()
    assert "cross-validation" not in main()
    write_json(CROSS_VALIDATION_SUMMARY, FOLDS)
    assert "180 subjects in 5 folds of 0.910 to 0.970" in main()
    assert "on the 44 that the search has not seen" in " ".join(main().split())
    write_json(CROSS_VALIDATION_SUMMARY, {"folds": 0})
    assert "cross-validation" not in main()


def test_summary_before_the_first_run_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run: dvc repro"):
        main()
