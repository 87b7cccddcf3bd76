"""Out-of-distribution checks on images that are not FDG-PET of a human head."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume
from adpet.imaging.template import tissue_map
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import RefusedError, answer


@pytest.fixture(scope="module")
def model(finished):
    return open_model(finished.root / "results/export")


@pytest.fixture(scope="module")
def scan(finished):
    """A test subject's scan, which the network has not seen."""
    split = pd.read_csv(finished.root / "data/processed/split.csv")
    name = split.loc[split["part"] == "test", "scan"].iloc[0]
    scans = pd.read_csv(finished.root / "data/interim/scans.csv").set_index("scan")
    return read_volume(finished.root / scans.loc[name, "path"])


@pytest.fixture(scope="module")
def maps():
    grey, white, t1 = (tissue_map(name).data for name in ("gm", "wm", "t1"))
    brain = t1 > 0
    head = ndimage.binary_dilation(brain, iterations=12)
    scalp = head & ~ndimage.binary_dilation(brain, iterations=6)
    return {"grey": grey, "white": white, "t1": t1, "scalp": scalp.astype(np.float32)}


def imaged(uptake, fwhm_mm=7.0):
    """A 2 mm image of what is in the head, as a scanner would blur it, with noise."""
    blurred = ndimage.gaussian_filter(np.asarray(uptake, dtype=np.float32), fwhm_mm / 2.355)
    noise = np.random.default_rng(0).normal(0, 0.03 * blurred.max(), blurred.shape)
    noisy = np.clip(blurred + noise * np.sqrt(np.clip(blurred / blurred.max(), 0, None)), 0, None)
    affine = tissue_map("gm").affine @ np.diag([2, 2, 2, 1])
    return Volume(np.ascontiguousarray(noisy[::2, ::2, ::2], dtype=np.float32), affine)


def refused(scan, model, **options):
    """The checks that refuse a scan; none where registration finds no place for it."""
    with pytest.raises(InputError) as error:
        answer(scan, model, name="odd", **options)
    assert "\n" not in str(error.value)
    if not isinstance(error.value, RefusedError):
        return set()
    return {check["name"] for check in error.value.checks if check["verdict"] == "refused"}


def test_scan_of_a_new_subject_passes_every_check(scan, model):
    found = answer(scan, model, name="new").document
    assert {check["verdict"] for check in found["checks"]} == {"ok"}
    assert 0 < found["probability_of_ad"] < 1


def test_real_mean_image_is_answered(real_mean_image, model):
    found = answer(read_volume(real_mean_image), model, name="real").document
    assert "refused" not in {check["verdict"] for check in found["checks"]}


def test_amyloid_pet_is_refused_for_its_white_matter(maps, model):
    without_plaques = 1.2 * maps["grey"] + 2.2 * maps["white"] + 0.5 * maps["scalp"]
    with_plaques = 2.2 * maps["grey"] + 2.2 * maps["white"] + 0.5 * maps["scalp"]
    assert {"similarity", "grey_white_contrast"} <= refused(imaged(without_plaques), model)
    assert "similarity" in refused(imaged(with_plaques), model)


@pytest.mark.parametrize("scalp", [0.0, 0.9])
def test_mri_is_refused(maps, model, scalp):
    assert "similarity" in refused(imaged(maps["t1"] + scalp * maps["scalp"], fwhm_mm=2.0), model)


def test_tissue_map_is_refused_despite_its_similarity(maps, model):
    found = refused(Volume(maps["grey"], tissue_map("gm").affine), model)
    assert found
    assert "similarity" not in found


def test_mask_is_refused(maps, model):
    assert refused(Volume((maps["t1"] > 0).astype(np.float32), tissue_map("t1").affine), model)


class TestPartOfAHead:
    def test_half_a_head_is_refused(self, scan, model):
        left, upper = (size // 2 for size in scan.data.shape[::2])
        moved = np.eye(4)
        moved[2, 3] = upper
        refused(Volume(scan.data[:left].copy(), scan.affine), model)
        refused(Volume(scan.data[:, :, upper:].copy(), scan.affine @ moved), model)
        one_sided = scan.data.copy()
        one_sided[:left] = 0
        refused(Volume(one_sided, scan.affine), model)

    def test_cut_vertex_is_flagged_or_refused(self, scan, model):
        kept = int(scan.data.shape[2] * 0.72)
        cut = Volume(scan.data[:, :, :kept].copy(), scan.affine)
        try:
            checks = answer(cut, model, name="cut").document["checks"]
        except RefusedError as error:
            checks = error.checks
        assert {"brain_in_view", "field_of_view_mm"} & {
            check["name"] for check in checks if check["verdict"] != "ok"
        }


class TestNoHead:
    def test_noise_is_refused(self, scan, model):
        noise = np.random.default_rng(1).random(scan.data.shape, dtype=np.float32)
        assert "similarity" in refused(Volume(noise, scan.affine), model)

    @pytest.mark.parametrize("edge_mm", [0.5, 4.0])
    def test_mouse_is_refused_at_any_voxel_size(self, model, edge_mm):
        x, y, z = np.indices((64, 64, 64)) - 31.5
        body = np.exp(-((x / 8) ** 2) - (y / 14) ** 2 - (z / 7) ** 2)
        head = 2 * np.exp(-((x / 4) ** 2) - ((y - 22) / 5) ** 2 - (z / 4) ** 2)
        mouse = Volume((body + head).astype(np.float32), np.diag([edge_mm] * 3 + [1]))
        refused(mouse, model)

    def test_statistical_map_is_refused_for_its_negative_values(self, model):
        values = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(91, 109, 91)), 3)
        affine = np.array([[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1.0]])
        found = refused(Volume(values.astype(np.float32), affine), model, align="none")
        assert {"similarity", "negative_share"} <= found

    def test_cylinder_is_refused(self, model):
        x, y, _ = np.indices((64, 64, 64)) - 31.5
        full = ndimage.gaussian_filter((x**2 + y**2 < 25**2).astype(np.float32), 2)
        refused(Volume(full, np.diag([4.0, 4.0, 4.0, 1.0])), model)


def test_head_upside_down_is_refused(scan, model):
    assert "similarity" in refused(Volume(scan.data[:, :, ::-1].copy(), scan.affine), model)
