"""Simulated groups agree in all but the disease, which the truth shows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from adpet.imaging.nifti import Volume, read_volume, to_ras, write_volume
from adpet.imaging.registration import resample
from adpet.simulation.anatomy import region_masks
from adpet.simulation.cohort import SimulationRecipe, draw_cohort, simulate_scan
from adpet.simulation.scanner import HEAD_CENTRE, SCANNERS

RECIPE = SimulationRecipe()
# A quick scanner for group statistics: 4 mm voxels, in MNI space when the pose is 0.
COARSE = replace(SCANNERS["TruePoint"], matrix=(48, 56, 48), zooms=(4.0, 4.0, 4.0), axes="RAS")


class TestCohort:
    def test_groups_agree_in_site_sex_visits_and_age(self):
        cohort = draw_cohort(RECIPE)
        for column in ("site", "sex", "session"):
            table = pd.crosstab(cohort[column], cohort["diagnosis"])
            assert (table["AD"] == table["CN"]).all(), column
        age = cohort.groupby("diagnosis")["age"].mean()
        assert abs(age["AD"] - age["CN"]) < 0.6

    def test_severity_has_the_recipes_moments(self):
        first = draw_cohort(replace(RECIPE, ad_subjects=300, cn_subjects=300)).drop_duplicates("subject")
        ill = first.loc[first["diagnosis"] == "AD", "severity"]
        assert ill.mean() == pytest.approx(1.0, abs=0.1)
        assert ill.std() == pytest.approx(0.55, abs=0.08)
        preclinical = first.loc[(first["diagnosis"] == "CN") & (first["severity"] > 0), "severity"]
        assert len(preclinical) / 300 == pytest.approx(0.2, abs=0.08)
        assert preclinical.between(0.1, 0.5).all()

    def test_follow_up_is_the_same_person_older_and_no_better(self):
        cohort = draw_cohort(RECIPE).pivot_table(
            index="subject", columns="session", values=["age", "severity", "person_seed"]
        )
        both = cohort.dropna()
        assert len(both) / 180 == pytest.approx(0.2, abs=0.04)
        assert (both["person_seed"]["01"] == both["person_seed"]["02"]).all()
        assert (both["age"]["02"] - both["age"]["01"]).between(0.9, 3.1).all()
        assert (both["severity"]["02"] >= both["severity"]["01"]).all()

    def test_visits_are_dated_as_far_apart_as_ages_are(self):
        cohort = draw_cohort(replace(RECIPE, followup_fraction=1))
        dates = pd.to_datetime(cohort["date"]).groupby(cohort["subject"]).agg(["min", "max"])
        years = (dates["max"] - dates["min"]).dt.days / 365.25
        ages = cohort.groupby("subject")["age"].agg(lambda age: age.max() - age.min())
        assert (years - ages).abs().max() < 0.11

    def test_subject_does_not_depend_on_how_many_there_are(self):
        few, many = draw_cohort(replace(RECIPE, ad_subjects=3, cn_subjects=3)), draw_cohort(RECIPE)
        pd.testing.assert_frame_equal(few, many.head(len(few)))

    def test_groups_of_unequal_size_are_the_same_people_without_some_partners(self):
        every = draw_cohort(RECIPE)
        fewer = draw_cohort(replace(RECIPE, ad_subjects=20))
        first = fewer.drop_duplicates("subject")
        assert first["diagnosis"].value_counts().to_dict() == {"CN": 90, "AD": 20}
        kept = every[every["subject"].isin(fewer["subject"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(fewer, kept)

    def test_subjects_come_as_often_as_they_may(self):
        recipe = replace(RECIPE, followup_fraction=0.6, max_visits=4)
        visits = draw_cohort(recipe)["subject"].value_counts()
        assert set(visits) == {1, 2, 3, 4}
        assert (visits > 1).mean() == pytest.approx(0.6, abs=0.04)
        once = draw_cohort(replace(recipe, max_visits=1))
        assert not once["subject"].duplicated().any()

    def test_other_shares_of_scanners_are_kept_and_their_sites_follow(self):
        cohort = draw_cohort(replace(RECIPE, scanners={"HRRT": 0.75, "HRplus": 0.25}))
        first = cohort.drop_duplicates("subject")
        assert (first["scanner"] == "HRRT").mean() == pytest.approx(0.75, abs=0.03)
        assert set(first["site"]) == {"S01", "S02", "S07", "S08"}
        table = pd.crosstab(cohort["site"], cohort["diagnosis"])
        assert (table["AD"] == table["CN"]).all()


# Every addition, in such shares that some of each come.
VARIED = replace(
    RECIPE,
    axial_fov="scanner",
    subtypes={"typical": 0.5, "limbic": 0.3, "cortical": 0.2},
    lateralised_fraction=0.3,
    mci_subjects=90,
    other_subjects={"FTD": 3, "DLB": 2, "stroke": 4},
)


class TestVariedCohort:
    def test_patients_and_controls_are_those_of_the_cohort_without_the_rest(self):
        plain, varied = draw_cohort(RECIPE), draw_cohort(VARIED)
        pd.testing.assert_frame_equal(plain, varied.loc[: len(plain) - 1, plain.columns])
        rest = varied[len(plain) :].drop_duplicates("subject")
        counts = {"MCI": 90, "FTD": 3, "DLB": 2, "stroke": 4}
        assert rest["diagnosis"].value_counts().to_dict() == counts
        assert not set(rest["subject"]) & set(plain["subject"])

    def test_patterns_and_worse_sides_come_in_the_recipes_shares(self):
        cohort = draw_cohort(replace(VARIED, ad_subjects=600)).query("diagnosis == 'AD' and session == '01'")
        shares = cohort["pattern"].value_counts(normalize=True)
        assert shares.to_dict() == pytest.approx(dict(VARIED.subtypes), abs=0.06)
        sides = np.sign(cohort["asymmetry"])
        assert (sides != 0).mean() == pytest.approx(0.3, abs=0.06)
        assert (sides > 0).sum() == pytest.approx((sides < 0).sum(), rel=0.3)

    def test_mild_impairment_lies_between_health_and_dementia(self):
        first = draw_cohort(VARIED).query("session == '01'")
        severity = first.groupby("diagnosis")["severity"].mean()
        assert severity["CN"] + 0.1 < severity["MCI"] < severity["AD"] - 0.1
        impaired = first.query("diagnosis == 'MCI'").groupby("course")["severity"]
        assert impaired.mean()["converter"] > impaired.mean()["stable"]
        assert impaired.size()["converter"] / 90 == pytest.approx(1 / 3, abs=0.12)

    def test_groups_differ_in_age_sex_and_site_as_asked(self):
        confounding = {"age_years": 6.0, "male_fraction": 0.4, "site": 1.0}
        first = draw_cohort(replace(RECIPE, confounding=confounding)).query("session == '01'")
        groups = dict(list(first.groupby("diagnosis")))
        assert groups["AD"]["age"].mean() - groups["CN"]["age"].mean() == pytest.approx(6, abs=0.7)
        men = {diagnosis: (rows["sex"] == "M").mean() for diagnosis, rows in groups.items()}
        assert men["AD"] - men["CN"] == pytest.approx(0.4, abs=0.05)
        assert len(set(groups["AD"]["site"]) & set(groups["CN"]["site"])) <= 1

    def test_scanners_own_field_has_the_middle_slices_of_the_whole_head(self, anatomy):
        row = draw_cohort(RECIPE).query("site == 'S03' and severity > 0").iloc[0].to_dict()
        whole = simulate_scan(row, RECIPE, anatomy)
        cut = simulate_scan(row, replace(RECIPE, axial_fov="scanner"), anatomy)
        assert (whole.volume.data.shape[2], cut.volume.data.shape[2]) == (63, 47)
        np.testing.assert_allclose(cut.deficit.data, whole.deficit.data[:, :, 8:55], atol=1e-4)
        np.testing.assert_allclose(cut.volume.affine[:3, 3] - whole.volume.affine[:3, 3], [0, 0, 8 * 3.27])

    @pytest.mark.parametrize(
        ("disease", "lost", "spared"),
        [
            ("FTD", ["medial frontal", "anterior cingulate"], ["precuneus", "pericalcarine"]),
            ("DLB", ["lateral occipital", "precuneus"], ["anterior cingulate", "hippocampus"]),
        ],
    )
    def test_other_dementias_take_from_their_own_regions(self, anatomy, disease, lost, spared):
        means = regional_means(self.deficit(anatomy, f"diagnosis == '{disease}'"), anatomy)
        assert min(means[name] for name in lost) > 0.05 > 2 * max(means[name] for name in spared)

    def test_infarct_is_deep_and_on_one_side(self, anatomy):
        deficit = self.deficit(anatomy, "diagnosis == 'stroke'")
        middle = deficit.data.shape[0] // 2
        left, right = deficit.data[:middle], deficit.data[middle:]
        assert deficit.data.max() > 0.5
        assert min((left > 0.2).sum(), (right > 0.2).sum()) < 0.1 * max(
            (left > 0.2).sum(), (right > 0.2).sum()
        )

    def test_worse_side_loses_more(self, anatomy):
        deficit = self.deficit(anatomy, "diagnosis == 'AD' and asymmetry > 0.4 and severity > 0.8")
        middle = deficit.data.shape[0] // 2
        assert deficit.data[:middle].sum() > 1.3 * deficit.data[middle:].sum()

    def deficit(self, anatomy, chosen):
        recipe = replace(VARIED, pose=0)
        row = draw_cohort(recipe).query(chosen).iloc[0].to_dict()
        return simulate_scan(row, recipe, anatomy, scanner=COARSE).deficit


class TestScan:
    def test_one_site_delivers_frames_whose_mean_our_reader_reads(self, anatomy, tmp_path):
        row = draw_cohort(RECIPE).query("site == 'S02'").iloc[0].to_dict()
        scan = simulate_scan(row, RECIPE, anatomy).volume
        assert scan.data.shape == (*SCANNERS["HRRT"].matrix, 6)
        path = tmp_path / "frames.nii"
        write_volume(path, scan, dtype=np.int16)
        mean = to_ras(scan.data.mean(axis=-1), scan.affine)
        np.testing.assert_allclose(read_volume(path).data, mean.data, atol=0.01)

    def test_truth_lies_where_the_disease_does(self, anatomy):
        recipe = replace(RECIPE, pose=0)
        row = draw_cohort(recipe).query("severity > 1.2").iloc[0].to_dict()
        deficit = simulate_scan(row, recipe, anatomy, scanner=COARSE).deficit
        lost = regional_means(deficit, anatomy)
        assert lost["posterior cingulate"] > 0.15
        assert lost["cerebellar cortex"] < 0.03
        assert lost["pons"] < 0.03
        assert 0 <= deficit.data.min() <= deficit.data.max() < 0.8

    def test_without_disease_there_is_no_truth_to_show(self, anatomy):
        row = draw_cohort(RECIPE).query("severity == 0").iloc[0].to_dict()
        assert simulate_scan(row, RECIPE, anatomy, scanner=COARSE).deficit is None


def regional_means(volume, anatomy):
    in_mni = volume.affine.copy()
    in_mni[:3, 3] += HEAD_CENTRE
    there = resample(Volume(volume.data, in_mni), shape=anatomy.tissue.shape, affine=anatomy.affine)
    return {name: float(there[mask].mean()) for name, mask in region_masks(anatomy).items()}
