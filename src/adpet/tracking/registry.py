"""Versions of the registered model: ``challenger`` is the newest one, ``champion`` the one that people chose.

A model is named as ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.tracking.models import DIGEST, ready_models
from adpet.tracking.runs import LEAKY
from adpet.tracking.store import current, one_line, reported

AGGREGATION = "adpet.aggregation"
AUDIT = "adpet.audit"
INVALID = "invalid"

# What MLflow's database holds of a version's description.
DESCRIPTION_LIMIT = 5000

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_NAME = "adpet"

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


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
    model_name: str = MODEL_NAME,
    tags: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
) -> int:
    """Make the model of a run a version with the alias ``challenger``, or find the one it is already.

    Tags, metrics (as tags named ``metric.NAME``) and description of a version that is there are brought
    up to date. A version once marked ``adpet.leaky`` stays so, and one whose run is marked becomes so.

    Returns
    -------
    version : int

    Raises
    ------
    TrackingError
        If the run or its model is not there; None, as `find_run` gives it, stands for that too.
    """
    client = current().client
    model = _model_of(run_id)
    with reported():
        marks = {key: str(value) for key, value in (tags or {}).items()}
        marks |= {f"metric.{key}": f"{value:.6g}" for key, value in (metrics or {}).items()}
        marks[DIGEST] = model.tags.get(DIGEST, "")
        if client.get_run(run_id).data.tags.get(LEAKY) == "true":
            marks[LEAKY] = "true"
        _ensure_registered(model_name)
        found = _same_model(model_name, str(run_id), marks)
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


def promote(
    version: int | str = CHALLENGER, *, model_name: str = MODEL_NAME, allow_leaky: bool = False
) -> tuple[int | None, int]:
    """Give the alias ``champion`` to a version, named by its number or an alias.

    Returns
    -------
    old, new : int or None, int
        The champion before, if there was one, and the one now.

    Raises
    ------
    TrackingError
        If there is no such version, its leakage audit was invalid, or its split leaked subjects and
        `allow_leaky` is false.
    """
    separator = "/" if str(version).isdecimal() else "@"
    new = version_of(f"models:/{model_name}{separator}{version}")
    if _is_marked(new, AUDIT, INVALID):
        raise TrackingError(
            f"models:/{model_name}/{new.number}: required a valid leakage audit, but with shuffled labels "
            "new subjects were above chance, so its figures prove nothing; see results/audit/, mend the data "
            "or the split, and run: dvc repro"
        )
    if not allow_leaky and _is_marked(new, LEAKY, "true"):
        raise TrackingError(
            f"models:/{model_name}/{new.number}: required a model whose test subjects were new to it, but "
            "its split leaked subjects, so its figures prove nothing; --allow-leaky promotes it all the same"
        )
    old = _champion(model_name)
    with reported():
        current().client.set_registered_model_alias(model_name, CHAMPION, str(new.number))
    return old, new.number


def load_model(uri: str = f"models:/{MODEL_NAME}@{CHAMPION}") -> tuple[Any, dict[str, Any]]:
    """Load a registered Keras model and the metadata that was saved with it.

    Raises
    ------
    TrackingError
        If the model, version or alias, or its files, are not there.
    """
    import mlflow.artifacts
    import mlflow.keras
    from mlflow.models import Model

    version = version_of(uri)
    store = current()
    with reported(f"{uri}: "):
        location = store.client.get_model_version_download_uri(version.name, str(version.number))
    try:
        with reported(), tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
            folder = mlflow.artifacts.download_artifacts(location, dst_path=scratch, tracking_uri=store.uri)
            return mlflow.keras.load_model(folder), dict(Model.load(folder).metadata or {})
    except (OSError, TrackingError) as error:
        raise TrackingError(
            f"{uri}: required the files of version {version.number} in {location}; "
            f"received: {one_line(error)}; where the project was moved, register it anew with: "
            "dvc repro --force train register"
        ) from error


def version_of(uri: str) -> Version:
    """Return the version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

    Raises
    ------
    TrackingError
        If `uri` is of another form, or there is no such model, alias or version.
    """
    named = _URI.fullmatch(uri)
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
            if error.error_code not in _MISSING:
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


def _not_there(uri: str, name: str, alias: str | None) -> str:
    """Return what is missing of `uri`, and what to do about it."""
    versions = sorted(int(one.version) for one in current().client.search_model_versions(f"name='{name}'"))
    if not versions:
        return f"{uri}: required a registered model, but '{name}' has no version yet; run: dvc repro"
    there = f"versions {', '.join(map(str, versions))}" if len(versions) > 1 else f"version {versions[0]}"
    if alias == CHAMPION:
        return f"{uri}: required a champion, but no version was promoted yet ({there}); run: adpet promote"
    what = f"the alias '{alias}'" if alias else "a version that exists"
    return f"{uri}: required {what}; '{name}' has {there}; name one of them, or run: adpet promote"


def _model_of(run_id: str | None) -> Any:
    """Return the model that a run logged last."""
    found = []
    if run_id is not None:
        with reported(f"run {run_id}: "):
            found = ready_models(run_id)
    if not found:
        raise TrackingError(
            f"{current().uri}: required a finished training run with its model, but run "
            f"{run_id or 'of this lineage'} has none there; log it again with: dvc repro --force train"
        )
    return found[0]


def _ensure_registered(name: str) -> None:
    client = current().client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _same_model(name: str, run_id: str, marks: Mapping[str, str]) -> Any | None:
    """Return the version that this model of this run has already, if it answers in the same way.

    Slices put together in another way are another version: the answers of a champion must not change.
    """
    for one in current().client.search_model_versions(f"name='{name}' and run_id='{run_id}'"):
        if all(one.tags.get(tag) == marks.get(tag) for tag in (DIGEST, AGGREGATION)):
            return one
    return None


def _update(name: str, found: Any, tags: dict[str, str], description: str) -> None:
    client = current().client
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(name, found.version, key, value)
    if description and found.description != description:
        client.update_model_version(name, found.version, description)


def _is_marked(version: Version, tag: str, mark: str) -> bool:
    """Say whether a version or its run is marked: taking one mark off does not wash it."""
    if version.tags.get(tag) == mark:
        return True
    with reported():
        return bool(current().client.get_run(version.run_id).data.tags.get(tag) == mark)


def _champion(name: str) -> int | None:
    try:
        return version_of(f"models:/{name}@{CHAMPION}").number
    except TrackingError:
        return None
