"""Scans become SUVR on the MNI grid, whatever their pose and unit."""

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import MIN_REFERENCE_SEEN, load_standard, normalize, to_suvr, to_uint8
from adpet.imaging.registration import brain_points, rms_displacement
from adpet.imaging.template import fdg_mean, fdg_template, tissue_map

GRID_MM = 4.0


def standard(**options):
    return load_standard(**{"grid_mm": GRID_MM, "reference": "global", "align": "affine"} | options)


@pytest.fixture(scope="module")
def moved():
    """The template as a scanner might store it: turned by 10 degrees, shifted, in Bq/mL."""
    template = fdg_template(GRID_MM)
    angle = np.deg2rad(10)
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, 3] = [8, -12, 5]
    return Volume(template.data * 5000, motion @ template.affine), motion


def test_pose_and_unit_cancel_out(moved, tmp_path):
    scan, motion = moved
    # A lab's own template is what scans are registered to, and what they should look like.
    own = tmp_path / "own.nii"
    write_volume(own, fdg_mean(GRID_MM), space="mni")
    before = standard(template=str(own)).template
    # A worker that stays on a cluster reads it again when it has changed.
    write_volume(own, fdg_template(GRID_MM), space="mni")
    assert standard(template=str(own)).template is not before
    volume, alignment = normalize(scan, standard(template=str(own)))
    points = brain_points(standard().brain, volume.affine)
    assert rms_displacement(alignment.matrix, motion, points) < 1.0
    assert alignment.similarity > 0.98
    assert volume.data[standard().brain].mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(volume.affine, standard().template.affine)


def test_scan_in_mni_space_is_not_registered(moved):
    scan, _ = moved
    _, alignment = normalize(scan, standard(align="none"))
    np.testing.assert_array_equal(alignment.matrix, np.eye(4))
    assert alignment.similarity < 0.8


@pytest.mark.parametrize(
    ("image", "low", "high"),
    [
        (lambda: fdg_mean(2.0), 0.98, 1.0),
        (lambda: fdg_template(2.0), 0.5, 0.8),
        (lambda: tissue_map("t1"), -0.3, 0.3),
    ],
)
def test_similarity_tells_fdg_images_from_others(image, low, high):
    _, alignment = normalize(image(), standard())
    assert low < alignment.similarity <= high


def test_real_mean_image_is_similar_to_the_fdg_mean(real_mean_image):
    # 0.64 to the tissue template.
    _, alignment = normalize(read_volume(real_mean_image), standard())
    assert 0.85 < alignment.similarity < 0.95


def test_cut_off_vertex_leaves_the_similarity_as_it_is():
    whole = fdg_mean(GRID_MM)
    cut = Volume(whole.data[:, :, :-10], whole.affine)
    options = {"align": "none", "smoothing_mm": 8.0}
    similarities = [normalize(scan, standard(**options))[1].similarity for scan in (whole, cut)]
    assert similarities == pytest.approx([1.0, 1.0], abs=0.01)


@pytest.mark.parametrize("reference", ["global", "cerebellum", "pons"])
def test_reference_region_has_a_mean_of_one(reference):
    template = fdg_template(GRID_MM)
    chosen = standard(reference=reference, align="none")
    volume, _ = normalize(Volume(template.data * 3, template.affine), chosen)
    assert volume.data[chosen.reference].mean() == pytest.approx(1.0, abs=1e-5)


def test_scan_without_uptake_in_the_reference_is_refused():
    template = fdg_template(GRID_MM)
    chosen = standard(reference="pons", align="none")
    empty = np.where(chosen.reference, 0, template.data)
    with pytest.raises(InputError, match="required uptake in the reference region"):
        normalize(Volume(empty.astype(np.float32), template.affine), chosen)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -20, 33)])
def test_voxels_are_shown_where_the_smoothing_reaches_the_scan_alone(degrees):
    chosen = standard(align="none", smoothing_mm=8.0)
    voxels_mm, shape = np.array([2.5, 3.0, 4.0]), np.array([50, 60, 30])
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * voxels_mm
    affine[:3, 3] = -affine[:3, :3] @ shape / 2
    suvr = normalize(Volume(np.full(shape, 700, np.float32), affine), chosen)[0].data
    places = np.moveaxis(np.indices(suvr.shape), 0, -1)
    index = apply_affine(np.linalg.inv(affine) @ chosen.template.affine, places)
    margin = 8.0 / voxels_mm
    np.testing.assert_array_equal(suvr > 0, ((index >= margin) & (index <= shape - 1 - margin)).all(axis=-1))


