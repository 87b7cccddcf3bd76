"""What is a word in a table stays one, whatever it looks like."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, write_volume
from adpet.paths import SUBJECTS, VOLUMES
from adpet.stages import explain, register
from adpet.stages.common.checks import hashed
from adpet.stages.common.tables import evenly, healthy_scans, read_results

# As BIDS allows: sub-NA, sub-012.
NAMES = ["NA", "012", "1e5", "nan", "None"]


@pytest.fixture
def subjects(tmp_path, monkeypatch):
    """The answers for test subjects of such names, as `evaluate` writes them."""
    monkeypatch.chdir(tmp_path)
    SUBJECTS.parent.mkdir(parents=True)
    table = pd.DataFrame({"subject": NAMES, "diagnosis": "AD", "probability": [0.1, 0.2, 0.3, 0.4, np.nan]})
    table.to_csv(SUBJECTS, index=False)
    return table


def test_mean_uptake_is_of_the_scans_that_show_a_voxel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in {"a": (2, 0, 0), "b": (4, 3, 0)}.items():
        write_volume(VOLUMES / f"{name}.nii", Volume(np.tile(np.float32(values), (9, 9, 3)), np.eye(4)))
    np.testing.assert_array_equal(explain._mean_uptake(["a", "b"])[0, 0, :3], [3, 3, 0])


@pytest.mark.parametrize(("scans", "some"), [("", ""), ("ab", "ab"), ("abc", "abc"), ("abcdefg", "adg")])
def test_of_many_scans_some_are_taken_evenly(scans, some):
    assert evenly(list(scans), 3) == list(some)


def test_only_an_empty_cell_is_no_value(subjects):
    pd.testing.assert_frame_equal(read_results(SUBJECTS), subjects)


def test_healthy_scans_are_the_first_such_of_each_training_subject():
    rows = [
        ("s1_a", "s1", "AD", "fold-0"), ("s1_b", "s1", "CN", "fold-0"), ("s1_c", "s1", "CN", "fold-0"),
        ("s2_a", "s2", "CN", "test"), ("s3_a", "s3", "CN", "train"), ("s3_a", "s3", "CN", "train"),
    ]  # fmt: skip
    split = pd.DataFrame(rows, columns=["scan", "subject", "diagnosis", "part"])
    assert healthy_scans(split) == ["s1_b", "s3_a"]


def test_a_table_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"subjects.csv: required, but not there; run: dvc repro"):
        read_results(tmp_path / "subjects.csv")


def test_the_evidence_of_a_version_knows_the_tested_by_the_hashes_of_a_training(subjects):
    auc = SimpleNamespace(value=0.9, low=0.8, high=1.0)
    evidence = register._evidence(
        SimpleNamespace(trained_on=hashed(["NA"]), validated_on=[], leaky=False),
        SimpleNamespace(verdict="clean", reason=""),
        SimpleNamespace(subject=SimpleNamespace(auc=auc, calibration_slope=auc), differences={}),
    )
    assert sorted(evidence.tested["subject"]) == hashed(NAMES)
    assert evidence.known <= set(evidence.tested["subject"])
