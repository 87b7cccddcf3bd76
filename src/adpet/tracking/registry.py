"""Versions of the registered model: ``challenger`` is the newest one, ``champion`` the one that people chose.

A model is named as ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.storage import FILES, files_digest
from adpet.tracking.models import DIGEST, SERVED, downloaded, read_model, require_digest, trained_model
from adpet.tracking.store import LEAKY, MODEL_URI, current, reported
from adpet.tracking.ui_notes import NOTE, Origin

AGGREGATION = "adpet.aggregation"
AUDIT = "adpet.audit"
INVALID = "invalid"

# What MLflow's database holds of a version's description.
DESCRIPTION_LIMIT = 5000

MODEL_DESCRIPTION = (
    "Tells AD from CN in an FDG-PET scan. `challenger` is the version that was registered last, `champion` "
    "the one that people chose; `adpet history` tells who chose it, when and why. Research use only, not a "
    "medical device."
)

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_NAME = "adpet"

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


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
    """Make a model of a run a version with the alias ``challenger``, or find the one it is already.

    It is the logged model `model_id`, or else the one that was trained.

    Tags, metrics (as tags named ``metric.NAME``) and description of a version that is there are brought
    up to date. A version once marked ``adpet.leaky`` stays so, and one whose run is marked becomes so. The
    digest of the model's files is taken once: a version whose files have changed since is refused.

    Returns
    -------
    version : int

    Raises
    ------
    TrackingError
        If the run or its model is not there (None, as `find_run` gives it, stands for that too), or the
        version's files have changed.
    """
    client = current().client
    trained = trained_model(run_id)
    with reported():
        model = client.get_logged_model(model_id) if model_id else trained
        marks = {key: str(value) for key, value in (tags or {}).items()}
        marks |= {f"metric.{key}": f"{value:.6g}" for key, value in (metrics or {}).items()}
        marks[DIGEST] = trained.tags.get(DIGEST, "")
        if SERVED in model.tags:
            marks[SERVED] = model.tags[SERVED]
        if client.get_run(run_id).data.tags.get(LEAKY) == "true":
            marks[LEAKY] = "true"
        _ensure_registered(model_name)
        found = _same_model(model_name, str(run_id), marks)
        marks[FILES] = _files(model, model_name, found)
        if found is None:
            created = client.create_model_version(
                model_name,
                f"models:/{model.model_id}",
                run_id,
                tags=marks,
                description=description,
                model_id=model.model_id,
            )
            number = int(created.version)
        else:
            number = int(found.version)
            if found.tags.get(LEAKY) == "true":
                marks[LEAKY] = "true"
            _update(model_name, found, marks, description)
        client.set_registered_model_alias(model_name, CHALLENGER, str(number))
    return number


def origin_of(run_id: str | None, facts: Mapping[str, Any]) -> Origin:
    """Return where the model of a run comes from; `facts` as `adpet.tracking.lineage.lineage` gives them.

    Raises
    ------
    TrackingError
        If the run or its model is not there.
    """
    trained_model(run_id)
    with reported():
        info = current().client.get_run(run_id).info
    return Origin(info.experiment_id, info.run_id, info.run_name, facts)


def describe_run(run_id: str, origin: Origin, *, model_name: str) -> None:
    """Begin the description of a run with the versions that it is; what people wrote there stays."""
    client = current().client
    with reported():
        found = client.search_model_versions(f"name='{model_name}' and run_id='{run_id}'")
        before = client.get_run(run_id).data.tags.get(NOTE, "")
        after = origin.of_run(model_name, sorted(int(one.version) for one in found), before=before)
        if after != before:
            client.set_tag(run_id, NOTE, after)


def load_model(uri: str) -> tuple[Any, dict[str, Any]]:
    """Load a registered Keras model and the metadata that was saved with it.

    Raises
    ------
    TrackingError
        If the model, version or alias, or its files, are not there, or a file is not as it was registered.
    """
    with registered_files(version_of(uri)) as folder:
        return read_model(folder, uri=uri)


@contextmanager
def registered_files(version: Version) -> Iterator[Path]:
    """Yield a copy of a version's files, after a look that they are those that were registered.

    Raises
    ------
    TrackingError
        If they are not there, or one was changed.
    """
    uri = f"models:/{version.name}/{version.number}"
    with reported(f"{uri}: "):
        location = current().client.get_model_version_download_uri(version.name, str(version.number))
    with downloaded(location, uri=uri) as folder:
        require_digest(folder, version.tags.get(FILES), uri=uri)
        yield folder


def is_marked(version: Version, tag: str, mark: str) -> bool:
    """Say whether a version or its run is marked: taking one mark off does not wash it."""
    if version.tags.get(tag) == mark:
        return True
    with reported():
        return bool(current().client.get_run(version.run_id).data.tags.get(tag) == mark)


def named(version: int | str, *, model_name: str) -> Version:
    """Return the version that a number, an alias or a whole ``models:/`` address names."""
    if str(version).startswith("models:"):
        return version_of(str(version))
    separator = "/" if str(version).isdecimal() else "@"
    return version_of(f"models:/{model_name}{separator}{version}")


def version_numbers(name: str) -> list[int]:
    """Return the numbers of all versions of a registered model that were not deleted, the lowest first."""
    with reported():
        found = current().client.search_model_versions(f"name='{name}'")
    return sorted(int(one.version) for one in found)


def version_of(uri: str) -> Version:
    """Return the version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

    Raises
    ------
    TrackingError
        If `uri` is of another form, or there is no such model, alias or version.
    """
    named = MODEL_URI.fullmatch(uri)
    if named is None:
        raise TrackingError(f"required models:/NAME@ALIAS or models:/NAME/VERSION; received {uri!r}")
    name, alias, number = named["name"], named["alias"], named["version"]
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


def _is_missing(error: MlflowException, name: str) -> bool:
    """Say whether a version, rather than the leave to read it, is lacking.

    A server that asks for a password forbids the versions of a model that nobody has registered.
    """
    if error.get_http_status_code() != HTTPStatus.FORBIDDEN:
        return error.error_code in _MISSING
    try:
        current().client.get_registered_model(name)
    except MlflowException as other:
        return other.error_code in _MISSING
    return False


def _not_there(uri: str, name: str, alias: str | None) -> str:
    """Return what is missing of `uri`, and what to do about it."""
    versions = version_numbers(name)
    if not versions:
        return f"{uri}: required a registered model, but '{name}' has no version yet; run: dvc repro"
    there = f"versions {', '.join(map(str, versions))}" if len(versions) > 1 else f"version {versions[0]}"
    if alias == CHAMPION:
        return f"{uri}: required a champion, but there is none ({there}); run: adpet promote VERSION"
    what = f"the alias '{alias}'" if alias else "a version that exists"
    return f"{uri}: required {what}; '{name}' has {there}; name one of them, or run: adpet promote VERSION"


def _ensure_registered(name: str) -> None:
    client = current().client
    try:
        client.create_registered_model(name, description=MODEL_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _same_model(name: str, run_id: str, marks: Mapping[str, str]) -> Any | None:
    """Return the version that this model of this run has already, if it answers in the same way.

    Slices put together in another way, or another exported model, are another version: the answers of a
    champion must not change.
    """
    for one in current().client.search_model_versions(f"name='{name}' and run_id='{run_id}'"):
        if all(one.tags.get(tag) == marks.get(tag) for tag in (DIGEST, AGGREGATION, SERVED)):
            return one
    return None


def _files(model: Any, name: str, found: Any | None) -> str:
    """Return the digest of a model's files; where a version has one, they must be the same still."""
    uri = f"models:/{name}" if found is None else f"models:/{name}/{found.version}"
    with downloaded(model.artifact_location, uri=uri) as folder:
        if found is not None and FILES in found.tags:
            require_digest(folder, found.tags[FILES], uri=uri)
        return files_digest(folder)


def _update(name: str, found: Any, tags: dict[str, str], description: str) -> None:
    client = current().client
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(name, found.version, key, value)
    if description and found.description != description:
        client.update_model_version(name, found.version, description)
