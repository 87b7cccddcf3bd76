import json
import math
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from adpet.errors import told_apart
from adpet.imaging.nifti import to_ras
from adpet.imaging.normalization import load_standard, normalize
from adpet.imaging.registration import brain_points
from adpet.imaging.template import tissue_labels
from adpet.inference.outputs import answers_as_csv, answers_as_json
from adpet.inference.quality import (
    CHECKS,
    judged,
    limits_of,
    measures,
    people_limits,
    profile_distance,
    profile_distances,
    profile_of,
    view_measures,
)
from adpet.inference.regions import region_table
from adpet.param_types import Quality
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import SimulationRecipe, cohort_rows, draw_cohort, simulate_scan

SHAPE = (9, 8, 8)
# A range of people that every cohort widens, on the sides that `CHECKS` has a cause for.
NARROW = {
    name: (*[0.5 if check.low else None] * 2, *[0.5 if check.high else None] * 2)
    for name, check in CHECKS.items()
}
PEOPLE = Quality().model_dump()
# Of an image that alternates along each axis.
STRIPES = np.array([0.3, 0.4, 0.5 * 2**0.5]).reshape(3, 1, 1, 1)
# A healthy simulated scan, as measured.
PERSON = {
    "similarity": 0.91, "brain_in_view": 1.0, "field_of_view_mm": 153.7, "profile_distance": 0.75,
    "grey_white_contrast": 1.46, "outside_share": 0.236, "asymmetry": 0.08, "roughness": 0.017, "stripes": 0.94,
    "negative_share": 0.0,
}  # fmt: skip
# Of mean images, as measured: of a hundred real scans, and of simulated ones.
MEAN_IMAGE = {"asymmetry": 0.0125, "roughness": 0.00945, "similarity": 0.999}


@pytest.fixture
def brain():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:7, 2:6, 2:6] = True
    return mask


@pytest.fixture
def tissue(brain):
    labels = brain.astype(np.uint8)
    labels[4] *= 2
    return labels


def measured(ratio, brain, tissue):
    return measures(ratio.astype(np.float32), brain=brain, tissue=tissue)


def training(scans=60):
    rng = np.random.default_rng(0)
    return {name: rng.normal(0.5, 0.05, scans) for name in CHECKS}


def half(brain):
    return np.where(np.arange(SHAPE[0])[:, None, None] < 4, 0.0, brain)


@pytest.mark.parametrize(
    ("ratio", "name", "expected"),
    [
        (lambda brain, tissue: np.where(tissue == 2, 1.0, 1.5 * brain), "grey_white_contrast", 1.5),
        (lambda brain, _: np.where(brain, 1.0, brain.sum() / 3 / (~brain).sum()), "outside_share", 0.25),
        (lambda brain, _: brain, "asymmetry", 0),
        (lambda brain, _: half(brain), "asymmetry", 4 / 3),
        (lambda brain, _: np.ones(brain.shape), "roughness", 0),
        (lambda brain, tissue: half(np.where(tissue == 2, 1.0, 1.5)), "grey_white_contrast", 1.5),
        (lambda brain, _: half(np.ones(brain.shape)), "roughness", 0),
        (lambda brain, _: half(2 + (-1.0) ** np.indices(brain.shape).sum(axis=0)), "roughness", 1),
        (lambda brain, _: 2 + (-1.0) ** np.indices(brain.shape).sum(axis=0), "stripes", 1),
        (lambda brain, _: 2 + sum((-1.0) ** np.indices(brain.shape) * STRIPES), "stripes", 2),
        (lambda brain, _: np.ones(brain.shape), "negative_share", 0),
        (lambda brain, _: np.where(brain, 1.0, -1.0), "negative_share", 1 - 80 / 576),
    ],
)
def test_measure_of_an_image_is_its_expected_value(brain, tissue, ratio, name, expected):
    assert measured(ratio(brain, tissue), brain, tissue)[name] == pytest.approx(expected, abs=1e-6)


def test_view_of_half_the_brain_is_measured():
    points = np.array([[0.0, 0, 0], [0, 0, 5], [0, 0, 15], [0, 0, 25]])
    found = view_measures((10, 10, 11), np.eye(4), np.eye(4), points)
    assert found == {"brain_in_view": 0.5, "field_of_view_mm": 10.0}


