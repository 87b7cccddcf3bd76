"""Search the ``tuned`` hyperparameters on validation folds of training subjects."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from adpet import paths
from adpet.cohort.splits import read_split
from adpet.imaging.slices import own_planes, resize_maps
from adpet.learning import RISING, limit_threads
from adpet.learning.search import SearchResult, TrialRow, logarithmic, parameter_importance, search
from adpet.parallel import map_in_processes
from adpet.params import Params
from adpet.reporting.brain_figures import cam_montage
from adpet.reporting.style import save_figure
from adpet.reporting.training_figures import importance_figure, search_figure
from adpet.stages.common.checks import may_log_images, search_space
from adpet.stages.common.tables import write_table
from adpet.stages.common.tracking import log_data, stage_lineage
from adpet.stages.slice import coronal_grid
from adpet.storage import read_json, work_dir, write_json
from adpet.tracking.runs import RunHandle, open_run
from adpet.tracking.store import LEAKY
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import run_name

if TYPE_CHECKING:
    from adpet.learning.data import SliceRef

# Everything that a trial's value follows from: not how long the folds' networks are trained.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    **dict.fromkeys(
        ("seed", "cohort", "normalize", "slice", "split", "model", "augment", "train", "tune"), True
    ),
}


def run(params: Params) -> None:
    """Write ``best.json``, trials and figure; log trials to MLflow."""
    if not params.tuned():
        _write([], {}, params)
        return
    limit_threads(params.compute.threads)
    split, split_summary = read_split(paths.SPLIT), read_json(paths.SPLIT_SUMMARY)
    leaky = {LEAKY: str(split_summary["leaky"]).lower()}
    # A study goes on with more trials; on a shared one each machine has workers of its own.
    free = {"trials", "storage", *(["workers"] if params.tune.storage else [])}
    settings = params.model_dump(include=SETTINGS, exclude={"train": {"epochs"}, "tune": free}, mode="json")
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
        tqdm(total=params.tune.trials, desc="trials", unit="trial", disable=None, dynamic_ncols=True) as bar,
    ):
        log_data(parent, facts, split)

        def log(trial: FrozenTrial) -> None:
            _log_trial(trial, params.objective(), parent, facts["id"], leaky)
            bar.update()

        result = _search(params, split, work, on_trial=log)
        _write(result.trials, result.best, params)
        parent.log_metrics({f"best_{params.objective()}": result.best_value, "trials": len(result.trials)})
        importance = parameter_importance(result.trials, search_space(params), seed=params.seed)
        if importance:
            save_figure(importance_figure(importance), work / "importance.png")
            parent.log_artifact(work / "importance.png", "search")
        for path in (paths.BEST_TRIAL, paths.TRIALS, paths.SEARCH_FIGURE):
            parent.log_artifact(path, "search")


def _search(
    params: Params, split: pd.DataFrame, work: Path, *, on_trial: Callable[[FrozenTrial], None]
) -> SearchResult:
    """Run trials until the study has enough of them.

    The study has the name of `work`, the folder of unfinished work under the hash of all that trials follow
    from. Several machines may call this at once if `tune.storage` names a database.
    """
    if params.model.weights == "imagenet":  # fetched once, before the workers all do it
        from adpet.learning.model import build_model
        from adpet.stages.common.fitting import network_settings

        build_model(**network_settings(params))
    return search(
        search_space(params),
        partial(_evaluate, params=params, split=split, work=work),
        first={key: first for key, (_, first) in params.searched().items()},
        trials=params.tune.trials,
        seed=params.seed,
        storage=params.tune.storage or paths.STUDIES,
        name=f"adpet-{work.name}",
        workers=params.tune.workers,
        startup_trials=params.tune.startup_trials,
        pruner=params.tune.pruner,
        direction=_direction(params),
        on_trial=on_trial,
        side_by_side=partial(map_in_processes, workers=params.tune.workers),
    )


def _direction(params: Params) -> Literal["maximize", "minimize"]:
    return "maximize" if params.objective() in RISING else "minimize"


def _evaluate(trial: optuna.Trial, *, params: Params, split: pd.DataFrame, work: Path) -> float:
    """Return the monitored measure, as a mean over validation folds.

    Steps are epochs: a report after each one of the first fold, then the mean over folds after each fold.
    """
    # Here, since the process that only waits for others needs no Keras.
    from adpet.stages.common.fitting import fit, training_and_validation

    limit_threads(params.compute.threads)
    params = params.with_values(trial.params, source=f"trial {trial.number}")
    epochs, folds = params.tune.epochs, params.tune.folds
    best = max if params.objective() in RISING else min
    history: list[tuple[int, dict[str, float]]] = []

    def is_pruned(step: int, value: float) -> bool:
        trial.report(value, step)
        return step < epochs * folds and trial.should_prune()

    def fit_fold(fold: int) -> tuple[float, bool]:
        stopped = False

        def on_epoch(epoch: int, row: dict[str, float]) -> bool:
            nonlocal stopped
            history.append((fold * epochs + epoch, row))
            stopped = stopped or (fold == 0 and is_pruned(epoch + 1, row[params.objective()]))
            return stopped

        slices = training_and_validation(split, params, fold=fold)
        place = work / f"trial-{trial.number}" / f"fold-{fold}.npz"
        model, fitted = fit(params, *slices, epochs=epochs, checkpoint=place, on_epoch=on_epoch, finish=False)
        if fold == 0 and may_log_images(params):
            place = place.with_name("montage.png")
            title = f"Trial {trial.number}, a validation scan with AD"
            _draw_montage(model, slices[1], params, place, title=title)
            trial.set_user_attr("montage", str(place))
        return best(row[params.objective()] for row in fitted.rows), stopped

    values: list[float] = []
    try:
        for fold in range(folds):
            value, stopped = fit_fold(fold)
            values.append(value)
            if stopped or (fold and is_pruned((fold + 1) * epochs, float(np.mean(values)))):
                raise optuna.TrialPruned
    finally:
        trial.set_user_attr("history", history)
    return float(np.mean(values))


def _log_trial(
    trial: FrozenTrial, objective: str, parent: RunHandle, lineage_id: str, tags: dict[str, str]
) -> None:
    """Log an ended trial as a run below its search."""
    with open_run(
        lineage=f"{lineage_id}.{trial.number}",
        kind="trial",
        name=f"trial {trial.number}",
        parent=parent.run_id,
        tags={**tags, "adpet.pruned": str(trial.state == TrialState.PRUNED).lower()},
        params=trial.params,
    ) as tracked:
        for step, row in trial.user_attrs.get("history", []):
            tracked.log_metrics(row, step=step)
        tracked.log_metrics({f"best_{objective}": trial.value})
        montage = trial.user_attrs.get("montage")
        if montage and Path(montage).exists():  # another machine's is not here
            tracked.log_artifact(Path(montage), "cam")


def _draw_montage(
    model: Any, validation: "list[SliceRef]", params: Params, path: Path, *, title: str
) -> None:
    """Draw the maps of the first validation scan with AD."""
    from adpet.learning.saliency import class_activation_maps

    slices = np.load(next(ref.path for ref in validation if ref.label == "AD"))
    maps, _ = class_activation_maps(model, slices)
    grid = coronal_grid(params)
    figure = cam_montage(
        own_planes(slices),
        resize_maps(maps, grid.size),
        y_mm=np.array(grid.y_mm),
        title=title,
        hide_below=params.explain.hide_below,
    )
    save_figure(figure, path)


def _write(trials: list[TrialRow], best: dict[str, Any], params: Params) -> None:
    """Write the best values, the trials and the search figure."""
    rows = [
        (trial.number, trial.state, trial.value, *map(trial.params.get, params.tuned())) for trial in trials
    ]
    columns = ["number", "state", "value", *(f"params_{key}" for key in params.tuned())]
    table = pd.DataFrame(rows, columns=columns)
    figure = search_figure(
        table,
        direction=_direction(params),
        value_name=params.objective(),
        logarithmic=logarithmic(search_space(params)),
    )
    save_figure(figure, paths.SEARCH_FIGURE)
    write_table(table, paths.TRIALS, float_format=None)
    write_json(paths.BEST_TRIAL, best)
