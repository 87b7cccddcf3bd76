"""Tell what a version was made from, whether that is here, and how to make it again."""

import argparse
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adpet.dvc_cache import cache_folder, dvc_file
from adpet.params import flatten, load_params
from adpet.tracking.lineage import TENSORFLOW, UNVERSIONED
from adpet.tracking.provenance import DIRTY, Check, changed_settings, checks, facts_of
from adpet.tracking.registry import Version, named
from adpet.tracking.store import connect

# What `-S` takes as a name; and, of values, what needs no quotes there.
_PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        help="a version number, an alias or models:/NAME@ALIAS (default: champion)",
    )


def main(options: argparse.Namespace) -> None:
    """Print the lineage of a version."""
    print(run(options.version))


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
    changed = changed_settings(facts)
    settings = [
        part
        for key in filter(_PLAIN.fullmatch, changed)
        for part in ("-S", f"{key}={_spelled(changed[key])}")
    ]
    backend = [] if facts["backend"] == TENSORFLOW else ["env", f"KERAS_BACKEND={facts['backend']}"]
    commands = [
        ["git", "worktree", "add", "--detach", folder, facts["commit"].removesuffix(DIRTY)],
        ["cd", folder],
    ]
    if facts["data"] != UNVERSIONED:
        commands.append(["dvc", "cache", "dir", "--local", str(cache_folder())])
    data = dvc_file(facts["params"]["cohort"]["raw"])
    if data.exists():
        commands.append(["dvc", "checkout", str(data)])
    by_editor = [
        f"# write into params.yaml: {key}: {_spelled(value)}"
        for key, value in changed.items()
        if not _PLAIN.fullmatch(key)
    ]
    last = [*backend, "dvc", "exp", "run", *settings, "train"]
    return [*map(shlex.join, commands), *by_editor, shlex.join(last)]


def _line(check: Check) -> str:
    return f"{'here' if check.here else 'NOT HERE':<9}{check.name:<12}{check.value}: {check.text}"


def _spelled(value: Any) -> str:
    """Return a value as DVC's ``-S`` and YAML read it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
