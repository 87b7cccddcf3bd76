"""Whose scans these are, and whether images of single scans may be shown."""

from pathlib import Path

from adpet.artifacts import PHANTOM_RAW
from adpet.params import Params


def may_log_images(params: Params) -> bool:
    """Say whether images of single scans may go to MLflow: the phantom's, or where it was allowed."""
    return params.tracking.log_images or reads_phantom(params)


def reads_phantom(params: Params) -> bool:
    """Say whether the scans are the phantom's, whose truth is known."""
    return Path(params.cohort.raw).resolve().is_relative_to(PHANTOM_RAW.resolve())
