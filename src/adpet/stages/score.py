"""Score people with other diagnoses, who were never trained on.

The exported model answers for each scan as `adpet predict` does.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from adpet import paths
from adpet.cohort.scans import SCORE_ONLY_COLUMNS, read_typed
from adpet.contracts import TrainingRun, read_contract
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.stages.common.checks import hashed, refuse_trained_on
from adpet.stages.common.tables import read_results, write_table
from adpet.storage import atomic_write, write_json

if TYPE_CHECKING:
    from adpet.inference.exported_model import ExportedModel

# Columns of scores.csv, one row a scan; `reason` says why it was refused.
COLUMNS = (
    "scan", "subject", "session", "diagnosis", "group", "baseline", "years", "ad_years", "followed_years",
    "probability", "flagged", "reason",
)  # fmt: skip


def run(params: Params) -> None:
    """Write scores, groups and figures; log the groups to MLflow."""
    if not params.cohort.score_only:
        # dvc.yaml has this stage in any case: it ends here, before a model is loaded for nothing.
        write_table(pd.DataFrame(columns=list(COLUMNS)), paths.SCORES)
        write_json(paths.SCORED_GROUPS, {"groups": {}})
        for path in (paths.GROUPS_FIGURE, paths.CONVERSION_FIGURE):
            _write_blank(path)
        return
    from adpet.evaluation.prognosis import group_summaries
    from adpet.inference.exported_model import open_model
    from adpet.stages.common.tracking import log_to_training

    scans = read_typed(paths.SCORE_ONLY, SCORE_ONLY_COLUMNS)
    trained = read_contract(paths.RUN, TrainingRun)
    refuse_trained_on([*trained.trained_on, *trained.validated_on], hashed(scans["subject"]))
    model = open_model(paths.EXPORT)
    rows = scans.to_dict("records")
    done = map_in_processes(
        partial(_score, model=model), rows, workers=params.compute.workers, cluster=params.compute.cluster
    )
    answers = list(progress(done, label="score", unit="scan", total=len(rows)))
    scores = scans.join(pd.DataFrame(answers))[list(COLUMNS)]
    threshold, years = model.document["threshold"], params.evaluate.conversion_years
    groups = group_summaries(
        scores, threshold=threshold, years=years, resamples=params.evaluate.resamples, seed=params.seed
    )
    document = {"lineage": trained.lineage.id, "threshold": threshold, "conversion_years": years}
    write_table(scores, paths.SCORES)
    write_json(paths.SCORED_GROUPS, {**document, "groups": groups})
    _draw(scores, groups, threshold=threshold, years=years)
    log_to_training(params, {"score": [paths.SCORED_GROUPS, paths.GROUPS_FIGURE, paths.CONVERSION_FIGURE]})


def _score(row: dict[str, Any], *, model: "ExportedModel") -> dict[str, Any]:
    """Return probability and flags of a scan, or the reason."""
    from adpet.inference.predictor import answer_row

    found = answer_row(row, model)
    if isinstance(found, str):
        return {"probability": None, "flagged": "", "reason": found}
    flags = [check["finding"] for check in found.document["checks"] if check["verdict"] == "flagged"]
    return {"probability": found.document["probability_of_ad"], "flagged": "; ".join(flags), "reason": ""}


def _draw(scores: pd.DataFrame, groups: dict[str, Any], *, threshold: float, years: float) -> None:
    """Draw the groups next to AD and CN test subjects."""
    from adpet.evaluation.prognosis import baseline_subjects
    from adpet.reporting.performance_figures import conversion_figure, groups_figure
    from adpet.reporting.style import save_figure

    subjects = pd.concat([read_results(paths.SUBJECTS), baseline_subjects(scores)])
    save_figure(groups_figure(subjects, threshold=threshold), paths.GROUPS_FIGURE)
    if any(group["conversion"]["curves"] for group in groups.values()):
        save_figure(conversion_figure(groups, years=years), paths.CONVERSION_FIGURE)
    else:
        _write_blank(paths.CONVERSION_FIGURE)


def _write_blank(path: Path) -> None:
    """Write an empty picture, since DVC wants every plot."""
    from PIL import Image

    with atomic_write(path) as aside:
        Image.new("L", (1, 1), 255).save(aside, format="PNG")
