import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from adpet.cohort.phantom import PhantomRecipe, draw_cohort, simulate_scan, write_cohort
from adpet.cohort.scanner import HEAD_CENTRE, SCANNERS, SITES
from adpet.cohort.uptake import load_anatomy, region_masks
from adpet.imaging.align import resample
from adpet.imaging.volume import Volume, read_volume, to_ras, write_volume

RECIPE = PhantomRecipe()
# A quick scanner for group statistics: 4 mm voxels, in MNI space when the pose is 0.
COARSE = replace(SCANNERS["TruePoint"], matrix=(48, 56, 48), zooms=(4.0, 4.0, 4.0), axes="RAS")


@pytest.fixture(scope="module")
def anatomy():
    return load_anatomy()


def small_tree(folder, *, workers=1):
    recipe = replace(RECIPE, subjects=4, followup_fraction=0.5, seed=1)
    write_cohort(folder / "raw", folder / "truth", recipe, workers=workers)
    return recipe


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return folder, small_tree(folder)


class TestCohort:
    def test_half_of_the_subjects_have_the_disease(self):
        first = draw_cohort(RECIPE).drop_duplicates("subject")
        assert first["diagnosis"].value_counts().to_dict() == {"AD": 90, "CN": 90}

    def test_groups_agree_in_site_sex_and_visits(self):
        cohort = draw_cohort(RECIPE)
        for column in ("site", "sex", "session"):
            table = pd.crosstab(cohort[column], cohort["diagnosis"])
            assert (table["AD"] == table["CN"]).all(), column

    def test_groups_agree_in_age(self):
        age = draw_cohort(RECIPE).groupby("diagnosis")["age"].mean()
        assert abs(age["AD"] - age["CN"]) < 0.6

    def test_subject_numbers_do_not_tell_the_diagnosis(self):
        first = draw_cohort(RECIPE).drop_duplicates("subject")
        parity = first["subject"].str[1:].astype(int) % 2
        assert 0.3 < (first["diagnosis"] == "AD")[parity == 1].mean() < 0.7

    def test_scanners_have_their_shares(self):
        share = draw_cohort(RECIPE)["site"].value_counts(normalize=True)
        for name, site in SITES.items():
            assert share[name] == pytest.approx(site.share, abs=0.03), name

    def test_severity_has_the_recipes_moments(self):
        first = draw_cohort(replace(RECIPE, subjects=600)).drop_duplicates("subject")
        ill = first.loc[first["diagnosis"] == "AD", "severity"]
        assert ill.mean() == pytest.approx(1.0, abs=0.1)
        assert ill.std() == pytest.approx(0.45, abs=0.08)
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

    def test_a_subject_does_not_depend_on_how_many_there_are(self):
        few, many = draw_cohort(replace(RECIPE, subjects=6)), draw_cohort(RECIPE)
        pd.testing.assert_frame_equal(few, many.head(len(few)))

    def test_another_seed_gives_other_subjects(self):
        one, other = draw_cohort(RECIPE), draw_cohort(replace(RECIPE, seed=1))
        assert not set(one["person_seed"]) & set(other["person_seed"])

    def test_mean_severity_0_gives_two_healthy_groups(self):
        null = draw_cohort(replace(RECIPE, ad_severity_mean=0, preclinical_fraction=0))
        assert (null["severity"] == 0).all()


class TestScan:
    def test_lies_on_its_scanners_grid(self, anatomy):
        row = draw_cohort(RECIPE).query("site == 'S03'").iloc[0].to_dict()
        scan = simulate_scan(row, RECIPE, anatomy)
        assert scan.volume.data.shape == SCANNERS["D690"].matrix
        np.testing.assert_array_equal(scan.volume.affine, SCANNERS["D690"].affine)

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

    def test_pose_moves_the_head(self, anatomy):
        row = draw_cohort(RECIPE).iloc[0].to_dict()
        moved = simulate_scan(row, RECIPE, anatomy, scanner=COARSE).volume.data
        still = simulate_scan(row, replace(RECIPE, pose=0), anatomy, scanner=COARSE).volume.data
        assert np.corrcoef(moved.ravel(), still.ravel())[0, 1] < 0.98


