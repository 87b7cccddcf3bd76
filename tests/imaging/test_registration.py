"""Registration finds scans in any pose, size and storage order."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import run_code
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume, to_ras
from adpet.imaging.registration import (
    brain_points,
    interpolate_with_gradient,
    register,
    resample,
    rms_displacement,
)
from adpet.imaging.template import brain_mask, fdg_template, tissue_map

GRID_MM = 3.0
# The scanner of the made-up scans: 128 x 128 x 80 voxels of 2.06 x 2.06 x 2.43 mm, stored in LAS order.
SHAPE, ZOOMS = (128, 128, 80), (2.06, 2.06, 2.43)
BRAIN_CENTRE = np.array([0.0, -20.0, 8.0])


@pytest.fixture(scope="module")
def template():
    return fdg_template(GRID_MM)


@pytest.fixture(scope="module")
def mask():
    return brain_mask(GRID_MM)


@pytest.fixture(scope="module")
def head():
    """Return a head unlike the template: sharper, dimmer behind and below, with a scalp and noise."""
    grey, white, t1 = (tissue_map(name).data for name in ("gm", "wm", "t1"))
    _, y, z = np.indices(grey.shape, dtype=np.float32, sparse=True)
    dimmed = 1 - 0.25 / (1 + np.exp((y - 90) / 8)) - 0.2 / (1 + np.exp((z - 45) / 6))
    scalp = ndimage.binary_dilation(t1 > 0, iterations=12) & ~ndimage.binary_dilation(t1 > 0, iterations=5)
    uptake = 3 * grey * dimmed + 0.9 * white + 0.35 * scalp
    uptake = ndimage.gaussian_filter(uptake.astype(np.float32), 2.4)
    noise = np.random.default_rng(0).standard_normal(uptake.shape, dtype=np.float32)
    noisy = uptake + 0.5 * ndimage.gaussian_filter(noise, 2.4) * np.sqrt(uptake)
    return Volume(noisy * 5000, tissue_map("t1").affine)


def pose(degrees=(0, 0, 0), shift=(0, 0, 0), size=(1, 1, 1)):
    """Return standard world mm -> scan's world mm of a head that was turned about the brain's centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(size)
    matrix[:3, 3] = BRAIN_CENTRE + shift - matrix[:3, :3] @ BRAIN_CENTRE
    return matrix


def scanned(head, matrix, *, shape=SHAPE, zooms=ZOOMS):
    """Scan a moved head: the scanner's view is centred on the brain, its first axis runs right to left."""
    affine = np.diag([-zooms[0], zooms[1], zooms[2], 1.0])
    centre = nib.affines.apply_affine(matrix, BRAIN_CENTRE)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return to_ras(resample(head, shape=shape, affine=affine, matrix=np.linalg.inv(matrix)), affine)


@pytest.fixture(scope="module")
def nominal(head, template, mask):
    """Return where the head is found that was not moved at all."""
    return register(scanned(head, pose()), template, mask)


def error_mm(found, expected, mask, template):
    return rms_displacement(found, expected, brain_points(mask, template.affine))


class TestRegister:
    def test_head_unlike_the_template_is_found_to_a_millimetre(self, nominal, template, mask):
        assert error_mm(nominal.matrix, np.eye(4), mask, template) < 1
        assert nominal.similarity > 0.8

    @pytest.mark.parametrize(
        "matrix",
        [
            pose((8, -5, 6), (6, -9, 12)),
            pose((30, 0, 0)),
            pose((-30, 20, 25), (30, 30, -30)),
            pose((0, 0, -12), size=(0.88, 0.9, 0.86)),
            pose((5, 5, 5), (400, -700, 1500), size=(1.12, 1.08, 1.15)),
        ],
        ids=["usual pose", "chin down", "far turned", "small", "large and far from the origin"],
    )
    def test_head_in_any_pose_and_size_is_found(self, head, nominal, template, mask, matrix):
        found = register(scanned(head, matrix), template, mask)
        assert error_mm(found.matrix, matrix @ nominal.matrix, mask, template) < 0.7

    def test_hypometabolic_lobe_does_not_shift_the_scan(self, head, nominal, template, mask):
        scan = scanned(head, pose())
        i, j, k = np.indices(scan.data.shape, sparse=True)
        x, y, z = (scan.affine[n, n] * axis + scan.affine[n, 3] for n, axis in enumerate((i, j, k)))
        distance = ((x + 46) / 18) ** 2 + ((y + 58) / 20) ** 2 + ((z - 30) / 22) ** 2
        deficit = Volume((scan.data * (1 - 0.4 / (1 + distance**2))).astype(np.float32), scan.affine)
        found = register(deficit, template, mask)
        assert error_mm(found.matrix, nominal.matrix, mask, template) < 0.3

    @pytest.mark.parametrize("keep", [np.s_[:, :, 14:], np.s_[:, :, :56]], ids=["no cerebellum", "no vertex"])
    def test_head_partly_in_view_is_found(self, head, template, mask, keep):
        matrix = pose((5, 4, -6), (5, -5, 5))
        whole = scanned(head, matrix)
        affine = whole.affine.copy()
        affine[:3, 3] = nib.affines.apply_affine(whole.affine, [0, 0, keep[2].start or 0])
        found = register(Volume(np.ascontiguousarray(whole.data[keep]), affine), template, mask)
        assert error_mm(found.matrix, matrix, mask, template) < 3

    @pytest.mark.parametrize(
        ("shape", "zooms"), [((168, 168, 70), (2.0, 2.0, 3.27)), ((180, 200, 160), (1.2, 1.2, 1.2))]
    )
    def test_scan_of_any_voxel_size_is_found(self, head, nominal, template, mask, *, shape, zooms):
        matrix = pose((4, -3, 7))
        found = register(scanned(head, matrix, shape=shape, zooms=zooms), template, mask)
        assert error_mm(found.matrix, matrix @ nominal.matrix, mask, template) < 0.7

    def test_result_has_the_same_bits_in_every_process(self):
        code = (
            "import sys, numpy as np\n"
            "from adpet.imaging.registration import register\n"
            "from adpet.imaging.template import brain_mask, fdg_template\n"
            "from adpet.imaging.nifti import Volume\n"
            "t = fdg_template(4.0)\n"
            "moved = Volume(t.data[3:], t.affine @ np.diag([1.02, 1, 1, 1]))\n"
            "a = register(moved, t, brain_mask(4.0))\n"
            "b = register(moved, t, brain_mask(4.0))\n"
            "assert (a.matrix == b.matrix).all()\n"
            "print(a.matrix.tobytes().hex(), a.similarity.hex())\n"
        )
        one, two = (run_code(code, PYTHONWARNINGS="error", OMP_NUM_THREADS=threads) for threads in "12")
        assert one.stdout == two.stdout != ""
        assert one.stderr == two.stderr == ""

    @pytest.mark.parametrize("value", [0, -1])
    def test_scan_without_uptake_is_refused(self, template, mask, value):
        empty = Volume(np.full((40, 40, 40), value, np.float32), np.diag([4.0, 4, 4, 1]))
        with pytest.raises(InputError, match=r"\Aregistration failed: the scan has no positive uptake.*\Z"):
            register(empty, template, mask)

    def test_scan_with_little_brain_in_view_is_refused(self, head, template, mask):
        slab = scanned(head, pose(), shape=(60, 60, 9), zooms=(2.0, 2.0, 2.0))
        with pytest.raises(InputError, match=r"\Aregistration failed: \d+% of the brain lies[^\n]*\Z"):
            register(slab, template, mask)

    def test_huge_field_of_view_is_refused(self, template, mask):
        wide = Volume(np.ones((60, 60, 60), np.float32), np.diag([60.0, 60, 60, 1]))
        with pytest.raises(
            InputError, match=r"field of view is 3600 x 3600 x 3600 mm, far more than a head's"
        ):
            register(wide, template, mask)


