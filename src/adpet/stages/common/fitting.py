"""Training that stages share: slices, settings, fits, folds."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from adpet.cohort.splits import fold_name
from adpet.imaging.slices import channel_offsets
from adpet.learning import limit_threads, spread_over_devices
from adpet.learning.checkpoint import save_model
from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import reused_model
from adpet.learning.training import History, Optimisation, predict, train
from adpet.parallel import OnEpoch, epochs_shown, map_in_processes, progress
from adpet.params import Params
from adpet.paths import SLICES
from adpet.stages.common.checks import hashed, refuse_shared
from adpet.stages.common.tables import read_results, write_table
from adpet.storage import read_json, write_json

if TYPE_CHECKING:
    import keras

# What a fold leaves in the work folder: number, subjects, epochs; network and predictions lie next to it.
FoldResult = dict[str, Any]


def slice_refs(rows: pd.DataFrame) -> list[SliceRef]:
    """Return the file, index, diagnosis and subject of each slice."""
    columns = zip(rows["scan"], rows["index"], rows["diagnosis"], rows["subject"], strict=True)
    return [
        SliceRef(path=SLICES / f"{scan}.npy", index=int(index), label=diagnosis, subject=subject)
        for scan, index, diagnosis, subject in columns
    ]


def training_and_validation(
    split: pd.DataFrame, params: Params, *, fold: int
) -> tuple[list[SliceRef], list[SliceRef]]:
    """Return training and validation slices, with `fold` held out.

    With no folds, which only a slice-level split may ask for, validation is on the test set, as in 2019.
    """
    test = split["part"] == "test"
    held_out = test if params.split.folds == 0 else split["part"] == fold_name(fold)
    return _trained(split, test | held_out, params), slice_refs(split[held_out])


def _trained(split: pd.DataFrame, held_out: "pd.Series[bool]", params: Params) -> list[SliceRef]:
    """Return the other slices; refuse subjects on both sides."""
    training = split[~held_out]
    if params.split.unit == "subject":  # another was asked to leak
        both = set(training["subject"]) & set(split.loc[held_out, "subject"])
        refuse_shared(both, "trained on and held out")
    return slice_refs(training)


def network_settings(params: Params) -> dict[str, Any]:
    """Return the arguments of `build_model`."""
    channels = len(channel_offsets(params.slice.neighbours_mm))
    return {**params.model.model_dump(), "seed": params.seed, "channels": channels}


def fit(
    params: Params,
    training: list[SliceRef],
    validation: list[SliceRef],
    *,
    epochs: int,
    checkpoint: Path | None = None,
    label: str | None = None,
    on_epoch: OnEpoch = lambda *_: None,
    finish: bool = True,
) -> tuple["keras.Model", History]:
    """Train a new network, or continue from `checkpoint`.

    The next call in this process may return the same object, with other weights.
    It ends where `on_epoch`, called with each epoch's number and row, returns True. Without a `label` there
    is no progress bar; without `finish` only the epochs' rows are made.
    """
    spread_over_devices(params.compute.devices, batch_size=params.train.batch_size)
    model = reused_model(**network_settings(params))
    bar = epochs_shown(epochs, label=label, on_epoch=on_epoch) if label else nullcontext(on_epoch)
    with bar as shown:
        history = train(
            model,
            training,
            validation,
            optimisation=Optimisation(
                **params.train.model_dump(exclude={"monitor", "epochs"}), epochs=epochs
            ),
            augmentation=Augmentation(**params.augment.model_dump()),
            monitor=None if params.train.monitor == "none" else params.train.monitor,
            seed=params.seed,
            checkpoint=checkpoint,
            on_epoch=shown,
            finish=finish,
        )
    return model, history


def history_table(history: History) -> pd.DataFrame:
    """Return a history without its seconds, which differ between runs."""
    return pd.DataFrame(history.rows).rename_axis("epoch").reset_index().drop(columns="seconds")


def train_folds(
    folds: Mapping[int, pd.DataFrame], params: Params, work: Path, *, label: str
) -> tuple[list[FoldResult], pd.DataFrame]:
    """Train one network a fold, side by side in processes.

    A fold that a killed run has finished in `work` is not trained again. Of a fold's slices, those with
    another `part` than "train" are predicted: the second result, with `fold` and `probability`.
    """
    fit_fold = partial(_train_fold, params=params, work=work)
    trained = map_in_processes(fit_fold, list(folds.items()), workers=params.compute.workers)
    results = list(progress(trained, label=label, unit="fold", total=len(folds)))
    tables = [read_results(_predictions(work, fold)).assign(fold=fold) for fold in folds]
    return results, pd.concat(tables, ignore_index=True)


def _train_fold(fold: tuple[int, pd.DataFrame], *, params: Params, work: Path) -> FoldResult:
    number, slices = fold
    finished = work / f"fold-{number}.json"
    if finished.exists():
        result: FoldResult = read_json(finished)
        return result
    limit_threads(params.compute.threads)
    trained, scored = slices[slices["part"] == "train"], slices[slices["part"] != "train"]
    validated = scored[scored["part"] == "validation"]
    model, history = fit(
        params,
        slice_refs(trained),
        slice_refs(validated),
        epochs=params.train.epochs,
        checkpoint=work / f"fold-{number}.npz",
    )
    save_model(model, fold_model(work, number))
    probability = predict(model, slice_refs(scored), batch_size=params.train.batch_size)
    write_table(scored.assign(probability=probability), _predictions(work, number))
    result = {
        "fold": number,
        "best_epoch": history.best_epoch,
        "trained_on": hashed(trained["subject"]),
        "validated_on": hashed(validated["subject"]),
        "rows": [_without_nan(row) for row in history.rows],
        "final": _without_nan(history.final),
    }
    write_json(finished, result)
    return result


def fold_model(work: Path, fold: int) -> Path:
    """Return where a fold's network is written."""
    return work / f"fold-{fold}.keras"


def _predictions(work: Path, fold: int) -> Path:
    return work / f"fold-{fold}.csv"


def _without_nan(row: dict[str, float]) -> dict[str, float | None]:
    return {name: None if isnan(value) else value for name, value in row.items()}


def fold_slices(split: pd.DataFrame, params: Params) -> dict[int, pd.DataFrame]:
    """Return the training slices by fold, with `fold` as validation."""
    parts = {}
    for fold in range(params.split.folds):
        held_out = split["part"] == fold_name(fold)
        _trained(split, (split["part"] == "test") | held_out, params)
        slices = split[split["part"] != "test"]
        parts[fold] = slices.assign(part=held_out.map({True: "validation", False: "train"}))
    return parts
