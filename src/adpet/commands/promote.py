"""Make a version of the registered model the champion."""

from pathlib import Path

from adpet.params import load_params
from adpet.tracking import registry
from adpet.tracking.store import connect


def run(version: str, *, allow_leaky: bool) -> str:
    """Move the alias ``champion`` to `version` and return a sentence that says so.

    Raises
    ------
    TrackingError
        Where there is no such version, its leakage audit was invalid, or its split leaked subjects and that
        is not allowed.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    old, new = registry.promote(version, model_name=tracking.model_name, allow_leaky=allow_leaky)
    if old == new:
        return f"{tracking.model_name} version {new} is the champion already"
    was = f"version {old} was it before" if old else "there was none before"
    return f"{tracking.model_name} version {new} is the champion now; {was}"
