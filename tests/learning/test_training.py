import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning.data import Augmentation
from adpet.learning.training import COLUMNS, _optimizer, predict, train, validation_metrics

AUGMENTATION = Augmentation(rotation_degrees=5, zoom=0.05, shift=0.03, intensity=0.05)

# Trains in a process of its own and prints what came of it; `kill_at` is "epoch:step" or "never".
PROGRAM = """
import hashlib, json, os, signal, sys
from pathlib import Path
from adpet.learning.training import Optimisation, set_determinism, train
set_determinism(7, 1)
from adpet.learning.data import Augmentation
from adpet.learning.data import SliceDataset, SliceRef
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
    arguments = [
        json.dumps([[str(r.path), r.index, r.label, r.subject] for r in refs]),
        str(checkpoint),
        kill_at,
    ]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def rows_of(checkpoint: Path):
    with np.load(checkpoint) as stored:
        return json.loads(str(stored["facts"]))["rows"]


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def sides(cohort):
    return cohort[:128], cohort[128:]


@pytest.fixture(scope="module")
def trained(small_model, quick, sides):
    model = small_model()
    reported = []
    history = train(
        model,
        *sides,
        optimisation=quick(epochs=10),
        augmentation=AUGMENTATION,
        monitor="val_subject_log_loss",
        seed=3,
        on_epoch=lambda epoch, row: reported.append((epoch, row)),
    )
    return model, history, reported


class TestTrain:
    def test_inference_and_training_mode_agree_on_the_training_slices(self, trained, sides, slices_of):
        """The trap of MobileNetV2's BatchNorm: right in training mode, at chance in inference."""
        model, _, _ = trained
        images = slices_of(sides[0])[..., None]
        is_ad = np.array([ref.label == "AD" for ref in sides[0]])
        shuffled = np.random.default_rng(0).permutation(len(images))
        weights = model.get_weights()
        outputs = np.asarray(model(images[shuffled], training=True))
        model.set_weights(weights)
        in_training = np.mean((outputs[:, 1] > 0.5) == is_ad[shuffled])
        in_inference = np.mean((predict(model, sides[0]) > 0.5) == is_ad)
        assert in_training > 0.95
        assert in_inference == pytest.approx(in_training, abs=0.03)

    def test_a_row_an_epoch_has_every_column(self, trained):
        _, history, reported = trained
        assert all(tuple(row) == COLUMNS for row in history.rows)
        assert reported == list(enumerate(history.rows))

    def test_the_learning_rate_falls_from_its_start(self, trained):
        rates = [row["learning_rate"] for row in trained[1].rows]
        assert rates[0] == pytest.approx(2e-3)
        assert rates == sorted(rates, reverse=True)

    def test_the_best_epoch_is_the_first_best_of_the_monitor(self, trained):
        history = trained[1]
        losses = [row["val_subject_log_loss"] for row in history.rows]
        assert history.best_epoch == int(np.argmin(losses))

    def test_the_final_metrics_are_those_of_the_model_that_is_left(self, trained, sides):
        model, history, _ = trained
        assert history.final == pytest.approx(
            validation_metrics(predict(model, sides[1]), sides[1]), abs=1e-6
        )
        assert history.final["val_subject_auc"] == 1

    def test_sgd_fits_too_until_the_caller_says_true(self, small_model, quick, sides):
        optimisation = quick(
            optimizer="sgd", learning_rate=0.05, schedule="constant", epochs=5, label_smoothing=0.1
        )
        history = train(
            small_model(),
            *sides,
            optimisation=optimisation,
            augmentation=Augmentation(fill="constant"),
            monitor="val_accuracy",
            seed=3,
            on_epoch=lambda epoch, _: epoch == 1,
        )
        assert len(history.rows) == 2
        assert history.rows[1]["loss"] < history.rows[0]["loss"]
        assert set(history.final) == {column for column in COLUMNS if column.startswith("val_")}

    def test_what_the_caller_raises_is_passed_on_and_the_next_run_tells_it_again(
        self, small_model, quick, sides, tmp_path
    ):
        class PrunedError(Exception):
            pass

        reported = []

        def on_epoch(epoch, _):
            reported.append(epoch)
            if len(reported) == 2:
                raise PrunedError

        def fit():
            return train(
                small_model(),
                *sides,
                optimisation=quick(),
                augmentation=Augmentation(),
                monitor="val_loss",
                seed=3,
                checkpoint=tmp_path / "training.npz",
                on_epoch=on_epoch,
            )

        with pytest.raises(PrunedError):
            fit()
        assert len(fit().rows) == 3
        assert reported == [0, 1, 0, 1, 2]

    def test_with_nothing_to_validate_on_the_last_epoch_is_kept_and_a_resumed_training_agrees(
        self, small_model, quick, sides, tmp_path
    ):
        def fit():
            model = small_model(dropout=0.0)
            history = train(
                model,
                sides[0],
                (),
                optimisation=quick(),
                augmentation=Augmentation(),
                monitor="val_loss",
                seed=3,
                checkpoint=tmp_path / "training.npz",
            )
            return model, history

        model, history = fit()
        assert (len(history.rows), history.best_epoch, history.final) == (3, 2, {})
        assert not any(name.startswith("val_") for row in history.rows for name in row)
        # Taken up after its last epoch, whose weights are those of `model`.
        again, _ = fit()
        np.testing.assert_array_equal(predict(again, sides[0]), predict(model, sides[0]))

    def test_no_slices_to_predict_are_refused(self, trained):
        with pytest.raises(InputError, match="required at least one slice"):
            predict(trained[0], [])


@pytest.mark.parametrize(
    ("schedule", "halfway", "at_the_end"), [("cosine", 0.5, 0), ("linear", 0.5, 0), ("constant", 1, 1)]
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_schedule_runs_from_the_first_step_to_the_last(quick, optimizer, schedule, halfway, at_the_end):
    built = _optimizer(quick(optimizer=optimizer, learning_rate=0.1, schedule=schedule), steps=10)
    rates = []
    for step in (0, 5, 10):
        built.iterations.assign(step)
        rates.append(float(built.learning_rate))
    assert rates == pytest.approx([0.1, 0.1 * halfway, 0.1 * at_the_end], abs=1e-8)


@pytest.mark.long
def test_a_training_killed_in_mid_epoch_ends_with_the_bits_of_an_undisturbed_one(cohort, tmp_path):
    checkpoint = tmp_path / "training.npz"
    killed = run_program(cohort, checkpoint, kill_at="2:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    undisturbed = json.loads(killed.stdout)
    before = rows_of(checkpoint)
    assert len(before) == 2
    resumed = run_program(cohort, checkpoint, kill_at="never")
    assert resumed.returncode == 0, resumed.stderr
    after = json.loads(resumed.stdout)
    assert after["digest"] == undisturbed["digest"]
    assert after["seen"] == [0, 1, 2, 3]
    # The same seconds too: these two epochs were not run again.
    assert after["rows"][:2] == before
    assert without_seconds(after["rows"]) == without_seconds(undisturbed["rows"])
