"""Score maps against the truth, where the scans are the phantom's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet.artifacts import ALIGNMENT, PHANTOM_TRUTH
from adpet.evidence.cam_reference import Map, Mask
from adpet.evidence.cam_scores import (
    LEAST_DEFICIT,
    area_share,
    centre_map,
    network_ranges,
    score_rows,
    score_summary,
    truth_mask,
)
from adpet.imaging.align import resample
from adpet.imaging.volume import read_volume
from adpet.params import Params
from adpet.stages.explain_maps import Explainer, Space, slices_of
from adpet.stages.fitting import network
from adpet.stages.tables import MATRIX_COLUMNS, read_alignment

# Networks that have learned nothing, and healthy training scans that they are referenced to.
UNTRAINED, UNTRAINED_SCANS = 6, 16


def truths_of(scans: pd.DataFrame, space: Space) -> dict[str, Map]:
    """Return each scan's true relative deficit in MNI space; scans without one are left out.

    Parameters
    ----------
    scans : DataFrame
        With the column `scan`.
    """
    alignment = read_alignment(ALIGNMENT).set_index("scan")
    deficits = {}
    for scan in scans["scan"]:
        path = PHANTOM_TRUTH / f"{scan}_deficit.nii.gz"
        if path.exists():
            deficits[str(scan)] = _in_mni(path, alignment.loc[scan, MATRIX_COLUMNS], space)
    return deficits


def truth_scores(
    explained: Mapping[str, Mapping[str, Map]],
    deficits: Mapping[str, Map],
    scans: pd.DataFrame,
    untrained: Sequence[Explainer],
    space: Space,
    *,
    seed: int,
    resamples: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score the exact and referenced maps, and their controls.

    Parameters
    ----------
    explained : mapping of str to mapping of str to (i, j, k) ndarray
        Volumes by map (``exact``, ``referenced``) and scan.
    deficits : mapping of str to (i, j, k) ndarray
        The truth by scan.
    scans : DataFrame
        Correctly classified AD test scans: `scan`, `subject`.
    untrained : sequence of Explainer
        Of networks of the same shape that have learned nothing.
    seed, resamples : int
        Of the bootstrap over subjects.

    Returns
    -------
    table : DataFrame
        One row a scan and map; of untrained networks' maps one a network, with its number as `network`.
    facts : dict
        Mean scores by map with their intervals, and what they were taken from.
    """
    masks = {scan: truth_mask(deficit, space.inside) for scan, deficit in deficits.items()}
    # A deficit of 5 % nowhere, or everywhere, leaves nothing to be found.
    scored = [scan for scan in scans["scan"] if scan in masks and _can_be_missed(masks[scan], space.inside)]
    if not scored:
        return pd.DataFrame(columns=["scan", "subject", "map"]), {"scans": 0}
    subjects = scans.set_index("scan")["subject"]
    group = {name: np.mean([volumes[scan] for scan in scored], axis=0) for name, volumes in explained.items()}
    centre = centre_map(space.inside)
    rows = []
    for scan in scored:
        slices = slices_of(scan)
        maps = {
            **{name: volumes[scan] for name, volumes in explained.items()},
            **{f"group mean {name}": data for name, data in group.items()},
            "centre": centre,
        }
        rows += score_rows(maps, masks[scan], space.inside, scan=scan, subject=subjects[scan])
        for number, blank in enumerate(untrained, start=1):
            maps = {
                "untrained exact": space.volume_of(blank.exact(slices)[0]),
                "untrained referenced": blank.referenced(slices),
            }
            facts = {"scan": scan, "subject": subjects[scan], "network": number}
            rows += score_rows(maps, masks[scan], space.inside, **facts)
    table = pd.DataFrame(rows)
    summary = score_summary(table, seed=seed, resamples=resamples)
    return table, {
        "scans": len(scored),
        "left_out": len(scans) - len(scored),
        "least_deficit": LEAST_DEFICIT,
        "area_share": round(area_share([masks[scan] for scan in scored], space.inside), 6),
        "scores": summary,
        "untrained": network_ranges(table),
    }


def _can_be_missed(mask: Mask, inside: Mask) -> bool:
    return bool(mask.any()) and int(mask.sum()) < int(inside.sum())


def _in_mni(path: Path, matrix: "pd.Series[float]", space: Space) -> Map:
    to_scan = np.vstack([matrix.to_numpy(np.float64).reshape(3, 4), [0, 0, 0, 1]])
    template = space.template
    return resample(read_volume(path), shape=template.data.shape, affine=template.affine, matrix=to_scan)


def untrained_explainers(healthy: Sequence[str], space: Space, params: Params) -> list[Explainer]:
    """Return explainers of networks of the same shape that have learned nothing.

    One such network is as likely to call dark bright as the other way round: only several are at chance.
    """
    model = params.model.model_copy(update={"weights": "none"})
    networks = [
        network(params.model_copy(update={"model": model, "seed": params.seed + number}))
        for number in range(1, UNTRAINED + 1)
    ]
    return [Explainer(blank, healthy[:UNTRAINED_SCANS], space, params) for blank in networks]
