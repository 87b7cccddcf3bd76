"""Contracts: documents are checked when written and when read, and keep their bytes."""

import json

import pytest

from adpet.contracts import LeakageDocument, Metrics, Saliency, TrainingRun, read_contract, write_contract
from adpet.errors import InputError
from adpet.paths import AUDIT, CAM, METRICS, RUN


@pytest.fixture
def run_document():
    return {
        "lineage": {
            "id": "0" * 16, "data": "1.dir", "split": "2", "params": {"seed": 1}, "commit": "3", "code": "4",
            "seed": 1, "backend": "tensorflow", "versions": {"numpy": "2"},
        },
        "leaky": False,
        "trained_on": ["a"],
        "validated_on": [],
        "before_refit": None,
        "best_epoch": 1,
        "final": {"val_loss": 0.5},
    }  # fmt: skip


def test_document_is_read_back_as_it_was_written(tmp_path, run_document):
    path = tmp_path / "run.json"
    write_contract(path, run_document, TrainingRun)
    assert path.read_text() == json.dumps(run_document, indent=2) + "\n"
    assert read_contract(path, TrainingRun).document() == run_document


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"leaky": None}, "leaky"),
        ({"epochs": 3}, "epochs"),
        ({"best_epoch": "1"}, "best_epoch"),
        ({"final": {"val_loss": "low"}}, "final.val_loss"),
    ],
)
def test_document_of_another_form_names_file_key_and_stage_in_one_line(tmp_path, run_document, change, where):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_document | change))
    with pytest.raises(InputError, match=rf"run.json: .*: {where}: .*dvc repro --force train") as refused:
        read_contract(path, TrainingRun)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "model"),
    [(METRICS, Metrics), (RUN, TrainingRun), (CAM, Saliency), (AUDIT, LeakageDocument)],
)
def test_documents_of_a_finished_pipeline_keep_their_bytes(finished, tmp_path, path, model):
    write_contract(tmp_path / "again.json", read_contract(finished.root / path, model).document(), model)
    assert (tmp_path / "again.json").read_bytes() == (finished.root / path).read_bytes()
