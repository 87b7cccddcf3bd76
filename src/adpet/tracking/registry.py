"""Versions of the registered model: files, tags, test results.

The alias ``challenger`` is the version registered last, ``champion`` the one that people chose. A model is
named as ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from mlflow.artifacts import load_text
from mlflow.exceptions import MlflowException

from adpet.errors import InputError, TrackingError
from adpet.evaluation.promotion import Evidence, evidence_digest
from adpet.paths import WORK
from adpet.storage import FILES, PARTIAL_PREFIX, files_digest, move
from adpet.tracking.models import DIGEST, SERVED, downloaded, read_model, require_digest, trained_model
from adpet.tracking.runs import RunHandle
from adpet.tracking.store import LEAKY, connect, current, one_line, reported
from adpet.tracking.ui_notes import NOTE, Origin

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
MODEL_NAME: Final = "adpet"

# Tag of a version and its run: the verdict of the leakage test.
LEAKAGE: Final = "adpet.leakage"
AGGREGATION: Final = "adpet.aggregation"
# Versions that agree in these have the same network and answers.
_SAME = (DIGEST, AGGREGATION, SERVED)
# The tag of a version with the digest of its test results, and their folder among the run's artifacts.
EVIDENCE: Final = "adpet.evidence"
EVIDENCE_FOLDER: Final = "promotion"

# Characters that MLflow's database holds of a version's description.
DESCRIPTION_LIMIT: Final = 5000
MODEL_DESCRIPTION: Final = (
    "Tells AD from CN in an FDG-PET scan. `challenger` is the version that was registered last, `champion` "
    "the one that people chose; `adpet history` tells who chose it, when and why. Research use only, not a "
    "medical device."
)

# Fetched versions, each in a folder named by the digest of its files; what an exported model begins with.
MODELS: Final = WORK / "models"
DOCUMENT: Final = "model.json"

_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_AGAIN = "register it again with: dvc repro --force register"


class NoEvidenceError(TrackingError):
    """A version without the test results of its registration."""


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    name: str
    number: int
    run_id: str
    model_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    description: str

    @property
    def uri(self) -> str:
        """The address that always means this version."""
        return f"models:/{self.name}/{self.number}"

    @property
    def leaky(self) -> bool:
        """Whether its split had subjects on two sides."""
        return self.tags.get(LEAKY) == "true"


def register_version(
    *,
    run_id: str | None,
    model_id: str | None = None,
    model_name: str = MODEL_NAME,
    tags: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
) -> int:
    """Register a run's model as ``challenger``, or update its version.

    `model_id` is by default the model that was trained; `metrics` become tags named ``metric.NAME``. A run
    that is None, as `find_run` gives it, is refused like one that does not exist.
    """
    client = current().client
    trained = trained_model(run_id)
    with reported():
        model = client.get_logged_model(model_id) if model_id else trained
        wanted = {key: str(value) for key, value in (tags or {}).items()}
        wanted |= {f"metric.{key}": f"{value:.6g}" for key, value in (metrics or {}).items()}
        wanted[DIGEST] = trained.tags.get(DIGEST, "")
        if SERVED in model.tags:
            wanted[SERVED] = model.tags[SERVED]
        try:
            client.create_registered_model(model_name, description=MODEL_DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name='{model_name}' and run_id='{run_id}'")
        same = [one for one in versions if all(one.tags.get(tag) == wanted.get(tag) for tag in _SAME)]
        found = same[0] if same else None
        known = dict(found.tags) if found else {}
        # This mark is never taken away.
        if "true" in (known.get(LEAKY), client.get_run(run_id).data.tags.get(LEAKY)):
            wanted[LEAKY] = "true"
        uri = f"models:/{model_name}/{found.version}" if found else f"models:/{model_name}"
        with downloaded(model.artifact_location, uri=uri) as folder:
            if FILES in known:
                require_digest(folder, known[FILES], uri=uri)
            wanted[FILES] = files_digest(folder)
        if found is None:
            found = client.create_model_version(
                model_name,
                f"models:/{model.model_id}",
                run_id,
                tags=wanted,
                description=description,
                model_id=model.model_id,
            )
        else:
            for key, value in wanted.items():
                if known.get(key) != value:
                    client.set_model_version_tag(model_name, found.version, key, value)
            if description and found.description != description:
                client.update_model_version(model_name, found.version, description)
        client.set_registered_model_alias(model_name, CHALLENGER, found.version)
    return int(found.version)


def origin_of(run_id: str | None, facts: Mapping[str, Any]) -> Origin:
    """Return a model's run and lineage for descriptions."""
    trained_model(run_id)
    with reported():
        info = current().client.get_run(run_id).info
    return Origin(info.experiment_id, info.run_id, info.run_name, facts)


def describe_run(run_id: str, origin: Origin, *, model_name: str) -> None:
    """Describe a run by its versions, above people's own words."""
    client = current().client
    with reported():
        found = client.search_model_versions(f"name='{model_name}' and run_id='{run_id}'")
        before = client.get_run(run_id).data.tags.get(NOTE, "")
        numbers = sorted(int(version.version) for version in found)
        after = origin.of_run(model_name, numbers, before=before)
        if after != before:
            client.set_tag(run_id, NOTE, after)


def log_evidence(run: RunHandle, evidence: Evidence) -> dict[str, str]:
    """Log test results; return the tag that names them.

    A run has one version for each way of aggregating slices, so the file is named after its content.
    """
    text = evidence.to_json()
    digest = evidence_digest(text)
    with tempfile.TemporaryDirectory(prefix="adpet-evidence-") as scratch:
        file = Path(scratch) / _file_name(digest)
        file.write_text(text, encoding="utf-8")
        run.log_artifact(file, EVIDENCE_FOLDER)
    return {EVIDENCE: digest}


