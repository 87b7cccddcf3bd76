import json
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run_code
from sklearn.metrics import roc_auc_score

from adpet.errors import InputError
from adpet.learning import training
from adpet.learning.checkpoint import weights_difference
from adpet.learning.data import Augmentation, SliceDataset, SliceRef
from adpet.learning.model import build_model, reused_model
from adpet.learning.training import COLUMNS, _optimizer, is_better, predict, roc_auc, validation_metrics

# Trains in a process of its own and prints what came of it; `kill_at` is "epoch:step" or "never".
PROGRAM = """
import hashlib, json, os, signal, sys
from pathlib import Path
from adpet.learning import limit_threads
limit_threads(1)
from adpet.learning.training import Optimisation, train
from adpet.learning.data import Augmentation, SliceDataset, SliceRef
from adpet.learning.model import build_model

refs = [SliceRef(Path(path), index, label, subject) for path, index, label, subject in json.loads(sys.argv[1])]
augmentation = Augmentation(rotation_degrees=5, zoom=0.05, shift=0.03, flip=True, intensity=0.05)
optimisation = Optimisation("adamw", 2e-3, "cosine", epochs=4, batch_size=16, weight_decay=1e-4, mix=0.5)

def fit(checkpoint):
    model = build_model(
        input_size=32, alpha=0.35, feature_layer="block_6_expand_relu", dropout=0.3, seed=7
    )
    history = train(
        model, refs[:96], refs[96:], optimisation=optimisation, augmentation=augmentation,
        monitor="val_loss", seed=7, checkpoint=checkpoint, on_epoch=lambda epoch, row: seen.append(epoch),
    )
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()
    print(json.dumps({"digest": digest, "rows": history.rows, "seen": seen}), flush=True)

seen = []
if sys.argv[3] != "never":
    fit(None)
    original = SliceDataset.__getitem__
    epoch, step = map(int, sys.argv[3].split(":"))

    def killing(self, at):
        if self.epoch == epoch and at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, at)

    SliceDataset.__getitem__ = killing
seen.clear()
fit(Path(sys.argv[2]))
"""


