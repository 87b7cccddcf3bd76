import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from programs import run_code

from adpet.errors import InputError
from adpet.learning.checkpoint import (
    State,
    load_model,
    read_checkpoint,
    training_fingerprint,
    weights_difference,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def model(small_model):
    return small_model()


class TestSaveModel:
    @pytest.mark.slow
    def test_bytes_repeat_in_another_process(self, tmp_path):
        """Keras would write the time and addresses of objects in memory."""
        code = (
            "import sys; from pathlib import Path; from adpet.learning.model import build_model; "
            "from adpet.learning.checkpoint import save_model; "
            "held = [object() for _ in range(99_999)]; "
            "save_model(build_model(input_size=32, alpha=0.35, feature_layer='block_6_expand_relu', "
            "dropout=0.2, seed=1), Path(sys.argv[1]))"
        )
        for name in ("one.keras", "two.keras"):
            assert run_code(code, tmp_path / name).returncode == 0
        assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one.keras", "two.keras"]
        with zipfile.ZipFile(tmp_path / "two.keras") as archive:
            assert set(archive.namelist()) == {"config.json", "metadata.json", "model.weights.h5"}


class TestLoadModel:
    @pytest.mark.parametrize("content", [None, b"", b"no model"])
    def test_other_file_is_refused_in_one_line(self, tmp_path, content):
        path = tmp_path / "model.keras"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"required a saved Keras model.*run: dvc repro") as refused:
            load_model(path)
        assert "\n" not in str(refused.value)

    def test_code_in_a_model_does_not_run(self, tmp_path, monkeypatch):
        """Keras keeps a Lambda layer as marshalled bytecode, which its safe mode does not read."""
        monkeypatch.chdir(tmp_path)
        inputs = keras.Input((1,))
        layer = keras.layers.Lambda(lambda x: (__import__("pathlib").Path("it ran").touch(), x)[1])
        keras.Model(inputs, layer(inputs)).save("model.keras")
        (tmp_path / "it ran").unlink()
        with pytest.raises(InputError, match=r"received: .*arbitrary code execution"):
            load_model(tmp_path / "model.keras")
        assert not (tmp_path / "it ran").exists()


class TestWeightsDifference:
    @pytest.mark.parametrize(
        ("first", "second", "difference"),
        [
            ([[[1.0, np.nan]], [2.0]], [[[1.0, np.nan]], [2.0]], None),
            ([[1.0, 2.0], [3.0]], [[1.0, 2.5], [2.0]], 1.0),
            ([[0.0]], [[-0.0]], 0.0),
            ([[1.0, 2.0]], [[1.0]], np.inf),
            ([[1.0, 2.0]], [[[1.0], [2.0]]], np.inf),
        ],
    )
    def test_difference_is_none_for_equal_bits_and_infinite_for_other_shapes(self, first, second, difference):
        networks = (
            SimpleNamespace(get_weights=lambda weights=weights: [np.array(w, np.float32) for w in weights])
            for weights in (first, second)
        )
        assert weights_difference(*networks) == difference


class TestCheckpoint:
    @staticmethod
    def state(value=1.0):
        return State(
            model=[np.full((2, 2), value, np.float32), np.array([7, 9], np.uint32)],
            optimizer=[np.array(3, np.int64)],
            best=[np.zeros((2, 2), np.float32), np.array([7, 8], np.uint32)],
            rows=[{"loss": 0.1 + 0.2, "val_subject_auc": float("nan")}],
            best_epoch=0,
        )

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "training.npz"
        write_checkpoint(path, self.state(), "mark")
        return path

    def test_state_is_restored_bit_by_bit(self, path):
        found = read_checkpoint(path, "mark")
        for name in ("model", "optimizer", "best"):
            for before, after in zip(getattr(self.state(), name), getattr(found, name), strict=True):
                assert before.dtype == after.dtype
                np.testing.assert_array_equal(before, after)
        assert found.rows[0]["loss"] == 0.1 + 0.2
        assert np.isnan(found.rows[0]["val_subject_auc"])
        assert read_checkpoint(path, "another training") is None

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text", None])
    def test_broken_or_truncated_checkpoint_is_ignored(self, path, content):
        path.write_bytes(path.read_bytes()[:-40] if content is None else content)
        assert read_checkpoint(path, "mark") is None

    def test_pickle_in_a_checkpoint_is_not_opened(self, tmp_path):
        np.savez(tmp_path / "pickle.npz", facts=np.array([{"mark": "mark"}], dtype=object))
        assert read_checkpoint(tmp_path / "pickle.npz", "mark") is None


class TestFingerprint:
    SETTINGS = {"monitor": "val_loss", "seed": 1}

    def test_differs_for_every_cause_and_repeats_without(self, model, small_model, cohort):
        marks = [
            training_fingerprint(model, {"training": cohort}, self.SETTINGS),
            training_fingerprint(model, {"training": cohort[1:]}, self.SETTINGS),
            training_fingerprint(model, {"validation": cohort}, self.SETTINGS),
            training_fingerprint(model, {"training": cohort}, {**self.SETTINGS, "seed": 2}),
            training_fingerprint(small_model(seed=2), {"training": cohort}, self.SETTINGS),
            training_fingerprint(small_model(dropout=0.3), {"training": cohort}, self.SETTINGS),
        ]
        assert len(set(marks)) == len(marks)
        assert training_fingerprint(small_model(), {"training": cohort}, self.SETTINGS) == marks[0]

    def test_differs_when_a_packed_file_was_rewritten(self, model, write_cohort, tmp_path):
        refs = {"training": write_cohort(tmp_path, subjects=2)}
        first = training_fingerprint(model, refs, self.SETTINGS)
        np.save(tmp_path / "scan-00.npy", np.zeros((9, 32, 32, 1), np.uint8))
        assert first != training_fingerprint(model, refs, self.SETTINGS)
