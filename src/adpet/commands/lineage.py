"""Print what a version was made from."""

import argparse
from pathlib import Path

from adpet.params import load_params
from adpet.storage import flatten
from adpet.tracking.lineage import Check, changed_settings, checks, facts_of
from adpet.tracking.registry import named
from adpet.tracking.store import connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the version, as `reproduce` does."""
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        help="a version number, an alias or models:/NAME@ALIAS (default: champion)",
    )


def main(*, version: str) -> str:
    """Return a version's lineage, compared with what is here."""
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    found = named(version, model_name=tracking.model_name)
    facts = facts_of(found)
    changed = changed_settings(facts)
    return "\n".join(
        [
            f"{found.name} version {found.number}, lineage {facts['id']}",
            *map(_line, checks(facts)),
            f"{'':<9}{'split':<12}{facts['split']}",
            f"{'':<9}{'seed':<12}{facts['seed']}",
            f"{'':<9}parameters (* other than in the commit's params.yaml)",
            *(
                f"{'':<9}{'*' if key in changed else '':<2}{key}: {value}"
                for key, value in flatten(facts["params"]).items()
            ),
            "",
            "Make it again, and compare the weights, with:",
            f"  adpet reproduce {found.number}",
        ]
    )


def _line(check: Check) -> str:
    return f"{'here' if check.here else 'NOT HERE':<9}{check.name:<12}{check.value}: {check.text}"
