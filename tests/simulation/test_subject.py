"""Disease and age take uptake where they should; smooth noise has unit variance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adpet.simulation.anatomy import region_masks
from adpet.simulation.subject import draw_person, on_lattice, person_uptake, unit_noise


@pytest.fixture(scope="module")
def person(anatomy):
    return draw_person(np.random.default_rng(3), anatomy)


def means(image, anatomy):
    return {name: float(image[mask].mean()) for name, mask in region_masks(anatomy).items()}


class TestDisease:
    def test_severity_0_is_health_itself(self, person, anatomy):
        ill, healthy = person_uptake(person, anatomy, age=75, severity=0)
        assert ill is healthy

    def test_takes_most_from_posterior_cingulate_precuneus_and_lateral_parietal_cortex(self, person, anatomy):
        ill, healthy = (means(image, anatomy) for image in person_uptake(person, anatomy, age=75, severity=1))
        lost = {name: 1 - ill[name] / healthy[name] for name in ill}
        for name in ("posterior cingulate", "precuneus", "lateral parietal"):
            assert lost[name] > 0.08, name

    @pytest.mark.parametrize("name", ["cerebellar cortex", "pons", "putamen", "precentral", "pericalcarine"])
    def test_spares_what_alzheimers_disease_spares(self, person, anatomy, name):
        ill, healthy = (means(image, anatomy) for image in person_uptake(person, anatomy, age=75, severity=1))
        assert 1 - ill[name] / healthy[name] < 0.05

    def test_grows_with_severity(self, person, anatomy):
        found = []
        for severity in (0.2, 0.6, 1.2):
            ill, healthy = person_uptake(person, anatomy, age=75, severity=severity)
            found.append(float((healthy - ill).sum()))
        assert found == sorted(found)
        assert found[0] > 0


def test_age_lowers_the_anterior_cingulate_and_leaves_the_cerebellum(person, anatomy):
    young, old = (means(person_uptake(person, anatomy, age=age, severity=0)[0], anatomy) for age in (65, 85))
    assert old["anterior cingulate"] / young["anterior cingulate"] < 0.93
    assert old["cerebellar cortex"] / young["cerebellar cortex"] > 0.98


class TestSmoothNoise:
    @settings(max_examples=12)
    @given(fwhm=st.floats(0.6, 4.0), seed=st.integers(0, 99))
    def test_has_unit_variance_at_any_smoothness(self, fwhm, seed):
        noise = unit_noise(np.random.default_rng(seed), [36, 36, 36], [fwhm, fwhm, 1.5])
        assert noise.std() == pytest.approx(1, abs=0.15)

    @pytest.mark.parametrize("step", [4.0, (2.7, 4.9, 6.1)])
    def test_lattice_is_interpolated_as_scipy_does_also_beyond_its_last_point(self, step):
        lattice = np.random.default_rng(0).standard_normal((7, 9, 8), dtype=np.float32)
        expected = ndimage.affine_transform(
            lattice, 1 / np.broadcast_to(step, 3), output_shape=(20, 30, 50), order=1, mode="nearest"
        )
        np.testing.assert_allclose(on_lattice(lattice, (20, 30, 50), step), expected, atol=1e-5)
