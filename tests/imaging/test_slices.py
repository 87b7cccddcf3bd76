"""Coronal planes and back-projected maps share one geometry."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.imaging.nifti import to_ras
from adpet.imaging.slices import (
    CENTRE_Z_MM,
    CoronalGrid,
    back_project,
    coronal_slices,
    network_slices,
    own_planes,
    resize_maps,
)
from adpet.imaging.template import brain_mask, template_grid

GRID = CoronalGrid.spanning(range_mm=(-20, 22), step_mm=6, size=16, field_mm=64)
SHAPE = (40, 38, 42)
AFFINE = np.array([[2.0, 0, 0, -39], [0, 2.0, 0, -36], [0, 0, 2.0, CENTRE_Z_MM - 41], [0, 0, 0, 1]])


def ramp(shape, affine, slope):
    """Return a field that is linear in world coordinates."""
    index = np.indices(shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    return (np.asarray(slope) @ world).reshape(shape).astype(np.float32)


class TestGrid:
    @pytest.mark.parametrize("grid_mm", [2.0, 3.0])
    def test_field_of_192_mm_holds_the_brain(self, grid_mm):
        mask = brain_mask(grid_mm).astype(np.float32)
        _, affine = template_grid(grid_mm)
        grid = CoronalGrid.spanning(range_mm=(-126, 90), step_mm=grid_mm, size=96, field_mm=192)
        slices = coronal_slices(mask, affine, grid)
        for edge in (slices[:, 0], slices[:, -1], slices[:, :, 0], slices[:, :, -1]):
            assert edge.max() == 0
        assert slices.sum() * 4 * grid_mm == pytest.approx(mask.sum() * grid_mm**3, rel=0.01)


class TestMarkers:
    """One bright voxel at a known place in the world lands where a reader of the picture expects it."""

    @pytest.mark.parametrize("storage", ["RAS", "LAS"])
    @pytest.mark.parametrize(
        ("world", "pixel"),
        [
            ((-30, -20, CENTRE_Z_MM + 30), (0, 0, 0)),
            ((30, -20, CENTRE_Z_MM + 30), (0, 0, 15)),
            ((-30, -20, CENTRE_Z_MM - 30), (0, 15, 0)),
            ((-30, 22, CENTRE_Z_MM + 30), (7, 0, 0)),
        ],
        ids=["left superior posterior", "right", "inferior", "anterior"],
    )
    def test_marker_is_cut_where_it_lies(self, storage, world, pixel):
        affine = AFFINE.copy()
        affine[:3, 3] += [1, 0, 1]
        data = np.zeros(SHAPE, dtype=np.float32)
        if storage == "LAS":
            affine[0] = [-2, 0, 0, 40]
        index = np.linalg.inv(affine) @ [*world, 1]
        data[tuple(np.round(index[:3]).astype(int))] = 1
        volume = to_ras(data, affine)
        slices = coronal_slices(volume.data, volume.affine, GRID)
        assert np.unravel_index(slices.argmax(), slices.shape) == pixel
        assert slices.max() == pytest.approx(1, abs=1e-6)


class TestNetworkSlices:
    @given(neighbours_mm=st.floats(0.5, 8), slope=st.floats(-2, 2))
    def test_neighbours_lie_behind_and_in_front_at_their_distance(self, neighbours_mm, slope):
        field = ramp(SHAPE, AFFINE, (0, slope, 0))
        grid = replace(GRID, neighbours_mm=neighbours_mm)
        found, alone = network_slices(field, AFFINE, grid), coronal_slices(field, AFFINE, GRID)
        assert found.shape == (*alone.shape, 3)
        offsets = np.array([-neighbours_mm, 0, neighbours_mm]) * slope
        np.testing.assert_allclose(found, alone[..., None] + offsets, atol=1e-4)
        np.testing.assert_array_equal(own_planes(found), alone)

    def test_plane_without_neighbours_is_one_channel(self):
        field = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        found = network_slices(field, AFFINE, GRID)
        np.testing.assert_array_equal(found, coronal_slices(field, AFFINE, GRID)[..., None])


class TestInverse:
    def test_coinciding_grid_is_reproduced_bit_by_bit(self):
        affine = np.array([[4.0, 0, 0, -30], [0, 6, 0, -20], [0, 0, 4, CENTRE_Z_MM - 30], [0, 0, 0, 1]])
        data = np.random.default_rng(0).normal(size=(16, 8, 16)).astype(np.float32)
        slices = coronal_slices(data, affine, GRID)
        np.testing.assert_array_equal(slices[3], data[:, 3, ::-1].T)
        np.testing.assert_array_equal(back_project(slices, GRID, shape=data.shape, affine=affine), data)

    @settings(max_examples=40)
    @given(
        shift=st.tuples(*[st.floats(-6, 6)] * 3),
        zooms=st.tuples(*[st.floats(1.4, 3.5)] * 3),
        turn=st.floats(-0.2, 0.2),
        slope=st.tuples(*[st.floats(-2, 2)] * 3),
    )
    def test_linear_field_survives_cutting_and_putting_back(self, shift, zooms, turn, slope):
        rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = rotation @ np.diag(zooms)
        affine[:3, 3] = np.array([0, 0, CENTRE_Z_MM]) + shift - affine[:3, :3] @ [34, 34, 34]
        shape = (69, 69, 69)
        field = ramp(shape, affine, slope)
        back = back_project(coronal_slices(field, affine, GRID), GRID, shape=shape, affine=affine)
        index = np.linalg.inv(GRID.affine) @ affine
        where = np.tensordot(index[:3, :3], np.indices(shape), 1) + index[:3, 3].reshape(3, 1, 1, 1)
        limits = np.array([15.0, 15.0, 7.0]).reshape(3, 1, 1, 1)
        inside = ((where >= 0) & (where <= limits)).all(axis=0)
        assert inside.any()
        np.testing.assert_allclose(back[inside], field[inside], atol=1e-4)
        outside = ((where < -1e-6) | (where > limits + 1e-6)).any(axis=0)
        assert (back[outside] == 0).all()

    def test_voxels_on_the_last_plane_are_filled_in_spite_of_rounding(self):
        grid = CoronalGrid.spanning(range_mm=(-0.3, 0.3), step_mm=0.1, size=8, field_mm=0.8)
        affine = np.diag([0.1, 0.1, 0.1, 1.0])
        affine[:3, 3] = [-0.35, -0.3, CENTRE_Z_MM - 0.35]
        volume = back_project(np.ones((7, 8, 8), np.float32), grid, shape=(8, 7, 8), affine=affine)
        assert volume.min() == 1


class TestResize:
    @pytest.mark.parametrize(("source", "target"), [(4, 16), (2, 64), (7, 56), (16, 8), (5, 12)])
    def test_ramp_over_the_field_keeps_its_place(self, source, target):
        centres = (np.arange(source, dtype=np.float32) + 0.5) / source
        maps = np.broadcast_to(centres, (1, source, source)) + 10 * centres[:, None]
        wanted = np.clip((np.arange(target) + 0.5) / target, centres[0], centres[-1])
        expected = wanted + 10 * wanted[:, None]
        np.testing.assert_allclose(resize_maps(maps, target)[0], expected, rtol=1e-6)
