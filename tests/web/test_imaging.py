"""The browser registers, slices and measures scans as Python does: the same numbers, from the same model."""

import json

import nibabel as nib
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.evaluation.aggregation import (
    Pooling,
    interpret,
    out_of_fold_quantiles,
    pooled_probability,
    slice_contributions,
)
from adpet.imaging.atlas import load_atlas, regional_means
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import load_standard, normalize, to_uint8
from adpet.imaging.normative import Norms, smoothed_in_brain
from adpet.imaging.registration import brain_points, rms_displacement
from adpet.imaging.slices import CENTRE_Z_MM, CoronalGrid, back_project, network_slices
from adpet.imaging.template import tissue_labels
from adpet.inference.exported_model import NORMS, open_model, registration_constants
from adpet.inference.predictor import RefusedError, answer, refusal
from adpet.inference.quality import CHECKS, judged, measures, profile_distance, refused_by, view_measures
from adpet.inference.regions import region_table

pytestmark = pytest.mark.node

SIZE, FIELD_MM, WINDOW, MAP_SIZE = 64, 192.0, (0.0, 2.0), (8, 7)
PLANES = CoronalGrid.spanning(
    range_mm=(-84.0, 36.0), step_mm=8.0, size=SIZE, field_mm=FIELD_MM, neighbours_mm=3.0
)
# Beyond that of healthy people: compared at their oldest, 90.
AGE = 95.0
# Tolerances: RMS displacement of the brain in mm, SUVR, share of the slices' bytes, similarity.
MOST_APART_MM, MOST_SUVR, MOST_BYTES, MOST_SIMILARITY = 0.05, 1e-3, 0.005, 1e-4


class Exported:
    """What Python computes with, exported for the browser; some golden scans break the limits."""

    def __init__(self, folder, *, grid_mm=3.0, reference="cerebellum", align="affine", smoothing_mm=8.0):
        self.folder, how = folder, {"align": align, "smoothing_mm": smoothing_mm}
        self.standard = load_standard(grid_mm=grid_mm, reference=reference, **how)
        self.shape, self.affine = self.standard.template.data.shape, self.standard.template.affine
        self.atlas, self.tissue = load_atlas("built-in", grid_mm), tissue_labels(grid_mm)
        self.points = brain_points(self.standard.brain, self.affine)
        rng = np.random.default_rng(1)
        n = len(self.atlas.names)
        root = rng.normal(0, 3, (n, n))
        self.document = {
            "format": 3,
            "standard": {"shape": self.shape, "affine": self.affine.tolist(), **how},
            "network": {"map_size": MAP_SIZE},
            "registration": registration_constants(),
            "slices": {
                "y_mm": list(PLANES.y_mm), "size": SIZE, "field_mm": FIELD_MM, "centre_z_mm": CENTRE_Z_MM,
                "neighbours_mm": PLANES.neighbours_mm, "window": WINDOW,
            },
            "aggregation": Pooling().document(),
            "regions": [
                {"label": label, "name": name, "ad_pattern": label % 3 == 0, "cn_mean": 1.1, "cn_slope": -0.01, "cn_sd": 0.07}
                for label, name in self.atlas.names.items()
            ],
            "norms": {"scans": 30, "ages": [60.0, 75.0, 90.0], "smoothing_mm": 16.0},
            "profile": {"mean": rng.normal(1, 0.1, n).tolist(), "precision": (root @ root.T).tolist()},
            "quality": [limit(name, check) for name, check in CHECKS.items()],
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(self.document))
        for name, data, dtype in (
            ("template", self.standard.template.data, np.float32),
            ("expected", self.standard.expected.data, np.float32),
            ("brain", self.standard.brain, np.uint8),
            ("reference", self.standard.reference, np.uint8),
            ("regions", self.atlas.labels, np.int16),
            ("tissue", self.tissue, np.uint8),
            ("normal_mean", 0.25 * self.standard.template.data, np.int16),
            ("normal_slope", -0.001 * self.standard.template.data, np.int16),
            ("normal_sd", 0.05 + 0.02 * self.standard.template.data, np.int16),
        ):
            volume = Volume(np.asarray(data, dtype=np.float32), self.affine)
            write_volume(folder / f"{name}.nii.gz", volume, dtype=dtype, space="mni")

    def assert_same_place_and_suvr(self, found, name, suvr, alignment):
        scan = found.scan(name)
        apart = rms_displacement(np.array(scan["matrix"]), alignment.matrix, self.points)
        assert apart < MOST_APART_MM
        assert scan["similarity"] == pytest.approx(alignment.similarity, abs=MOST_SIMILARITY)
        browser = found.array(f"{name}/suvr.f32").reshape(suvr.shape)
        np.testing.assert_allclose(browser, suvr, rtol=0, atol=MOST_SUVR)