@pytest.fixture(scope="module")
def real(real_mean_image):
    return read_volume(real_mean_image)


@pytest.fixture(scope="module")
def real_unmoved(real, template, mask):
    return register(real, template, mask)


class TestRealScan:
    # The image is mirror-symmetric about x = +2 mm, so that 2 mm of its displacement are the file's own.
    def test_it_is_found_within_4_mm_of_its_nominal_place(self, real_unmoved, template, mask):
        assert error_mm(real_unmoved.matrix, np.eye(4), mask, template) <= 4
        assert real_unmoved.matrix[0, 3] == pytest.approx(2, abs=0.5)
        assert real_unmoved.similarity > 0.6

    @pytest.mark.parametrize("axis", ["x", "y", "z"])
    def test_turned_10_degrees_shifted_15_mm_and_flipped_it_is_found_again(
        self, real, real_unmoved, template, mask, *, axis
    ):
        matrix = pose(np.array([axis == name for name in "xyz"]) * 10, (9, -10, np.sqrt(44)))
        scan = scanned(real, matrix, shape=(128, 128, 96), zooms=(2.06, 2.06, 2.43))
        found = register(scan, template, mask)
        assert error_mm(found.matrix, matrix @ real_unmoved.matrix, mask, template) <= 2


class TestResample:
    @settings(max_examples=30)
    @given(
        degrees=st.tuples(*[st.floats(-20, 20)] * 3),
        shift=st.tuples(*[st.floats(-5, 5)] * 3),
        slope=st.tuples(*[st.floats(-2, 2)] * 3),
    )
    def test_linear_field_is_resampled_where_the_matrix_says(self, degrees, shift, slope):
        affine = np.diag([2.0, 2.5, 3.0, 1.0])
        affine[:3, 3] = [-40, -50, -60]
        index = np.indices((41, 41, 41)).reshape(3, -1).T
        field = (nib.affines.apply_affine(affine, index) @ slope).reshape(41, 41, 41).astype(np.float32)
        matrix = pose(degrees, shift)
        target = np.diag([4.0, 4.0, 4.0, 1.0])
        target[:3, 3] = [-12, -32, -4]
        sampled = resample(Volume(field, affine), shape=(7, 7, 7), affine=target, matrix=matrix)
        where = nib.affines.apply_affine(matrix @ target, np.indices((7, 7, 7)).reshape(3, -1).T)
        np.testing.assert_allclose(sampled.ravel(), where @ slope, atol=1e-3)


class TestInterpolateWithGradient:
    @given(st.integers(0, 2**32 - 1))
    def test_values_match_scipy_and_gradient_is_that_of_neighbours(self, seed):
        rng = np.random.default_rng(seed)
        data = rng.standard_normal((5, 6, 7)).astype(np.float32)
        index = rng.uniform(0.01, [3.98, 4.98, 5.98], size=(20, 3))
        values, gradient = interpolate_with_gradient(data, index)
        np.testing.assert_allclose(values, ndimage.map_coordinates(data, index.T, order=1, output=np.float64))
        for axis in range(3):
            # Linear within a cell: its two faces are one voxel apart.
            faces = np.stack([index, index])
            faces[:, :, axis] = np.floor(index[:, axis]) + np.array([[0], [1 - 1e-9]])
            low, high = (interpolate_with_gradient(data, face)[0] for face in faces)
            np.testing.assert_allclose(gradient[:, axis], high - low, atol=1e-6)
