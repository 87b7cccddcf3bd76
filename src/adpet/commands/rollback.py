"""Return to the champion before the present one."""

from pathlib import Path

from adpet.params import load_params
from adpet.tracking import promotion
from adpet.tracking.store import connect


def run(*, reason: str) -> str:
    """Move the alias ``champion`` back, and return a sentence that says so.

    Raises
    ------
    TrackingError
        If there was no champion before, its files have changed, or another decision was quicker.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    found = promotion.rollback(model_name=tracking.model_name, reason=reason)
    was = f"version {found.before} was it before" if found.before else "there was none"
    text = f"{tracking.model_name} version {found.after} is the champion again; {was}"
    return f"{text}; {promotion.skipped_text(found.skipped)}" if found.skipped else text
