"""A referenced map says where a subject's map departs from healthy ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.errors import InputError
from adpet.evidence.cam_reference import disease_patterns, healthy_reference, smoothed

VOXELS = 200
INSIDE = np.ones((6, 6, 6), bool)
INSIDE[0] = False


def healthy(n, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=VOXELS) * 5
    return (common + rng.normal(size=(n, VOXELS))).astype(np.float32)


class TestReference:
    @given(st.integers(3, 12), st.integers(0, 50))
    def test_without_shrinkage_mean_and_spread_are_numpys(self, n, seed):
        maps = healthy(n, seed)
        reference = healthy_reference(maps, shrinkage=0.0)
        np.testing.assert_allclose(reference.mean, np.mean(maps, axis=0), atol=1e-4)
        np.testing.assert_allclose(reference.spread, np.std(maps, axis=0, ddof=1), rtol=1e-2, atol=2e-3)

    def test_what_every_healthy_map_has_is_not_unusual(self):
        maps = healthy(20)
        odd = maps[-1].copy()
        odd[33] += 10
        distance = healthy_reference(maps[:-1], shrinkage=0.1).distance(odd)
        assert distance.argmax() == 33
        assert abs(np.delete(distance, 33).mean()) < 0.3

    def test_what_lifts_a_map_everywhere_says_nothing_of_where(self):
        maps = healthy(20)
        reference = healthy_reference(maps, shrinkage=1.0)
        np.testing.assert_allclose(reference.distance(maps + 7), reference.distance(maps), atol=1e-4)
        assert np.abs(reference.distance(maps).mean(axis=1)).max() < 1e-4

    def test_shrinkage_keeps_a_place_without_spread_from_outgrowing_others(self):
        maps = healthy(10)
        maps[:, 2] = 1.0
        assert healthy_reference(maps, shrinkage=0.1).spread[2] > 0.2

    def test_too_few_or_equal_healthy_maps_are_refused(self):
        with pytest.raises(InputError, match="required 3 CN training scans or more; received 2"):
            healthy_reference(healthy(2), shrinkage=0.1)
        with pytest.raises(InputError, match="maps that differ"):
            healthy_reference(healthy(1)[[0, 0, 0, 0]], shrinkage=0.1)


class TestPatterns:
    """Everybody departs along some patterns; patients along one more."""

    rng = np.random.default_rng(1)
    everybodys = rng.normal(size=(3, VOXELS))
    disease = np.where(np.arange(VOXELS) < 40, 1.0, 0.0)

    def people(self, n, severity):
        own = self.rng.normal(size=(n, 3)) @ self.everybodys
        noise = 0.1 * self.rng.normal(size=(n, VOXELS))
        return (own + noise + severity * self.rng.uniform(0.5, 1.5, (n, 1)) * self.disease).astype(np.float32)

    def test_they_find_the_disease_of_a_new_patient_better_than_the_distance_itself(self):
        patterns = disease_patterns(self.people(60, 1.0), self.people(60, 0.0))
        patients = self.people(20, 1.0)
        before, after = (
            np.mean([np.corrcoef(one, self.disease)[0, 1] for one in maps])
            for maps in (patients, patterns.kept(patients))
        )
        assert after > before + 0.3

    def test_what_healthy_people_have_as_much_of_is_not_kept(self):
        patterns = disease_patterns(self.people(60, 1.0), self.people(60, 0.0))
        kept = patterns.kept(self.people(20, 0.0))
        assert np.abs(kept).mean() < 0.3 * np.abs(self.people(20, 0.0)).mean()

    def test_patterns_are_orthonormal_and_gains_are_shares(self):
        patterns = disease_patterns(self.people(9, 1.0), self.people(7, 0.0))
        products = patterns.patterns @ patterns.patterns.T
        np.testing.assert_allclose(products, np.eye(len(products)), atol=1e-3)
        assert ((patterns.gains > 0) & (patterns.gains <= 1)).all()

    def test_where_patients_are_as_healthy_people_nothing_is_kept(self):
        maps = self.people(12, 0.0)
        assert not disease_patterns(maps, maps).kept(maps).any()


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