def limit(name, check):
    middle = {"field_of_view_mm": 190.0, "profile_distance": 9.0, "grey_white_contrast": 1.4}.get(name, 0.5)
    return {
        "name": name, "text": check.text, "low_means": check.low, "high_means": check.high,
        "flag_below": middle if check.low else None, "flag_above": 1.2 * middle if check.high else None,
        "refuse_below": 0.8 * middle if check.low else None, "refuse_above": 1.4 * middle if check.high else None,
        "low": middle, "high": 1.2 * middle, "median": middle,
    }  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cam(model):
    maps = np.random.default_rng(2).normal(0, 2, (len(PLANES.y_mm), *MAP_SIZE)).astype(np.float32)
    return maps, back_project(maps, PLANES, shape=model.shape, affine=model.affine)


@pytest.fixture(scope="module")
def port(run_port, tmp_path_factory, model, golden, cam):
    folder = tmp_path_factory.mktemp("found")
    cam[0].tofile(folder / "maps.f32")
    scans = [(name, path, {"normalize": True}) for name, path in golden.items()]
    return run_port(folder, scans, model=str(model.folder), maps=str(folder / "maps.f32"))


@pytest.fixture(scope="module", params=range(13))
def both(request, golden, model, port):
    """A golden scan's name, its voxels, and what Python's normalization makes of them."""
    if request.param >= len(golden):
        pytest.skip("the real FDG-PET mean image is not at ../shared/real/TEMPLATE_FDGPET_100.nii")
    name = list(golden)[request.param]
    scan = read_volume(golden[name])
    volume, alignment = normalize(scan, model.standard)
    return name, scan, volume.data, alignment


class TestGoldenScans:
    def test_voxels_place_and_suvr_match_python(self, both, port, model):
        name, scan, suvr, alignment = both
        np.testing.assert_array_equal(port.ras(name), scan.data)
        np.testing.assert_allclose(port.scan(name)["affine"], scan.affine, rtol=0, atol=1e-9)
        model.assert_same_place_and_suvr(port, name, suvr, alignment)
        shares = port.scan(name)["shares"]
        assert shares == sorted(shares)
        assert shares[-1] == 1

    def test_slices_match_python(self, both, port, model):
        name, _, suvr, _ = both
        due = to_uint8(network_slices(suvr, model.affine, PLANES), window=WINDOW).astype(int)
        difference = np.abs(port.array(f"{name}/slices.u8", np.uint8).reshape(due.shape) - due)
        assert difference.max() <= 1
        assert (difference > 0).mean() < MOST_BYTES

    def test_regions_match_python(self, both, port, model, cam):
        name, _, suvr, _ = both
        labels, brain = model.atlas.labels, model.standard.brain
        regions = model.document["regions"]
        rows = region_table(suvr, cam[1], labels=labels, brain=brain, regions=regions, years=15.0)
        for row, found in zip(rows, port.scan(name)["regions"], strict=True):
            assert (found["name"], found["ad_pattern"]) == (row["name"], row["ad_pattern"])
            assert found["uptake"] == pytest.approx(row["uptake"], abs=1.01e-4)
            assert found["z"] == pytest.approx(row["z"], abs=2e-3)
            assert found["cam_share"] == pytest.approx(row["cam_share"], abs=1.01e-4)

    def test_z_map_matches_python(self, both, port, model):
        name, _, suvr, _ = both
        brain = model.standard.brain
        images = (read_volume(model.folder / file).data[brain] for file in NORMS)
        norms = Norms(*images, (60.0, 75.0, 90.0))
        smooth = smoothed_in_brain(suvr, brain, fwhm_mm=16.0, grid_mm=float(model.affine[0, 0]))
        found = port.array(f"{name}/z.f32").reshape(suvr.shape)
        expected = norms.z(smooth[brain], AGE)
        np.testing.assert_allclose(found[brain], np.nan_to_num(expected), rtol=0, atol=0.02)
        assert not found[np.isnan(smooth)].any()

    def test_quality_and_refusal_match_python(self, both, port, model):
        name, scan, suvr, alignment = both
        uptake = regional_means(suvr, model.atlas.labels, list(model.atlas.names))
        values = (
            measures(suvr, brain=model.standard.brain, tissue=model.tissue)
            | view_measures(scan.data.shape, scan.affine, alignment.matrix, model.points)
            | {"similarity": alignment.similarity}
            | {"profile_distance": profile_distance(uptake, model.document["profile"])}
        )
        checks = port.scan(name)["checks"]
        for row, check in zip(judged(values, model.document["quality"]), checks, strict=True):
            assert check | {"value": row["value"]} == row
            assert check["value"] == pytest.approx(row["value"], rel=1e-4, abs=1.01e-4)
        assert refused_by(checks)
        assert port.scan(name)["refusal"] == refusal({"checks": checks}, "look at the scan")


def test_map_is_saved_as_the_file_that_python_writes(port, model, cam, tmp_path):
    found = port.array("cam.f32").reshape(model.shape)
    np.testing.assert_allclose(found, cam[1], rtol=0, atol=1e-5)
    write_volume(tmp_path / "cam.nii", Volume(found, model.affine), space="mni")
    assert (port.folder / "cam.nii").read_bytes() == (tmp_path / "cam.nii").read_bytes()


