"""Training shared by stages: slices of a split, settings, fits."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from adpet.errors import InputError, LeakageError
from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import build_model
from adpet.learning.search import Choice, Range
from adpet.learning.training import History, Optimisation, train
from adpet.parallel import epochs_shown
from adpet.params import Params
from adpet.params import Range as SettingsRange
from adpet.paths import EVALUATE, FINDINGS, SLICES
from adpet.storage import read_json
from adpet.tracking.runs import RunHandle

if TYPE_CHECKING:
    import keras


def search_space(params: Params) -> dict[str, Range | Choice]:
    """Return the part of the search space that is `tuned`, by dotted key."""
    space: dict[str, Range | Choice] = {}
    for key in params.tuned():
        settings = getattr(params.tune.space, key.rpartition(".")[2])
        if isinstance(settings, SettingsRange):
            space[key] = Range(**settings.model_dump())
        else:
            space[key] = Choice(tuple(settings.choices))
    return space


def slice_refs(rows: pd.DataFrame) -> list[SliceRef]:
    """Return where each row's slice lies, with its diagnosis and whose it is."""
    columns = zip(rows["scan"], rows["index"], rows["diagnosis"], rows["subject"], strict=True)
    return [
        SliceRef(path=SLICES / f"{scan}.npy", index=int(index), label=diagnosis, subject=subject)
        for scan, index, diagnosis, subject in columns
    ]


def training_and_validation(
    split: pd.DataFrame, params: Params, *, fold: int
) -> tuple[list[SliceRef], list[SliceRef]]:
    """Return the slices to train on and those to validate on, when `fold` is held out.

    With no folds, which only a slice-level split may ask for, validation is on the test set, as in 2019.

    Raises
    ------
    LeakageError
        Where a subject is trained on and also held out, unless the split was asked to leak.
    """
    test = split["part"] == "test"
    held_out = test if params.split.folds == 0 else split["part"] == f"fold-{fold}"
    training = split[~test & ~held_out]
    if params.split.unit == "subject":
        both = set(training["subject"]) & set(split.loc[test | held_out, "subject"])
        _refuse(both, "trained on and held out")
    return slice_refs(training), slice_refs(split[held_out])


def all_training(split: pd.DataFrame, params: Params) -> list[SliceRef]:
    """Return the slices of every subject that is not tested, whoever validates.

    Raises
    ------
    LeakageError
        Where one of them is also tested, unless the split was asked to leak.
    """
    test = split["part"] == "test"
    if params.split.unit == "subject":
        _refuse(set(split.loc[~test, "subject"]) & set(split.loc[test, "subject"]), "trained on and held out")
    return slice_refs(split[~test])


def log_data(tracked: RunHandle, facts: Mapping[str, Any], split: pd.DataFrame) -> None:
    """Say on a run which scans it is made from, as DVC knows them, and how many."""
    raw = facts["params"]["cohort"]["raw"]
    counts = {"scans": split["scan"].nunique(), "subjects": split["subject"].nunique()}
    groups = split.groupby("diagnosis")["subject"].nunique()
    counts |= {f"{name} subjects": int(number) for name, number in groups.items()}
    tracked.log_dataset(name=raw, digest=facts["data"], source=raw, counts=counts)


def hashed(subjects: Iterable[str]) -> list[str]:
    """Return one hash a subject, sorted, by which a model can say whom it knows without naming them."""
    return sorted({hashlib.sha256(f"adpet:{subject}".encode()).hexdigest()[:16] for subject in subjects})


def refuse_trained_on(trained_on: Iterable[str], evaluated: Iterable[str]) -> None:
    """Check, on hashed subjects, that the model was not trained on those it is evaluated on.

    Raises
    ------
    LeakageError
        With how many it was trained on.
    """
    _refuse(set(trained_on) & set(evaluated), "to be evaluated, but trained on")


def require_evaluation_of(lineage_id: str) -> None:
    """Check that the results of `evaluate` are those of a training.

    Raises
    ------
    InputError
        Where they are of another one.
    """
    found = read_json(FINDINGS).get("lineage")
    if found != lineage_id:
        raise InputError(
            f"{EVALUATE}: required the evaluation of the training {lineage_id}; received that of {found}; "
            "run: dvc repro evaluate"
        )


def network(params: Params) -> "keras.Model":
    """Build the network that the parameters describe."""
    return build_model(**params.model.model_dump(), seed=params.seed)


def augmentation(params: Params) -> Augmentation:
    """Return the settings of the random changes; every hyperparameter has its value by now."""
    return Augmentation(**params.augment.model_dump())


def optimisation(params: Params, *, epochs: int) -> Optimisation:
    """Return the settings of a fit over `epochs`."""
    settings = params.train.model_dump(exclude={"monitor", "epochs"})
    return Optimisation(**settings, epochs=epochs)


def fit(
    params: Params,
    training: list[SliceRef],
    validation: list[SliceRef],
    *,
    checkpoint: Path,
    label: str,
    log: Callable[[dict[str, float], int], None],
    epochs: int | None = None,
) -> tuple["keras.Model", History]:
    """Train a new network, from `checkpoint` on where a killed training left it; `log` gets row and epoch.

    With `epochs` the training ends after so many, on the schedule of all that ``train.epochs`` asks for.
    """
    model = network(params)
    epochs = epochs or params.train.epochs

    def on_epoch(epoch: int, row: dict[str, float]) -> bool:
        log(row, epoch)
        return epoch + 1 == epochs

    with epochs_shown(epochs, label=label, on_epoch=on_epoch) as shown:
        history = train(
            model,
            training,
            validation,
            optimisation=optimisation(params, epochs=params.train.epochs),
            augmentation=augmentation(params),
            monitor=params.train.monitor,
            seed=params.seed,
            checkpoint=checkpoint,
            on_epoch=shown,
        )
    return model, history


def history_table(history: History) -> pd.DataFrame:
    """Return a history without its seconds, which differ from run to run and go to MLflow alone."""
    return pd.DataFrame([{"epoch": epoch} | row for epoch, row in enumerate(history.rows)]).drop(
        columns="seconds"
    )


def _refuse(subjects: set[str], what: str) -> None:
    if subjects:
        first = ", ".join(sorted(subjects)[:3])
        raise LeakageError(
            f"data/processed/split.csv: required every subject on one side; received {len(subjects)} "
            f"{what}: {first}; run: dvc repro --force split"
        )
