"""Simulate the built-in cohort."""

from functools import partial

from adpet.artifacts import PHANTOM_RAW, PHANTOM_TRUTH, move, resumable
from adpet.cohort.phantom import PhantomRecipe, write_cohort
from adpet.params import Params
from adpet.workers import progress


def run(params: Params) -> None:
    """Write the phantom's scans as a BIDS-PET tree, and their truth beside it."""
    recipe = PhantomRecipe(seed=params.seed, **params.phantom.model_dump())
    with resumable("phantom", {"seed": params.seed, "phantom": params.phantom.model_dump()}) as work:
        write_cohort(
            work / "raw",
            work / "truth",
            recipe,
            workers=params.compute.workers,
            progress=partial(progress, label="phantom", unit="scan"),
        )
        move(work / "raw", PHANTOM_RAW)
        move(work / "truth", PHANTOM_TRUTH)