class TestLimits:
    def test_training_scans_pass(self):
        values = training()
        limits = limits_of(values, NARROW, min_similarity=0.1)
        for scan in range(60):
            rows = judged({name: float(values[name][scan]) for name in CHECKS}, limits)
            assert {row["verdict"] for row in rows} == {"ok"}

    def test_value_beyond_a_limit_is_flagged_or_refused_with_the_reason(self):
        values = training()
        limits = limits_of(values, NARROW, min_similarity=0.1)
        usual = {name: float(np.median(values[name])) for name in CHECKS}
        (limit,) = (row for row in limits if row["name"] == "asymmetry")
        for key, verdict in (("flag_above", "flagged"), ("refuse_above", "refused")):
            rows = judged(usual | {"asymmetry": limit[key] + 0.001}, limits)
            (row,) = (row for row in rows if row["verdict"] != "ok")
            assert (row["name"], row["verdict"]) == ("asymmetry", verdict)
            assert "one side differs" in row["reason"]
            assert "training scans have" in row["reason"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *((name, float("nan")) for name in CHECKS),
            *((name, float("inf")) for name, check in CHECKS.items() if check.high),
        ],
    )
    def test_value_that_is_not_finite_is_refused_with_a_cause(self, name, value):
        values = training()
        usual = {name: float(np.median(values[name])) for name in CHECKS} | {name: value}
        rows = judged(usual, limits_of(values, NARROW, min_similarity=0.1))
        (refused,) = [row for row in rows if row["verdict"] != "ok"]
        assert (refused["name"], refused["verdict"]) == (name, "refused")
        check = CHECKS[name]
        assert refused["reason"].endswith(
            f"; {check.high}" if value == np.inf else f"; {check.low or check.high}"
        )

    def test_infinite_values_are_written_to_json_and_csv(self, brain, tissue):
        usual = {name: float(np.median(values)) for name, values in training().items()}
        values = usual | measured(-brain.astype(float), brain, tissue)
        assert values["roughness"] == float("inf")
        rows = judged(values, limits_of(training(), NARROW, min_similarity=0.1))
        failure = {"scan": "map", "model": "m", "checks": rows, "error": "refused"}
        (found,) = json.loads(answers_as_json([failure]))
        assert found["checks"] == rows
        by_name = {row["name"]: row for row in rows}
        assert (by_name["roughness"]["value"], by_name["roughness"]["verdict"]) == (None, "refused")
        assert by_name["negative_share"]["value"] == 1.0
        assert " roughness " in answers_as_csv([failure])

    @pytest.mark.parametrize("name", CHECKS)
    def test_limits_are_the_wider_of_peoples_and_the_cohorts(self, name):
        key_of = ("refuse_below", "flag_below", "flag_above", "refuse_above")
        like_people = {one: np.full(60, 0.5) for one in CHECKS}
        same = {row["name"]: row for row in limits_of(like_people, PEOPLE, min_similarity=0.1)}[name]
        unlike = limits_of({one: np.linspace(-500, 500, 60) for one in CHECKS}, PEOPLE, min_similarity=0.1)
        wide = {row["name"]: row for row in unlike}[name]
        for key, usual in zip(key_of, PEOPLE[name], strict=True):
            if (name, key) == ("similarity", "refuse_below"):
                continue
            assert (same[key] is None) == (wide[key] is None) == (usual is None)
            if usual is not None:
                assert same[key] == (min if "below" in key else max)(usual, 0.5)
                assert abs(wide[key]) > 500

    @pytest.mark.parametrize(
        ("measures", "verdicts"),
        [
            # One patient seen with an asymmetric disease; the standardized grid of ADNI, 14.4 cm long.
            ({"asymmetry": 0.22, "profile_distance": 2.9, "similarity": 0.66}, {}),
            ({"field_of_view_mm": 144.0, "brain_in_view": 0.937}, {}),
            ({"asymmetry": 0.7, "profile_distance": 6.0}, dict.fromkeys(("asymmetry", "profile_distance"), "flagged")),
            # A mean image, as measured, is told by what no single person has.
            ({"asymmetry": 0.0125, "roughness": 0.00945}, dict.fromkeys(("asymmetry", "roughness"), "flagged")),
            ({"similarity": 0.999}, {"similarity": "flagged"}),
            ({"grey_white_contrast": 0.85}, {"grey_white_contrast": "refused"}),
            # The logarithm of a scan, and z-scores of its voxels.
            ({"grey_white_contrast": 1.047, "outside_share": 0.55},
             {"grey_white_contrast": "refused", "outside_share": "refused"}),
            ({"negative_share": 0.22}, {"negative_share": "refused"}),
            # Axial planes of random gain, 0.3 to 1.5, and in-plane blur of 8 mm, as measured.
            ({"stripes": 1.86}, {"stripes": "flagged"}),
            ({"stripes": 1.3}, {}),
            ({"outside_share": 0.075}, {"outside_share": "flagged"}),
        ],
    )  # fmt: skip
    def test_people_pass_and_others_are_flagged_or_refused(self, measures, verdicts):
        """A cohort of one kind, which widens nothing."""
        cohort = {name: np.full(60, value) for name, value in PERSON.items()}
        rows = judged(PERSON | measures, limits_of(cohort, PEOPLE, min_similarity=0.55))
        assert {row["name"]: row["verdict"] for row in rows if row["verdict"] != "ok"} == verdicts
        told = {row["name"] for row in rows if "a mean image or a template" in row["reason"]}
        assert told == {name for name, value in measures.items() if MEAN_IMAGE.get(name) == value}

    def test_roughness_of_people_follows_the_grid(self):
        # Of one scan, as measured: 0.0177 on a 3 mm grid, 0.0681 on a 6 mm one.
        for grid_mm, roughness in ((3.0, 0.0177), (6.0, 0.0681)):
            limits = people_limits(PEOPLE, min_similarity=0.55, grid_mm=grid_mm)
            rows = judged(PERSON | {"roughness": roughness}, limits)
            assert {row["verdict"] for row in rows} == {"ok"}

    def test_similarity_limit_of_the_pipeline_refuses_too(self):
        (limit,) = [
            one for one in limits_of(training(), NARROW, min_similarity=0.3) if one["name"] == "similarity"
        ]
        assert limit["refuse_below"] == 0.3


