"""What a version was made from, as its run keeps it, and which of that is here."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adpet.dvc_cache import cache_folder, files_in_cache, lacking
from adpet.errors import TrackingError
from adpet.params import flatten
from adpet.paths import RUN
from adpet.storage import code_digest, fingerprint, read_yaml
from adpet.tracking.lineage import TENSORFLOW, UNVERSIONED, data_hash, git, installed
from adpet.tracking.registry import Version
from adpet.tracking.store import LINEAGE, current, one_line, reported

# Where `register` keeps run.json among a run's artifacts.
FOLDER = "lineage"

DIRTY = "-dirty"


class _Cohort(BaseModel):
    model_config = ConfigDict(strict=True)
    raw: str


class _Params(BaseModel):
    model_config = ConfigDict(strict=True)
    cohort: _Cohort


class _Facts(BaseModel):
    """The form of a version's facts: what others wrote must not be an option of git, or name other files."""

    model_config = ConfigDict(strict=True)
    id: str
    data: Annotated[str, Field(pattern=rf"^([0-9a-f]{{32}}(\.dir)?|{UNVERSIONED})$")]
    split: str
    params: _Params
    commit: Annotated[str, Field(pattern=rf"^(([0-9a-f]{{40}}|[0-9a-f]{{64}})({DIRTY})?|{UNVERSIONED})$")]
    code: str
    seed: int
    backend: str
    versions: dict[str, str]


class Check(NamedTuple):
    """One thing that a version follows from, its value, whether it is here, and where or what is instead."""

    name: str
    value: str
    here: bool
    text: str


def facts_of(version: Version) -> dict[str, Any]:
    """Return the facts that a version follows from, as `adpet.tracking.lineage.lineage` made them.

    Raises
    ------
    TrackingError
        Where its run does not keep them, they are not of their form, or not those of its lineage id.
    """
    uri, place = f"models:/{version.name}/{version.number}", f"{FOLDER}/{RUN.name}"
    with tempfile.TemporaryDirectory(prefix="adpet-lineage-") as scratch:
        try:
            with reported():
                file = current().client.download_artifacts(version.run_id, place, scratch)
            facts = _read_facts(Path(file))
            made = fingerprint({key: value for key, value in facts.items() if key != "id"})
        except (OSError, ValueError, TrackingError) as error:
            raise TrackingError(
                f"{uri}: required {place} among the artifacts of run {version.run_id}, as a training writes "
                f"it; received: {one_line(error)}; register it anew with: dvc repro --force register"
            ) from error
    if not made == facts["id"] == version.tags.get(LINEAGE):
        raise TrackingError(
            f"{uri}: required the facts of lineage {version.tags.get(LINEAGE)}; received others in {place} "
            f"of run {version.run_id}; it was changed, so nothing follows from it: register it anew"
        )
    return facts


def checks(facts: Mapping[str, Any]) -> list[Check]:
    """Say of everything that can be missing whether it is here, in the project's root."""
    wanted, there = facts["versions"], installed(facts["versions"])
    others = [f"{name} {there.get(name, 'missing')}" for name in wanted if there.get(name) != wanted[name]]
    commit = facts["commit"].removesuffix(DIRTY)
    has_commit = commit != UNVERSIONED and git("cat-file", "-e", f"{commit}^{{commit}}") is not None
    is_code = code_digest() == facts["code"]
    backend = os.environ.get("KERAS_BACKEND", TENSORFLOW)
    return [
        _data(facts),
        Check("commit", facts["commit"], has_commit, "in this repository" if has_commit else "not here"),
        Check("code", facts["code"], is_code, "as in src/" if is_code else "src/ has other code now"),
        Check("backend", facts["backend"], backend == facts["backend"], f"here {backend}"),
        Check(
            "packages",
            ", ".join(f"{name} {number}" for name, number in wanted.items()),
            not others,
            f"here {', '.join(others)}" if others else "the same here",
        ),
    ]


def changed_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by dotted key, the settings that the commit's params.yaml has not: tuned and changed ones."""
    commit = facts["commit"].removesuffix(DIRTY)
    text = git("show", f"{commit}:params.yaml")
    if text is None:
        return flatten(facts["params"])
    with tempfile.TemporaryDirectory(prefix="adpet-lineage-") as scratch:
        file = Path(scratch) / "params.yaml"
        file.write_text(text, encoding="utf-8")
        there = flatten(read_yaml(file))
    return {key: value for key, value in flatten(facts["params"]).items() if there.get(key) != value}


def _read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a training.

    Raises
    ------
    ValueError
        Where they are not of their form.
    """
    document = json.loads(file.read_text(encoding="utf-8"))
    facts: Any = document.get("lineage") if isinstance(document, dict) else None
    try:
        _Facts.model_validate(facts)
    except ValidationError as failure:
        error = failure.errors(include_url=False)[0]
        place = ".".join(map(str, ("lineage", *error["loc"])))
        received = "" if error["type"] == "missing" else f", and not {error['input']!r}"
        raise ValueError(f"{place}: {error['msg']}{received}") from failure
    return dict(facts)


def _data(facts: Mapping[str, Any]) -> Check:
    raw, wanted = facts["params"]["cohort"]["raw"], facts["data"]
    name = f"{wanted} ({raw})"
    if wanted == UNVERSIONED:
        return Check("data", name, here=False, text="was not under DVC, so nobody knows which it was")
    missing = lacking(files_in_cache(cache_folder(), wanted), raw)
    if not missing:
        return Check("data", name, here=True, text="in the DVC cache")
    if data_hash(raw) == wanted and Path(raw).is_dir():
        return Check("data", name, here=True, text="in the workspace")
    return Check("data", name, here=False, text=missing)
