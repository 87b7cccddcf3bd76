"""A referenced map says where a subject's map departs from healthy ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.errors import InputError
from adpet.evaluation.saliency import healthy_patterns, healthy_reference, smoothed

VOXELS = 200
INSIDE = np.ones((6, 6, 6), bool)
INSIDE[0] = False


def healthy(n, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=VOXELS) * 5
    return (common + rng.normal(size=(n, VOXELS))).astype(np.float32)


class TestReference:
    @given(st.integers(3, 12), st.integers(0, 50))
    def test_mean_and_spread_are_numpys(self, n, seed):
        maps = healthy(n, seed)
        reference = healthy_reference(maps)
        np.testing.assert_allclose(reference.mean, np.mean(maps, axis=0), atol=1e-4)
        spread = np.std(maps, axis=0, ddof=1, dtype=np.float64)
        np.testing.assert_allclose(reference.spread, np.sqrt(np.mean(spread**2)), rtol=1e-5)

    def test_what_every_healthy_map_has_is_not_unusual(self):
        maps = healthy(20)
        odd = maps[-1].copy()
        odd[33] += 10
        distance = healthy_reference(maps[:-1]).distance(odd)
        assert distance.argmax() == 33
        assert abs(np.delete(distance, 33).mean()) < 0.3

    def test_what_lifts_a_map_everywhere_says_nothing_of_where(self):
        maps = healthy(20)
        reference = healthy_reference(maps)
        np.testing.assert_allclose(reference.distance(maps + 7), reference.distance(maps), atol=1e-4)
        assert np.abs(reference.distance(maps).mean(axis=1)).max() < 1e-4

    def test_a_place_that_never_differs_does_not_outgrow_others(self):
        maps = healthy(10)
        maps[:, 2] = 1.0
        odd = maps[-1].copy()
        odd[[2, 3]] += 4
        reference = healthy_reference(maps[:-1])
        rise = reference.distance(odd) - reference.distance(maps[-1])
        assert rise[2] == pytest.approx(rise[3], abs=1e-3)

    def test_too_few_or_equal_healthy_maps_are_refused(self):
        with pytest.raises(InputError, match="required 3 CN training scans or more; received 2"):
            healthy_reference(healthy(2))
        with pytest.raises(InputError, match="maps that differ"):
            healthy_reference(healthy(1)[[0, 0, 0, 0]])


class TestPatterns:
    """Maps differ along a few patterns, and by noise of single places."""

    rng = np.random.default_rng(1)
    ways = rng.normal(size=(3, VOXELS))

    def people(self, n, *, noise=1.0):
        along = self.rng.normal(size=(n, 3)) @ self.ways
        return along.astype(np.float32), (noise * self.rng.normal(size=(n, VOXELS))).astype(np.float32)

    def test_what_lies_along_the_ways_in_which_maps_differ_stays_and_noise_goes(self):
        patterns = healthy_patterns(np.add(*self.people(60)))
        along, noise = self.people(20)
        np.testing.assert_array_less(np.abs(patterns.kept(noise)).mean(), 0.2 * np.abs(noise).mean())
        before, after = (
            np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(along, maps, strict=True)])
            for maps in (along + noise, patterns.kept(along + noise))
        )
        assert after > before + 0.05

    def test_patterns_are_orthonormal_and_gains_are_shares(self):
        patterns = healthy_patterns(np.add(*self.people(9)))
        products = patterns.patterns @ patterns.patterns.T
        np.testing.assert_allclose(products, np.eye(len(products)), atol=1e-3)
        assert ((patterns.gains > 0) & (patterns.gains <= 1)).all()

    def test_the_more_healthy_maps_differ_along_a_pattern_the_more_of_it_is_kept(self):
        patterns = healthy_patterns(np.add(*self.people(30)))
        variance = np.square(np.add(*self.people(30)) @ patterns.patterns.T).mean(axis=0)
        assert np.corrcoef(variance, patterns.gains)[0, 1] > 0.9


class TestSmoothing:
    def test_it_stays_inside_and_keeps_what_is_constant(self):
        found = smoothed(np.ones(INSIDE.shape, np.float32), fwhm_mm=9, grid_mm=3, inside=INSIDE)
        np.testing.assert_allclose(found[INSIDE], 1, rtol=1e-5)
        assert (found[~INSIDE] == 0).all()

    def test_none_leaves_the_map_as_it_is_inside(self):
        data = np.random.default_rng(0).normal(size=INSIDE.shape).astype(np.float32)
        np.testing.assert_array_equal(
            smoothed(data, fwhm_mm=0, grid_mm=3, inside=INSIDE)[INSIDE], data[INSIDE]
        )