@pytest.mark.parametrize("aggregation", ["mean_probability", "mean_logit", "position_weights"])
def test_pooled_probability_matches_python(run_port, tmp_path, model, aggregation):
    rng = np.random.default_rng(3)
    weights = np.clip(rng.normal(0.2, 0.3, 16), 0, None)
    slices = [rng.random(16), np.array([0, 1, *rng.random(14)])]
    pooling = Pooling(aggregation, weights, slope=1.5, intercept=-0.25)
    job = [{"slices": list(row), "aggregation": pooling.document()} for row in slices]
    report = run_port(tmp_path, [], model=str(model.folder), pooled=job).report
    due = [pooled_probability(row, pooling) for row in slices]
    np.testing.assert_allclose(report["pooled"], due, rtol=0, atol=1e-9)
    parts = [slice_contributions(row, pooling) for row in slices]
    np.testing.assert_allclose(report["contributions"], parts, rtol=0, atol=1e-9)


def test_interpretation_matches_python(run_port, tmp_path, make_predictions):
    reference = out_of_fold_quantiles(make_predictions(subjects=40), Pooling())
    left = reference | {
        "quantiles": {"AD": [1.0] * len(reference["coverages"]), "CN": [0.0] * len(reference["coverages"])}
    }
    given = (reference, left, None)
    cases = [(p, one) for p in (0.0, 1e-4, 0.2, reference["prevalence"], 0.77, 1.0) for one in given]
    found = run_port(tmp_path, [], interpreted=cases).report["interpreted"]
    assert found == [interpret(*case) for case in cases]


@pytest.mark.parametrize(
    "space",
    [
        {"grid_mm": 3.6, "reference": "pons", "smoothing_mm": 6.0},
        {"grid_mm": 4.0, "align": "none", "smoothing_mm": 0.0},
    ],
    ids=["pons", "unaligned"],
)
def test_other_template_spaces_match_python(run_port, tmp_path, golden, space):
    model = Exported(tmp_path, **space)
    scans = [("scan", golden["turned"], {"normalize": True})]
    found = run_port(tmp_path / "out", scans, model=str(tmp_path))
    volume, alignment = normalize(read_volume(golden["turned"]), model.standard)
    model.assert_same_place_and_suvr(found, "scan", volume.data, alignment)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((1, 2, -3, 4), "it fits when turned by 180 degrees about the y axis (back to front)"),
        ((1, -2, 3, 4), "it fits when turned by 180 degrees about the z axis (bottom to top)"),
        ((1, 3, 2, 4), "it fits when its right, front and top are taken as left, top and front"),
        ((1, 3, -2, 4), "it fits when turned by 90 degrees about the x axis (left to right)"),
        ((1, 2, 3, 4), ""),
    ],
    ids=["upside down", "back to front", "two axes swapped", "face up", "noise"],
)
def test_turn_that_fits_is_named_as_in_python(run_port, tmp_path, small_export, phantom, *, axes, said):
    data = phantom.data if said else np.random.default_rng(0).random(phantom.data.shape, np.float32)
    affine = np.array([np.sign(axis) * np.eye(4)[abs(axis) - 1] for axis in axes]) @ phantom.affine
    nib.save(nib.Nifti1Image(data, affine), path := tmp_path / "scan.nii")
    with pytest.raises(RefusedError) as refused:
        answer(read_volume(path), open_model(small_export), name="scan")
    turn = refused.value.document.get("turn", "")
    assert turn.rpartition(", similarity ")[0] == said
    found = run_port(tmp_path, [("scan", path, {"normalize": True})], model=str(small_export)).scan("scan")
    assert found["turn"] == turn
    assert found["refusal"].endswith(turn or "required 0.5 or more")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (np.full((40, 40, 40), -1.0) + np.eye(40) * 0.5, "the scan has no positive uptake"),
        (np.eye(9)[None] * np.ones((60, 1, 1)), "of the brain lies in the scanner's view"),
    ],
    ids=["no uptake", "slab"],
)
def test_failed_registration_is_refused_in_python_s_words(run_port, tmp_path, model, *, data, sentence):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0])), path)
    with pytest.raises(InputError, match=sentence) as caught:
        normalize(read_volume(path), model.standard)
    found = run_port(tmp_path / "out", [("scan", path, {"normalize": True})], model=str(model.folder))
    assert found.scan("scan")["refused"] == str(caught.value)


def test_model_that_smooths_by_scanner_is_refused(run_port, tmp_path, small_scans, export_by_scanner):
    scans = [("scan", small_scans[0], {"normalize": True})]
    found = run_port(tmp_path, scans, model=str(export_by_scanner)).scan("scan")
    assert found["refused"].startswith("this model smooths each scan by its scanner's resolution")
