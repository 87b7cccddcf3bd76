"""Normative images: age, unknown ages, few scans, the floor of the spread, smoothing."""

import weakref

import numpy as np
import pytest

from adpet.errors import InputError
from adpet.imaging.normative import FEWEST_AGES, fit_norms, smoothed, smoothed_in_brain

INSIDE = np.zeros((8, 8, 8), bool)
INSIDE[1:7, 1:7, 1:7] = True


def cohort(n=200, *, slope=-0.01, sd=0.1):
    rng = np.random.default_rng(0)
    ages = rng.uniform(60, 90, n)
    uptake = 1 + slope * (ages[:, None] - 75) + rng.normal(0, sd, (n, 10))
    return uptake.astype(np.float32), ages


class TestNorms:
    def test_slope_and_spread_are_those_of_the_cohort(self):
        uptake, ages = cohort()
        norms = fit_norms(uptake, ages)
        np.testing.assert_allclose(norms.slope, -0.01, atol=0.003)
        np.testing.assert_allclose(norms.sd, 0.1, atol=0.02)
        assert norms.ages == (ages.min(), ages.mean(), ages.max())

    def test_low_uptake_is_negative_relative_to_people_of_that_age(self):
        norms, uptake = fit_norms(*cohort()), np.full(10, 0.85, np.float32)
        assert norms.z(uptake).mean() == pytest.approx(-1.5, abs=0.2)
        assert norms.z(uptake, 75 + 14).mean() == pytest.approx(-0.1, abs=0.3)

    def test_unknown_age_is_the_mean_and_an_extreme_one_the_nearest(self):
        norms = fit_norms(*cohort())
        low, mean, high = norms.ages
        assert [*map(norms.compared_at, (None, np.nan, 20, 80, 99))] == [mean, mean, low, 80, high]
        np.testing.assert_array_equal(norms.z(norms.mean, 99.0), norms.z(norms.mean, high))

    @pytest.mark.parametrize("known", [0, FEWEST_AGES - 1])
    def test_age_is_left_out_with_few_known(self, known):
        uptake, ages = cohort()
        norms = fit_norms(uptake, np.where(np.arange(ages.size) < known, ages, np.nan))
        assert norms.ages is None
        assert norms.compared_at(80.0) is None
        np.testing.assert_array_equal(norms.z(uptake[0], 80.0), norms.z(uptake[0]))

    def test_scans_of_unknown_age_do_not_move_the_slope(self):
        uptake, ages = cohort(sd=0.0)
        extra = np.full((50, 10), uptake.mean(), np.float32)
        norms = fit_norms(np.vstack([uptake, extra]), np.append(ages, np.full(50, np.nan)))
        np.testing.assert_allclose(norms.slope, -0.01, rtol=1e-3)

    def test_quiet_voxels_are_not_inflated(self):
        uptake = np.random.default_rng(0).normal(1, [0.1] * 9 + [1e-6], (200, 10)).astype(np.float32)
        norms = fit_norms(uptake, np.full(200, np.nan))
        assert norms.sd[-1] == pytest.approx(0.05, abs=0.005)

    def test_voxel_is_compared_with_the_scans_that_show_it(self):
        uptake, ages = cohort()
        cut = uptake.copy()
        cut[:120, 0], cut[:198, 1] = np.nan, np.nan
        norms, alone = fit_norms(cut, ages), fit_norms(uptake[120:], ages[120:])
        at = norms.ages[1] - alone.ages[1]
        assert norms.mean[0] == pytest.approx(alone.mean[0] + at * alone.slope[0], rel=1e-5)
        assert norms.slope[0] == pytest.approx(alone.slope[0], rel=1e-5)
        assert norms.sd[0] == pytest.approx(alone.sd[0], rel=1e-5)
        assert abs(norms.z(uptake[0])[1]) < 0.01, "two scans say nothing"
        np.testing.assert_allclose(norms.mean[2:], fit_norms(uptake, ages).mean[2:])

    def test_many_scans_take_the_memory_of_one(self):
        uptake, ages = cohort()
        made, held = [], []

        def scans():
            for row in uptake:
                held.append(sum(scan() is not None for scan in made))
                made.append(weakref.ref(scan := row.copy()))
                yield scan

        np.testing.assert_array_equal(fit_norms(scans(), ages).mean, fit_norms(uptake, ages).mean)
        assert max(held) == 1

    def test_two_scans_are_compared_with_and_one_is_refused_with_what_to_do(self):
        uptake, ages = (values[:2] for values in cohort())
        assert 0.1 < np.abs(fit_norms(uptake, ages).z(uptake[0])).max() < 1
        with pytest.raises(InputError, match="required 2 CN training scans or more; received 1; lower split"):
            fit_norms(uptake[:1], ages[:1])


def test_smoothed_suvr_is_unknown_where_the_scan_does_not_show_the_brain():
    suvr = np.where(np.arange(INSIDE.shape[2]) < INSIDE.shape[2] // 2, 0, np.ones(INSIDE.shape, np.float32))
    found = smoothed_in_brain(suvr, INSIDE, fwhm_mm=9, grid_mm=3)
    np.testing.assert_array_equal(np.isnan(found), ~INSIDE | (suvr == 0))
    np.testing.assert_allclose(found[~np.isnan(found)], 1, rtol=1e-5)


def test_smoothing_stays_inside_and_keeps_constants():
    found = smoothed(np.ones(INSIDE.shape, np.float32), fwhm_mm=9, grid_mm=3, inside=INSIDE)
    np.testing.assert_allclose(found[INSIDE], 1, rtol=1e-5)
    assert (found[~INSIDE] == 0).all()
