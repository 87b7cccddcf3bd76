"""Scanners place, blur and count heads as their figures say."""

import nibabel as nib
import numpy as np
import pytest

from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.simulation.anatomy import GRID_MM
from adpet.simulation.scanner import NOISE, SCANNERS, SITES, blur, count, draw_pose, sample
from adpet.simulation.subject import draw_person


@pytest.fixture(scope="module")
def person(anatomy):
    return draw_person(np.random.default_rng(5), anatomy)


def counted(*, noise=1.0, frames=1, seed=0, uptake=None):
    scanner = SCANNERS["HRplus"]
    uptake = np.full((24, 24, 24), 1.3, dtype=np.float32) if uptake is None else uptake
    return count(np.random.default_rng(seed), uptake, scanner, noise=noise, frames=frames)


@pytest.mark.parametrize("name", SCANNERS)
def test_affine_has_the_scanners_axes_zooms_and_its_middle_at_the_origin(name):
    scanner = SCANNERS[name]
    assert "".join(nib.aff2axcodes(scanner.affine)) == scanner.axes
    np.testing.assert_allclose(nib.affines.voxel_sizes(scanner.affine), scanner.zooms)
    middle = scanner.affine @ [*((np.array(scanner.matrix) - 1) / 2), 1]
    np.testing.assert_allclose(middle[:3], 0, atol=1e-9)


@pytest.mark.parametrize(
    ("site", "published_mm"), [("S01", 252), ("S03", 157), ("S05", 216), ("S06", 162), ("S07", 155)]
)
def test_slices_fill_the_scanners_published_axial_field_of_view(site, published_mm):
    length = SITES[site].slices * SCANNERS[SITES[site].scanner].zooms[2]
    assert length == pytest.approx(published_mm, rel=0.025)


def test_pose_turns_and_scales_without_shear_or_mirror(person):
    pose = draw_pose(np.random.default_rng(1), person, scale=1)[:3, :3]
    size = np.cbrt(np.linalg.det(pose))
    assert 0.8 < size < 1.25
    np.testing.assert_allclose(pose @ pose.T, size**2 * np.eye(3), atol=1e-9)


@pytest.mark.parametrize("fwhm_mm", [4.2, 5.2, 6.2, 6.8])
def test_blur_and_interpolation_together_have_the_scanners_resolution(fwhm_mm):
    point = np.zeros((21, 21, 21), dtype=np.float32)
    point[10, 10, 10] = 1
    fine = np.arange(0, 20.01, 1 / 3)
    line = np.stack(np.meshgrid(fine, [10.0], [10.0], indexing="ij")).astype(np.float32)
    profile = sample(blur(point, fwhm_mm), line)[:, 0, 0]
    variance = (profile * (fine - 10) ** 2).sum() / profile.sum() * GRID_MM**2
    # The average over the voxel, which the tissue maps have undergone, is missing here.
    variance += GRID_MM**2 / 12
    assert FWHM_PER_SIGMA * np.sqrt(variance) == pytest.approx(fwhm_mm, rel=0.05)


class TestCounts:
    def test_are_whole_not_negative_and_fit_int16(self):
        image = counted(uptake=np.linspace(0, 3, 24**3, dtype=np.float32).reshape(24, 24, 24))
        assert (image == np.round(image)).all()
        assert image.min() >= 0
        assert image.max() < 2**15

    def test_noise_is_that_of_the_recipe(self):
        image = counted()
        assert image.std() / image.mean() == pytest.approx(NOISE, rel=0.5)
        assert counted(noise=0).std() / counted(noise=0).mean() < 0.035

    def test_frames_are_noisier_each_and_alike_on_average(self):
        frames, whole = counted(frames=6), counted()
        assert frames.shape == (24, 24, 24, 6)
        one, mean = frames[..., 0].std(), frames.mean(axis=-1).std()
        assert one > 1.8 * mean
        assert mean / frames.mean() == pytest.approx(whole.std() / whole.mean(), rel=0.3)
