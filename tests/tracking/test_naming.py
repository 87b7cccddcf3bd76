"""MLflow takes every name as it is written down, and no two of them become one."""

import pytest
from mlflow.entities import Dataset, DatasetInput, Param
from mlflow.utils.validation import _validate_batch_log_data, _validate_dataset_inputs

from adpet.tracking.naming import DATASET_DIGEST_LIMIT, DATASET_NAME_LIMIT, safe_name, shortened

GOOD = ["train.learning_rate", "val/auc", "Größe 1", "a:b-c_d", ".hidden", "x" * 250]
BAD = [
    "cohort.diagnosis_map.Alzheimer's disease", "diagnosis_map.CN (control)", "diagnosis_map.CN [control]",
    "a,b", "a\nb", "a\n", "", ".", "..", "../a", "/a", "a//b", "a/", "a/../b", "x" * 251, "'" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_mlflow_takes_stays(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", GOOD + BAD)
def test_mlflow_takes_it(name):
    _validate_batch_log_data([], [Param(safe_name(name), "1")], [])


def test_different_names_stay_different():
    assert len({safe_name(name) for name in GOOD + BAD}) == len(GOOD + BAD)


def test_what_a_changed_name_was_can_be_read_from_it():
    assert safe_name("diagnosis_map.CN (control)") == "diagnosis_map.CN _control_-3b1f8c5e"


def test_a_long_name_and_digest_of_a_data_set_are_cut_and_stay_apart():
    names = [shortened("n" * 600 + end, DATASET_NAME_LIMIT) for end in "ab"]
    digests = [shortened("d" * 40 + end, DATASET_DIGEST_LIMIT) for end in "ab"]
    assert len({*names, *digests}) == 4
    for name, digest in zip(names, digests, strict=True):
        _validate_dataset_inputs([DatasetInput(Dataset(name, digest, "local", "{}"), [])])
