"""How alike are different subjects, two visits, and copies? ``python benchmarks/look_alikes.py``.

Simulates a simulated cohort and altered copies of some of its scans, registers all of them as the pipeline
does, and prints lowest, median and highest of the correlations that `adpet.cohort.duplicates` judges by.
Takes about two seconds a scan and core.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from adpet.cohort.duplicates import MIN_CORRELATION, coarse_brain, find_duplicates, residual_patterns
from adpet.imaging.nifti import Volume, to_ras
from adpet.imaging.normalization import load_standard, normalize
from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.parallel import map_in_processes
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import SimulationRecipe, draw_cohort, simulate_scan

ORIGINAL = "original"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--subjects", type=int, default=160)
    parser.add_argument("--copied", type=int, default=14, help="scans of which every kind of copy is made")
    options = parser.parse_args()
    half = options.subjects // 2
    recipe = SimulationRecipe(ad_subjects=half, cn_subjects=half, followup_fraction=0.25, seed=5)
    scans = draw_cohort(recipe).to_dict("records")
    copied = [row for row in scans if row["session"] == "01"][: options.copied]
    work = [(recipe, row, ORIGINAL) for row in scans]
    work += [(recipe, row, kind) for kind in COPIES for row in copied]
    done = np.stack(list(map_in_processes(standard_brain, work, workers=os.cpu_count() or 1)))
    brains, copies = done[: len(scans)], done[len(scans) :]
    subjects = np.array([row["subject"] for row in scans])
    compared(brains, subjects)
    for number, kind in enumerate(COPIES):
        own = copies[number * len(copied) : (number + 1) * len(copied)]
        origins = [scans.index(row) for row in copied]
        compare_copies(kind, brains, own, origins)
    print(f"two scans of different subjects are set aside at {MIN_CORRELATION}")


def standard_brain(item: tuple[SimulationRecipe, Mapping[str, Any], str]) -> np.ndarray:
    """Simulate, alter and register one scan."""
    recipe, row, kind = item
    volume = simulate_scan(row, recipe, load_anatomy()).volume
    if volume.data.ndim > 3:
        volume = Volume(volume.data.mean(axis=-1), volume.affine)
    if kind != ORIGINAL:
        volume = COPIES[kind](volume)
    standard = load_standard(grid_mm=3.0, reference="global", align="affine")
    return coarse_brain(normalize(volume, standard)[0])


def compared(brains: np.ndarray, subjects: np.ndarray) -> None:
    particular = residual_patterns(brains)
    correlation = particular @ particular.T
    upper = np.triu(np.ones_like(correlation, dtype=bool), 1)
    same = subjects[:, None] == subjects[None]
    shown("different subjects", correlation[upper & ~same])
    shown("visits of one", correlation[upper & same])


def compare_copies(kind: str, brains: np.ndarray, copies: np.ndarray, origins: list[int]) -> None:
    """Print the correlations of copies with their origins, one at a time beside the whole cohort."""
    names = [str(number) for number in range(len(brains) + 1)]
    values, found = [], 0
    for copy, origin in zip(copies, origins, strict=True):
        both = np.vstack([brains, copy])
        pairs = {(pair.first, pair.second) for pair in find_duplicates(both, names)}
        found += (origin, len(brains)) in pairs
        particular = residual_patterns(both)
        values.append(float(particular[origin] @ particular[-1]))
    shown(kind, np.array(values), f"found {found} of {len(copies)}")


def shown(name: str, values: np.ndarray, remark: str = "") -> None:
    low, middle, high = np.quantile(values, [0, 0.5, 1]) if values.size else (np.nan,) * 3
    print(f"{name:<24} {values.size:>6} pairs: {low:6.3f} {middle:6.3f} {high:6.3f}  {remark}", flush=True)


def smoothed(volume: Volume, fwhm_mm: float) -> Volume:
    zooms = np.sqrt((volume.affine[:3, :3] ** 2).sum(axis=0))
    return Volume(ndimage.gaussian_filter(volume.data, fwhm_mm / FWHM_PER_SIGMA / zooms), volume.affine)


def moved(volume: Volume) -> Volume:
    """Turn the head by 9 degrees and shift it, in the affine."""
    turn = np.eye(4)
    angle = np.deg2rad(9)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = 12, -15, 8
    return Volume(volume.data, turn @ volume.affine)


def noisy(volume: Volume, fraction: float) -> Volume:
    brain = volume.data > 0.3 * np.percentile(volume.data, 99)
    noise = np.random.default_rng(0).normal(0, fraction * volume.data[brain].mean(), volume.data.shape)
    return Volume((volume.data + noise).astype(np.float32), volume.affine)


def flipped_storage(volume: Volume) -> Volume:
    """Store the axes in another order and direction, with the affine that says so."""
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = volume.data.shape[0] - 1
    order = [2, 0, 1]
    return to_ras(volume.data[::-1].transpose(order), volume.affine @ flip @ np.eye(4)[:, [*order, 3]])


COPIES: dict[str, Callable[[Volume], Volume]] = {
    "in another unit": lambda v: Volume(v.data * 3.7, v.affine),
    "as bytes": lambda v: Volume(np.round(v.data / v.data.max() * 255), v.affine),
    "axes stored otherwise": flipped_storage,
    "moved": moved,
    "noise of 3 %": lambda v: noisy(v, 0.03),
    "noise of 10 %": lambda v: noisy(v, 0.1),
    "smoothed to 8 mm": lambda v: smoothed(v, 8),
    "smoothed, moved, noisy": lambda v: noisy(moved(smoothed(v, 6)), 0.03),
    "left and right swapped": lambda v: Volume(np.ascontiguousarray(v.data[::-1]), v.affine),
}


if __name__ == "__main__":
    main()
