"""Simulated cohort: its subjects and visits, and their scans.

Every person and every scan has a random stream of its own, spawned from the seed and the subject's number:
the bytes of a scan depend neither on the other subjects nor on the number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from adpet.imaging.nifti import Array, Volume
from adpet.simulation.anatomy import Anatomy
from adpet.simulation.patterns import ASYMMETRY, OTHER_LOSSES, patterned
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
from adpet.simulation.subject import INFARCTS, draw_person, person_uptake

Row = Mapping[str, Any]

# Severity in the preclinical stage, and its growth a year.
PRECLINICAL_SEVERITY = (0.1, 0.5)
SEVERITY_YEAR = {"AD": 0.15, "CN": 0.05, "MCI": 0.1, "FTD": 0.15, "DLB": 0.15, "stroke": 0.0}
# MCI: share that goes on to AD (181 of ADNI's 544 in four years: Sörensen et al. 2018,
# doi:10.1016/j.nicl.2018.101637). Assumed: their severity relative to that of AD, and that of the others.
CONVERTERS, CONVERTER_SEVERITY, STABLE_SEVERITY = 1 / 3, 0.7, (0.0, 0.5)
# Share of uptake that an old infarct lost in its middle.
INFARCT_SEVERITY = (0.7, 1.0)
# Share of lateralised patients with frontotemporal dementia (26 of 29: Jeong et al. 2005, J Nucl Med 46:233).
FTD_LATERALISED = 0.9
# Numbers of subjects who have neither AD nor CN: they do not depend on how many have.
FIRST_NUMBER = {"MCI": 10_000, "FTD": 20_000, "DLB": 30_000, "stroke": 40_000}
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
    # Of the whole head, or the scanner's own, which may cut off vertex or cerebellum.
    axial_fov: Literal["full", "scanner"] = "full"
    # Shares of the patterns of `SUBTYPES`, and of patients with a worse side.
    subtypes: Mapping[str, float] = field(default_factory=lambda: {"typical": 1.0})
    lateralised_fraction: float = 0.0
    # Subjects with neither diagnosis; of the latter, by diagnosis (FTD, DLB, stroke).
    mci_subjects: int = 0
    other_subjects: Mapping[str, int] = field(default_factory=dict)
    # AD minus CN: years of age, share of men; and how far sites are apart, 0 to 1 (none in common).
    confounding: Mapping[str, float] = field(default_factory=dict)

    @property
    def varied(self) -> bool:
        """Whether not all have the same pattern of disease."""
        same = self.subtypes.get("typical", 0) == sum(self.subtypes.values())
        return not same or self.lateralised_fraction > 0 or any(size for _, size in self.further)

    @property
    def further(self) -> list[tuple[str, int]]:
        """Numbers of subjects with diagnoses other than AD and CN."""
        return [("MCI", self.mci_subjects), *self.other_subjects.items()]


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
    nearly the same age, unless `recipe.confounding` parts them. In groups of different size, the numbers of
    missing partners are left out. Subjects with another diagnosis come last.
    """
    numbers: list[tuple[int, str | None]] = [
        (number, None) for number in range(2 * max(recipe.ad_subjects, recipe.cn_subjects))
    ]
    for diagnosis, size in recipe.further:
        numbers += [(FIRST_NUMBER[diagnosis] + number, diagnosis) for number in range(size)]
    return pd.DataFrame([row for number, diagnosis in numbers for row in _visits(recipe, number, diagnosis)])


def cohort_rows(cohort: pd.DataFrame) -> list[Row]:
    """Return the rows as mappings of plain values."""
    return [{str(column): value for column, value in row.items()} for row in cohort.to_dict("records")]


def simulate_scan(
    row: Row, recipe: SimulationRecipe, anatomy: Anatomy, *, scanner: Scanner | None = None
) -> SimulatedScan:
    """Simulate the scan of one row of `draw_cohort`.

    With ``recipe.pose`` 0, the origin of the scanner's grid is `HEAD_CENTRE` in MNI mm.
    """
    site, frames = SITES[row["site"]], 1
    if scanner is None:
        scanner, frames = SCANNERS[row["scanner"]], site.frames
        if recipe.axial_fov == "scanner":
            scanner = replace(scanner, matrix=(*scanner.matrix[:2], site.slices))
    person = draw_person(np.random.default_rng(row["person_seed"]), anatomy)
    if "pattern" in row:
        disease = {name: row[name] for name in ("pattern", "asymmetry")}
        person = patterned(person, **disease, subtypes=recipe.subtypes)
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


