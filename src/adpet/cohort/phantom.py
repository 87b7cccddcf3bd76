"""The built-in phantom cohort: who is in it, how a scan is simulated, and the BIDS-PET tree that it fills.

Every person and every scan has a random stream of its own, spawned from the seed and the subject's number:
the bytes of a scan depend neither on the other subjects nor on the number of workers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet.artifacts import write_json, written_aside
from adpet.cohort.individual import draw_person, person_uptake
from adpet.cohort.scanner import SCANNERS, SITES, Scanner, blur, count, draw_pose, sample, sample_points
from adpet.cohort.uptake import Anatomy, load_anatomy
from adpet.imaging.volume import Affine, Array, Volume, write_volume
from adpet.workers import map_in_processes

Row = Mapping[str, Any]

# Severity of people who are still well but ill already, and how much it grows in a year.
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
# Nor is there a deficit to be seen in voxels with less blurred uptake than this (CSF), pons = 1.
LEAST_UPTAKE = 0.4
SECONDS = 1800
INJECTED_MBQ_SD = (185.0, 15.0)


@dataclass(frozen=True)
class PhantomRecipe:
    """What a cohort is drawn from.

    Attributes
    ----------
    subjects : int
        In all; half of them AD, half CN.
    followup_fraction : float
        Share of subjects with a second visit.
    seed : int
        The same seed gives the same bytes.
    ad_severity_mean, ad_severity_sd : float
        Of the gamma distribution of severity in AD; 1 is a typical patient, mean 0 gives healthy ones.
    preclinical_fraction : float
        Share of CN with a severity between 0.1 and 0.5; the others have 0.
    age_mean, age_sd : float
        Years, at the first visit, in both groups.
    pose, noise : float
        Factors on the usual spread of head pose and on the usual noise.
    """

    subjects: int = 180
    followup_fraction: float = 0.2
    seed: int = 0
    ad_severity_mean: float = 1.0
    ad_severity_sd: float = 0.45
    preclinical_fraction: float = 0.2
    age_mean: float = 75.0
    age_sd: float = 7.0
    pose: float = 1.0
    noise: float = 1.0


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """One simulated scan.

    Attributes
    ----------
    volume : Volume
        Whole Bq/mL on the scanner's grid, (i, j, k), or (i, j, k, frames) where the site delivers frames.
    deficit : Volume or None
        Relative loss of blurred uptake against the same person at severity 0, from 0 to 1, on the same grid,
        without noise; None at severity 0.
    injected_mbq : float
        Injected activity.
    """

    volume: Volume
    deficit: Volume | None
    injected_mbq: float


def draw_cohort(recipe: PhantomRecipe) -> pd.DataFrame:
    """Draw who is scanned: one row a scan, by subject and session.

    Subjects come in pairs, AD and CN in random order, of the same sex, scanned at the same site, of nearly
    the same age and with as many visits.

    Returns
    -------
    DataFrame
        Columns subject, session, diagnosis, age, sex, site, scanner, severity, person_seed, scan_seed.
    """
    rows = [row for number in range(recipe.subjects) for row in _visits(recipe, number)]
    return pd.DataFrame(rows)


def simulate_scan(
    row: Row, recipe: PhantomRecipe, anatomy: Anatomy, *, scanner: Scanner | None = None
) -> PhantomScan:
    """Simulate the scan of one row of `draw_cohort`; a third of a second on one core.

    Parameters
    ----------
    scanner : Scanner, optional
        Another scanner than the row's site has. With ``recipe.pose`` 0, the origin of its grid is
        `adpet.cohort.scanner.HEAD_CENTRE` in MNI mm.
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
    data = count(
        rng, sample(seen, points), scanner, zooms=np.array(scanner.zooms), noise=recipe.noise, frames=frames
    )
    return PhantomScan(
        volume=Volume(data, affine),
        deficit=None if deficit is None else _deficit_volume(sample(deficit, points), affine),
        injected_mbq=round(float(rng.normal(*INJECTED_MBQ_SD)), 1),
    )


def write_cohort(
    folder_raw: Path,
    folder_truth: Path,
    recipe: PhantomRecipe,
    *,
    workers: int = 1,
    progress: Callable[..., Iterable[Any]] = lambda items, **_: items,
) -> None:
    """Simulate a cohort and write it as a BIDS-PET tree, its truth into another folder.

    The truth is ``severity.tsv``, one row a scan, and ``sub-*_ses-*_deficit.nii.gz`` for each scan whose
    severity is not 0. A scan that is there already is whole and not made again, so that a killed call
    continues; the folders must have been begun with the same recipe.

    Parameters
    ----------
    workers : int
        Processes; each holds one scan at a time.
    progress : callable
        Wraps the iterable of finished scans; called with it and ``total=``.
    """
    cohort = draw_cohort(recipe)
    rows = cohort.to_dict("records")
    one = partial(_write_scan, folder_raw=folder_raw, folder_truth=folder_truth, recipe=recipe)
    for _ in progress(map_in_processes(one, rows, workers=workers), total=len(rows)):
        pass
    _write_tables(folder_raw, cohort)
    truth = cohort[["subject", "session", "diagnosis", "severity"]].copy()
    names = cohort["subject"].radd("sub-") + "_ses-" + cohort["session"] + "_deficit.nii.gz"
    truth["deficit"] = names.where(cohort["severity"] > 0, "n/a")
    _write_tsv(folder_truth / "severity.tsv", truth)


