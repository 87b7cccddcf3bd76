"""Cut the coronal planes of every normalized volume."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from adpet import paths
from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import to_uint8
from adpet.imaging.slices import CoronalGrid, network_slices
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.stages.common.tables import SLICE_COLUMNS, read_alignment, write_table
from adpet.storage import atomic_write


def run(params: Params) -> None:
    """Write one packed uint8 file per scan, and ``slices.csv``."""
    alignment = read_alignment()
    scans = alignment.loc[alignment["passed"], "scan"]
    grid = coronal_grid(params)
    with atomic_write(paths.SLICES) as aside:
        aside.mkdir()
        cut = partial(_cut, folder=aside, grid=grid, window=params.slice.window)
        done = map_in_processes(cut, scans, workers=params.compute.workers, cluster=params.compute.cluster)
        for _ in progress(done, label="slice", unit="scan", total=len(scans)):
            pass
    rows = [(scan, index, y_mm) for scan in scans for index, y_mm in enumerate(grid.y_mm)]
    write_table(pd.DataFrame(rows, columns=list(SLICE_COLUMNS)), paths.SLICES_TABLE, float_format=None)


def _cut(scan: str, *, folder: Path, grid: CoronalGrid, window: tuple[float, float]) -> None:
    volume = read_volume(paths.VOLUMES / f"{scan}.nii")
    planes = network_slices(volume.data, volume.affine, grid)
    # Atomic: a worker that is lost in the middle leaves nothing which another one does not replace.
    with atomic_write(folder / f"{scan}.npy") as aside:
        np.save(aside, to_uint8(planes, window=window))


def coronal_grid(params: Params) -> CoronalGrid:
    """Return the coronal planes that the parameters ask for."""
    return CoronalGrid.spanning(
        range_mm=params.slice.range_mm,
        step_mm=params.slice.step_mm,
        size=params.model.input_size,
        field_mm=params.slice.field_mm,
        neighbours_mm=params.slice.neighbours_mm,
    )
