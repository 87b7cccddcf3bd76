"""The coronal planes of the network's slices."""

from adpet.imaging.slices import CoronalGrid
from adpet.params import Params


def coronal_grid(params: Params) -> CoronalGrid:
    """Return the coronal planes that the parameters ask for."""
    return CoronalGrid.spanning(
        range_mm=params.slice.range_mm,
        step_mm=params.slice.step_mm,
        size=params.model.input_size,
        field_mm=params.slice.field_mm,
    )
