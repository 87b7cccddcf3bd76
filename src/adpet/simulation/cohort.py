"""Simulated cohort: its subjects and visits, and their scans.

Every person and every scan has a random stream of its own, spawned from the seed and the subject's number:
the bytes of a scan depend neither on the other subjects nor on the number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from adpet.imaging.nifti import Array, Volume
from adpet.simulation.anatomy import Anatomy
from adpet.simulation.scanner import (
    SCANNER_SHARES,
    SCANNERS,
    SITES,
    Scanner,
    blur,
    count,
    draw_pose,
    sample,
    sample_points,
    site_shares,
)
from adpet.simulation.subject import draw_person, person_uptake

Row = Mapping[str, Any]

# Severity in the preclinical stage, and its growth a year.
PRECLINICAL_SEVERITY = (0.1, 0.5)
SEVERITY_YEAR = {"AD": 0.15, "CN": 0.05}
AGE_LIMITS = (50.0, 95.0)
# Partners of a pair, one with the disease and one without, differ by this much in age.
PAIR_AGE_SD = 1.0
FOLLOWUP_YEARS = (1.0, 3.0)
# Multiples of these irrational numbers spread evenly over 0 to 1, however many are taken: site, sex and
# follow-up are balanced in a cohort of any size, and a pair's do not depend on how many pairs there are.
SITE_STEP, SEX_STEP, FOLLOWUP_STEP = (np.sqrt(5) - 1) / 2, np.sqrt(2), np.sqrt(3)
# Relative deficits below this are rounding, and stored as 0.
SMALLEST_DEFICIT = 0.004
# Voxels with less blurred uptake than this (CSF), pons = 1, show no deficit.
LEAST_UPTAKE = 0.4
# First visits lie in this many days from this day on.
FIRST_DAY, FIRST_DAYS, DAYS_A_YEAR = date(2006, 1, 9), 2000, 365.25
INJECTED_MBQ_SD = (185.0, 15.0)


@dataclass(frozen=True)
class SimulationRecipe:
    """Parameters of a cohort; equal ones give the same bytes."""

    ad_subjects: int = 90
    cn_subjects: int = 90
    # Share of subjects who come again; these have from 2 to `max_visits` visits, evenly.
    followup_fraction: float = 0.2
    max_visits: int = 2
    # Share of each of `SCANNERS` in both groups, on any scale; sites follow from it.
    scanners: Mapping[str, float] = field(default_factory=lambda: dict(SCANNER_SHARES))
    seed: int = 0
    # Of a gamma distribution; 1 is a typical patient, a mean of 0 gives healthy ones.
    ad_severity_mean: float = 1.0
    ad_severity_sd: float = 0.55
    # Share of CN with a severity of `PRECLINICAL_SEVERITY`; the others have 0.
    preclinical_fraction: float = 0.2
    # Years, at the first visit, in both groups.
    age_mean: float = 75.0
    age_sd: float = 7.0
    # Factors on the usual spread of head pose and on the usual noise.
    pose: float = 1.0
    noise: float = 1.0


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """Simulated scan.

    `volume` has whole Bq/mL on the scanner's grid, (i, j, k), or (i, j, k, frames). `deficit`, on the same
    grid, is the relative loss of blurred uptake, without noise. `points`, (3, i, j, k), are the origins of
    the voxels: indices on the anatomy's grid.
    """

    volume: Volume
    deficit: Volume | None
    injected_mbq: float
    points: Array


def draw_cohort(recipe: SimulationRecipe) -> pd.DataFrame:
    """Draw a cohort, one row a scan.

    Subjects come in pairs, AD and CN in random order, of the same sex, site and number of visits, and of
    nearly the same age. In groups of different size, the numbers of missing partners are left out.
    """
    numbers = range(2 * max(recipe.ad_subjects, recipe.cn_subjects))
    return pd.DataFrame([row for number in numbers for row in _visits(recipe, number)])


def cohort_rows(cohort: pd.DataFrame) -> list[Row]:
    """Return the rows as mappings of plain values."""
    return [{str(column): value for column, value in row.items()} for row in cohort.to_dict("records")]


def simulate_scan(
    row: Row, recipe: SimulationRecipe, anatomy: Anatomy, *, scanner: Scanner | None = None
) -> SimulatedScan:
    """Simulate the scan of one row of `draw_cohort`.

    With ``recipe.pose`` 0, the origin of the scanner's grid is `HEAD_CENTRE` in MNI mm.
    """
    frames = 1 if scanner else SITES[row["site"]].frames
    scanner = scanner or SCANNERS[row["scanner"]]
    person = draw_person(np.random.default_rng(row["person_seed"]), anatomy)
    rng = np.random.default_rng(row["scan_seed"])
    pose = draw_pose(rng, person, scale=recipe.pose)
    uptake = person_uptake(person, anatomy, age=row["age"], severity=row["severity"])
    seen, deficit = _blurred(uptake, scanner, anatomy)
    affine = scanner.affine
    points = sample_points(anatomy, person, pose, affine=affine, shape=scanner.matrix)
    if deficit is not None:
        deficit = sample(deficit, points)
        deficit = np.where(deficit < SMALLEST_DEFICIT, np.float32(0), deficit)
    data = count(rng, sample(seen, points), scanner, noise=recipe.noise, frames=frames)
    return SimulatedScan(
        volume=Volume(data, affine),
        deficit=None if deficit is None else Volume(deficit, affine),
        injected_mbq=round(float(rng.normal(*INJECTED_MBQ_SD)), 1),
        points=points,
    )


def _visits(recipe: SimulationRecipe, number: int) -> list[dict[str, Any]]:
    """Draw one subject's rows, none beyond its group's size."""
    pair = _pair(recipe, number // 2)
    diagnosis = "AD" if (number % 2 == 0) == pair["first_is_ad"] else "CN"
    if number // 2 >= {"AD": recipe.ad_subjects, "CN": recipe.cn_subjects}[diagnosis]:
        return []
    own = _stream(recipe.seed, 1, number)
    severity = _severity(own, recipe, diagnosis)
    age = float(np.clip(pair["age"] + own.normal(0, PAIR_AGE_SD), *AGE_LIMITS))
    interval = float(own.uniform(*FOLLOWUP_YEARS))
    person_seed = int(own.integers(2**62))
    first = FIRST_DAY + timedelta(days=int(_stream(recipe.seed, 3, number).integers(FIRST_DAYS)))
    return [
        {
            "subject": f"P{number + 1:04d}",
            "pair": number // 2,
            "session": f"{visit + 1:02d}",
            "diagnosis": diagnosis,
            "age": round(age + years, 1),
            "sex": pair["sex"],
            "site": pair["site"],
            "scanner": SITES[pair["site"]].scanner,
            "years": years,
            "date": (first + timedelta(days=round(years * DAYS_A_YEAR))).isoformat(),
            "severity": round(severity + (years * SEVERITY_YEAR[diagnosis] if severity else 0), 4),
            "person_seed": person_seed,
            "scan_seed": int(own.integers(2**62)),
        }
        for visit, years in enumerate(interval * visit for visit in range(pair["visits"]))
    ]


def _pair(recipe: SimulationRecipe, pair: int) -> dict[str, Any]:
    shared = _stream(recipe.seed, 0, pair)
    offsets = _stream(recipe.seed, 2).random(3)
    spread = (offsets + (pair + 1) * np.array([SITE_STEP, SEX_STEP, FOLLOWUP_STEP])) % 1
    shares = site_shares(recipe.scanners)
    ends = np.cumsum(list(shares.values()))
    return {
        "first_is_ad": bool(shared.integers(2)),
        "age": shared.normal(recipe.age_mean, recipe.age_sd),
        # From the right: a site without a share is never met.
        "site": list(shares)[int(np.searchsorted(ends / ends[-1], spread[0], side="right"))],
        "sex": "FM"[int(2 * spread[1])],
        "visits": _visit_count(recipe, spread[2]),
    }


def _visit_count(recipe: SimulationRecipe, spread: float) -> int:
    if spread >= recipe.followup_fraction:
        return 1
    further = int(spread / recipe.followup_fraction * (recipe.max_visits - 1))
    return min(2 + further, recipe.max_visits)


def _severity(rng: np.random.Generator, recipe: SimulationRecipe, diagnosis: str) -> float:
    mean, sd = recipe.ad_severity_mean, recipe.ad_severity_sd
    if diagnosis == "AD":
        return float(rng.gamma((mean / sd) ** 2, sd**2 / mean)) if mean > 0 and sd > 0 else mean
    return float(rng.uniform(*PRECLINICAL_SEVERITY)) if rng.random() < recipe.preclinical_fraction else 0.0


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _blurred(uptake: tuple[Array, Array], scanner: Scanner, anatomy: Anatomy) -> tuple[Array, Array | None]:
    ill, healthy = uptake
    seen = blur(ill, scanner.fwhm_mm)
    if ill is healthy:
        return seen, None
    whole = blur(healthy, scanner.fwhm_mm)
    brain = anatomy.tissue & (whole > LEAST_UPTAKE)
    spared = seen / np.maximum(whole, np.float32(LEAST_UPTAKE))
    return seen, np.where(brain, np.clip(1 - spared, 0, 1), np.float32(0))
