"""Compare the simulated cohort with published figures and real scans."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from adpet.errors import AdpetError
from adpet.imaging.nifti import Array, read_volume
from adpet.imaging.normalization import Standard, load_standard, normalize
from adpet.parallel import map_in_processes, progress
from adpet.params import Params, load_params
from adpet.simulation import validation
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import Row, SimulationRecipe, cohort_rows, draw_cohort
from adpet.stages.simulate import simulation_recipe

# With fewer, an AUC of 0.95 is known to 0.04 only.
FEWEST_IN_GROUP = 100
GRID_MM = 3.0
VERDICTS = {True: "pass", False: "FAIL", None: "not measured"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adpet simulate --check``."""
    group = parser.add_argument_group("checking")
    group.add_argument(
        "--check",
        action="store_true",
        help="simulate the cohort twice more, compare them with published figures, and write nothing",
    )
    group.add_argument(
        "--real",
        type=Path,
        metavar="FILE",
        help="with --check: a mean FDG-PET image of patients and controls, in MNI space, to be compared with",
    )


def main(options: argparse.Namespace) -> None:
    """Print the targets; fail if the simulated cohort misses any."""
    table, missed = run(real=options.real)
    print(table)
    if missed:
        raise AdpetError(
            f"{missed} of the targets above are missed; change the simulated cohort's settings or its model"
        )


def run(*, real: Path | None) -> tuple[str, int]:
    """Simulate two cohorts; return the table of targets and misses.

    One follows `params.yaml`, one is healthy; `real` is a mean of FDG-PET images, half of them of patients.
    """
    params = load_params()
    # Read first: a wrong path should not wait for the cohorts.
    image = None if real is None else normalize(read_volume(real), _standard())[0].data
    recipe = simulation_recipe(params)
    # One visit each and enough subjects with AD and CN, no others.
    sizes = {name: max(getattr(recipe, name), FEWEST_IN_GROUP) for name in ("ad_subjects", "cn_subjects")}
    recipe = replace(recipe, **sizes, followup_fraction=0.0, mci_subjects=0, other_subjects={})
    cohort, measures = _measured(recipe, params, label="cohort")
    healthy = replace(recipe, ad_severity_mean=0.0, ad_severity_sd=0.0, preclinical_fraction=0.0)
    targets = [
        _likeness(measures, image),
        *validation.regional_targets(cohort, measures),
        validation.separability_target(cohort, measures),
        *validation.nuisance_targets(cohort, measures),
        validation.null_target(*_measured(healthy, params, label="healthy cohort")),
    ]
    return _table(targets, subjects=len(cohort)), sum(target.met is False for target in targets)


def _measured(
    recipe: SimulationRecipe, params: Params, *, label: str
) -> tuple[pd.DataFrame, list[validation.ScanMeasures]]:
    cohort = draw_cohort(recipe)
    measure = partial(_measure, recipe=recipe)
    done = map_in_processes(measure, cohort_rows(cohort), workers=params.compute.workers)
    return cohort, list(progress(done, label=label, unit="scan", total=len(cohort)))


def _measure(row: Row, *, recipe: SimulationRecipe) -> validation.ScanMeasures:
    return validation.measure_scan(row, recipe, anatomy=load_anatomy(), standard=_standard())


def _standard() -> Standard:
    return load_standard(grid_mm=GRID_MM, reference="global", align="affine")


def _likeness(measures: Sequence[validation.ScanMeasures], real: Array | None) -> validation.Target:
    if real is None:
        name = validation.likeness_target(1.0, 0.0).name
        return validation.Target(name, f">= {validation.LIKENESS:.2f}", "give one by --real FILE.nii", None)
    mean = np.asarray(np.mean([measure.volume for measure in measures], axis=0, dtype=np.float32))
    return validation.likeness_target(*validation.likeness(mean, real, _standard().brain, grid_mm=GRID_MM))


def _table(targets: Sequence[validation.Target], *, subjects: int) -> str:
    head = ("", "measured", "required", "basis", f"target, on {subjects} subjects")
    rows = [head, *((VERDICTS[one.met], one.measured, one.required, one.basis, one.name) for one in targets)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[4]]) for row in rows]
    met = [one.basis for one in targets if one.met is True]
    held_out = sum(one.basis == "held out" for one in targets)
    counts = f"{len(met)} of {len(targets)} targets met; of the {held_out} held out {met.count('held out')}"
    legend = (
        "fitted: the simulator was set by it; design: groups are matched; held out: nothing was set by it"
    )
    return "\n".join([*lines, "", counts, legend])
