"""A network's maps of whole scans in MNI space, and what they are compared with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from adpet.artifacts import SLICES
from adpet.evidence.cam_reference import Map, Mask, Moments, Reference, above_own_mean, smoothed
from adpet.imaging.coronal import CoronalGrid, back_project
from adpet.imaging.template import brain_mask, fdg_template
from adpet.imaging.volume import Volume
from adpet.learning.averaged_cam import averaged_activation_maps
from adpet.learning.cam import class_activation_maps
from adpet.params import Params
from adpet.stages.slice import coronal_grid
from adpet.workers import progress

if TYPE_CHECKING:
    import keras

# Part of a place's spread that is the brain's common one (see `Moments.reference`).
SHRINKAGE = 0.5


@dataclass(frozen=True, eq=False)
class Space:
    """The standard grid, the planes, and where maps can say something: the brain between the outer planes."""

    template: Volume
    grid: CoronalGrid
    brain: Mask
    inside: Mask

    def volume_of(self, maps: Map) -> Map:
        """Put maps of the planes back into a volume."""
        return back_project(maps, self.grid, shape=self.template.data.shape, affine=self.template.affine)


def space_of(params: Params) -> Space:
    """Return the space that the parameters describe."""
    template, grid = fdg_template(params.standardize.grid_mm), coronal_grid(params)
    brain = brain_mask(params.standardize.grid_mm)
    y_mm = template.affine[1, 1] * np.arange(brain.shape[1]) + template.affine[1, 3]
    between = (y_mm >= grid.y_mm[0]) & (y_mm <= grid.y_mm[-1])
    return Space(template, grid, brain, brain & between[None, :, None])


def slices_of(scan: str) -> npt.NDArray[np.uint8]:
    """Return a scan's slices, (n, height, width)."""
    slices: npt.NDArray[np.uint8] = np.load(SLICES / f"{scan}.npy")
    return slices


class Explainer:
    """Makes a network's exact and referenced maps.

    Attributes
    ----------
    model : keras.Model
    reference : Reference
        Of the averaged maps of healthy training scans.
    healthy : (n, height, width) uint8 ndarray
        The mean of their slices.
    """

    def __init__(
        self,
        model: "keras.Model",
        healthy: Iterable[str],
        space: Space,
        params: Params,
        *,
        averaged: bool = True,
    ) -> None:
        self.model, self._space, self._params, self._averaged = model, space, params, averaged
        moments, total = Moments(), np.zeros(1)
        scans = list(healthy)
        for scan in progress(scans, label="reference", unit="scan", total=len(scans)):
            slices = slices_of(scan)
            moments.add(self._fine_volume(slices))
            total = total + slices
        self.reference: Reference = moments.reference(space.inside, shrinkage=SHRINKAGE)
        self.healthy = np.round(total / len(scans)).astype(np.uint8)

    def exact(self, slices: npt.NDArray[np.uint8]) -> tuple[Map, Map]:
        """Return the network's own maps of the planes, (n, h, w), and the log-odds of AD, (n,)."""
        return class_activation_maps(self.model, slices, method=self._params.explain.method)

    def referenced(self, slices: npt.NDArray[np.uint8]) -> Map:
        """Return standard deviations from healthy training scans, above the scan's own mean of them.

        A volume, 0 outside of the brain between the outer planes.
        """
        distance = self.reference.z_map(self._fine_volume(slices))
        return smoothed(
            above_own_mean(distance, self._space.inside),
            fwhm_mm=self._params.explain.smooth_mm,
            grid_mm=self._params.standardize.grid_mm,
            inside=self._space.inside,
        )

    def _fine_volume(self, slices: npt.NDArray[np.uint8]) -> Map:
        explain = self._params.explain
        maps = averaged_activation_maps(
            self.model,
            slices,
            shifts=explain.shifts if self._averaged else 1,
            mirror=explain.mirror and self._averaged,
            method=explain.method,
        )
        return self._space.volume_of(maps)
