"""Tell what a version was made from, whether that is here, and how to make it again."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adpet.params import flatten, load_params
from adpet.tracking.dvc_cache import cache_folder, dvc_file
from adpet.tracking.lineage import UNVERSIONED
from adpet.tracking.provenance import DIRTY, Check, changed_settings, checks, facts_of
from adpet.tracking.registry import Version, named
from adpet.tracking.store import connect


def run(wanted: str) -> str:
    """Return data, split, parameters, commit, seed and versions, each checked against what is here.

    Raises
    ------
    TrackingError
        Where there is no such version, or its run does not keep what it was made from.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    version = named(wanted, model_name=tracking.model_name)
    facts = facts_of(version)
    return "\n".join(
        [
            f"{version.name} version {version.number}, lineage {facts['id']}",
            *map(_line, checks(facts)),
            f"{'':<9}{'split':<12}{facts['split']}",
            f"{'':<9}{'seed':<12}{facts['seed']}",
            f"{'':<9}parameters",
            *(f"{'':<11}{key}: {value}" for key, value in flatten(facts["params"]).items()),
            "",
            "Make it again, and compare the weights, with:",
            f"  adpet reproduce {version.number}",
            "or by hand:",
            *(f"  {line}" for line in by_hand(version, facts)),
        ]
    )


def by_hand(version: Version, facts: Mapping[str, Any]) -> list[str]:
    """Return the commands that make a version again, in a folder beside the project."""
    folder = f"../{version.name}-{version.number}"
    settings = [
        part for key, value in changed_settings(facts).items() for part in ("-S", f"{key}={_spelled(value)}")
    ]
    commands = [
        ["git", "worktree", "add", "--detach", folder, facts["commit"].removesuffix(DIRTY)],
        ["cd", folder],
    ]
    if facts["data"] != UNVERSIONED:
        commands.append(["dvc", "cache", "dir", "--local", str(cache_folder())])
    data = dvc_file(facts["params"]["cohort"]["raw"])
    if data.exists():
        commands.append(["dvc", "checkout", str(data)])
    commands.append(["dvc", "exp", "run", *settings, "train"])
    return [shlex.join(command) for command in commands]


def _line(check: Check) -> str:
    return f"{'here' if check.here else 'NOT HERE':<9}{check.name:<12}{check.value}: {check.text}"


def _spelled(value: Any) -> str:
    """Return a value as DVC's ``-S`` reads it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return str(value).replace(" ", "")
