"""Training of a network, with validation metrics after each epoch.

A training repeats bit by bit with the same seed and number of threads, also when it is stopped and resumed.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning import RISING, keras
from adpet.learning.checkpoint import (
    Arrays,
    Row,
    State,
    assign_values,
    read_checkpoint,
    training_fingerprint,
    values_of,
    write_checkpoint,
)
from adpet.learning.data import (
    Augmentation,
    CutMix,
    DeviceSlices,
    SliceDataset,
    SliceReader,
    SliceRef,
    augment,
)
from adpet.learning.model import (
    DROPOUT_NAME,
    HEAD_NAME,
    INPUT_NAME,
    POOL_NAME,
    Precision,
    batch_norm_statistics,
    compiled,
    compiles_with_xla,
    has_accelerator,
    probability_of_ad,
    reestimate_batch_norm,
    set_precision,
)

# Columns of a history, in order.
COLUMNS = (
    "loss", "accuracy", "val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc",
    "learning_rate", "seconds",
)  # fmt: skip

# A slice with a higher probability of AD is classified as AD.
THRESHOLD = 0.5

# Probabilities are clipped this far from 0 and 1, so that one certain error does not cost infinity.
CLIP = 1e-7

# Batches of whole slices for the BatchNorm statistics before each validation of a training with CutMix.
BATCHES_TO_VALIDATE = 24

# Keras' name of an optimizer's learning rate; of a scheduled one, here of the first. A schedule's steps.
RATE_NAME, STEPS_NAME = "learning_rate", "schedule_steps"

# Training slices that are held on a GPU have at most this size: 63,646 of 128 pixels take 1 GB, and trainings
# that share a GPU hold them each. More are read batch by batch.
DEVICE_BYTES = 4 * 2**30

# Steps that Keras runs in one call if the slices are on the device.
STEPS_PER_CALL = 8

# Weight decay is for kernels: offsets and scales would shrink until the network gives nothing out.
NOT_DECAYED = ["gamma", "beta", "bias"]

OnEpoch = Callable[[int, Row], bool | None]
ValidationMetric = Literal["val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc"]


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimizer and of the loss.

    The learning rate falls to 0 by its schedule; weight decay is decoupled, of kernels only; `mix` is the
    share of training slices that CutMix mixes; `balance` weighs subjects and diagnoses alike; `precision` is
    that of the features in training, while the trained network computes in float32.
    """

    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    epochs: int
    batch_size: int
    weight_decay: float = 0.0
    momentum: float = 0.9
    mix: float = 0.0
    balance: bool = False
    precision: Precision = "float32"


@dataclass(frozen=True)
class History:
    """Metrics of a training.

    `rows` has one row an epoch, by `COLUMNS`; `loss` and `accuracy` are of the augmented training slices,
    `accuracy` without the mixed ones. `final` has the ``val_`` columns of the returned network, if any.
    """

    rows: tuple[Row, ...]
    best_epoch: int
    final: Row


