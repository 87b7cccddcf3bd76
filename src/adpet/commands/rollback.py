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
        Where there was no champion before, or its files are not those that were registered.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    before, after = promotion.rollback(model_name=tracking.model_name, reason=reason)
    was = f"version {before} was it before" if before else "there was none"
    return f"{tracking.model_name} version {after} is the champion again; {was}"
