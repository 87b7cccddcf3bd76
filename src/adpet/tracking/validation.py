"""External validations in MLflow, linked to the version."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from adpet.contracts import EvaluationDocument
from adpet.evaluation.promotion import Validation
from adpet.storage import fingerprint
from adpet.tracking.registry import Version, version_of
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import LEAKY, current, reported
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import NOTE

# Tag of a validation's run that names the version; prefix of a version's tag with its result on a collection.
VALIDATED: Final = "adpet.version"
EXTERNAL: Final = "adpet.external"


def log_validation(
    document: Mapping[str, Any], path: Path, *, experiment: str, uri: str | None = None
) -> None:
    """Log a validation as a run, and tag the version.

    `document` is ``validation.json``, written to `path`. The same result of the same version is one run,
    however often logged.
    Without `uri`, of a model that is not registered yet, the run lies below the training's.
    """
    start_tracking(Path.cwd(), experiment=experiment)
    cohort, lineage = str(document["cohort"]), str(document["lineage"])
    version = version_of(uri) if uri else None
    tags = {"adpet.cohort": cohort, LEAKY: str(version.leaky if version else document["leaky"]).lower()}
    if version:
        address = f"#/models/{version.name}/versions/{version.number}"
        note = f"[{version.name} version {version.number}]({address}) on the collection {cohort}."
        tags |= {VALIDATED: version.uri, NOTE: note}
    with open_run(
        lineage=f"{lineage}.{fingerprint(document)[:8]}",
        kind="validate",
        name=f"validate {cohort}",
        parent=None if version else find_run(lineage, "train"),
        tags=tags,
        params={"model": document["model"], "cohort": cohort},
    ) as tracked:
        evaluation = EvaluationDocument.model_validate(document["evaluation"])
        tracked.log_metrics(evaluation.logged("external"))
        for file in (path, path.with_name("report.html"), path.with_name("subgroups.csv")):
            tracked.log_artifact(file)
    if version:
        with reported(f"{version.uri}: "):
            for key, text in validation_tag(document).items():
                current().client.set_model_version_tag(version.name, str(version.number), key, text)


def validation_tag(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the version's tag for a validation."""
    return {f"{EXTERNAL}.{document['cohort']}": Validation.of(document).model_dump_json()}


def validations_of(version: Version) -> dict[str, Validation]:
    """Return a version's readable validations by collection."""
    found = {}
    for key, text in sorted(version.tags.items()):
        if key.startswith(f"{EXTERNAL}."):
            with suppress(ValidationError):
                found[key.removeprefix(f"{EXTERNAL}.")] = Validation.model_validate_json(text)
    return found