class TestGroups:
    def test_controls_have_the_tables_means_and_patients_lower_parietal_ones(self, anatomy):
        recipe = replace(RECIPE, subjects=24, followup_fraction=0, pose=0, preclinical_fraction=0)
        cohort = draw_cohort(recipe)
        means = pd.DataFrame(
            regional_means(simulate_scan(row, recipe, anatomy, scanner=COARSE).volume, anatomy)
            for row in cohort.to_dict("records")
        )
        controls = (cohort["diagnosis"] == "CN").to_numpy()
        ratio = means.div(means["pons"], axis=0)[controls].mean()
        # Twelve controls: the common factor alone moves their mean by 2 %.
        assert ratio["precuneus"] == pytest.approx(1.49, rel=0.10)
        assert ratio["putamen"] == pytest.approx(1.50, rel=0.10)
        assert ratio["lateral temporal"] == pytest.approx(1.18, rel=0.10)
        assert ratio["hippocampus"] == pytest.approx(0.96, rel=0.10)
        steady = means.div(means["cerebellar cortex"], axis=0)
        change = steady[~controls].mean() / steady[controls].mean() - 1
        assert change["posterior cingulate"] < -0.12
        assert change["precuneus"] < -0.10
        assert abs(change["putamen"]) < 0.06
        assert abs(change["precentral"]) < 0.06


class TestTree:
    def test_has_a_scan_a_sidecar_and_a_row_for_everybody(self, tree):
        folder, recipe = tree
        cohort = draw_cohort(recipe)
        people = pd.read_csv(folder / "raw" / "participants.tsv", sep="\t")
        assert list(people["participant_id"]) == [f"sub-P000{n}" for n in (1, 2, 3, 4)]
        assert sorted(people["diagnosis"]) == ["AD", "AD", "CN", "CN"]
        scans = sorted((folder / "raw").glob("sub-*/ses-*/pet/*_trc-18FFDG_pet.nii.gz"))
        assert len(scans) == len(cohort)
        for scan in scans:
            sidecar = json.loads(scan.with_name(scan.name.replace(".nii.gz", ".json")).read_text())
            assert sidecar["TracerName"] == "FDG"
            assert sidecar["Units"] == "Bq/mL"
            assert sum(sidecar["FrameDuration"]) == 1800
            assert len(sidecar["FrameTimesStart"]) == len(sidecar["FrameDuration"])
        assert json.loads((folder / "raw" / "dataset_description.json").read_text())["BIDSVersion"]

    def test_scans_are_whole_numbers_that_our_reader_reads(self, tree):
        folder, _ = tree
        path = min((folder / "raw").rglob("*.nii.gz"))
        assert nib.load(path).get_data_dtype() == np.int16
        volume = read_volume(path)
        assert volume.data.min() >= 0
        assert volume.data.max() > 1000

    def test_follow_up_visits_are_listed(self, tree):
        folder, recipe = tree
        visits = draw_cohort(recipe)["subject"].value_counts()
        listed = {path.parent.name[4:] for path in (folder / "raw").rglob("*_sessions.tsv")}
        assert listed == set(visits[visits > 1].index)
        assert listed

    def test_truth_names_every_severity_and_each_deficit_map(self, tree):
        folder, recipe = tree
        truth = pd.read_csv(folder / "truth" / "severity.tsv", sep="\t", dtype={"session": str})
        cohort = draw_cohort(recipe)
        np.testing.assert_allclose(truth["severity"], cohort["severity"])
        maps = {path.name for path in (folder / "truth").glob("*.nii.gz")}
        assert maps == set(truth["deficit"].dropna())
        assert len(maps) == (cohort["severity"] > 0).sum() > 0

    def test_has_the_same_bytes_whatever_the_number_of_workers(self, tree, tmp_path):
        small_tree(tmp_path, workers=2)
        assert contents(tmp_path) == contents(tree[0])

    def test_a_killed_run_goes_on_with_the_scans_it_lacks(self, tree, tmp_path):
        small_tree(tmp_path)
        scans = sorted((tmp_path / "raw").rglob("*.nii.gz"))
        kept = {path: path.stat().st_mtime_ns for path in scans[1:]}
        scans[0].unlink()
        (tmp_path / "raw" / "participants.tsv").unlink()
        small_tree(tmp_path)
        assert contents(tmp_path) == contents(tree[0])
        assert {path: path.stat().st_mtime_ns for path in scans[1:]} == kept

    def test_progress_sees_every_scan(self, tree, tmp_path):
        seen = []

        def progress(items, *, total):
            seen.append(total)
            for item in items:
                seen.append("scan")
                yield item

        folder, recipe = tree
        (tmp_path / "raw").symlink_to(folder / "raw")
        write_cohort(tmp_path / "raw", tmp_path / "truth", recipe, progress=progress)
        number = len(draw_cohort(recipe))
        assert seen == [number, *["scan"] * number]


def regional_means(volume, anatomy):
    in_mni = volume.affine.copy()
    in_mni[:3, 3] += HEAD_CENTRE
    there = resample(Volume(volume.data, in_mni), shape=anatomy.tissue.shape, affine=anatomy.affine)
    return {name: float(there[mask].mean()) for name, mask in region_masks(anatomy).items()}