def run_program(refs, checkpoint: Path, kill_at: str):
    rows = json.dumps([[str(r.path), r.index, r.label, r.subject] for r in refs])
    return run_code(PROGRAM, rows, checkpoint, kill_at, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")


@pytest.fixture(scope="module")
def sides(cohort):
    return cohort[:128], cohort[128:]


@pytest.fixture(scope="module")
def trained(fit):
    """Return a trained model, its history and what the callback was given."""
    reported = []
    model, history = fit(
        epochs=10, monitor="val_subject_log_loss", on_epoch=lambda epoch, row: reported.append((epoch, row))
    )
    return model, history, reported


class TestTrain:
    def test_inference_and_training_mode_agree_on_the_training_slices(self, trained, sides, slices_of):
        """The trap of MobileNetV2's BatchNorm: right in training mode, at chance in inference."""
        model, _, _ = trained
        images = slices_of(sides[0])
        is_ad = np.array([ref.label == "AD" for ref in sides[0]])
        shuffled = np.random.default_rng(0).permutation(len(images))
        weights = model.get_weights()
        outputs = np.asarray(model(images[shuffled], training=True))
        model.set_weights(weights)
        in_training = np.mean((outputs[:, 1] > 0.5) == is_ad[shuffled])
        in_inference = np.mean((predict(model, sides[0]) > 0.5) == is_ad)
        assert in_training > 0.95
        assert in_inference == pytest.approx(in_training, abs=0.03)

    def test_history_has_every_column_and_a_falling_learning_rate(self, trained):
        _, history, reported = trained
        assert all(tuple(row) == COLUMNS for row in history.rows)
        assert reported == list(enumerate(history.rows))
        rates = [row["learning_rate"] for row in history.rows]
        assert rates[0] == pytest.approx(2e-3)
        assert rates == sorted(rates, reverse=True)

    def test_best_epoch_and_final_metrics_are_those_of_the_returned_model(self, trained, sides):
        model, history, _ = trained
        losses = [row["val_subject_log_loss"] for row in history.rows]
        assert history.best_epoch == int(np.argmin(losses))
        metrics = validation_metrics(predict(model, sides[1]), sides[1])
        assert history.final == pytest.approx(metrics, abs=1e-6)
        assert history.final["val_subject_auc"] == 1

    def test_sgd_trains_until_the_callback_returns_true(self, fit):
        _, history = fit(
            augmentation=Augmentation(fill="constant"), monitor="val_accuracy", optimizer="sgd",
            learning_rate=0.05, schedule="constant", epochs=5,
            on_epoch=lambda epoch, _: epoch == 1,
        )  # fmt: skip
        assert len(history.rows) == 2
        assert history.rows[1]["loss"] < history.rows[0]["loss"]
        assert set(history.final) == {column for column in COLUMNS if column.startswith("val_")}

    @pytest.mark.slow
    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    def test_network_that_a_process_trains_again_gets_the_bits_of_a_new_one(self, fit, cohort, schedule):
        """Also if it was compiled for batches of another size, as of another fold."""
        kind = {"input_size": 32, "alpha": 0.35, "feature_layer": "block_4_expand_relu", "dropout": 0.3}
        options = {"validation": (), "monitor": None, "schedule": schedule, "epochs": 3}
        first, _ = fit(reused_model(**kind, seed=9), training=cohort[:11], learning_rate=0.05, **options)
        before = first.get_weights()
        options |= {"training": cohort[:14], "learning_rate": 1e-3}
        again, history = fit(reused_model(**kind, seed=1), **options)
        wanted, expected = fit(build_model(**kind, seed=1), **options)
        assert again is first
        assert weights_difference(again, wanted) is None
        assert [row["loss"] for row in history.rows] == [row["loss"] for row in expected.rows]
        assert any((a != b).any() for a, b in zip(before, again.get_weights(), strict=True))

    def test_last_epoch_is_kept_without_validation_also_when_resumed(self, fit, small_model, sides, tmp_path):
        options = {"validation": (), "checkpoint": tmp_path / "training.npz"}
        model, history = fit(small_model(dropout=0.0), **options)
        assert (len(history.rows), history.best_epoch, history.final) == (3, 2, {})
        assert not any(name.startswith("val_") for row in history.rows for name in row)
        # Resumed after its last epoch, whose weights are those of `model`.
        again, _ = fit(small_model(dropout=0.0), **options)
        np.testing.assert_array_equal(predict(again, sides[0]), predict(model, sides[0]))

    @pytest.mark.parametrize("mix", [0.0, 0.5])
    def test_slices_on_the_device_give_the_bits_of_streamed_ones(self, fit, cohort, mix):
        # Ten steps, which is more than one call and less than two.
        sides = {"training": cohort[:168], "validation": cohort[168:]}
        (streamed, expected), (held, history) = (
            fit(on_device=on_device, mix=mix, **sides) for on_device in (False, True)
        )
        assert weights_difference(held, streamed) is None
        assert [{**row, "seconds": 0} for row in history.rows] == [
            {**row, "seconds": 0} for row in expected.rows
        ]

    def test_gpu_holds_the_slices_that_fit(self, fit, monkeypatch):
        held, read_all = [], SliceDataset.read_all
        monkeypatch.setattr(SliceDataset, "read_all", lambda data: held.append(read_all(data)) or held[-1])
        monkeypatch.setattr(training, "has_accelerator", lambda: True)
        for size in (training.DEVICE_BYTES, 1):
            monkeypatch.setattr(training, "DEVICE_BYTES", size)
            fit(validation=(), epochs=1)
        assert [len(slices) for slices in held] == [4096]
        assert held[0][:128].any(axis=(1, 2, 3)).all()
        assert not held[0][128:].any()

    def test_bfloat16_trains_a_network_that_computes_in_float32(self, fit, small_model):
        (_, expected), (model, history) = (fit(precision=each) for each in ("float32", "bfloat16"))
        losses, own = ([row["loss"] for row in each.rows] for each in (expected, history))
        assert own != losses
        assert own == pytest.approx(losses, abs=0.02)
        assert history.final["val_loss"] == pytest.approx(expected.final["val_loss"], abs=0.05)
        assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
        assert [weight.dtype for weight in model.weights] == [
            weight.dtype for weight in small_model().weights
        ]

    def test_prediction_without_slices_is_refused(self, trained):
        with pytest.raises(InputError, match="required at least one slice"):
            predict(trained[0], [])


@pytest.mark.parametrize(
    ("schedule", "halfway", "at_the_end"), [("cosine", 0.5, 0), ("linear", 0.5, 0), ("constant", 1, 1)]
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_schedule_runs_from_the_first_step_to_the_last(quick, optimizer, schedule, halfway, at_the_end):
    built = _optimizer(quick(optimizer=optimizer, learning_rate=0.1, schedule=schedule), steps=10)
    rates = []
    for step in (0, 5, 10):
        built.iterations.assign(step)
        rates.append(float(built.learning_rate))
    assert rates == pytest.approx([0.1, 0.1 * halfway, 0.1 * at_the_end], abs=1e-8)


def refs_of(*subjects_and_labels):
    return [SliceRef(Path("scan.npy"), 0, label, subject) for subject, label in subjects_and_labels]


def test_probability_of_a_subject_is_the_mean_over_its_slices():
    refs = refs_of(("a", "AD"), ("a", "AD"), ("b", "CN"))
    metrics = validation_metrics([0.9, 0.3, 0.2], refs)
    assert metrics["val_subject_log_loss"] == pytest.approx(-(np.log(0.6) + np.log(0.8)) / 2)
    assert metrics["val_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.3) + np.log(0.8)) / 3)
    assert metrics["val_accuracy"] == pytest.approx(2 / 3)
    assert metrics["val_subject_auc"] == 1


def test_auc_needs_two_diagnoses_and_a_certain_error_costs_a_finite_loss():
    metrics = validation_metrics([0.0], refs_of(("a", "AD")))
    assert np.isfinite(metrics["val_loss"])
    assert np.isnan(metrics["val_subject_auc"])
    both = validation_metrics([0.8, 0.2], refs_of(("a", "AD"), ("a", "CN")))
    assert both["val_subject_auc"] == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=50)
def test_auc_matches_scikit_learn_with_ties(pairs):
    score = np.array([value for value, _ in pairs], dtype=float)
    positive = np.array([flag for _, flag in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(roc_auc(score, positive))
    else:
        assert roc_auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


@pytest.mark.parametrize(
    ("value", "best", "metric", "expected"),
    [
        (0.4, 0.5, "val_loss", True),
        (0.6, 0.5, "val_subject_auc", True),
        (0.4, 0.5, "val_accuracy", False),
        (0.5, 0.5, "val_loss", False),
        (np.nan, 0.5, "val_loss", False),
        (0.5, np.nan, "val_loss", True),
        (np.nan, np.nan, "val_loss", False),
    ],
)
def test_better_is_less_loss_or_more_accuracy_and_never_nan(value, best, metric, expected):
    assert is_better(value, best, metric) is expected


@pytest.mark.slow
def test_training_killed_in_mid_epoch_ends_with_the_bits_of_an_undisturbed_one(cohort, tmp_path):
    checkpoint = tmp_path / "training.npz"
    killed = run_program(cohort, checkpoint, kill_at="2:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    undisturbed = json.loads(killed.stdout)
    with np.load(checkpoint) as stored:
        before = json.loads(str(stored["facts"]))["rows"]
    assert len(before) == 2
    resumed = run_program(cohort, checkpoint, kill_at="never")
    assert resumed.returncode == 0, resumed.stderr
    after = json.loads(resumed.stdout)
    assert after["digest"] == undisturbed["digest"]
    assert after["seen"] == [0, 1, 2, 3]
    # The same seconds too: these two epochs were not run again.
    assert after["rows"][:2] == before
    for row in after["rows"] + undisturbed["rows"]:
        del row["seconds"]
    assert after["rows"] == undisturbed["rows"]
