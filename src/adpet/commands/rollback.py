"""Return to the champion before the present one."""

import argparse
from pathlib import Path

from adpet.params import load_params
from adpet.tracking import promotion
from adpet.tracking.store import connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--reason", default="", help="why; it is written down in the registry")


def main(*, reason: str) -> str:
    """Move the alias ``champion`` back; return what to print."""
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    found = promotion.rollback(model_name=tracking.model_name, reason=reason)
    was = f"version {found.before} was it before" if found.before else "there was none"
    text = f"{tracking.model_name} version {found.after} is the champion again; {was}"
    return f"{text}; {promotion.skipped_text(found.skipped)}" if found.skipped else text
