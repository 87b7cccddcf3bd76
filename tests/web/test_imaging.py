"""The browser registers, slices and measures scans as Python does: the same numbers, from the same model."""

import json
import re
import time
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.evaluation.aggregation import pooled_probability
from adpet.imaging.atlas import load_atlas
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import load_standard, normalize, to_uint8
from adpet.imaging.registration import brain_points, rms_displacement
from adpet.imaging.slices import CENTRE_Z_MM, CoronalGrid, back_project, coronal_slices
from adpet.imaging.template import tissue_labels
from adpet.inference import predictor
from adpet.inference.exported_model import registration_constants
from adpet.inference.predictor import RefusedError, meaning
from adpet.inference.quality import CHECKS, judged, measures, view_measures
from adpet.inference.regions import region_table, regional_means

pytestmark = pytest.mark.slow

GRID_MM, SIZE, FIELD_MM, WINDOW, MAP_SIZE = 3.0, 64, 192.0, (0.0, 2.0), (8, 7)
PLANES = CoronalGrid.spanning(range_mm=(-84.0, 36.0), step_mm=8.0, size=SIZE, field_mm=FIELD_MM)
# How far the browser may be from Python: RMS displacement of the brain in mm, ratios, share of the slices' bytes.
MOST_APART_MM, MOST_RATIO, MOST_BYTES, MOST_SIMILARITY = 0.05, 1e-3, 0.005, 1e-4
GOLDEN = (
    "as scanned",
    "turned",
    "stored LAS",
    "stored PSR",
    "anisotropic",
    "dynamic",
    "gzipped",
    "big-endian",
    "NIfTI-2",
    "cut head",
    "white matter",
    "mean of 100 people",
)


@pytest.fixture(scope="module")
def standard():
    return load_standard(grid_mm=GRID_MM, reference="cerebellum", align="affine", smoothing_mm=8.0)


@pytest.fixture(scope="module")
def atlas():
    return load_atlas("built-in", GRID_MM)


@pytest.fixture(scope="module")
def tissue():
    return tissue_labels(GRID_MM)


@pytest.fixture(scope="module")
def document(standard, atlas):
    return described(standard, atlas)


def described(standard, atlas):
    """Return what stands in `model.json`, with limits that some of the scans do not keep."""
    rng = np.random.default_rng(1)
    n = len(atlas.names)
    root = rng.normal(0, 3, (n, n))
    return {
        "format": 1,
        "standard": {
            "grid_mm": standard.template.affine[0, 0],
            "shape": list(standard.template.data.shape),
            "affine": standard.template.affine.tolist(),
            "align": standard.align,
            "smoothing_mm": standard.smoothing_mm,
        },
        "network": {"map_size": MAP_SIZE},
        "registration": registration_constants(),
        "slices": {
            "y_mm": list(PLANES.y_mm),
            "size": SIZE,
            "field_mm": FIELD_MM,
            "centre_z_mm": CENTRE_Z_MM,
            "window": WINDOW,
        },
        "aggregation": {"method": "mean_logit", "weights": None},
        "regions": [
            {"label": label, "name": name, "ad_pattern": label % 3 == 0, "cn_mean": 1.1, "cn_sd": 0.07}
            for label, name in atlas.names.items()
        ],
        "profile": {"mean": rng.normal(1, 0.1, n).tolist(), "precision": (root @ root.T).tolist()},
        "quality": [limit(name, check) for name, check in CHECKS.items()],
    }


def limit(name, check):
    middle = {"field_of_view_mm": 190.0, "profile_distance": 9.0, "grey_white_contrast": 1.4}.get(name, 0.5)
    return {
        "name": name,
        "text": check.text,
        "low_means": check.low,
        "high_means": check.high,
        "flag_below": middle if check.low else None,
        "flag_above": 1.2 * middle if check.high else None,
        "refuse_below": 0.8 * middle if check.low else None,
        "refuse_above": 1.4 * middle if check.high else None,
        "low": middle,
        "high": 1.2 * middle,
        "median": middle,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory, document, standard, atlas, tissue):
    return exported(tmp_path_factory.mktemp("model"), document, standard, atlas, tissue)


