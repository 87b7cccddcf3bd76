"""Measure the leakage of a slice split, with permuted labels.

It cuts planes of its own, densely as in 2019, from subjects outside of the test set, which stays untouched.
"""

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.scans import read_scans, subject_table
from adpet.cohort.splits import TEST, read_split
from adpet.contracts import LeakageDocument, write_contract
from adpet.evaluation.leakage import leakage_arms, leakage_subjects, leakage_test
from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import to_uint8
from adpet.imaging.slices import CoronalGrid, network_slices
from adpet.learning import limit_threads
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.reporting.performance_figures import leakage_figure
from adpet.reporting.style import save_figure
from adpet.stages.common.tables import read_alignment, write_table
from adpet.storage import atomic_write, read_json, work_dir

# Everything that the four networks follow from, except the code.
SETTINGS: dict[str, Any] = {
    "slice": {"field_mm", "window"},
    **dict.fromkeys(("seed", "cohort", "normalize", "split", "leakage"), True),
}

# Of each network, so that several are trained side by side; what one learns does not depend on how many.
THREADS: Final = 1


def run(params: Params) -> None:
    """Write ``leakage.json``, predictions of four arms and their figure."""
    from adpet.stages.common.tracking import stage_lineage  # here: workers need no MLflow

    split_summary = read_json(paths.SPLIT_SUMMARY)
    subjects, scans = _untested(params, leaky=split_summary["leaky"])
    settings = params.model_dump(include=SETTINGS, mode="json")
    facts = stage_lineage("leakage", params, settings, split_hash=split_summary["hash"])
    with work_dir("leakage", facts) as work:
        grid = _grid(params)
        _cut(scans["scan"], grid, params.slice.window, work)
        planes = pd.DataFrame({"index": range(len(grid.y_mm))})
        slices = scans[["scan", "subject", "diagnosis"]].merge(planes, how="cross")
        fraction = params.leakage.test_fraction
        arms = leakage_arms(slices, subjects, test_fraction=fraction, seed=params.seed)
        result = _result(_predictions(arms, params, work), subjects, grid, params)
        document = {"leakage": {"split": split_summary["hash"], **result}}
        write_contract(paths.LEAKAGE, document, LeakageDocument)


def _untested(params: Params, *, leaky: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the untested subjects and one scan of each.

    A slice split has no subject outside of its test set, and nothing to keep untouched.
    """
    split, alignment, scans = read_split(paths.SPLIT), read_alignment(), read_scans(paths.SCANS)
    tested = set() if leaky else set(split.loc[split["part"] == TEST, "subject"])
    scans = scans[scans["scan"].isin(alignment.loc[alignment["passed"], "scan"])]
    people = subject_table(scans[~scans["subject"].isin(tested)])
    subjects = leakage_subjects(people, most=params.leakage.subjects, seed=params.seed)
    first = scans.sort_values("scan").drop_duplicates("subject")
    return subjects, first[first["subject"].isin(subjects["subject"])]


def _grid(params: Params) -> CoronalGrid:
    return CoronalGrid.spanning(
        range_mm=params.leakage.range_mm,
        step_mm=params.leakage.step_mm,
        size=params.leakage.input_size,
        field_mm=params.slice.field_mm,
    )


def _cut(scans: "pd.Series[str]", grid: CoronalGrid, window: tuple[float, float], work: Path) -> None:
    """Write the planes of scans, unless a killed run has."""
    for scan in progress(scans, label="leakage: planes", unit="scan", total=len(scans)):
        path = work / f"{scan}.npy"
        if path.exists():
            continue
        volume = read_volume(paths.VOLUMES / f"{scan}.nii")
        with atomic_write(path) as aside:
            np.save(aside, to_uint8(network_slices(volume.data, volume.affine, grid), window=window))


def _predictions(arms: dict[str, pd.DataFrame], params: Params, work: Path) -> dict[str, pd.DataFrame]:
    """Return each arm's predictions, kept ones or new ones."""
    missing = [name for name in arms if not _kept(name, work).exists()]
    fit = partial(_fit, arms=arms, params=params, work=work)
    fitted = map_in_processes(fit, missing, workers=params.compute.workers)
    list(progress(fitted, label="leakage", unit="network", total=len(missing)))
    return {name: table.assign(probability=np.load(_kept(name, work))) for name, table in arms.items()}


def _kept(name: str, work: Path) -> Path:
    return work / f"{name}.npy"


def _fit(name: str, *, arms: dict[str, pd.DataFrame], params: Params, work: Path) -> None:
    """Train on the arm's training slices; predict all its slices.

    Nothing holds the network back from memorising: no augmentation, Dropout or weight decay. The last
    epoch is kept, since one chosen on the test slices would be better than chance at chance.
    """
    # Here, since the process that only waits for others needs no Keras.
    from adpet.learning.data import Augmentation, SliceRef
    from adpet.learning.model import reused_model
    from adpet.learning.training import Optimisation, predict, train

    limit_threads(THREADS)
    settings, table = params.leakage, arms[name]
    columns = zip(table["scan"], table["index"], table["diagnosis"], table["subject"], strict=True)
    refs = [SliceRef(work / f"{scan}.npy", int(index), *rest) for scan, index, *rest in columns]
    training = [ref for ref, part in zip(refs, table["part"], strict=True) if part != TEST]
    model = reused_model(
        input_size=settings.input_size,
        alpha=settings.alpha,
        feature_layer=settings.feature_layer,
        dropout=0.0,
        seed=params.seed,
    )
    train(
        model,
        training,
        (),
        optimisation=Optimisation(
            optimizer="adamw",
            learning_rate=settings.learning_rate,
            schedule="cosine",
            epochs=settings.epochs,
            batch_size=settings.batch_size,
        ),
        augmentation=Augmentation(),
        monitor="val_loss",
        seed=params.seed,
        checkpoint=work / f"{name}.npz",
    )
    with atomic_write(_kept(name, work)) as aside:
        np.save(aside, predict(model, refs))


def _result(
    predictions: dict[str, pd.DataFrame], subjects: pd.DataFrame, grid: CoronalGrid, params: Params
) -> dict[str, Any]:
    """Draw and write the arms' results; return the leakage estimates."""
    result = leakage_test(
        predictions,
        dict(zip(subjects["subject"], subjects["diagnosis"], strict=True)),
        seed=params.seed,
        resamples=params.evaluate.resamples,
    )
    save_figure(leakage_figure(result), paths.LEAKAGE_FIGURE)
    whole = pd.concat([table.assign(arm=name) for name, table in predictions.items()])
    write_table(whole, paths.LEAKAGE_PREDICTIONS)
    planes = {"subjects": len(subjects), "planes": len(grid.y_mm), "step_mm": grid.step_mm}
    return {**result, "cohort": planes}
