"""Template space is anatomical, made from nilearn's maps, alike on every grid."""

import numpy as np
import pytest
from programs import run_code

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, write_volume
from adpet.imaging.registration import brain_points, similarity
from adpet.imaging.template import brain_mask, fdg_template, load_template, reference_mask, template_grid


def value_at(data, affine, world):
    """Return the voxel nearest to a place in mm."""
    return data[tuple(np.round(np.linalg.inv(affine) @ [*world, 1])[:3].astype(int))]


@pytest.mark.parametrize("grid_mm", [2.0, 3.0])
class TestStandard:
    def test_grid_holds_the_whole_brain_with_a_margin(self, grid_mm):
        mask = brain_mask(grid_mm)
        assert mask.shape == template_grid(grid_mm)[0]
        for axis in range(3):
            extent = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            assert extent.min() * grid_mm >= 10
            assert (mask.shape[axis] - 1 - extent.max()) * grid_mm >= 10

    def test_brain_has_a_brains_volume_and_place(self, grid_mm):
        mask, affine = brain_mask(grid_mm), template_grid(grid_mm)[1]
        assert 1.7e6 < mask.sum() * grid_mm**3 < 2.0e6
        np.testing.assert_allclose(brain_points(mask, affine).mean(axis=0), [0, -22, 9], atol=3)

    def test_mask_is_one_piece_with_ventricles_cerebellum_and_brain_stem(self, grid_mm):
        mask, affine = brain_mask(grid_mm), template_grid(grid_mm)[1]
        for world in [(8, 10, 14), (0, -60, -50), (0, -28, -34), (0, -35, -60)]:
            assert value_at(mask, affine, world)
        for world in [(0, 60, -40), (80, 0, 0), (0, -70, 75)]:
            assert not value_at(mask, affine, world)

    def test_cortex_takes_up_more_than_white_matter_and_air_nothing(self, grid_mm):
        template = fdg_template(grid_mm)
        grey, white, air = (
            value_at(template.data, template.affine, world)
            for world in [(0, -60, 36), (26, -24, 30), (-90, -120, 90)]
        )
        assert 1.5 * white < grey <= 4
        assert white > 0.8
        assert air == 0

    def test_cerebellar_reference_is_behind_and_below(self, grid_mm):
        mask, affine = reference_mask("cerebellum", grid_mm), template_grid(grid_mm)[1]
        points = brain_points(mask, affine)
        assert 3e4 < mask.sum() * grid_mm**3 < 1.2e5
        assert points[:, 1].max() <= -45
        assert points[:, 2].max() <= -25
        assert (brain_mask(grid_mm) | ~mask).all()

    def test_pontine_reference_lies_in_the_midline(self, grid_mm):
        mask, affine = reference_mask("pons", grid_mm), template_grid(grid_mm)[1]
        assert 3e3 < mask.sum() * grid_mm**3 < 1.5e4
        np.testing.assert_allclose(brain_points(mask, affine).mean(axis=0), [0, -26, -32], atol=3)


class TestShared:
    def test_left_and_right_are_alike(self):
        template = fdg_template(3.0)
        np.testing.assert_allclose(template.data, template.data[::-1], atol=0.02)

    def test_template_is_made_without_output_or_download(self):
        code = (
            "import socket; socket.socket.connect = None\n"
            "from adpet.imaging.template import fdg_template, brain_mask\n"
            "fdg_template(6.0); brain_mask(6.0)\n"
        )
        done = run_code(code, PYTHONWARNINGS="error")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class TestOwnTemplate:
    def test_template_file_is_resampled_to_the_grid(self, tmp_path):
        fine = fdg_template(2.0)
        write_volume(tmp_path / "own.nii.gz", fine, space="mni")
        own = load_template(tmp_path / "own.nii.gz", 3.0)
        assert own.data.shape == template_grid(3.0)[0]
        assert similarity(own.data, fdg_template(3.0).data, brain_mask(3.0)) > 0.99

    def test_template_file_outside_mni_space_is_refused(self, tmp_path):
        fine = fdg_template(3.0)
        moved = fine.affine.copy()
        moved[1, 3] += 90
        write_volume(tmp_path / "own.nii", Volume(fine.data, moved))
        with pytest.raises(InputError, match=r"own\.nii: the template must cover the brain"):
            load_template(tmp_path / "own.nii", 3.0)
