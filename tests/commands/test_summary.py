"""The summary says how good the model is, and never hides a leak."""

import pytest

from adpet.artifacts import AUDIT, METRICS, VERSION, write_json
from adpet.commands.summary import run
from adpet.errors import InputError

INTERVAL = {"value": 0.95, "low": 0.88, "high": 0.99}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*, leaky):
        metrics = {
            "subject": {"auc": INTERVAL, "accuracy": INTERVAL},
            "counts": {"subjects": 44},
            "baselines": {} if leaky else {"voxels": {"auc": INTERVAL}},
            "leakage": {"leaky": int(leaky)},
        }
        write_json(METRICS, metrics)
        version = {"name": "adpet", "version": 3, "alias": "challenger", "lineage": "0123456789abcdef"}
        write_json(VERSION, version)
        gap = {"true_labels": {"value": 0.13}, "shuffled_labels": {"value": 0.41}}
        audit = {"verdict": "inconclusive", "reason": "the network never fitted", "gap": gap}
        write_json(AUDIT, {"leakage": {"audit": audit}})

    return write


def test_auc_interval_version_figures_and_next_commands(results):
    results(leaky=False)
    text = run()
    assert "0.950 (95 % interval 0.880 to 0.990) on 44 held-out subjects" in text
    assert "baseline: voxels" in text
    assert "inconclusive: the network never fitted" in text
    assert "accuracy +13 points with true labels, +41 points with shuffled labels" in text
    assert "adpet version 3, alias challenger" in text
    assert "adpet promote 3 " in text
    assert "LEAKY" not in text


def test_a_leaky_result_says_so_first(results):
    results(leaky=True)
    assert run().strip().startswith("LEAKY")


def test_before_the_first_run_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run: dvc repro"):
        run()
