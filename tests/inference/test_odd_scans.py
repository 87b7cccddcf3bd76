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
    return {check["name"] for check in error.value.document["checks"] if check["verdict"] == "refused"}


def test_scan_of_a_new_subject_passes_every_check(scan, model):
    found = answer(scan, model, name="new").document
    assert {check["verdict"] for check in found["checks"]} == {"ok"}
    assert 0 < found["probability_of_ad"] < 1


def test_real_mean_image_is_answered(real_mean_image, model):
    found = answer(read_volume(real_mean_image), model, name="real").document
    assert "refused" not in {check["verdict"] for check in found["checks"]}


def changed(scan, data, shift=(0, 0, 0)):
    moved = np.eye(4)
    moved[:3, 3] = shift
    return Volume(np.ascontiguousarray(data, dtype=np.float32), scan.affine @ moved)


def mouse(edge_mm):
    x, y, z = np.indices((64, 64, 64)) - 31.5
    body = np.exp(-((x / 8) ** 2) - (y / 14) ** 2 - (z / 7) ** 2)
    head = 2 * np.exp(-((x / 4) ** 2) - ((y - 22) / 5) ** 2 - (z / 4) ** 2)
    return Volume((body + head).astype(np.float32), np.diag([edge_mm] * 3 + [1]))


def cylinder():
    x, y, _ = np.indices((64, 64, 64)) - 31.5
    full = ndimage.gaussian_filter((x**2 + y**2 < 25**2).astype(np.float32), 2)
    return Volume(full, np.diag([4.0, 4.0, 4.0, 1.0]))


@pytest.fixture(scope="module")
def images(scan, maps):
    grey, white, t1, scalp = (maps[name] for name in ("grey", "white", "t1", "scalp"))
    data, side, upper = scan.data, len(scan.data) // 2, scan.data.shape[2] // 2
    one_sided = data.copy()
    one_sided[:side] = 0
    return {
        "amyloid PET without plaques": imaged(1.2 * grey + 2.2 * white + 0.5 * scalp),
        "amyloid PET with plaques": imaged(2.2 * grey + 2.2 * white + 0.5 * scalp),
        "MRI without a scalp": imaged(t1, fwhm_mm=2.0),
        "MRI": imaged(t1 + 0.9 * scalp, fwhm_mm=2.0),
        "mask": Volume((t1 > 0).astype(np.float32), tissue_map("t1").affine),
        "left half": changed(scan, data[:side]),
        "upper half": changed(scan, data[:, :, upper:], shift=(0, 0, upper)),
        "one side empty": changed(scan, one_sided),
        "noise": changed(scan, np.random.default_rng(1).random(data.shape)),
        "upside down": changed(scan, data[:, :, ::-1]),
        "mouse": mouse(0.5),
        "large mouse": mouse(4.0),
        "cylinder": cylinder(),
    }


@pytest.mark.parametrize(
    ("image", "checks"),
    [
        ("amyloid PET without plaques", {"similarity", "grey_white_contrast"}),
        *((image, {"similarity"}) for image in ("amyloid PET with plaques", "MRI", "MRI without a scalp")),
        *((image, {"similarity"}) for image in ("noise", "upside down")),
        *((image, set()) for image in ("mask", "left half", "upper half", "one side empty")),
        *((image, set()) for image in ("mouse", "large mouse", "cylinder")),
    ],
)
def test_other_image_is_refused(images, image, checks, model):
    assert checks <= refused(images[image], model)


def test_tissue_map_is_refused_despite_its_similarity(maps, model):
    found = refused(Volume(maps["grey"], tissue_map("gm").affine), model)
    assert found
    assert "similarity" not in found


def test_statistical_map_is_refused_for_its_negative_values(model):
    values = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(91, 109, 91)), 3)
    affine = np.array([[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1.0]])
    found = refused(Volume(values.astype(np.float32), affine), model, align="none")
    assert {"similarity", "negative_share"} <= found


def test_scan_with_stripes_is_flagged_for_them(scan, model):
    gain = np.random.default_rng(3).uniform(0.3, 1.5, scan.data.shape[2])
    checks = answer(changed(scan, scan.data * gain), model, name="striped").document["checks"]
    assert {check["name"]: check["verdict"] for check in checks}["stripes"] == "flagged"


def test_cut_vertex_is_flagged_or_refused(scan, model):
    cut = changed(scan, scan.data[:, :, : int(scan.data.shape[2] * 0.72)])
    try:
        checks = answer(cut, model, name="cut").document["checks"]
    except RefusedError as error:
        checks = error.document["checks"]
    found = {check["name"] for check in checks if check["verdict"] != "ok"}
    assert {"brain_in_view", "field_of_view_mm"} & found
