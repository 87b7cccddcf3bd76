"""Simulated cohorts on disk, in either layout, with and without defects."""

import gzip
import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from adpet.imaging.nifti import read_volume
from adpet.simulation.cohort import SimulationRecipe, draw_cohort
from adpet.simulation.layouts import write_cohort
from adpet.simulation.subject import INFARCTS

RECIPE = SimulationRecipe(ad_subjects=2, cn_subjects=2, followup_fraction=0.5, seed=1)
KINDS = ("bids", "adni", "messy-bids", "messy-adni")


def write(folder, kind="bids", recipe=RECIPE, **options):
    layout, messy = kind.removeprefix("messy-"), kind.startswith("messy-")
    write_cohort(folder / "raw", folder / "truth", recipe, layout=layout, messy=messy, **options)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """The four kinds of a tree, written when a test asks for one."""
    written = {}

    def tree(kind):
        if kind not in written:
            written[kind] = write(tmp_path_factory.mktemp(kind), kind)
        return written[kind]

    return tree


def test_bids_has_a_scan_a_sidecar_and_a_row_for_everybody(trees):
    raw = trees("bids") / "raw"
    people = pd.read_csv(raw / "participants.tsv", sep="\t")
    assert list(people["participant_id"]) == [f"sub-P000{n}" for n in (1, 2, 3, 4)]
    assert sorted(people["diagnosis"]) == ["AD", "AD", "CN", "CN"]
    scans = sorted(raw.glob("sub-*/ses-*/pet/*_trc-18FFDG_pet.nii.gz"))
    assert len(scans) == len(draw_cohort(RECIPE))
    for scan in scans:
        sidecar = json.loads(scan.with_name(scan.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["TracerName"] == "FDG"
        assert sidecar["Units"] == "Bq/mL"
        assert sum(sidecar["FrameDuration"]) == 1800
        assert len(sidecar["FrameTimesStart"]) == len(sidecar["FrameDuration"])
    assert json.loads((raw / "dataset_description.json").read_text())["BIDSVersion"]


class TestAdni:
    def test_every_scan_lies_as_the_archive_delivers_it(self, trees):
        raw = trees("adni") / "raw"
        listing = pd.read_csv(raw / "FDG_PET_1_15_2024.csv")
        cohort = draw_cohort(RECIPE)
        assert len(listing) == len(cohort)
        for row, scan in zip(listing.to_dict("records"), cohort.to_dict("records"), strict=True):
            assert row["Subject"] == f"00{scan['site'][-1]}_S_{int(scan['subject'][1:]):04d}"
            (file,) = raw.rglob(f"*_S*_{row['Image Data ID']}.nii")
            described = row["Description"].replace(" ", "_")
            assert file.relative_to(raw).parts[:3] == ("ADNI", row["Subject"], described)
            assert file.parent.parent.name.startswith(scan["date"])
            assert pd.to_datetime(row["Acq Date"]).date().isoformat() == scan["date"]
        leaves = {file.parent.name[0] for file in raw.rglob("*.nii")}
        assert leaves == {"I", "S"}

    def test_has_the_voxels_and_the_truth_of_the_other_layout(self, trees):
        bids, adni = trees("bids"), trees("adni")
        tables = [
            pd.read_csv(tree / "truth" / "severity.tsv", sep="\t", dtype={"session": str})
            for tree in (bids, adni)
        ]
        pd.testing.assert_frame_equal(*(table.drop(columns=["scan", "deficit"]) for table in tables))
        assert (tables[0]["scan"] != tables[1]["scan"]).all()
        listing = pd.read_csv(adni / "raw" / "FDG_PET_1_15_2024.csv")
        for one, other, image in zip(
            tables[0].to_dict("records"), tables[1].to_dict("records"), listing["Image Data ID"], strict=True
        ):
            (scan,) = (bids / "raw").rglob(f"{one['scan']}_trc-18FFDG_pet.nii.gz")
            (same,) = (adni / "raw").rglob(f"*_{image}.nii")
            np.testing.assert_array_equal(read_volume(scan).data, read_volume(same).data)
            if one["severity"] > 0:
                truths = [tree / "truth" / row["deficit"] for tree, row in ((bids, one), (adni, other))]
                assert truths[0].read_bytes() == truths[1].read_bytes()

    def test_frames_are_one_file_or_six_with_defects(self, tmp_path):
        # Another process must know the defects as well.
        recipe = replace(
            RECIPE, scanners={"HRRT": 1.0}, ad_subjects=3, cn_subjects=3, followup_fraction=0, seed=0
        )
        site = draw_cohort(recipe)["site"]
        assert set(site) == {"S01", "S02"}
        for kind in ("adni", "messy-adni"):
            write(tmp_path / kind, kind, recipe, workers=2)
        whole = sorted((tmp_path / "adni/raw").glob("ADNI/002_S_*/Co-registered_Dynamic/*/*/*.nii"))
        folders = sorted(
            path.parent for path in (tmp_path / "messy-adni/raw").glob("ADNI/002_S_*/*Raw_FDG/*/*/*_1_S*.nii")
        )
        assert len(whole) == len(folders) == (site == "S02").sum()
        dynamic = nib.load(whole[0]).get_fdata()
        frames = sorted(folders[0].iterdir())
        assert dynamic.shape[3] == len(frames) == 6
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(nib.load(frame).get_fdata(), dynamic[..., number])


def test_cohort_without_additions_has_the_voxels_and_truth_that_it_always_had(tmp_path):
    write(tmp_path, recipe=SimulationRecipe(ad_subjects=2, cn_subjects=2))
    digest = hashlib.sha256()
    for path in sorted([*tmp_path.rglob("*.nii*"), *tmp_path.rglob("severity.tsv")]):
        content = path.read_bytes()
        digest.update(gzip.decompress(content) if path.suffix == ".gz" else content)
    assert digest.hexdigest() == "dc11eb5ee7280aceaffc219e9c61ef6a0ea84d30a9e6351467bbbcc08480ada1"


@pytest.mark.parametrize("messy", [False, True])
def test_other_diagnoses_are_labelled_and_planted_as_skipped(tmp_path, messy):
    recipe = replace(RECIPE, mci_subjects=1, other_subjects={"FTD": 1, "stroke": 1}, subtypes={"limbic": 1.0})
    write(tmp_path, "messy-bids" if messy else "bids", recipe)
    people = pd.read_csv(tmp_path / "raw/participants.tsv", sep="\t").set_index("participant_id")["diagnosis"]
    assert people["sub-P10001"] == "MCI"
    assert {"FTD", "stroke"} < set(people)
    truth = pd.read_csv(tmp_path / "truth/severity.tsv", sep="\t")
    assert all((tmp_path / "truth" / name).exists() for name in truth["deficit"].dropna())
    truth = truth.drop_duplicates("subject").groupby("diagnosis").first()
    assert truth.loc["stroke", "pattern"] in INFARCTS
    assert truth.loc["MCI", "course"] in ("converter", "stable")
    if messy:
        planted = pd.read_csv(tmp_path / "truth/planted.csv").set_index("file")
        assert set(planted[planted.index.str.contains("P[12]0001|P40001")]["verdict"]) == {"skipped"}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_has_the_same_bytes_whatever_the_number_of_workers(self, trees, tmp_path, kind):
        assert contents(write(tmp_path, kind, workers=2)) == contents(trees(kind))

    def test_killed_run_goes_on_with_the_scans_it_lacks(self, trees, tmp_path, kind):
        write(tmp_path, kind)
        planted = tmp_path / "truth" / "planted.csv"
        beside = set(pd.read_csv(planted)["file"]) if planted.exists() else set()
        files = sorted((tmp_path / "raw").rglob("*.nii*"))
        scans = [path for path in files if path.relative_to(tmp_path / "raw").as_posix() not in beside]
        kept = {path: path.stat().st_mtime_ns for path in scans[1:]}
        assert kept
        scans[0].unlink()
        for table in (tmp_path / "raw").glob("*.?sv"):
            table.unlink()
        write(tmp_path, kind)
        assert contents(tmp_path) == contents(trees(kind))
        assert {path: path.stat().st_mtime_ns for path in scans[1:]} == kept