def exported(folder, document, standard, atlas, tissue):
    (folder / "model.json").write_text(json.dumps(document))
    for name, data, dtype in (
        ("template", standard.template.data, np.float32),
        ("brain", standard.brain, np.uint8),
        ("reference", standard.reference, np.uint8),
        ("regions", atlas.labels, np.int16),
        ("tissue", tissue, np.uint8),
    ):
        volume = Volume(np.asarray(data, dtype=np.float32), standard.template.affine)
        write_volume(folder / f"{name}.nii.gz", volume, dtype=dtype, space="mni")
    return folder


@dataclass(frozen=True)
class Expected:
    """What Python finds."""

    scan: Volume
    ratio: np.ndarray
    alignment: object
    seconds: float


@pytest.fixture(scope="module")
def expected(golden, standard):
    found = {}
    for name, path in golden.items():
        scan = read_volume(path)
        begun = time.process_time()
        volume, alignment = normalize(scan, standard)
        found[name] = Expected(scan, volume.data, alignment, time.process_time() - begun)
    return found


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(2).normal(0, 2, (len(PLANES.y_mm), *MAP_SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def port(run_port, tmp_path_factory, model, golden, maps):
    folder = tmp_path_factory.mktemp("found")
    maps.tofile(folder / "maps.f32")
    scans = [(name, path, {"normalize": True}) for name, path in golden.items()]
    return run_port(folder, scans, model=str(model), maps=str(folder / "maps.f32"))


@pytest.fixture(params=GOLDEN)
def name(request, golden):
    if request.param not in golden:
        pytest.skip("the real FDG-PET mean image is not at ../shared/real/TEMPLATE_FDGPET_100.nii")
    return request.param


class TestScans:
    def test_voxels_and_place_are_the_same(self, name, port, expected):
        scan = expected[name].scan
        np.testing.assert_array_equal(port.ras(name), scan.data)
        np.testing.assert_allclose(port.scan(name)["affine"], scan.affine, rtol=0, atol=1e-9)

    def test_the_head_is_found_at_the_same_place(self, name, port, expected, standard):
        points = brain_points(standard.brain, standard.template.affine)
        alignment, found = expected[name].alignment, port.scan(name)
        assert rms_displacement(np.array(found["matrix"]), alignment.matrix, points) < MOST_APART_MM
        assert found["similarity"] == pytest.approx(alignment.similarity, abs=MOST_SIMILARITY)

    def test_ratios_to_the_reference_are_the_same(self, name, port, expected):
        ratio = expected[name].ratio
        found = port.array(f"{name}/ratio.f32").reshape(ratio.shape)
        np.testing.assert_allclose(found, ratio, rtol=0, atol=MOST_RATIO)

    def test_the_network_is_given_the_same_slices(self, name, port, expected, standard):
        difference = bytes_apart(name, port, expected, standard)
        assert difference.max() <= 1
        assert (difference > 0).mean() < MOST_BYTES

    def test_progress_is_told_to_its_end(self, name, port):
        shares = port.scan(name)["shares"]
        assert shares == sorted(shares)
        assert shares[-1] == 1


class TestAnswers:
    def test_maps_are_put_back_into_the_same_voxels(self, port, maps, standard):
        shape, affine = standard.template.data.shape, standard.template.affine
        expected = back_project(maps, PLANES, shape=shape, affine=affine)
        np.testing.assert_allclose(port.array("cam.f32").reshape(shape), expected, rtol=0, atol=1e-5)

    def test_regions_have_the_same_uptake_and_share_of_the_map(
        self, name, port, expected, *, maps, standard, atlas, document
    ):
        ratio = expected[name].ratio
        cam = back_project(maps, PLANES, shape=ratio.shape, affine=standard.template.affine)
        rows = region_table(
            ratio, cam, labels=atlas.labels, brain=standard.brain, regions=document["regions"]
        )
        for row, found in zip(rows, port.scan(name)["regions"], strict=True):
            assert (found["name"], found["ad_pattern"]) == (row["name"], row["ad_pattern"])
            assert found["uptake"] == pytest.approx(row["uptake"], abs=1.01e-4)
            assert found["z"] == pytest.approx(row["z"], abs=2e-3)
            assert found["cam_share"] == pytest.approx(row["cam_share"], abs=1.01e-4)

    def test_quality_is_judged_alike(self, name, port, expected, *, standard, atlas, tissue, document):
        found = expected[name]
        values = measures(
            found.ratio,
            brain=standard.brain,
            tissue=tissue,
            uptake=regional_means(found.ratio, atlas.labels, list(atlas.names)),
            profile=document["profile"],
            similarity=found.alignment.similarity,
        )
        points = brain_points(standard.brain, standard.template.affine)
        values |= view_measures(found.scan.data.shape, found.scan.affine, found.alignment.matrix, points)
        rows = judged(values, document["quality"])
        for row, check in zip(rows, port.scan(name)["checks"], strict=True):
            for key in ("name", "verdict", "reason"):
                assert check[key] == row[key]
            assert check["value"] == pytest.approx(row["value"], rel=1e-4, abs=1.01e-4)

    def test_a_scan_unlike_the_training_scans_is_refused_in_the_same_sentence(self, name, port):
        refused = port.scan(name)
        with pytest.raises(RefusedError) as caught:
            predictor._refuse(refused["checks"])
        assert refused["refusal"] == str(caught.value)

    @pytest.mark.parametrize("aggregation", ["mean_probability", "mean_logit", "position_weights"])
    def test_slices_are_pooled_to_the_same_probability(self, run_port, tmp_path, model, aggregation):
        rng = np.random.default_rng(3)
        weights = np.clip(rng.normal(0.2, 0.3, 16), 0, None)
        slices = [rng.random(16), np.array([0, 1, *rng.random(14)])]
        job = [{"slices": list(one), "method": aggregation, "weights": weights.tolist()} for one in slices]
        found = run_port(tmp_path, [], model=str(model), pooled=job).report["pooled"]
        weights = weights if aggregation == "position_weights" else None
        expected = [pooled_probability(one, aggregation=aggregation, weights=weights) for one in slices]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)

    def test_a_saved_map_is_the_file_that_python_writes(self, port, maps, standard, tmp_path):
        shape, affine = standard.template.data.shape, standard.template.affine
        write_volume(tmp_path / "cam.nii", Volume(port.array("cam.f32").reshape(shape), affine), space="mni")
        assert (port.folder / "cam.nii").read_bytes() == (tmp_path / "cam.nii").read_bytes()


@pytest.mark.parametrize(
    ("grid_mm", "reference", "align", "smoothing_mm"),
    [(3.6, "pons", "affine", 6.0), (5.0, "global", "affine", 0.0), (4.0, "cerebellum", "none", 0.0)],
)
def test_other_standards_are_kept_too(run_port, tmp_path, golden, *, grid_mm, reference, align, smoothing_mm):
    standard = load_standard(grid_mm=grid_mm, reference=reference, align=align, smoothing_mm=smoothing_mm)
    atlas = load_atlas("built-in", grid_mm)
    model = exported(tmp_path, described(standard, atlas), standard, atlas, tissue_labels(grid_mm))
    path = golden["turned"]
    found = run_port(tmp_path / "out", [("scan", path, {"normalize": True})], model=str(model))
    expected, alignment = normalize(read_volume(path), standard)
    points = brain_points(standard.brain, standard.template.affine)
    assert rms_displacement(np.array(found.scan("scan")["matrix"]), alignment.matrix, points) < MOST_APART_MM
    assert found.scan("scan")["similarity"] == pytest.approx(alignment.similarity, abs=MOST_SIMILARITY)
    ratio = found.array("scan/ratio.f32").reshape(expected.data.shape)
    np.testing.assert_allclose(ratio, expected.data, rtol=0, atol=MOST_RATIO)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (np.full((40, 40, 40), -1.0) + np.eye(40) * 0.5, "the scan has no positive uptake"),
        (np.eye(9)[None] * np.ones((60, 1, 1)), "of the brain lies in the scanner's view"),
    ],
    ids=["no uptake", "a slab"],
)
def test_a_scan_that_finds_no_place_is_refused_in_the_same_words(
    run_port, tmp_path, model, standard, *, data, sentence
):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0])), path)
    with pytest.raises(InputError, match=sentence) as caught:
        normalize(read_volume(path), standard)
    found = run_port(tmp_path / "out", [("scan", path, {"normalize": True})], model=str(model))
    assert found.scan("scan")["refused"] == str(caught.value)


