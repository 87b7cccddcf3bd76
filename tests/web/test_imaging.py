"""The browser registers, slices and measures scans as Python does: the same numbers, from the same model."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.answering import answer
from adpet.answering.answer import RefusedError
from adpet.answering.model import registration_constants
from adpet.answering.quality import CHECKS, judged, measures, view_measures
from adpet.answering.regions import region_table, regional_means
from adpet.cohort.phantom import PhantomRecipe, draw_cohort, simulate_scan
from adpet.cohort.uptake import load_anatomy
from adpet.errors import InputError
from adpet.evidence.aggregation import pooled_probability
from adpet.imaging.align import brain_points, resample, rms_displacement
from adpet.imaging.coronal import CENTRE_Z_MM, CoronalGrid, back_project, coronal_slices
from adpet.imaging.intensity import to_uint8
from adpet.imaging.regions import load_atlas
from adpet.imaging.standard import load_standard, standardize
from adpet.imaging.template import tissue_labels, tissue_map
from adpet.imaging.volume import Volume, read_volume, write_volume

pytestmark = pytest.mark.slow

GRID_MM, SIZE, FIELD_MM, WINDOW, MAP_SIZE = 3.0, 64, 192.0, (0.0, 2.0), (8, 7)
PLANES = CoronalGrid.spanning(range_mm=(-84.0, 36.0), step_mm=8.0, size=SIZE, field_mm=FIELD_MM)
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


@pytest.fixture(scope="module")
def phantom():
    """Return a phantom scan as its scanner stores it, from right to left and from front to back."""
    recipe = PhantomRecipe(ad_subjects=1, cn_subjects=1, followup_fraction=0)
    row = draw_cohort(recipe).to_dict("records")[0]
    return simulate_scan(row, recipe, load_anatomy()).volume


@pytest.fixture(scope="module")
def white_matter():
    """Return a scan that is bright where FDG's are dim, for which the second view of the images is tried."""
    uptake = 4 * tissue_map("wm").data + tissue_map("gm").data
    blurred = Volume(ndimage.gaussian_filter(uptake, 3), tissue_map("wm").affine)
    affine = np.diag([2.5, 2.5, 3.0, 1.0])
    affine[:3, 3] = [-110, -140, -90]
    pose = placed((0, 0, 6), (0, 0, 0))
    return Volume(resample(blurred, shape=(88, 100, 66), affine=affine, matrix=pose), affine)


def placed(degrees, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def stored_as(codes, volume):
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(codes))
    data = apply_orientation(volume.data, turn)
    return Volume(data, volume.affine @ inv_ornt_aff(turn, volume.data.shape))


def save(path, data, affine, kind=nib.Nifti1Image):
    image = kind(data, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def golden(tmp_path_factory, phantom, white_matter):
    """Return the path of each golden scan, but for the real one where it is not there."""
    folder = tmp_path_factory.mktemp("golden")
    data, affine = phantom.data, phantom.affine
    turned = placed((12, -8, 6), (10, -14, 20)) @ affine
    frames = np.stack([0.5 * data, data, 1.5 * data + 7], axis=-1)
    las, psr = (stored_as(codes, phantom) for codes in ("LAS", "PSR"))
    flat = np.diag([2.0, 2.4, 5.5, 1.0])
    flat[:3, 3] = [-100, -120, -110]
    thick = resample(Volume(data, affine), shape=(100, 100, 40), affine=flat)
    paths = {
        "as scanned": save(folder / "scan.nii", data, affine),
        "turned": save(folder / "turned.nii", data, turned),
        "stored LAS": save(folder / "las.nii", las.data, las.affine),
        "stored PSR": save(folder / "psr.nii", psr.data, psr.affine),
        "anisotropic": save(folder / "thick.nii", thick, flat),
        "dynamic": save(folder / "dynamic.nii", frames, affine),
        "gzipped": save(folder / "packed.nii.gz", data, affine),
        "NIfTI-2": save(folder / "two.nii", data.astype(np.float64), affine, nib.Nifti2Image),
        "cut head": save(folder / "cut.nii", data[:, :, :72], affine),
        "white matter": save(folder / "white.nii", white_matter.data, white_matter.affine),
        "big-endian": folder / "big.nii",
    }
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_data_shape(data.shape)
    header.set_sform(affine, code=1)
    header.set_slope_inter(0.25, -3)
    header["vox_offset"] = 352
    stored = np.round((data + 3) * 4 / 2).astype(">i2")
    paths["big-endian"].write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    real = Path(__file__).parents[3] / "shared" / "real" / "TEMPLATE_FDGPET_100.nii"
    return paths | ({"mean of 100 people": real} if real.exists() else {})


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
        volume, alignment = standardize(scan, standard)
        found[name] = Expected(scan, volume.data, alignment, time.process_time() - begun)
    return found


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(2).normal(0, 2, (len(PLANES.y_mm), *MAP_SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def port(run_port, tmp_path_factory, model, golden, maps):
    folder = tmp_path_factory.mktemp("found")
    maps.tofile(folder / "maps.f32")
    scans = [(name, path, {"standardize": True}) for name, path in golden.items()]
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
        assert rms_displacement(np.array(found["matrix"]), alignment.matrix, points) < 0.05
        assert found["similarity"] == pytest.approx(alignment.similarity, abs=1e-4)

    def test_ratios_to_the_reference_are_the_same(self, name, port, expected):
        ratio = expected[name].ratio
        found = port.array(f"{name}/ratio.f32").reshape(ratio.shape)
        np.testing.assert_allclose(found, ratio, rtol=0, atol=1e-3)

    def test_the_network_is_given_the_same_slices(self, name, port, expected, standard):
        difference = bytes_apart(name, port, expected, standard)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005

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
            answer._refuse(refused["checks"])
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
    found = run_port(tmp_path / "out", [("scan", path, {"standardize": True})], model=str(model))
    expected, alignment = standardize(read_volume(path), standard)
    points = brain_points(standard.brain, standard.template.affine)
    assert rms_displacement(np.array(found.scan("scan")["matrix"]), alignment.matrix, points) < 0.05
    assert found.scan("scan")["similarity"] == pytest.approx(alignment.similarity, abs=1e-4)
    ratio = found.array("scan/ratio.f32").reshape(expected.data.shape)
    np.testing.assert_allclose(ratio, expected.data, rtol=0, atol=1e-3)


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
    path = save(tmp_path / "scan.nii", data.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))
    with pytest.raises(InputError, match=sentence) as caught:
        standardize(read_volume(path), standard)
    found = run_port(tmp_path / "out", [("scan", path, {"standardize": True})], model=str(model))
    assert found.scan("scan")["refused"] == str(caught.value)


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
    for name, one in expected.items():
        found = port.scan(name)
        apart = rms_displacement(np.array(found["matrix"]), one.alignment.matrix, points)
        ratio = np.abs(port.array(f"{name}/ratio.f32") - one.ratio.ravel()).max()
        unlike = (bytes_apart(name, port, expected, standard) > 0).mean()
        lines.append(
            f"| {name} | {apart:.1e} | {ratio:.1e} | {unlike:.3%} | {found['similarity']:.3f} | "
            f"{one.seconds:.2f} | {found['seconds']:.2f} |"
        )
    with capsys.disabled():
        print("\n".join(lines))
    assert len(lines) == len(expected) + 3
