"""One image finds its way to another by steps that only go up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import Volume
from adpet.imaging.registration import Samples, interpolate_with_gradient, maximize_correlation

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = [-60, -70, -50]
SHAPE = (30, 34, 28)


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    return Volume(ndimage.gaussian_filter(noise, 3), AFFINE)


@pytest.fixture(scope="module")
def everywhere():
    return np.ones(SHAPE, dtype=bool)


def target_of(image, matrix):
    """Return the image as it is seen when `matrix` has moved it, on points well inside."""
    points = np.random.default_rng(2).uniform([-25, -30, -20], [25, 30, 20], size=(2000, 3))
    where = np.linalg.inv(image.affine) @ matrix
    values, _ = interpolate_with_gradient(image.data, points @ where[:3, :3].T + where[:3, 3])
    return Samples(points, values)


def moved(degrees, shift_mm, size=(1, 1, 1)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(size)
    matrix[:3, 3] = shift_mm
    return matrix


class TestClimb:
    @pytest.mark.parametrize("affine", [False, True])
    def test_a_turned_and_shifted_image_is_found_exactly(self, image, everywhere, affine):
        true = moved((6, -4, 5), (3, -4, 2))
        found = maximize_correlation(image, everywhere, target_of(image, true), np.eye(4), affine=affine)
        np.testing.assert_allclose(found, true, atol=2e-3)

    def test_a_stretched_image_is_found_where_stretching_is_allowed(self, image, everywhere):
        true = moved((3, 2, -3), (2, 2, -3), size=(1.06, 0.95, 1.04))
        target = target_of(image, true)
        np.testing.assert_allclose(
            maximize_correlation(image, everywhere, target, np.eye(4), affine=True), true, atol=2e-3
        )
        rigid = maximize_correlation(image, everywhere, target, np.eye(4), affine=False)
        np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-12)

    def test_the_scale_of_either_image_does_not_matter(self, image, everywhere):
        target = target_of(image, moved((2, 2, 2), (1, 1, 1)))
        found = maximize_correlation(image, everywhere, target, np.eye(4), affine=True)
        louder = Volume(image.data * np.float32(1024), image.affine)
        fainter = Samples(target.points_mm, target.values / 512 + 3)
        np.testing.assert_allclose(
            maximize_correlation(louder, everywhere, fainter, np.eye(4), affine=True), found, atol=1e-6
        )

    def test_too_little_in_view_is_refused_with_its_share(self, image, everywhere):
        with pytest.raises(InputError, match=r"\A\d+% of the brain lies in the scanner's view, 30% must"):
            maximize_correlation(
                image, everywhere, target_of(image, np.eye(4)), moved((0, 0, 0), (70, 0, 0)), affine=False
            )

    def test_a_constant_image_is_refused(self, image, everywhere):
        flat = Volume(np.ones(SHAPE, np.float32), AFFINE)
        with pytest.raises(InputError, match="the same everywhere"):
            maximize_correlation(flat, everywhere, target_of(image, np.eye(4)), np.eye(4), affine=False)


class TestSampledWithSlopes:
    @given(st.integers(0, 2**32 - 1))
    def test_values_are_scipys_and_slopes_those_between_neighbours(self, seed):
        rng = np.random.default_rng(seed)
        data = rng.standard_normal((5, 6, 7)).astype(np.float32)
        index = rng.uniform(0.01, [3.98, 4.98, 5.98], size=(20, 3))
        values, slopes = interpolate_with_gradient(data, index)
        np.testing.assert_allclose(values, ndimage.map_coordinates(data, index.T, order=1, output=np.float64))
        for axis in range(3):
            # Linear within a cell: its two faces are one voxel apart.
            faces = np.stack([index, index])
            faces[:, :, axis] = np.floor(index[:, axis]) + np.array([[0], [1 - 1e-9]])
            low, high = (interpolate_with_gradient(data, face)[0] for face in faces)
            np.testing.assert_allclose(slopes[:, axis], high - low, atol=1e-6)
