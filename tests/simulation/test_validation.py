"""Validation finds what is wrong in made-up cohorts, and the simulated one sound."""

import numpy as np
import pytest

from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import load_standard, normalize
from adpet.simulation.anatomy import GRID_MM, NORMATIVE, REGIONS
from adpet.simulation.cohort import SimulationRecipe, cohort_rows, draw_cohort, simulate_scan
from adpet.simulation.subject import average_person, person_uptake
from adpet.simulation.validation import (
    LIKENESS,
    ScanMeasures,
    likeness,
    likeness_target,
    nuisance_targets,
    null_target,
    region_means,
    regional_targets,
    separability_target,
)

COHORT = draw_cohort(SimulationRecipe(ad_subjects=100, cn_subjects=100, followup_fraction=0))
ILL = (COHORT["diagnosis"] == "AD").to_numpy()


def made_up(*, difference=0.0, noise=None, lost=None, means_off=1.0):
    """Measures of the cohort: `difference` of the groups in voxels, in SD, and what else is wanted."""
    rng = np.random.default_rng(1)
    table = {name: region.mean for name, region in REGIONS.items()}
    measures = []
    for ill in ILL:
        loss = (lost or {}) if ill else {}
        common = np.exp(0.085 * rng.standard_normal())
        regions = {
            name: mean * (1 if name == "pons" else common) * (1 + loss.get(name, 0))
            for name, mean in table.items()
        }
        regions["putamen"] *= means_off
        side = {name: 0.015 * rng.standard_normal() for name in regions}
        measures.append(
            ScanMeasures(
                left={name: 2000 * value * (1 + side[name]) for name, value in regions.items()},
                right={name: 2000 * value * (1 - side[name]) for name, value in regions.items()},
                brain=2000 * common * np.exp(0.03 * rng.standard_normal()),
                volume=np.zeros((2, 2, 2), dtype=np.float16),
                blocks=(rng.standard_normal(40) + difference * ill).astype(np.float32),
                pose=rng.standard_normal(12),
                noise=rng.random() + (noise if noise and ill else 0),
            )
        )
    return measures


def verdicts(targets):
    return {target.name: target.met for target in targets}


class TestTargets:
    def test_passes_groups_that_overlap_as_real_ones_do(self):
        assert separability_target(COHORT, made_up(difference=0.39)).met

    @pytest.mark.parametrize("difference", [0.1, 1.0])
    def test_fails_groups_that_overlap_too_much_or_too_little(self, difference):
        assert separability_target(COHORT, made_up(difference=difference)).met is False

    def test_finds_equal_groups_equal(self):
        assert null_target(COHORT, made_up()).met
        assert all(verdicts(nuisance_targets(COHORT, made_up())).values())

    def test_fails_scans_that_are_noisier_in_one_group(self):
        found = verdicts(nuisance_targets(COHORT, made_up(noise=0.5)))
        assert [name for name, met in found.items() if not met] == ["AUC of noise alone"]

    def test_measures_the_loss_against_the_cerebellum(self):
        lost = {"precuneus": -0.19, "posterior cingulate": -0.21}
        found = regional_targets(COHORT, made_up(lost=lost))
        assert next(one for one in found if one.name.startswith("precuneus in AD")).measured == "-19.0%"
        assert next(one for one in found if one.name.startswith("posterior")).met

    def test_names_the_region_that_is_farthest_from_the_table(self):
        (means,) = [
            one for one in regional_targets(COHORT, made_up(means_off=1.5)) if one.name.startswith("means")
        ]
        assert means.met is False
        assert "putamen" in means.measured


class TestSimulatedCohort:
    def test_regions_carried_into_a_scan_have_the_tables_means(self, anatomy):
        """Of one person, whatever everybody varies in apart: noise, pose and the pons decide."""
        recipe = SimulationRecipe(ad_subjects=12, cn_subjects=12, followup_fraction=0, preclinical_fraction=0)
        ratios = []
        for row in cohort_rows(draw_cohort(recipe)):
            if row["diagnosis"] == "CN":
                scan = simulate_scan(row, recipe, anatomy)
                data = scan.volume.data if scan.volume.data.ndim == 3 else scan.volume.data.mean(axis=-1)
                left, right, _ = region_means(data, scan.points, anatomy)
                ratios.append(
                    [(left[name] + right[name]) / (left["pons"] + right["pons"]) for name in NORMATIVE]
                )
        found = np.mean(ratios, axis=0)
        wanted = np.array([region.mean for region in NORMATIVE.values()])
        # Twelve people: what all their cortex has in common moves the mean by 2.5 %.
        np.testing.assert_allclose(found / np.median(found / wanted), wanted, rtol=0.05)
        np.testing.assert_allclose(found, wanted, rtol=0.12)

    def test_average_group_is_as_like_a_real_one_as_real_ones_are_alike(self, anatomy, real_mean_image):
        standard = load_standard(grid_mm=GRID_MM, reference="global", align="affine")
        real = normalize(read_volume(real_mean_image), standard)[0].data
        group = [
            person_uptake(average_person(anatomy), anatomy, age=75, severity=one)[0] for one in (0.06, 1)
        ]
        target = likeness_target(*likeness(np.mean(group, axis=0), real, standard.brain, grid_mm=GRID_MM))
        assert target.met, target.measured
        assert LIKENESS == 0.90