class TestDisease:
    """One simulated person, ill to a growing degree, on both sides or mostly on one."""

    @pytest.fixture(scope="class")
    @classmethod
    def verdicts(cls):
        recipe = SimulationRecipe(
            ad_subjects=1,
            cn_subjects=1,
            seed=8,
            axial_fov="scanner",
            subtypes={"typical": 0.5, "cortical": 0.5},
        )
        row = next(row for row in cohort_rows(draw_cohort(recipe)) if row["diagnosis"] == "AD")
        standard = load_standard(grid_mm=4.0, reference="cerebellum", align="affine", smoothing_mm=8.0)
        points = brain_points(standard.brain, standard.template.affine)
        limits = [
            row
            for row in people_limits(PEOPLE, min_similarity=0.55, grid_mm=4.0)
            if row["name"] != "profile_distance"
        ]

        def judge(severity, pattern, asymmetry):
            ill = row | {"severity": severity, "pattern": pattern, "asymmetry": asymmetry}
            scan = simulate_scan(ill, recipe, load_anatomy()).volume
            data = scan.data if scan.data.ndim == 3 else scan.data.mean(axis=-1)
            found, alignment = normalize(to_ras(data, scan.affine), standard)
            values = measures(found.data, brain=standard.brain, tissue=tissue_labels(4.0))
            values |= view_measures(data.shape, scan.affine, alignment.matrix, points)
            rows = judged(values | {"similarity": alignment.similarity}, limits)
            return {row["name"]: row["verdict"] for row in rows}

        healthy = judge(0.0, "typical", 0.0)
        return lambda *disease: (healthy, judge(*disease))

    @pytest.mark.parametrize(
        "disease", [(1.5, "typical", 0.0), (3.0, "typical", 0.0), (3.0, "cortical", 0.7)]
    )
    def test_severity_and_side_refuse_no_scan(self, verdicts, disease):
        healthy, ill = verdicts(*disease)
        assert set(healthy.values()) == {"ok"}
        assert "refused" not in ill.values()
        assert {name for name, verdict in ill.items() if verdict == "flagged"} <= {"asymmetry"}


