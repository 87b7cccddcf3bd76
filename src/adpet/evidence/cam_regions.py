"""Where the mass of maps lies, by named region, and which regions Alzheimer's disease begins in."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.imaging.regions import AD_PATTERN, Atlas

Volume: TypeAlias = npt.NDArray[np.floating]
Mask: TypeAlias = npt.NDArray[np.bool_]

# The row of what lies in the brain but in no region.
ELSEWHERE = "elsewhere in the brain"
# More of a map's mass than this outside the brain is an alarm: the network looks at what cannot be disease.
MOST_OUTSIDE = 0.1


def region_table(
    maps: Mapping[str, Volume], uptake: Mapping[str, Volume], atlas: Atlas, brain: Mask
) -> pd.DataFrame:
    """Return one row a region: its share of each map's mass and its mean uptake in each group.

    Parameters
    ----------
    maps : mapping of str to (i, j, k) float ndarray
        Group maps by name; positive values have mass.
    uptake : mapping of str to (i, j, k) float ndarray
        Mean ratio images by group.
    atlas : Atlas
        On the same grid.
    brain : (i, j, k) bool ndarray
        Shares are of the mass in it.

    Returns
    -------
    DataFrame
        `region`, `ad_pattern` (whether the disease begins there), `voxels`, `volume_share`,
        ``<name>_mass`` and ``<name>_density`` (mass share over volume share) for each map, ``<group>_uptake``
        for each group; the last row is the brain outside of all regions.
    """
    labels = np.where(brain, atlas.labels, 0)
    numbers = [number for number in atlas.names if (labels == number).any()]
    masks = [labels == number for number in numbers] + [brain & ~np.isin(labels, numbers)]
    table = pd.DataFrame({"region": [*(atlas.names[number] for number in numbers), ELSEWHERE]})
    table["ad_pattern"] = table["region"].isin(AD_PATTERN)
    table["voxels"] = [int(mask.sum()) for mask in masks]
    table["volume_share"] = table["voxels"] / int(brain.sum())
    for name, data in maps.items():
        mass = np.clip(data, 0, None).astype(np.float64)
        total = float(mass[brain].sum())
        table[f"{name}_mass"] = [float(mass[mask].sum()) / total if total else 0.0 for mask in masks]
        table[f"{name}_density"] = table[f"{name}_mass"] / table["volume_share"].where(table["voxels"] > 0)
    for name, data in uptake.items():
        table[f"{name}_uptake"] = [
            float(data[mask].mean(dtype=np.float64)) if mask.any() else float("nan") for mask in masks
        ]
    return table


def pattern_share(table: pd.DataFrame, name: str) -> dict[str, float]:
    """Return how much of a map's mass lies in the known pattern, and over the pattern's share of the brain.

    Parameters
    ----------
    table : DataFrame
        As `region_table` gives it, with the map `name`.
    """
    pattern = table[table["ad_pattern"]]
    mass, volume = float(pattern[f"{name}_mass"].sum()), float(pattern["volume_share"].sum())
    return {"mass": round(mass, 6), "over_volume": round(mass / volume, 6) if volume else 0.0}


def share_outside(data: Volume, brain: Mask) -> float:
    """Return the share of a map's absolute mass that lies outside the brain; 0 where it has none."""
    mass = np.abs(data).astype(np.float64)
    total = float(mass.sum())
    return float(mass[~brain].sum()) / total if total else 0.0


def alarms_of(shares: Mapping[str, float]) -> list[str]:
    """Return one line for each map of which more than 10 % lies outside the brain."""
    return [
        f"{name}: {share:.0%} of the map's mass lies outside the brain (alarm above {MOST_OUTSIDE:.0%}): "
        "look at its montages before you believe the model"
        for name, share in shares.items()
        if share > MOST_OUTSIDE
    ]
