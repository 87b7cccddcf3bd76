"""Regional SUVR, z scores and shares of the CAM."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adpet.imaging.atlas import Labels, regional_means

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def region_table(
    ratio: Array,
    cam: Array,
    *,
    labels: Labels,
    brain: Mask,
    regions: Sequence[Mapping[str, Any]],
    years: float = 0.0,
) -> list[dict[str, Any]]:
    """Return one row a region that the scan shows.

    They are in the order of `regions`, those of an exported model. `uptake` is SUVR; `z` is (uptake - mean) /
    SD of the cognitively normal, who are `years` older than the mean; `cam_share` is of the positive CAM in
    the brain.
    """
    wanted = [int(region["label"]) for region in regions]
    uptake = regional_means(ratio, labels, wanted)
    towards = np.where(brain, np.clip(cam, 0, None), 0)
    mass = np.bincount(labels.ravel(), weights=towards.ravel(), minlength=max(wanted) + 1)[wanted]
    total = float(towards.sum(dtype=np.float64))
    return [
        {
            "name": region["name"],
            "uptake": round(float(here), 4),
            "z": round((float(here) - region["cn_mean"] - years * region["cn_slope"]) / region["cn_sd"], 3),
            "cam_share": round(float(share) / total, 4) if total > 0 else 0.0,
            "ad_pattern": region["ad_pattern"],
        }
        for region, here, share in zip(regions, uptake, mass, strict=True)
        if np.isfinite(here)
    ]


def unusual(regions: Sequence[Mapping[str, Any]], least: float) -> list[dict[str, Any]]:
    """Return the regions with at least this |z|, largest first."""
    found = [{"name": row["name"], "z": row["z"]} for row in regions if abs(row["z"]) >= least]
    return sorted(found, key=lambda row: -abs(row["z"]))