def train(
    model: keras.Model,
    training: Sequence[SliceRef],
    validation: Sequence[SliceRef],
    *,
    optimisation: Optimisation,
    augmentation: Augmentation,
    monitor: ValidationMetric | None,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    finish: bool = True,
    on_device: bool | None = None,
) -> History:
    """Train `model` in place; keep the best epoch's weights.

    After the last epoch, BatchNorm statistics are estimated from the training slices without augmentation.

    Parameters
    ----------
    monitor : str, optional
        The validation metric that the best epoch is chosen by; of equals, the first. Without one, or without
        validation slices, the last epoch's weights are kept.
    checkpoint : Path, optional
        Where the state is written after each epoch. If it holds a training with the same network, slices and
        settings, training continues from it, to the same bits as without the stop.
    on_epoch : callable, optional
        Called with the epoch and its row after each epoch, once its checkpoint is written, and in a resumed
        training also for the epochs before. True ends the training.
    finish : bool
        False leaves the network as it is after the last epoch, which is enough for the history's rows.
    on_device : bool, optional
        Whether the device holds all training slices, by default if there is a GPU and they take at most
        `DEVICE_BYTES`; else they are read batch by batch. The batches are the same.
    """
    cutmix = None
    if optimisation.mix:
        cutmix = CutMix(optimisation.mix, places=model.get_layer(POOL_NAME).input.shape[1])
    dataset = SliceDataset(
        training,
        batch_size=optimisation.batch_size,
        augmentation=augmentation,
        seed=seed,
        cutmix=cutmix,
        balance=optimisation.balance,
    )
    if on_device is None:
        on_device = has_accelerator() and math.prod(dataset.device_shape()) <= DEVICE_BYTES
    if on_device:
        dataset.held = _device_slices(model, dataset)
    trainer = _trainer(model, optimisation, augmentation, dataset)
    settings = {
        "optimisation": asdict(optimisation),
        "augmentation": asdict(augmentation),
        "monitor": monitor,
        "seed": seed,
    }
    plain_batches = partial(_plain_batches, training, optimisation.batch_size, seed)
    epochs = _Epochs(
        network=model,
        dataset=dataset,
        validation=validation,
        monitor=monitor,
        checkpoint=checkpoint,
        precision=optimisation.precision,
        mark=training_fingerprint(model, {"training": training, "validation": validation}, settings),
        on_epoch=on_epoch,
        whole=plain_batches if optimisation.mix else None,
    )
    epochs.resume(trainer.optimizer)
    if not epochs.stopped:
        trainer.fit(
            dataset,
            epochs=optimisation.epochs,
            initial_epoch=len(epochs.rows),
            shuffle=False,
            verbose=0,
            callbacks=[epochs],
        )
    if not finish:
        return History(tuple(epochs.rows), epochs.best_epoch, final={})
    assign_values(model.variables, epochs.best)
    reestimate_batch_norm(model, plain_batches())
    final = _validate(model, validation, optimisation.batch_size)
    return History(tuple(epochs.rows), epochs.best_epoch, final)


def predict(model: keras.Model, refs: Sequence[SliceRef], batch_size: int = 64) -> npt.NDArray[np.float32]:
    """Return the probability of AD of each slice, float32 (n,)."""
    if not refs:
        raise InputError("prediction: required at least one slice; received none")
    reader = SliceReader(refs)
    numbers = np.arange(len(refs))
    batches = (reader.read(numbers[start : start + batch_size]) for start in range(0, len(refs), batch_size))
    return np.concatenate([probability_of_ad(predict_batch(model, b, batch_size)) for b in batches])


def predict_batch(model: keras.Model, batch: npt.NDArray[np.uint8], batch_size: int) -> Any:
    """Return the network's outputs for at most `batch_size` slices.

    The batch, (n, height, width, channels) uint8, is filled up, so that a backend compiles once.
    """
    model.jit_compile = compiles_with_xla()
    n = len(batch)
    full = np.concatenate([batch, np.zeros((batch_size - n, *batch.shape[1:]), batch.dtype)])
    outputs = model.predict_on_batch(full)
    return [values[:n] for values in outputs] if isinstance(outputs, list) else outputs[:n]


def validation_metrics(probability: npt.ArrayLike, refs: Sequence[SliceRef]) -> dict[str, float]:
    """Return the validation metrics of slices, from probabilities of AD.

    A subject's probability is the mean over their slices; a subject whose diagnosis changed between visits
    counts once for each diagnosis. The area under the ROC curve is NaN with only one class.
    """
    p = np.asarray(probability, dtype=np.float64)
    is_ad = np.array([ref.label == "AD" for ref in refs])
    keys = {key: number for number, key in enumerate(dict.fromkeys((r.subject, r.label) for r in refs))}
    owner = np.array([keys[ref.subject, ref.label] for ref in refs])
    subject_p = np.bincount(owner, weights=p) / np.bincount(owner)
    subject_is_ad = np.array([label == "AD" for _, label in keys])
    return {
        "val_loss": log_loss(p, is_ad),
        "val_accuracy": float(np.mean((p > THRESHOLD) == is_ad)),
        "val_subject_log_loss": log_loss(subject_p, subject_is_ad),
        "val_subject_auc": roc_auc(subject_p, subject_is_ad),
    }