def test_a_value_that_is_no_finite_number_is_told_as_none(run_port, tmp_path):
    name = "grey_white_contrast"
    found = judged_by(
        run_port, tmp_path, name, ["NaN", "Infinity", "-Infinity", "1.5"], limit(name, CHECKS[name])
    )
    assert [check["value"] for check in found] == ["null", "null", "null", "1.5"]


def test_a_value_that_is_no_finite_number_is_shown_in_words(run_port, tmp_path):
    found = run_port(tmp_path, [], figures=[None, 1.234, 190.0]).report["figures"]
    assert found == ["not finite", "1.23", "190"]


@pytest.mark.parametrize("name", ["similarity", "negative_share", "grey_white_contrast"])
def test_what_is_no_number_is_refused_whichever_limits_there_are(run_port, tmp_path, name):
    limits = limit(name, CHECKS[name])
    nan, low, high = judged_by(run_port, tmp_path, name, ["NaN", "-Infinity", "Infinity"], limits)
    assert nan["verdict"] == "refused"
    low_is_bad, high_is_bad = (limits[side] is not None for side in ("refuse_below", "refuse_above"))
    way, cause = ("more", limits["low_means"]) if low_is_bad else ("less", limits["high_means"])
    assert re.search(rf": nan, required \S+ or {way} .*; {re.escape(cause)}$", nan["reason"])
    assert (low["verdict"] == "refused", high["verdict"] == "refused") == (low_is_bad, high_is_bad)


