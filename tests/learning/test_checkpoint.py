from pathlib import Path

import numpy as np
import pytest

from adpet.learning.checkpoint import State, read_checkpoint, training_fingerprint, write_checkpoint


def state(value=1.0):
    return State(
        model=[np.full((2, 2), value, np.float32), np.array([7, 9], np.uint32)],
        optimizer=[np.array(3, np.int64)],
        best=[np.zeros((2, 2), np.float32), np.array([7, 8], np.uint32)],
        rows=[{"loss": 0.1 + 0.2, "val_subject_auc": float("nan")}],
        best_epoch=0,
    )


def test_a_state_comes_back_bit_by_bit(tmp_path):
    path = tmp_path / "training.npz"
    write_checkpoint(path, state(), "mark")
    found = read_checkpoint(path, "mark")
    for name in ("model", "optimizer", "best"):
        for before, after in zip(getattr(state(), name), getattr(found, name), strict=True):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert found.rows[0]["loss"] == 0.1 + 0.2
    assert np.isnan(found.rows[0]["val_subject_auc"])


def test_another_trainings_checkpoint_is_ignored(tmp_path):
    write_checkpoint(tmp_path / "training.npz", state(), "mark")
    assert read_checkpoint(tmp_path / "training.npz", "other") is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
def test_a_broken_checkpoint_is_ignored(tmp_path, content):
    (tmp_path / "training.npz").write_bytes(content)
    assert read_checkpoint(tmp_path / "training.npz", "mark") is None


def test_a_truncated_checkpoint_is_ignored(tmp_path):
    path = tmp_path / "training.npz"
    write_checkpoint(path, state(), "mark")
    path.write_bytes(path.read_bytes()[:-40])
    assert read_checkpoint(path, "mark") is None


def test_an_error_while_writing_leaves_the_earlier_checkpoint(tmp_path):
    path = tmp_path / "training.npz"
    write_checkpoint(path, state(), "mark")
    unwritable = state(2.0)
    unwritable.rows[0]["loss"] = object()
    with pytest.raises(TypeError):
        write_checkpoint(path, unwritable, "mark")
    assert read_checkpoint(path, "mark").model[0][0, 0] == 1.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.npz"]


@pytest.fixture(scope="module")
def model(small_model):
    return small_model()


class TestFingerprint:
    SETTINGS = {"monitor": "val_loss", "seed": 1}

    def test_repeats_for_a_network_built_again(self, model, small_model, cohort):
        refs = {"training": cohort}
        first = training_fingerprint(model, refs, self.SETTINGS)
        assert first == training_fingerprint(small_model(), refs, self.SETTINGS)

    def test_changes_with_every_cause(self, model, small_model, cohort):
        marks = [
            training_fingerprint(model, {"training": cohort}, self.SETTINGS),
            training_fingerprint(model, {"training": cohort[1:]}, self.SETTINGS),
            training_fingerprint(model, {"validation": cohort}, self.SETTINGS),
            training_fingerprint(model, {"training": cohort}, {**self.SETTINGS, "seed": 2}),
            training_fingerprint(small_model(seed=2), {"training": cohort}, self.SETTINGS),
            training_fingerprint(small_model(dropout=0.3), {"training": cohort}, self.SETTINGS),
        ]
        assert len(set(marks)) == len(marks)

    def test_changes_when_a_packed_file_was_written_anew(self, model, write_cohort, tmp_path):
        refs = {"training": write_cohort(tmp_path, subjects=2)}
        first = training_fingerprint(model, refs, self.SETTINGS)
        np.save(tmp_path / "scan-00.npy", np.zeros((9, 32, 32), np.uint8))
        assert first != training_fingerprint(model, refs, self.SETTINGS)


def test_one_with_a_pickle_in_it_is_none_and_the_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    np.savez(tmp_path / "bomb.npz", facts=np.array([Bomb()], dtype=object))
    assert read_checkpoint(tmp_path / "bomb.npz", "mark") is None
    assert not (tmp_path / "it ran").exists()
