"""Explainers: a network's maps of whole scans in MNI space."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.evaluation.saliency import MARGIN_MM, Map, Mask, Reference, healthy_patterns, healthy_reference
from adpet.imaging.nifti import Volume
from adpet.imaging.normative import require_healthy, smoothed
from adpet.imaging.slices import CoronalGrid, back_project, coronal_slices
from adpet.imaging.template import brain_mask, fdg_template
from adpet.learning import limit_threads
from adpet.parallel import map_in_processes
from adpet.params import Params
from adpet.paths import MODEL, SLICES
from adpet.stages.slice import coronal_grid

if TYPE_CHECKING:
    import keras

# What a referenced map joins, and by which weights: class activation maps, and integrated gradients.
DEPTHS = {"places": 1 / 3, "pixels": 2 / 3}

# Scans that a process explains before it hands over their maps, and scans whose maps may wait in memory.
SCANS_A_TASK, SCANS_AHEAD = 16, 256

Slices: TypeAlias = npt.NDArray[np.uint8]


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


def slices_of(scan: str) -> Slices:
    """Return a scan's slices, (n, height, width, channels)."""
    slices: Slices = np.load(SLICES / f"{scan}.npy")
    return slices


@dataclass(frozen=True, eq=False)
class ScanMaps:
    """Maps of a scan by a network.

    Attributes
    ----------
    exact : (n, h, w) float32 ndarray
        Class activation maps of the slices, at the feature layer's places.
    logits : (n,) float32 ndarray
        Log-odds of AD.
    integrated : (n, height, width) float32 ndarray
        Integrated gradients from the mean healthy slices.
    blurred : (2, v) float32 ndarray
        Both inside the brain, in the order of `DEPTHS`.
    method : str
        Of the exact maps: ``cam`` or ``grad-cam``.
    """

    exact: Map
    logits: Map
    integrated: Map
    blurred: Map
    method: str


class Explainer:
    """Makes a network's maps; `baseline` are mean healthy slices."""

    def __init__(self, model: "keras.Model", baseline: Slices, space: Space, params: Params) -> None:
        self.model, self.baseline, self._space, self._params = model, baseline, space, params

    def exact(self, slices: Slices) -> tuple[Map, Map]:
        """Return CAMs, (n, h, w), and log-odds of AD, (n,)."""
        from adpet.learning.saliency import class_activation_maps

        return class_activation_maps(self.model, slices, method=self._params.explain.method)

    def maps(self, scan: str) -> ScanMaps:
        """Make the maps of a scan."""
        from adpet.learning.saliency import integrated_maps, method_for

        slices, space = slices_of(scan), self._space
        exact, logits = self.exact(slices)
        steps = self._params.explain.path_steps
        integrated = integrated_maps(self.model, slices, self.baseline, steps=steps)
        width = {"fwhm_mm": self._params.explain.smooth_mm, "grid_mm": self._params.normalize.grid_mm}
        blurred = [
            smoothed(space.volume_of(maps), **width, inside=space.inside)[space.inside]
            for maps in (exact, integrated)
        ]
        method = method_for(self.model, self._params.explain.method)
        return ScanMaps(exact, logits, integrated, np.stack(blurred), method)


class HealthyMaps:
    """Maps of healthy training scans, which others are z-scored by.

    A referenced map joins two depths: the class activation map, which says what each place of the feature
    layer adds to the answer, and integrated gradients, which say what each pixel adds to it. Of the mean
    of their distances, what lies along the ways in which healthy scans differ is kept.

    Attributes
    ----------
    by_depth : dict
        Mean and spread of the maps, by depth.
    method : str
        Of the exact maps.
    """

    def __init__(self, healthy: Sequence[ScanMaps]) -> None:
        require_healthy(len(healthy))
        maps = np.stack([one.blurred for one in healthy])
        self.method = healthy[0].method
        self.by_depth: dict[str, Reference] = {
            depth: healthy_reference(maps[:, number]) for number, depth in enumerate(DEPTHS)
        }
        self._patterns = healthy_patterns(self._distances(maps))

    def z_scored(self, maps: ScanMaps) -> Map:
        """Return the z-scored attribution, (v,), above its own mean."""
        return self._patterns.kept(self._distances(maps.blurred))

    def _distances(self, maps: Map) -> Map:
        """Return the depths' weighted mean z-score, (..., v)."""
        of_depths = [
            weight * self.by_depth[depth].distance(maps[..., number, :])
            for number, (depth, weight) in enumerate(DEPTHS.items())
        ]
        return np.asarray(np.sum(of_depths, axis=0), dtype=np.float32)


def mean_slices(scans: Sequence[str]) -> Slices:
    """Return the scans' mean slices, (n, height, width, channels)."""
    require_healthy(len(scans))
    total = sum(slices_of(scan).astype(np.float64) for scan in scans)
    return np.asarray(np.round(total / len(scans)), dtype=np.uint8)


def maps_of(scans: Sequence[str], baseline: Slices, params: Params) -> Iterator[ScanMaps]:
    """Make the trained network's maps in processes, in order."""
    one = partial(_maps_of_task, baseline=baseline, params=params)
    workers, cluster = params.compute.workers, params.compute.cluster
    for first in range(0, len(scans), SCANS_AHEAD):
        ahead = scans[first : first + SCANS_AHEAD]
        tasks = [ahead[start : start + SCANS_A_TASK] for start in range(0, len(ahead), SCANS_A_TASK)]
        for maps in map_in_processes(one, tasks, workers=workers, cluster=cluster):
            yield from maps


def _maps_of_task(scans: Sequence[str], *, baseline: Slices, params: Params) -> list[ScanMaps]:
    explainer = trained_explainer(baseline, params)
    return [explainer.maps(scan) for scan in scans]


def trained_explainer(baseline: Slices, params: Params) -> Explainer:
    """Return the trained network's explainer; a process loads it once."""
    changed_ns = MODEL.stat().st_mtime_ns if MODEL.exists() else 0
    model = _loaded(MODEL.absolute(), changed_ns, params.compute.threads)
    return Explainer(model, baseline, space_of(params), params)


@lru_cache(maxsize=1)
def _loaded(path: Path, _changed_ns: int, threads: int) -> "keras.Model":
    from adpet.learning.checkpoint import load_model

    limit_threads(threads)
    return load_model(path)