def _visits(recipe: PhantomRecipe, number: int) -> list[dict[str, Any]]:
    """Draw one subject's rows."""
    pair = number // 2
    shared = _stream(recipe.seed, 0, pair)
    own = _stream(recipe.seed, 1, number)
    offsets = _stream(recipe.seed, 2).random(3)
    spread = (offsets + (pair + 1) * np.array([SITE_STEP, SEX_STEP, FOLLOWUP_STEP])) % 1
    first_is_ad, pair_age = bool(shared.integers(2)), shared.normal(recipe.age_mean, recipe.age_sd)
    diagnosis = "AD" if (number % 2 == 0) == first_is_ad else "CN"
    site = list(SITES)[int(np.searchsorted(np.cumsum([site.share for site in SITES.values()]), spread[0]))]
    severity = _severity(own, recipe, diagnosis)
    age = float(np.clip(pair_age + own.normal(0, PAIR_AGE_SD), *AGE_LIMITS))
    years = float(own.uniform(*FOLLOWUP_YEARS))
    person_seed = int(own.integers(2**62))
    return [
        {
            "subject": f"P{number + 1:04d}",
            "session": f"{visit + 1:02d}",
            "diagnosis": diagnosis,
            "age": round(age + visit * years, 1),
            "sex": "FM"[int(2 * spread[1])],
            "site": site,
            "scanner": SITES[site].scanner,
            "severity": round(severity + (visit * years * SEVERITY_YEAR[diagnosis] if severity else 0), 4),
            "person_seed": person_seed,
            "scan_seed": int(own.integers(2**62)),
        }
        for visit in range(2 if spread[2] < recipe.followup_fraction else 1)
    ]


def _severity(rng: np.random.Generator, recipe: PhantomRecipe, diagnosis: str) -> float:
    """Draw the severity at the first visit."""
    mean, sd = recipe.ad_severity_mean, recipe.ad_severity_sd
    if diagnosis == "AD":
        return float(rng.gamma((mean / sd) ** 2, sd**2 / mean)) if mean > 0 and sd > 0 else mean
    return float(rng.uniform(*PRECLINICAL_SEVERITY)) if rng.random() < recipe.preclinical_fraction else 0.0


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _blurred(uptake: tuple[Array, Array], scanner: Scanner, anatomy: Anatomy) -> tuple[Array, Array | None]:
    """Return what the scanner sees and the relative deficit in it, on the anatomy's grid."""
    ill, healthy = uptake
    seen = blur(ill, scanner.fwhm_mm)
    if ill is healthy:
        return seen, None
    whole = blur(healthy, scanner.fwhm_mm)
    brain = anatomy.tissue & (whole > LEAST_UPTAKE)
    spared = seen / np.maximum(whole, np.float32(LEAST_UPTAKE))
    return seen, np.where(brain, np.clip(1 - spared, 0, 1), np.float32(0))


def _deficit_volume(deficit: Array, affine: Affine) -> Volume:
    return Volume(np.where(deficit < SMALLEST_DEFICIT, np.float32(0), deficit), affine)


def _write_scan(row: Row, *, folder_raw: Path, folder_truth: Path, recipe: PhantomRecipe) -> None:
    """Write a scan, its sidecar and its truth; the scan itself comes last and stands for all three."""
    name = f"sub-{row['subject']}_ses-{row['session']}"
    folder = folder_raw / f"sub-{row['subject']}" / f"ses-{row['session']}" / "pet"
    path = folder / f"{name}_trc-18FFDG_pet.nii.gz"
    if path.exists():
        return
    scan = simulate_scan(row, recipe, load_anatomy())
    if scan.deficit is not None:
        write_volume(folder_truth / f"{name}_deficit.nii.gz", scan.deficit, dtype=np.uint8)
    write_json(folder / f"{name}_trc-18FFDG_pet.json", _sidecar(row, scan))
    write_volume(path, scan.volume, dtype=np.int16)


def _sidecar(row: Row, scan: PhantomScan) -> dict[str, Any]:
    """Return the BIDS-PET fields of one scan."""
    scanner = SCANNERS[row["scanner"]]
    frames = SITES[row["site"]].frames
    seconds = SECONDS // frames
    return {
        "Manufacturer": scanner.manufacturer,
        "ManufacturersModelName": scanner.model,
        "InstitutionName": row["site"],
        "Modality": "PT",
        "Units": "Bq/mL",
        "TracerName": "FDG",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": scan.injected_mbq,
        "InjectedRadioactivityUnits": "MBq",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:00:00",
        "InjectionStart": 0,
        "ScanStart": 1800,
        "FrameTimesStart": [seconds * frame for frame in range(frames)],
        "FrameDuration": [seconds] * frames,
        "AcquisitionMode": "list mode",
        "ReconMethodName": scanner.method,
        "ReconFilterType": "none",
        "AttenuationCorrection": "simulated",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
    }


def _write_tables(folder: Path, cohort: pd.DataFrame) -> None:
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "adpet phantom: simulated FDG-PET of people with and without Alzheimer's disease",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "MIT",
            "GeneratedBy": [{"Name": "adpet", "Description": "adpet.cohort.phantom"}],
        },
    )
    first = cohort.drop_duplicates("subject").copy()
    first["participant_id"] = first["subject"].radd("sub-")
    _write_tsv(folder / "participants.tsv", first[["participant_id", "age", "sex", "diagnosis", "site"]])
    for subject, visits in cohort.groupby("subject"):
        if len(visits) > 1:
            table = visits.assign(session_id=visits["session"].radd("ses-"))
            path = folder / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
            _write_tsv(path, table[["session_id", "age", "diagnosis"]])


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    with written_aside(path) as aside:
        table.to_csv(aside, sep="\t", index=False, lineterminator="\n")
