"""Search the ``tuned`` hyperparameters on validation folds of training subjects."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.splits import read_split
from adpet.imaging.slices import resize_maps
from adpet.learning.data import SliceRef
from adpet.learning.saliency import class_activation_maps
from adpet.learning.search import TrialHandle, TrialRow, search
from adpet.learning.training import RISING, set_determinism
from adpet.params import Params
from adpet.reporting.brain_figures import cam_montage
from adpet.reporting.style import save_figure
from adpet.reporting.training_figures import search_figure
from adpet.stages.common.checks import may_log_images
from adpet.stages.common.fitting import fit, search_space, training_and_validation
from adpet.stages.common.tables import write_table
from adpet.stages.common.tracking import log_data, stage_lineage
from adpet.stages.slice import coronal_grid
from adpet.storage import move, read_json, work_dir, write_json
from adpet.tracking.runs import RunHandle, open_run
from adpet.tracking.store import LEAKY
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import run_name

# Everything that a trial's value follows from; how long the final training is does not matter to it.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    **dict.fromkeys(
        ("seed", "cohort", "normalize", "slice", "split", "model", "augment", "train", "tune"), True
    ),
}

# The study, for Optuna's own tools; its time stamps keep it out of DVC.
STUDY = paths.TUNE / "study.db"


def run(params: Params) -> None:
    """Write ``best.json``, trials and figure; log trials to MLflow."""
    if not params.tuned():
        _write([], {}, params)
        return
    set_determinism(params.seed, params.compute.threads)
    split, split_summary = read_split(paths.SPLIT), read_json(paths.SPLIT_SUMMARY)
    leaky = {LEAKY: str(split_summary["leaky"]).lower()}
    settings = params.model_dump(include=SETTINGS, exclude={"train": {"epochs"}}, mode="json")
    facts = stage_lineage("tune", params, settings, split_hash=split_summary["hash"])
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    with (
        work_dir("tune", facts) as work,
        open_run(
            lineage=facts["id"],
            kind="tune",
            name=run_name("search", facts["id"]),
            tags={**leaky, "adpet.data": facts["data"]},
            params=params.flat(),
        ) as parent,
    ):
        log_data(parent, facts, split)
        trial = _Trial(params, split, parent, facts["id"], leaky)
        result = search(
            search_space(params),
            trial.evaluate,
            trials=params.tune.trials,
            seed=params.seed,
            storage=work / "study.db",
            startup_trials=params.tune.startup_trials,
            pruner=params.tune.pruner,
            direction=_direction(params),
        )
        _write(result.trials, result.best, params)
        parent.log_metrics({f"best.{params.objective()}": result.best_value})
        for path in (paths.BEST_TRIAL, paths.TRIALS, paths.SEARCH_FIGURE):
            parent.log_artifact(path, "search")
        # Last: a search that MLflow fails to take is not searched again.
        move(work / "study.db", STUDY)


def _direction(params: Params) -> Literal["maximize", "minimize"]:
    return "maximize" if params.objective() in RISING else "minimize"


@dataclass(frozen=True)
class _Trial:
    """Trains, validates and logs one set of hyperparameters."""

    params: Params
    split: pd.DataFrame
    parent: RunHandle
    lineage_id: str
    tags: dict[str, str]

    def evaluate(self, trial: TrialHandle) -> float:
        """Return the monitored measure, as a mean over validation folds."""
        params = self.params.with_values(trial.params)
        best = max if params.objective() in RISING else min
        best_of_folds: list[float] = []
        with open_run(
            lineage=f"{self.lineage_id}.{trial.number}",
            kind="trial",
            name=f"trial {trial.number}",
            parent=self.parent.run_id,
            tags=self.tags,
            params=trial.params,
        ) as tracked:
            for fold in range(params.tune.folds):
                best_of_folds.append(best(self._fit(trial, fold, params, tracked)))
                if trial.pruned:
                    break
            value = float(np.mean(best_of_folds))
            tracked.log_metrics({f"best.{params.objective()}": value})
            tracked.set_tags({"adpet.pruned": str(trial.pruned).lower()})
        return value

    def _fit(self, trial: TrialHandle, fold: int, params: Params, tracked: RunHandle) -> list[float]:
        """Train with one fold held out; return the epochs' measures."""
        training, validation = training_and_validation(self.split, params, fold=fold)
        values: list[float] = []

        def on_epoch(row: dict[str, float], epoch: int) -> bool:
            step = fold * params.tune.epochs + epoch
            values.append(row[params.objective()])
            tracked.log_metrics(row, step=step)
            return trial.report(step, values[-1])

        label = f"trial {trial.number + 1}/{params.tune.trials}"
        model, _ = fit(
            params, training, validation, epochs=params.tune.epochs, label=label, on_epoch=on_epoch
        )
        if fold == 0 and may_log_images(params):
            title = f"Trial {trial.number}, a validation scan with AD"
            _log_montage(model, validation, params, tracked, title=title)
        return values


def _log_montage(
    model: Any, validation: list[SliceRef], params: Params, tracked: RunHandle, *, title: str
) -> None:
    """Log the maps of the first validation scan with AD."""
    slices = np.load(next(ref.path for ref in validation if ref.label == "AD"))
    maps, _ = class_activation_maps(model, slices)
    grid = coronal_grid(params)
    figure = cam_montage(
        slices,
        resize_maps(maps, grid.size),
        y_mm=np.array(grid.y_mm),
        title=title,
        hide_below=params.explain.hide_below,
    )
    with tempfile.TemporaryDirectory() as folder:
        montage = Path(folder) / "montage.png"
        save_figure(figure, montage)
        tracked.log_artifact(montage, "cam")


def _write(trials: list[TrialRow], best: dict[str, Any], params: Params) -> None:
    """Write the best values, the trials and the search figure."""
    rows = [
        (trial.number, trial.state, trial.value, *map(trial.params.get, params.tuned())) for trial in trials
    ]
    columns = ["number", "state", "value", *(f"params_{key}" for key in params.tuned())]
    table = pd.DataFrame(rows, columns=columns)
    figure = search_figure(table, direction=_direction(params), value_name=params.objective())
    save_figure(figure, paths.SEARCH_FIGURE)
    write_table(table, paths.TRIALS, float_format=None)
    write_json(paths.BEST_TRIAL, best)
