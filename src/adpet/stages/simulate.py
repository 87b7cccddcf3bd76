"""Simulate the built-in cohort."""

from functools import partial

from adpet.parallel import progress
from adpet.params import Params
from adpet.paths import SIMULATED_RAW, SIMULATED_TRUTH
from adpet.simulation.cohort import SimulationRecipe
from adpet.simulation.layouts import write_cohort
from adpet.storage import move, work_dir


def simulation_recipe(params: Params) -> SimulationRecipe:
    """Return the recipe of the simulated cohort."""
    return SimulationRecipe(**params.simulation.model_dump(exclude={"layout", "messy"}))


def run(params: Params) -> None:
    """Write the simulated cohort's scans, and their truth."""
    settings = params.simulation
    with work_dir("simulate", settings.model_dump()) as work:
        write_cohort(
            work / "raw",
            work / "truth",
            simulation_recipe(params),
            layout=settings.layout,
            messy=settings.messy,
            workers=params.compute.workers,
            progress=partial(progress, label="simulate", unit="scan"),
        )
        move(work / "raw", SIMULATED_RAW)
        move(work / "truth", SIMULATED_TRUTH)
