"""Train a network with one fold of all subjects held out, and predict that fold.

The hyperparameters are those of ``tune``, which has seen the subjects outside of the test set: the pooled
results say so, and `pool` reports the subjects that it has not seen apart.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from adpet.cohort.scans import read_scans, subject_table
from adpet.cohort.splits import cross_validation_folds, fold_parts, read_split
from adpet.learning.training import History, predict, set_determinism
from adpet.params import Params
from adpet.paths import BEST_TRIAL, RUN, SCANS, SPLIT, fold_folder
from adpet.stages.common import fit, hashed, history_table, log_data, refuse_trained_on, slice_refs
from adpet.storage import atomic_write, fingerprint, read_json, work_dir, write_json
from adpet.tracking.lineage import lineage
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import LEAKY
from adpet.tracking.sync import start_tracking

# Everything that a fold's weights follow from.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    "evaluate": {"cross_validation"},
    **dict.fromkeys(("seed", "cohort", "normalize", "slice", "model", "augment", "train"), True),
}


def run(params: Params, *, fold: int) -> None:
    """Write the fold's predictions, of those who validate and who are tested, its history and who trained."""
    params = params.with_values(read_json(BEST_TRIAL))
    set_determinism(params.seed, params.compute.threads)
    slices, folds_hash = dealt(params, fold=fold)
    facts = lineage(
        params=params.model_dump(include=SETTINGS, mode="json"),
        raw=params.cohort.raw,
        split_hash=folds_hash,
        seed=params.seed,
    )
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    with (
        work_dir(f"fold-{fold}", facts) as work,
        open_run(
            lineage=f"{facts['id']}.{fold}",
            kind="fold",
            name=f"fold {fold}",
            parent=find_run(read_json(RUN)["lineage"]["id"], "train"),
            tags={LEAKY: "false"},
            params=params.flat(),
        ) as tracked,
    ):
        log_data(tracked, facts, slices)
        trained, scored = slices[slices["part"] == "train"], slices[slices["part"] != "train"]
        refuse_trained_on(hashed(trained["subject"]), hashed(scored["subject"]))
        model, history = fit(
            params,
            slice_refs(trained),
            slice_refs(scored[scored["part"] == "validation"]),
            checkpoint=work / "checkpoint.npz",
            label=f"fold {fold + 1}/{params.evaluate.cross_validation}",
            log=tracked.log_metrics,
        )
        probability = predict(model, slice_refs(scored), batch_size=params.train.batch_size)
        _write(fold, scored.assign(probability=probability), history, trained_on=hashed(trained["subject"]))
        tracked.log_metrics({f"final.{name}": value for name, value in history.final.items()})


def dealt(params: Params, *, fold: int) -> tuple[pd.DataFrame, str]:
    """Return every slice with its part and session when `fold` is tested, and a hash of all folds."""
    split, scans = read_split(SPLIT), read_scans(SCANS)
    scans = scans[scans["scan"].isin(split["scan"])]
    folds = cross_validation_folds(
        subject_table(scans), folds=params.evaluate.cross_validation, seed=params.seed
    )
    slices = split.drop(columns="part").merge(
        fold_parts(folds, fold=fold), on="subject", how="left", validate="many_to_one"
    )
    slices["session"] = slices["scan"].map(scans.set_index("scan")["session"])
    rows = folds.to_csv(index=False, lineterminator="\n")
    return slices, fingerprint({"folds": rows, "slices": len(slices)})


def _write(fold: int, predictions: pd.DataFrame, history: History, *, trained_on: list[str]) -> None:
    with atomic_write(fold_folder(fold)) as aside:
        aside.mkdir()
        tables = {"predictions": predictions, "history": history_table(history)}
        for name, table in tables.items():
            table.to_csv(aside / f"{name}.csv", index=False, lineterminator="\n", float_format="%.9g")
        facts = {"fold": fold, "used": True, "trained_on": trained_on, "best_epoch": history.best_epoch}
        write_json(aside / "fold.json", facts)
