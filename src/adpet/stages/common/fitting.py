"""Training that stages share: slices of a split, settings, fits."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import build_model
from adpet.learning.search import Choice, Range
from adpet.learning.training import History, Optimisation, train
from adpet.parallel import epochs_shown
from adpet.params import Params
from adpet.params import Range as SettingsRange
from adpet.paths import SLICES
from adpet.stages.common.checks import refuse_shared

if TYPE_CHECKING:
    import keras


def search_space(params: Params) -> dict[str, Range | Choice]:
    """Return the search space of `tuned` parameters, by dotted key."""
    searched = {key: getattr(params.tune.space, key.rpartition(".")[2]) for key in params.tuned()}
    return {
        key: Range(**one.model_dump()) if isinstance(one, SettingsRange) else Choice(tuple(one.choices))
        for key, one in searched.items()
    }


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
    held_out = test if params.split.folds == 0 else split["part"] == f"fold-{fold}"
    return _trained(split, test | held_out, params), slice_refs(split[held_out])


def all_training(split: pd.DataFrame, params: Params) -> list[SliceRef]:
    """Return all slices outside of the test set."""
    return _trained(split, split["part"] == "test", params)


def _trained(split: pd.DataFrame, held_out: "pd.Series[bool]", params: Params) -> list[SliceRef]:
    """Return the other slices; refuse subjects on both sides."""
    training = split[~held_out]
    if params.split.unit == "subject":  # another was asked to leak
        both = set(training["subject"]) & set(split.loc[held_out, "subject"])
        refuse_shared(both, "trained on and held out")
    return slice_refs(training)


def network(params: Params) -> "keras.Model":
    """Build the network that the parameters describe."""
    return build_model(**params.model.model_dump(), seed=params.seed)


def fit(
    params: Params,
    training: list[SliceRef],
    validation: list[SliceRef],
    *,
    epochs: int,
    stop_after: int | None = None,
    checkpoint: Path | None = None,
    label: str | None = None,
    on_epoch: Callable[[dict[str, float], int], bool | None] = lambda *_: None,
) -> tuple["keras.Model", History]:
    """Train a new network, or continue from `checkpoint`.

    Parameters
    ----------
    stop_after : int, optional
        End after this many epochs, on the schedule of all `epochs`.
    label : str, optional
        Name of the progress bar; without one there is no bar.
    on_epoch : callable
        Called with each epoch's row and number; the training ends where it returns True.
    """
    model = network(params)
    last = stop_after or epochs

    def stops(epoch: int, row: dict[str, float]) -> bool:
        return bool(on_epoch(row, epoch)) or epoch + 1 == last

    bar = epochs_shown(last, label=label, on_epoch=stops) if label else nullcontext(stops)
    with bar as shown:
        history = train(
            model,
            training,
            validation,
            optimisation=Optimisation(
                **params.train.model_dump(exclude={"monitor", "epochs"}), epochs=epochs
            ),
            augmentation=Augmentation(**params.augment.model_dump()),
            monitor=params.train.monitor,
            seed=params.seed,
            checkpoint=checkpoint,
            on_epoch=shown,
        )
    return model, history


def history_table(history: History) -> pd.DataFrame:
    """Return a history without its seconds, which differ between runs."""
    return pd.DataFrame(history.rows).rename_axis("epoch").reset_index().drop(columns="seconds")
