"""Simulate the built-in cohort."""

from functools import partial

from adpet.artifacts import PHANTOM_RAW, PHANTOM_TRUTH, move, resumable
from adpet.cohort.phantom import PhantomRecipe
from adpet.cohort.phantom_tree import write_cohort
from adpet.params import Params
from adpet.workers import progress


def phantom_recipe(params: Params) -> PhantomRecipe:
    """Return what the parameters want the cohort to be drawn from."""
    return PhantomRecipe(seed=params.seed, **params.phantom.model_dump(exclude={"layout", "messy"}))


def run(params: Params) -> None:
    """Write the phantom's scans as a collection, and their truth beside it."""
    phantom = params.phantom
    with resumable("phantom", {"seed": params.seed, "phantom": phantom.model_dump()}) as work:
        write_cohort(
            work / "raw",
            work / "truth",
            phantom_recipe(params),
            layout=phantom.layout,
            messy=phantom.messy,
            workers=params.compute.workers,
            progress=partial(progress, label="phantom", unit="scan"),
        )
        move(work / "raw", PHANTOM_RAW)
        move(work / "truth", PHANTOM_TRUTH)