def log_loss(probability: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the mean cross-entropy in nats."""
    p = np.clip(probability, CLIP, 1 - CLIP)
    return float(-np.mean(np.log(np.where(positive, p, 1 - p))))


def roc_auc(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the ROC AUC, as Mann-Whitney U over its maximum."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    u = rank[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(u / (n_positive * n_negative))


def is_better(value: float, best: float, metric: ValidationMetric) -> bool:
    """True if `value` beats `best`; any number beats NaN."""
    if np.isnan(value) or np.isnan(best):
        return bool(np.isnan(best) and not np.isnan(value))
    return value > best if metric in RISING else value < best


@dataclass(eq=False, kw_only=True)
class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Validates epochs, keeps the best weights, writes the checkpoint."""

    network: keras.Model
    dataset: SliceDataset
    validation: Sequence[SliceRef]
    monitor: ValidationMetric | None
    checkpoint: Path | None
    precision: Precision
    mark: str
    on_epoch: OnEpoch | None
    whole: Callable[[], Iterator[npt.NDArray[np.uint8]]] | None

    def __post_init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.best = values_of(self.network.variables)
        self.best_epoch = 0
        self.stopped = False

    def resume(self, optimizer: keras.optimizers.Optimizer) -> None:
        state = self.checkpoint and read_checkpoint(self.checkpoint, self.mark)
        if not state:
            return
        assign_values(self.network.variables, state.model)
        assign_values(optimizer.variables, state.optimizer)
        self.best, self.best_epoch = state.best, state.best_epoch
        for row in state.rows:
            self._report(row)

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:  # noqa: ARG002 (Keras' signature)
        self.dataset.epoch = epoch
        set_precision(self.network, self.precision)
        self._rate, self._start = float(self.model.optimizer.learning_rate), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        set_precision(self.network, "float32")
        measured: dict[str, Any] = logs or {}
        accuracy = "whole_accuracy" if "whole_accuracy" in measured else "accuracy"
        row = {"loss": float(measured["loss"]), "accuracy": float(measured[accuracy])}
        row |= self._validate()
        row |= {"learning_rate": self._rate, "seconds": round(time.perf_counter() - self._start, 3)}
        if self._is_best(row):
            self.best, self.best_epoch = values_of(self.network.variables), epoch
        if self.checkpoint:
            state = State(
                model=values_of(self.network.variables),
                optimizer=values_of(self.model.optimizer.variables),
                best=self.best,
                rows=[*self.rows, row],
                best_epoch=self.best_epoch,
            )
            write_checkpoint(self.checkpoint, state, self.mark)
        self._report(row)
        self.model.stop_training = self.stopped

    def _validate(self) -> Row:
        """Validate with the BatchNorm statistics of whole slices."""
        moving = values_of(batch_norm_statistics(self.network))
        if self.whole and self.validation:
            reestimate_batch_norm(self.network, islice(self.whole(), BATCHES_TO_VALIDATE))
        row = _validate(self.network, self.validation, self.dataset.batch_size)
        assign_values(batch_norm_statistics(self.network), moving)
        return row

    def _is_best(self, row: Row) -> bool:
        if not self.rows or not self.validation or self.monitor is None:
            return True
        return is_better(row[self.monitor], self.rows[self.best_epoch][self.monitor], self.monitor)

    def _report(self, row: Row) -> None:
        self.rows.append(row)
        if self.on_epoch and self.on_epoch(len(self.rows) - 1, dict(row)):
            self.stopped = True


def _validate(model: keras.Model, validation: Sequence[SliceRef], batch_size: int) -> Row:
    return validation_metrics(predict(model, validation, batch_size), validation) if validation else {}


def _device_slices(model: keras.Model, dataset: SliceDataset) -> DeviceSlices:
    """Return a network's slices on the device, filled."""
    shape = dataset.device_shape()
    slices = compiled(model, ("slices", shape), lambda: DeviceSlices(shape))
    slices.slices.assign(dataset.read_all())
    return slices


def _trainer(
    model: keras.Model, optimisation: Optimisation, augmentation: Augmentation, dataset: SliceDataset
) -> keras.Model:
    """Return a network's training model, as at its start."""
    settings, steps = replace(optimisation, learning_rate=1.0, epochs=1), len(dataset) * optimisation.epochs
    kind = ("trainer", settings, augmentation.fill, dataset.held, None if compiles_with_xla() else steps)

    def build() -> tuple[keras.Model, Arrays]:
        trainer = _training_model(model, optimisation, augmentation, dataset)
        return trainer, values_of(trainer.optimizer.variables)

    trainer, start = compiled(model, kind, build)
    assign_values(trainer.optimizer.variables, start)
    values = {RATE_NAME: optimisation.learning_rate, STEPS_NAME: steps}
    for variable in trainer.optimizer.variables:
        if variable.name in values:
            variable.assign(values[variable.name])
    return trainer


def _training_model(
    model: keras.Model, optimisation: Optimisation, augmentation: Augmentation, dataset: SliceDataset
) -> keras.Model:
    """Return a compiled model with augmentation, logits and `model`'s weights."""
    # Logits, since the loss of a softmax's rounded outputs has no gradient where they are 0 or 1.
    inputs = {"transform": keras.Input((8,), name="transform"), "gain": keras.Input((2,), name="gain")}
    if dataset.held:
        numbers = {"number": keras.Input((), dtype="int32", name="number")}
        if optimisation.mix:
            places = model.get_layer(POOL_NAME).input.shape[1]
            numbers["partner"] = keras.Input((), dtype="int32", name="partner")
            numbers["cells"] = keras.Input((places, places), dtype="bool", name="cells")
        batch = dataset.held(**numbers)
    else:
        batch = keras.Input(model.inputs[0].shape[1:], dtype="uint8", name=INPUT_NAME)
        numbers = {INPUT_NAME: batch}
    changed = augment(batch, inputs["transform"], inputs["gain"], fill=augmentation.fill)
    if optimisation.mix:
        outputs: Any = _whole_and_place_logits(model, changed)
    else:
        outputs = keras.Model(model.inputs, model.get_layer(HEAD_NAME).output)(changed)
    trainer = keras.Model(inputs | numbers, outputs)
    optimizer = _optimizer(optimisation, len(dataset) * optimisation.epochs)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    accuracy = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    trainer.compile(
        optimizer=optimizer,
        loss={"whole": loss, "places": loss} if optimisation.mix else loss,
        weighted_metrics={"whole": accuracy, "places": []} if optimisation.mix else accuracy,
        jit_compile=compiles_with_xla(),
        steps_per_execution=STEPS_PER_CALL if dataset.held else 1,
    )
    optimizer.build(trainer.trainable_variables)
    return trainer


def _whole_and_place_logits(model: keras.Model, slices: Any) -> dict[str, Any]:
    """Return the logits of slices and places, after one Dropout."""
    pool, head = model.get_layer(POOL_NAME), model.get_layer(HEAD_NAME)
    features = keras.Model(model.inputs, pool.input)(slices)
    kept = model.get_layer(DROPOUT_NAME)(keras.ops.ones_like(pool(features)))
    places = head(features * kept[:, None, None, :])
    # The head is linear: the mean over places is what it makes of the pooled features.
    return {"whole": keras.ops.mean(places, axis=(1, 2)), "places": places}


def _optimizer(optimisation: Optimisation, steps: int) -> keras.optimizers.Optimizer:
    rate, decay = optimisation.learning_rate, optimisation.weight_decay
    if optimisation.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=optimisation.momentum, weight_decay=decay)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    if optimisation.schedule == "constant":
        return optimizer

    def variable(value: float, name: str) -> Any:
        return optimizer.add_variable((), initializer=keras.initializers.Constant(value), name=name)

    # Variables, so that a training at another rate or with more steps is not compiled again. Without XLA,
    # compiling takes seconds, and TensorFlow rounds otherwise where it does not know the number of steps.
    first, last = variable(rate, RATE_NAME), variable(steps, STEPS_NAME) if compiles_with_xla() else steps
    schedules = {
        "cosine": keras.optimizers.schedules.CosineDecay(first, last),
        "linear": keras.optimizers.schedules.PolynomialDecay(first, last, end_learning_rate=0.0),
    }
    optimizer.learning_rate = schedules[optimisation.schedule]
    return optimizer


def _plain_batches(refs: Sequence[SliceRef], batch_size: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    dataset = SliceDataset(refs, batch_size=batch_size, augmentation=Augmentation(), seed=seed)
    for step in range(len(dataset)):
        yield dataset[step][0][INPUT_NAME]