def judged_by(run_port, folder, name, values, limits):
    """Return what becomes of a measure's values; JSON has no word for some, so all are texts."""
    asked = [{"values": {name: value}, "limits": [limits]} for value in values]
    return [rows[0] for rows in run_port(folder, [], judged=asked).report["judged"]]


# Halves in double precision, and numbers that only look like halves.
TIES = (112.5, 117.5, 0.03125, 0.5, 1.5, 2.5, 0.125, 0.375, 999.5, 9995.0, 1125000.0)
NO_TIES = (4.35, 2.675, 0.005, 1.125e-7)


def test_numbers_are_written_as_python_writes_them(run_port, tmp_path):
    numbers = [sign * number for number in TIES + NO_TIES for sign in (1, -1)]
    found = run_port(tmp_path, [], numbers=numbers).report
    for number, words, roundings in zip(numbers, found["words"], found["roundings"], strict=True):
        fixed = [f"{number:.{decimals}f}" for decimals in (0, 1, 2, 3, 4)]
        general = [f"{number:.{digits}g}" for digits in (1, 2, 3, 4, 6)]
        assert words == [*fixed, *general, f"{number:.0%}"]
        assert roundings == [round(number, decimals) for decimals in (0, 1, 2, 4)]


def test_what_became_of_others_is_told_in_the_same_words(run_port, tmp_path):
    share = {"subjects": 5, "ad_share": 0.5, "ad_share_low": 0.125, "ad_share_high": 0.625}
    document = {
        "calibration": {
            "bins": [{"low": 0.0, "high": 0.125, **share}, {"low": 0.125, "high": 1.0, **share}],
            "prevalence": 0.375,
        },
        "performance": {"test_subjects": 10},
    }
    asked = [{"probability": probability, "document": document} for probability in (0.1, 0.125, 1.0)]
    found = run_port(tmp_path, [], meanings=asked).report["meanings"]
    assert found == [meaning(one["probability"], document) for one in asked]


def bytes_apart(name, port, expected, standard):
    planes = coronal_slices(expected[name].ratio, standard.template.affine, PLANES)
    given = to_uint8(planes, window=WINDOW)
    found = port.array(f"{name}/slices.u8", np.uint8).reshape(given.shape)
    return np.abs(found.astype(int) - given)


def test_the_parity_is_told_in_a_table(port, expected, standard, capsys):
    points = brain_points(standard.brain, standard.template.affine)
    lines = [
        "",
        "| scan | place, mm RMS | ratio, max | bytes unlike | similarity | Python, CPU s | Node, CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    most = np.zeros(4)
    for name, one in expected.items():
        found = port.scan(name)
        apart = rms_displacement(np.array(found["matrix"]), one.alignment.matrix, points)
        ratio = np.abs(port.array(f"{name}/ratio.f32") - one.ratio.ravel()).max()
        unlike = (bytes_apart(name, port, expected, standard) > 0).mean()
        similarity = abs(found["similarity"] - one.alignment.similarity)
        most = np.maximum(most, (apart, ratio, unlike, similarity))
        lines.append(
            f"| {name} | {apart:.1e} | {ratio:.1e} | {unlike:.3%} | {found['similarity']:.3f} | "
            f"{one.seconds:.2f} | {found['seconds']:.2f} |"
        )
    with capsys.disabled():
        print("\n".join(lines))
    assert (most <= (MOST_APART_MM, MOST_RATIO, MOST_BYTES, MOST_SIMILARITY)).all(), most