def evidence_of(version: Version) -> Evidence:
    """Read the test results that a version was registered with.

    NoEvidenceError if there are none, or the file was removed, changed or has another form.
    """
    digest = version.tags.get(EVIDENCE)
    if digest is None:
        raise NoEvidenceError(
            f"{version.uri}: required the results that it was registered with; received none; {_AGAIN}"
        )
    place = f"{EVIDENCE_FOLDER}/{_file_name(digest)}"
    required = f"{version.uri}: required {place}, the results that it was registered with"
    try:
        with reported():
            text = load_text(f"runs:/{version.run_id}/{place}")
    except (OSError, TrackingError) as error:
        raise NoEvidenceError(f"{required}; received: {one_line(error)}; {_AGAIN}") from error
    if evidence_digest(text) != digest:
        raise NoEvidenceError(f"{required}; received another content; {_AGAIN}")
    try:
        return Evidence.from_json(text)
    except InputError as error:
        raise NoEvidenceError(f"{version.uri}: {error}") from error


def load_model(uri: str) -> tuple[Any, dict[str, Any]]:
    """Load a registered Keras model and its metadata."""
    with registered_files(version_of(uri)) as folder:
        return read_model(folder, uri=uri)


@contextmanager
def registered_files(version: Version) -> Iterator[Path]:
    """Download a version's files; refuse missing or changed ones."""
    with reported(f"{version.uri}: "):
        location = current().client.get_model_version_download_uri(version.name, str(version.number))
    with downloaded(location, uri=version.uri) as folder:
        require_digest(folder, version.tags.get(FILES), uri=version.uri)
        yield folder


def exported_model(uri: str, *, root: Path, experiment: str) -> tuple[Path, Version]:
    """Return the folder of a registered exported model, downloaded once.

    A copy with a changed file is downloaded again.
    """
    _parsed(uri)
    connect(root, experiment=experiment)
    version = version_of(uri)
    digest = version.tags.get(FILES, "")
    folder = root / MODELS / digest
    if not digest or not folder.is_dir() or files_digest(folder) != digest:
        with registered_files(version) as files:
            (root / MODELS).mkdir(parents=True, exist_ok=True)
            # Written next to its place, then renamed: a reader never sees half a model.
            with tempfile.TemporaryDirectory(dir=root / MODELS, prefix=PARTIAL_PREFIX) as scratch:
                move(Path(shutil.copytree(files, Path(scratch) / digest)), folder)
    found = [document.parent for document in folder.rglob(DOCUMENT)]
    if len(found) != 1:
        raise TrackingError(
            f"{version.uri}: required one exported model among its files; received {len(found) or 'none'}; "
            f"name another version, or {_AGAIN}"
        )
    return found[0], version


def has_tag(version: Version, tag: str, value: str) -> bool:
    """Return True if version or run has a tag."""
    if version.tags.get(tag) == value:
        return True
    with reported():
        return bool(current().client.get_run(version.run_id).data.tags.get(tag) == value)


def named(version: int | str, *, model_name: str) -> Version:
    """Return the version of a number, alias or ``models:/`` address."""
    if str(version).startswith("models:"):
        return version_of(str(version))
    separator = "/" if str(version).isdecimal() else "@"
    return version_of(f"models:/{model_name}{separator}{version}")


def version_numbers(name: str) -> list[int]:
    """Return the numbers of a model's existing versions, in order."""
    with reported():
        found = current().client.search_model_versions(f"name='{name}'")
    return sorted(int(version.version) for version in found)


def version_of(uri: str) -> Version:
    """Return the version that a ``models:/`` address names."""
    name, alias, number = _parsed(uri).group("name", "alias", "version")
    client = current().client
    with reported():
        try:
            if alias is not None:
                number = client.get_model_version_by_alias(name, alias).version
            found = client.get_model_version(name, str(number))
        except MlflowException as error:
            if not _is_missing(error, name):
                raise
            raise TrackingError(_not_there(uri, name, alias)) from error
    return Version(
        name=name,
        number=int(found.version),
        run_id=str(found.run_id),
        model_id=found.source.removeprefix("models:/"),
        aliases=tuple(found.aliases),
        tags=dict(found.tags),
        description=found.description or "",
    )


def _parsed(uri: str) -> re.Match[str]:
    found = _MODEL_URI.fullmatch(uri)
    if found is None:
        raise TrackingError(
            f"required a folder, models:/NAME@ALIAS or models:/NAME/VERSION; received {uri!r}"
        )
    return found


def _is_missing(error: MlflowException, name: str) -> bool:
    """Tell "not found" from "forbidden", as of a model's versions."""
    if error.get_http_status_code() != HTTPStatus.FORBIDDEN:
        return error.error_code in _MISSING
    # A server with users also forbids the versions of a model that does not exist.
    try:
        current().client.get_registered_model(name)
    except MlflowException as other:
        return other.error_code in _MISSING
    return False


def _not_there(uri: str, name: str, alias: str | None) -> str:
    """Say what is missing of `uri`, and what to do."""
    versions = version_numbers(name)
    if not versions:
        return f"{uri}: required a registered model, but '{name}' has no version yet; run: dvc repro"
    there = f"versions {', '.join(map(str, versions))}" if len(versions) > 1 else f"version {versions[0]}"
    if alias == CHAMPION:
        return f"{uri}: required a champion, but there is none ({there}); run: adpet promote VERSION"
    what = f"the alias '{alias}'" if alias else "a version that exists"
    return f"{uri}: required {what}; '{name}' has {there}; name one of them, or run: adpet promote VERSION"


def _file_name(digest: str) -> str:
    return f"{digest[:16]}.json"
