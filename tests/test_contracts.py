"""Contracts: documents are checked when written and when read, and keep their bytes."""

import json
import runpy

import pytest

from adpet.contracts import (
    EvaluationDocument,
    LeakageDocument,
    Saliency,
    TrainingRun,
    read_contract,
    write_contract,
)
from adpet.errors import InputError
from adpet.inference.exported_model import open_model
from adpet.paths import CAM, EVALUATION, LEAKAGE, RUN


@pytest.fixture
def run_document():
    return {
        "lineage": {
            "id": "0" * 16, "data": "1.dir", "split": "2", "params": {"seed": 1}, "weights_digest": None,
            "template_digest": None, "atlas_digest": None, "code": "4", "seed": 1, "backend": "tensorflow",
            "versions": {"numpy": "2"}, "commit": "3", "code_folders": ["src/adpet/learning"],
        },
        "leaky": False,
        "trained_on": ["a"],
        "validated_on": [],
        "folds": [{"trained_on": ["a"], "validated_on": ["b"], "best_epoch": 1}],
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
    [(EVALUATION, EvaluationDocument), (RUN, TrainingRun), (CAM, Saliency), (LEAKAGE, LeakageDocument)],
)
def test_documents_of_a_finished_pipeline_keep_their_bytes(finished, tmp_path, path, model):
    write_contract(tmp_path / "again.json", read_contract(finished.root / path, model).document(), model)
    assert (tmp_path / "again.json").read_bytes() == (finished.root / path).read_bytes()


@pytest.mark.parametrize(
    ("section", "value", "problem"),
    [
        ("threshold", "0.5", "threshold: input should be a valid number"),
        ("threshold", None, "threshold: input should be a valid number"),
        ("leaky", 1, "leaky: input should be a valid boolean"),
        ("slices", {}, r"slices\.y_mm: field required \(and \d+ more\)"),
        ("surprise", 1, "surprise: extra inputs are not permitted"),
    ],
)
def test_model_document_of_another_form_is_refused_in_one_line(
    small_export, tmp_path, *, section, value, problem
):
    document = json.loads((small_export / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(document | {section: value}))
    with pytest.raises(InputError, match=problem) as error:
        open_model(tmp_path)
    assert "\n" not in str(error.value)


def test_page_types_are_those_that_the_script_writes(project_root):
    script = runpy.run_path(str(project_root / "scripts/page_types.py"))
    assert script["TARGET"].read_text() == script["typescript"]()
