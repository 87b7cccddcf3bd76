"""The evidence of a version: a file among its run's artifacts, bound to the version by its digest.

A run has a version for each way of putting slices together, so a file is named after its content.
"""

import tempfile
from pathlib import Path

from adpet.errors import InputError, TrackingError
from adpet.evaluation.promotion import Evidence, evidence_digest
from adpet.tracking.registry import Version
from adpet.tracking.runs import RunHandle
from adpet.tracking.store import current, one_line, reported

# The tag that carries the digest, on the version.
EVIDENCE = "adpet.evidence"

_FOLDER = "promotion"


class NoEvidenceError(TrackingError):
    """A version carries no evidence, or what it carries is not what it was registered with."""


def log_evidence(run: RunHandle, evidence: Evidence) -> dict[str, str]:
    """Keep evidence with a run; return the tag that its version must carry."""
    text = evidence.to_json()
    digest = evidence_digest(text)
    with tempfile.TemporaryDirectory(prefix="adpet-evidence-") as scratch:
        file = Path(scratch) / _name(digest)
        file.write_text(text, encoding="utf-8")
        run.log_artifact(file, _FOLDER)
    return {EVIDENCE: digest}


def evidence_of(version: Version) -> Evidence:
    """Read a version's evidence.

    Raises
    ------
    NoEvidenceError
        Where the version carries none, or the file is not there, was changed or has another form.
    """
    digest, uri = version.tags.get(EVIDENCE), f"models:/{version.name}/{version.number}"
    if digest is None:
        raise NoEvidenceError(
            f"{uri}: required the results that it was registered with; received none; "
            "register it anew with: dvc repro --force register"
        )
    place = f"{_FOLDER}/{_name(digest)}"
    with tempfile.TemporaryDirectory(prefix="adpet-evidence-") as scratch:
        try:
            with reported():
                file = current().client.download_artifacts(version.run_id, place, scratch)
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, TrackingError) as error:
            raise NoEvidenceError(
                f"{uri}: required {place} among the artifacts of run {version.run_id}; received: "
                f"{one_line(error)}; register it anew with: dvc repro --force register"
            ) from error
    if evidence_digest(text) != digest:
        raise NoEvidenceError(
            f"{uri}: required {place} as it was registered; received another content; nothing can be "
            "decided on it: register it anew with: dvc repro --force register"
        )
    try:
        return Evidence.from_json(text)
    except InputError as error:
        raise NoEvidenceError(f"{uri}: {error}") from error


def _name(digest: str) -> str:
    return f"{digest[:16]}.json"