def _visits(recipe: SimulationRecipe, number: int, diagnosis: str | None) -> list[dict[str, Any]]:
    """Draw one subject's rows, none beyond its group's size."""
    pair = _pair(recipe, number, diagnosis)
    diagnosis = pair["diagnosis"]
    if number // 2 >= {"AD": recipe.ad_subjects, "CN": recipe.cn_subjects}.get(diagnosis, np.inf):
        return []
    disease = _disease(recipe, number, diagnosis)
    own = _stream(recipe.seed, 1, number)
    severity = _severity(own, recipe, disease["course"] or diagnosis)
    older = recipe.confounding.get("age_years", 0.0) if diagnosis == "AD" else 0.0
    age = float(np.clip(pair["age"] + own.normal(0, PAIR_AGE_SD) + older, *AGE_LIMITS))
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
            **(disease if recipe.varied else {}),
        }
        for visit, years in enumerate(interval * visit for visit in range(pair["visits"]))
    ]


def _pair(recipe: SimulationRecipe, number: int, diagnosis: str | None) -> dict[str, Any]:
    """Draw what partners share, but for confounding."""
    pair = number // 2
    shared = _stream(recipe.seed, 0, pair)
    first_is_ad = bool(shared.integers(2))
    diagnosis = diagnosis or ("AD" if (number % 2 == 0) == first_is_ad else "CN")
    men, apart = (recipe.confounding.get(name, 0.0) / 2 for name in ("male_fraction", "site"))
    sign = {"AD": 1, "CN": -1}.get(diagnosis, 0)
    offsets = _stream(recipe.seed, 2).random(3)
    spread = (offsets + (pair + 1) * np.array([SITE_STEP, SEX_STEP, FOLLOWUP_STEP])) % 1
    shares = site_shares(recipe.scanners)
    ends = np.cumsum(list(shares.values()))
    site = spread[0] * (1 - abs(sign) * apart) + (apart if diagnosis == "CN" else 0)
    return {
        "diagnosis": diagnosis,
        "age": shared.normal(recipe.age_mean, recipe.age_sd),
        # From the right: a site without a share is never met.
        "site": list(shares)[int(np.searchsorted(ends / ends[-1], site, side="right"))],
        "sex": "FM"[int(spread[1] >= 0.5 - sign * men)],
        "visits": _visit_count(recipe, spread[2]),
    }


def _visit_count(recipe: SimulationRecipe, spread: float) -> int:
    if spread >= recipe.followup_fraction:
        return 1
    further = int(spread / recipe.followup_fraction * (recipe.max_visits - 1))
    return min(2 + further, recipe.max_visits)


def _severity(rng: np.random.Generator, recipe: SimulationRecipe, diagnosis: str) -> float:
    mean, sd = recipe.ad_severity_mean, recipe.ad_severity_sd
    if diagnosis == "converter":
        return CONVERTER_SEVERITY * _severity(rng, recipe, "AD")
    if diagnosis in ("stable", "stroke"):
        return float(rng.uniform(*(STABLE_SEVERITY if diagnosis == "stable" else INFARCT_SEVERITY)))
    if diagnosis != "CN":
        return float(rng.gamma((mean / sd) ** 2, sd**2 / mean)) if mean > 0 and sd > 0 else mean
    return float(rng.uniform(*PRECLINICAL_SEVERITY)) if rng.random() < recipe.preclinical_fraction else 0.0


def _disease(recipe: SimulationRecipe, number: int, diagnosis: str) -> dict[str, Any]:
    """Draw pattern of disease, worse side, course of MCI."""
    own = _stream(recipe.seed, 5, number)
    subtype, lateralised, converts = own.random(3)
    asymmetry = own.choice([-1, 1]) * own.uniform(*ASYMMETRY)
    infarct = str(own.choice(list(INFARCTS)))
    if diagnosis == "stroke":
        return {"pattern": infarct, "asymmetry": float(np.sign(asymmetry)), "course": ""}
    ends = np.cumsum(list(recipe.subtypes.values()))
    usual = list(recipe.subtypes)[int(np.searchsorted(ends / ends[-1], subtype, side="right"))]
    fraction = FTD_LATERALISED if diagnosis == "FTD" else recipe.lateralised_fraction
    return {
        "pattern": diagnosis if diagnosis in OTHER_LOSSES else usual,
        "asymmetry": round(float(asymmetry), 3) if lateralised < fraction else 0.0,
        "course": "" if diagnosis != "MCI" else "converter" if converts < CONVERTERS else "stable",
    }


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
