"""Explainers: a network's maps of whole scans in MNI space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.evaluation.saliency import (
    MARGIN_MM,
    Map,
    Mask,
    Reference,
    healthy_patterns,
    healthy_reference,
)
from adpet.imaging.nifti import Volume
from adpet.imaging.normative import require_healthy, smoothed
from adpet.imaging.slices import CoronalGrid, back_project, coronal_slices
from adpet.imaging.template import brain_mask, fdg_template
from adpet.learning.saliency import class_activation_maps, integrated_maps
from adpet.parallel import progress
from adpet.params import Params
from adpet.paths import SLICES
from adpet.stages.slice import coronal_grid

if TYPE_CHECKING:
    import keras

# What a referenced map joins, and by which weights: class activation maps, and integrated gradients.
DEPTHS = {"places": 1 / 3, "pixels": 2 / 3}


@dataclass(frozen=True, eq=False)
class Space:
    """Standard grid, planes, and the brain between the outer planes."""

    template: Volume
    grid: CoronalGrid
    brain: Mask
    inside: Mask

    def volume_of(self, maps: Map) -> Map:
        """Put maps of the planes back into a volume."""
        return back_project(maps, self.grid, shape=self.template.data.shape, affine=self.template.affine)

    def planes_of_brain(self) -> Mask:
        """Return the brain with a margin in the planes."""
        steps = max(1, round(MARGIN_MM / float(self.template.affine[0, 0])))
        grown = ndimage.binary_dilation(self.brain, iterations=steps)
        return coronal_slices(grown.astype(np.float32), self.template.affine, self.grid) > 0.5

    def filled(self, values: Map) -> Map:
        """Return a volume of values inside, (v,), and 0 outside."""
        volume = np.zeros(self.inside.shape, dtype=np.float32)
        volume[self.inside] = values
        return volume


def space_of(params: Params) -> Space:
    """Return the space that the parameters describe."""
    template, grid = fdg_template(params.normalize.grid_mm), coronal_grid(params)
    brain = brain_mask(params.normalize.grid_mm)
    y_mm = template.affine[1, 1] * np.arange(brain.shape[1]) + template.affine[1, 3]
    between = (y_mm >= grid.y_mm[0]) & (y_mm <= grid.y_mm[-1])
    return Space(template, grid, brain, brain & between[None, :, None])


def smoothed_inside(volume: Map, space: Space, params: Params) -> Map:
    """Return the values inside, (v,), blurred by `explain.smooth_mm`."""
    width = {"fwhm_mm": params.explain.smooth_mm, "grid_mm": params.normalize.grid_mm}
    return smoothed(volume, **width, inside=space.inside)[space.inside]


def slices_of(scan: str) -> npt.NDArray[np.uint8]:
    """Return a scan's slices, (n, height, width)."""
    slices: npt.NDArray[np.uint8] = np.load(SLICES / f"{scan}.npy")
    return slices


class Explainer:
    """Makes a network's exact and referenced maps.

    A referenced map joins two depths: the class activation map, which says what each place of the feature
    layer adds to the answer, and integrated gradients, which say what each pixel adds to it. Both are
    distances from healthy training scans; of their mean, what lies along the ways in which those differ is
    kept.

    Attributes
    ----------
    healthy : (n, height, width) uint8 ndarray
        The mean slices of healthy training scans.
    references : dict
        Of the same scans' maps, by depth.
    """

    def __init__(self, model: "keras.Model", healthy: Sequence[str], space: Space, params: Params) -> None:
        require_healthy(len(healthy))
        self.model, self._space, self._params = model, space, params
        total = sum(slices_of(scan).astype(np.float64) for scan in healthy)
        self.healthy: npt.NDArray[np.uint8] = np.round(total / len(healthy)).astype(np.uint8)
        shown = progress(healthy, label="reference", unit="scan", total=len(healthy))
        slices = map(slices_of, shown)
        maps = np.stack([self._both_depths(self.exact(one)[0], self.integrated(one)) for one in slices])
        self.references: dict[str, Reference] = {
            depth: healthy_reference(maps[:, number]) for number, depth in enumerate(DEPTHS)
        }
        self._patterns = healthy_patterns(self._distances(maps))

    def exact(self, slices: npt.NDArray[np.uint8]) -> tuple[Map, Map]:
        """Return CAMs, (n, h, w), and log-odds of AD, (n,)."""
        return class_activation_maps(self.model, slices, method=self._params.explain.method)

    def integrated(self, slices: npt.NDArray[np.uint8]) -> Map:
        """Return integrated gradients from the mean healthy slices."""
        return integrated_maps(self.model, slices, self.healthy, steps=self._params.explain.path_steps)

    def referenced(self, exact: Map, integrated: Map) -> Map:
        """Return the z-scored attribution volume, above its own mean."""
        return self._space.filled(self._patterns.kept(self._distances(self._both_depths(exact, integrated))))

    def _both_depths(self, exact: Map, integrated: Map) -> Map:
        """Return the blurred maps of `DEPTHS` inside, (2, v)."""
        space, both = self._space, (exact, integrated)
        return np.stack([smoothed_inside(space.volume_of(maps), space, self._params) for maps in both])

    def _distances(self, maps: Map) -> Map:
        """Return the depths' weighted mean z-score, (..., v)."""
        of_depths = [
            weight * self.references[depth].distance(maps[..., number, :])
            for number, (depth, weight) in enumerate(DEPTHS.items())
        ]
        return np.asarray(np.sum(of_depths, axis=0), dtype=np.float32)