class TestProfile:
    def test_distance_is_small_for_similar_scans_and_large_for_another_pattern(self):
        rng = np.random.default_rng(0)
        common = rng.normal(0, 0.1, (100, 1))
        uptakes = 1 + common + rng.normal(0, 0.02, (100, 5))
        distances = profile_distances(uptakes, np.arange(100))
        assert 0.3 < np.median(distances) < 1.3
        # No region is beyond what the common factor makes of it, but never two of them apart.
        broken = 1 + np.array([0.15, -0.15, 0.15, -0.15, 0.15])
        assert profile_distance(broken, profile_of(uptakes)) > distances.max()

    def test_distance_ignores_other_visits_of_the_subject(self):
        uptakes = np.random.default_rng(0).normal(1, 0.1, (40, 3))
        twice = np.concatenate([uptakes, uptakes[:20]])
        subjects = np.concatenate([np.arange(40), np.arange(20)])
        distances = profile_distances(twice, subjects)
        np.testing.assert_allclose(distances[:20], distances[40:])


def test_region_has_its_z_score_and_share_of_the_cam(brain):
    labels = np.where(brain, 1, 0).astype(np.int16)
    labels[5:] *= 2
    cam = np.where(labels == 2, 3.0, np.where(labels == 1, 1.0, -5.0)).astype(np.float32)
    healthy = {"ad_pattern": True, "cn_mean": 1.2, "cn_sd": 0.1, "cn_slope": -0.01}
    rows = region_table(
        np.ones(SHAPE, dtype=np.float32),
        cam,
        labels=labels,
        brain=brain,
        regions=[{"label": 1, "name": "one"} | healthy, {"label": 2, "name": "two"} | healthy],
        years=5,
    )
    assert [row["name"] for row in rows] == ["one", "two"]
    assert rows[0]["z"] == pytest.approx(-1.5)
    assert rows[0]["cam_share"] == pytest.approx(1 / 3, abs=1e-4)
    assert rows[1]["cam_share"] == pytest.approx(2 / 3, abs=1e-4)


def test_region_counts_as_far_as_the_scan_shows_it(brain):
    labels = np.where(brain, 1, 0).astype(np.int16)
    labels[5:] *= 2
    suvr = np.ones(SHAPE, dtype=np.float32)
    suvr[labels == 2] = 0
    suvr[:3] = 0
    healthy = {"ad_pattern": True, "cn_mean": 1.2, "cn_slope": 0.0, "cn_sd": 0.1}
    regions = [{"label": label, "name": str(label)} | healthy for label in (1, 2)]
    (row,) = region_table(suvr, suvr, labels=labels, brain=brain, regions=regions)
    assert (row["name"], row["uptake"]) == ("1", 1.0)
    profile = profile_of(np.array([[1.0, np.nan], [1.2, 2.0], [1.1, 2.2]]))
    assert profile["mean"] == pytest.approx([1.1, 2.1])
    assert profile_distance(np.array([1.1, np.nan]), profile) == pytest.approx(0, abs=1e-6)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, st.one_of(numbers, st.integers(-9, 9)))
@example(-0.0, 0.0)
def test_value_and_limit_that_differ_have_texts_that_differ_in_the_same_order(limit, other):
    value = limit + other * math.ulp(limit) if isinstance(other, int) else other
    assume(math.isfinite(value))
    written, required = told_apart(value, limit)
    assert (Decimal(written) > Decimal(required)) == (value > limit)
    assert (written == required) == (value == limit)


@given(limit=st.floats(0.01, 10), apart=st.floats(1e-15, 1), low=st.booleans())
def test_refused_value_is_never_written_as_allowed(limit, apart, low):
    value = limit - apart if low else limit + apart
    assume(value != limit)
    sides = dict.fromkeys(("flag_below", "flag_above", "refuse_below", "refuse_above"))
    texts = {"name": "field_of_view_mm", "text": "size", "low_means": "a part", "high_means": "a body"}
    row = {**sides, **texts, "low": 0.0, "high": 1.0, f"refuse_{'below' if low else 'above'}": limit}
    (check,) = judged({"field_of_view_mm": value}, [row])
    found = re.fullmatch(r"field of view (\S+) mm, (required (\S+) mm or (more|less))", check["finding"])
    written, required = float(found[1]), float(found[3])
    assert (written < required, found[4]) == ((True, "more") if low else (False, "less"))
    assert written != required
    assert (check["value"] < limit) if low else (check["value"] > limit)
    assert f"size: {found[1]}, {found[2]} (" in check["reason"]
