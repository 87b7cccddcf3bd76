"""External validations in MLflow, linked to the version."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from adpet.storage import fingerprint
from adpet.tracking.registry import version_of
from adpet.tracking.runs import open_run
from adpet.tracking.store import LEAKY, current, reported
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import NOTE

# Tag of a validation's run that names the version; prefix of a version's tag with its AUC on a collection.
VALIDATED: Final = "adpet.version"
EXTERNAL: Final = "adpet.external"


def log_validation(
    uri: str,
    document: Mapping[str, Any],
    metrics: Mapping[str, float],
    *,
    files: Iterable[Path],
    experiment: str,
) -> None:
    """Log a validation as a run and a tag.

    `document` is ``validation.json``. The same result of the same version is one run, however often logged.
    """
    start_tracking(Path.cwd(), experiment=experiment)
    version, cohort = version_of(uri), str(document["cohort"])
    address = f"#/models/{version.name}/versions/{version.number}"
    note = f"[{version.name} version {version.number}]({address}) on the collection {cohort}."
    with open_run(
        lineage=f"{document['lineage']}.{fingerprint(document)[:8]}",
        kind="validate",
        name=f"validate {cohort}",
        tags={
            VALIDATED: version.uri,
            "adpet.cohort": cohort,
            LEAKY: str(version.leaky).lower(),
            NOTE: note,
        },
        params={"model": version.uri, "cohort": cohort},
    ) as tracked:
        tracked.log_metrics(metrics)
        for path in files:
            tracked.log_artifact(path)
    auc = document["evaluation"]["subject"]["auc"]
    text = f"AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    with reported(f"{version.uri}: "):
        current().client.set_model_version_tag(
            version.name, str(version.number), f"{EXTERNAL}.{cohort}", text
        )