@pytest.mark.parametrize("share", [0.6, 0.15])
def test_cut_off_reference_is_measured_in_what_is_seen_or_the_scan_set_aside(share):
    template, chosen = fdg_template(GRID_MM), standard(reference="cerebellum", align="none", smoothing_mm=8.0)
    # About this share of the region stays, less what smoothing reaches.
    start = int(np.quantile(np.argwhere(chosen.reference)[:, 2], 1 - share)) - 2
    affine = template.affine.copy()
    affine[2, 3] += GRID_MM * start
    cut = Volume(np.full_like(template.data[:, :, start:], 700), affine)
    if share < MIN_REFERENCE_SEEN:
        with pytest.raises(InputError, match=r"\d+% of the reference region lies well inside"):
            normalize(cut, chosen)
        return
    inside = np.s_[:, :, start + 4 : -4]
    suvr = normalize(cut, chosen)[0].data
    np.testing.assert_allclose(suvr[inside][chosen.brain[inside]], 1, atol=0.002)
    assert (suvr[:, :, : start + 2] == 0).all(), "what smoothing mixes with nothing is not shown"


class TestSmoothing:
    def test_smoothed_point_has_the_fwhm(self):
        template = fdg_template(GRID_MM)
        chosen = standard(align="none", smoothing_mm=12.0)
        point = np.where(chosen.brain, 1e-6, 0)
        point[24, 27, 23] = 1000
        volume, _ = normalize(Volume(point.astype(np.float32), template.affine), chosen)
        row = volume.data[:, 27, 23]
        half = np.interp(0.5, row[24:][::-1] / row[24], np.arange(row[24:].size)[::-1])
        assert 2 * half * GRID_MM == pytest.approx(12.0, rel=0.08)


WINDOW = (0.0, 2.5)


class TestToSuvr:
    def test_voxels_outside_the_field_of_view_do_not_count(self):
        data = np.array([[[4.0, 8.0, 0.0, -3.0, np.nan]]], dtype=np.float32)
        suvr = to_suvr(data, np.ones(data.shape, dtype=bool))
        np.testing.assert_allclose(suvr[0, 0, :2], [4 / 6, 8 / 6], rtol=1e-6)


class TestToUint8:
    def test_windows_ends_are_0_and_255_and_beyond_is_clipped(self):
        levels = to_uint8(np.array([-1.0, 0.0, 1.25, 2.5, 9.0], np.float32), window=WINDOW)
        assert levels.dtype == np.uint8
        assert levels.tolist() == [0, 0, 128, 255, 255]


class TestCommonResolution:
    SHARED = standard(align="none", target_fwhm_mm=9.0, native_fwhm_mm={"HRRT": 4.0, "ECAT EXACT HR+": 7.0})

    def test_scanners_images_have_the_same_resolution_after_it(self):
        head, (sharp, blurred) = fdg_template(2.0), (4.0, 7.0)
        found = [
            normalize(
                Volume(ndimage.gaussian_filter(head.data, fwhm / 2.3548 / 2), head.affine),
                self.SHARED.of_scanner(scanner),
            )[0].data[self.SHARED.brain]
            for fwhm, scanner in (
                (sharp, "Siemens ECAT HRRT"), (blurred, "siemens  ecat exact hr+"), (blurred, "HRRT"),
            )
        ]  # fmt: skip
        same, mistaken = (np.abs(found[0] - other).mean() for other in found[1:])
        assert same < 0.005
        assert mistaken > 5 * same

    @pytest.mark.parametrize(
        ("scanner", "fwhm", "kernel"),
        [("GE HRRT", None, 65**0.5), ("HRRT", 6.0, 45**0.5), ("", 6.0, 45**0.5), ("HRRT", 9.5, 0)],
    )
    def test_kernel_is_what_the_scanner_lacks(self, scanner, fwhm, kernel):
        assert self.SHARED.of_scanner(scanner, fwhm).smoothing_mm == pytest.approx(kernel)

    @pytest.mark.parametrize(("scanner", "said"), [("", "none"), ("HRRT2", "HRRT2")])
    def test_unknown_scanner_is_refused(self, scanner, said):
        with pytest.raises(InputError, match=rf"to 9 mm .* one of HRRT, ECAT EXACT HR\+; received {said};"):
            self.SHARED.of_scanner(scanner)

    def test_without_a_target_scanners_are_smoothed_alike(self):
        assert standard(smoothing_mm=8.0).of_scanner("any").smoothing_mm == 8.0
        for space, fwhm in ((standard(), 5.0), (self.SHARED, 0.0), (self.SHARED, np.nan)):
            with pytest.raises(InputError, match="above 0 mm, and a model that smooths by scanner; received"):
                space.of_scanner("HRRT", fwhm)
