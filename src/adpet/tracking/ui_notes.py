"""Notes for MLflow's UI: columns of runs, linked descriptions.

Addresses are relative to the UI's own, so that they hold wherever it is served. Nothing here asks MLflow.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

NOTE = "mlflow.note.content"

# A view of the list of runs, under "Views" above it; MLflow keeps it as a tag of the experiment.
VIEW = "adpet"
VIEW_NAME = "At a glance"
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"

# Its columns as MLflow calls them, and their widths in pixels. Trainings have `test_`, searches `best_`.
_COLUMNS = {
    "metrics.`test_auc`": 90,
    "metrics.`test_auc_ci_low`": 120,
    "metrics.`test_auc_ci_high`": 125,
    "metrics.`test_accuracy`": 115,
    "metrics.`test_auc_minus_atlas`": 170,
    "tags.`adpet.leakage`": 110,
    "attributes.`Models`": 120,
    "tags.`adpet.leaky`": 110,
    "metrics.`best_val_subject_log_loss`": 210,
    "attributes.`Dataset`": 300,
}

# How a run's description begins that was written here.
_OURS = "Registered as ["

# By this name DVC's experiments go, which `dvc exp show` lists.
_DVC_NAME = "DVC_EXP_NAME"


def experiment_tags() -> dict[str, str]:
    """Return an experiment's tags: description and columns of runs."""
    columns = list(_COLUMNS)
    state = {"selectedColumns": columns, "columnOrder": columns, "columnWidths": _COLUMNS}
    view = {"name": VIEW_NAME, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        NOTE: (
            f"Test figures of each run: *Views*, *{VIEW_NAME}*. A search has its trials below it, a training "
            "its folds. AD against CN from FDG-PET; research use only, not a medical device."
        ),
        _VIEW_TAG: json.dumps(view),
    }


def run_list(experiment_id: str) -> str:
    """Return the address of the list of runs."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"


def run_name(what: str, lineage: str) -> str:
    """Name a run after DVC's experiment, or else its lineage."""
    return f"{what} {os.environ.get(_DVC_NAME) or lineage[:8]}"


@dataclass(frozen=True)
class Origin:
    """Run and lineage of a version, as linked Markdown."""

    experiment_id: str
    run_id: str
    name: str
    facts: Mapping[str, Any]

    def of_version(self) -> str:
        """Return the lines that a version's description begins with."""
        return f"From run {_link(self.name, self._run)} on {self._data()}. {self._artifacts()}"

    def of_run(self, model: str, versions: Iterable[int], *, before: str = "") -> str:
        """Return a run's description, above what people wrote `before`."""
        registered = ", ".join(
            _link(f"{model} version {number}", f"#/models/{model}/versions/{number}") for number in versions
        )
        first = f"Registered as {registered}; trained on {self._data()}. {self._artifacts()}"
        theirs = before.partition("\n")[2] if before.startswith(_OURS) else before
        return f"{first}\n\n{theirs.lstrip()}".rstrip()

    @property
    def _runs(self) -> str:
        return f"#/experiments/{self.experiment_id}/runs"

    @property
    def _run(self) -> str:
        return f"{self._runs}/{self.run_id}"

    def _data(self) -> str:
        """Name the data, linked to runs on the same."""
        raw, digest = self.facts["params"]["cohort"]["raw"], self.facts["data"]
        same = quote(f"tags.`adpet.data` = '{digest}'", safe="")
        return f"{_link(raw, f'{self._runs}?searchFilter={same}')} (DVC `{digest}`)"

    def _artifacts(self) -> str:
        places = {
            "report": "report/report.html",
            "maps": "explain/groups/groups_referenced.png",
            "lineage": "lineage/run.json",
        }
        links = ", ".join(_link(what, f"{self._run}/artifacts/{place}") for what, place in places.items())
        return f"See {links}."


def _link(text: str, address: str) -> str:
    return f"[{text}]({address})"
