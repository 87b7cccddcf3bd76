"""A finished scan is not registered again after a kill; one image under two subjects' names is set aside."""

import re

import nibabel as nib
import numpy as np
import pytest
from made_up import scan_row
from scipy import ndimage

from adpet.cohort.scans import scans_table, write_table
from adpet.errors import InputError
from adpet.imaging.template import fdg_template
from adpet.inference.quality import CHECKS
from adpet.params import Params, load_params
from adpet.paths import SCANS, VOLUMES
from adpet.stages import normalize
from adpet.stages.common.tables import MEASURE_COLUMNS, read_alignment


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """Count the scans that are normalized, without the registration."""
    (tmp_path / "volumes").mkdir()
    made = []

    def attempt(scan, *, params, volumes):
        made.append(scan["scan"])
        (volumes / f"{scan['scan']}.nii").touch()
        return {"scan": scan["scan"], "passed": scan["scan"] != "sub-bad"}

    monkeypatch.setattr(normalize, "_attempt", attempt)
    return made


def run(scan, work):
    return normalize._normalize_scan({"scan": scan}, params=None, work=work)


@pytest.mark.parametrize("scan", ["sub-1", "sub-bad"])
def test_a_finished_scan_is_not_normalized_again(attempts, tmp_path, scan):
    first = run(scan, tmp_path)
    if not first["passed"]:
        (tmp_path / "volumes" / f"{scan}.nii").unlink()  # a scan that failed has no volume
    assert run(scan, tmp_path) == first
    assert attempts == [scan]


def test_a_report_whose_volume_was_moved_away_before_the_kill_is_not_believed(attempts, tmp_path):
    run("sub-1", tmp_path)
    (tmp_path / "volumes" / "sub-1.nii").unlink()
    run("sub-1", tmp_path)
    assert attempts == ["sub-1", "sub-1"]
    assert (tmp_path / "volumes" / "sub-1.nii").exists()


GRID_MM = 3.0


def save_person(path, seed, change=lambda data: data, *, axes="RAS"):
    """Write a head in MNI space with a pattern of its own."""
    template = fdg_template(GRID_MM)
    pattern = np.random.default_rng(seed).normal(size=template.data.shape)
    pattern = ndimage.gaussian_filter(pattern, 12 / 2.355 / GRID_MM)
    data = change(template.data * (1 + 0.1 * pattern / pattern.std())).astype(np.float32)
    nib.save(nib.Nifti1Image(data, template.affine).as_reoriented(nib.orientations.axcodes2ornt(axes)), path)


@pytest.fixture
def cohort(tmp_path, monkeypatch, project_root):
    """Twelve people in MNI space; the scans of 3 and 7 are one image, which 3 was scanned beside once more."""
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        save_person(f"{number}.nii", number)
    save_person("again.nii", 20)
    save_person("7.nii.gz", 3, lambda data: ndimage.gaussian_filter(data, 1) * 900, axes="LIP")
    files = {f"{number}.nii": number for number in range(12) if number != 7} | {"again.nii": 3, "7.nii.gz": 7}
    rows = [
        scan_row(
            f"{subject}", file, "AD" if subject % 2 else "CN", scan=f"sub-{file.partition('.')[0]}", path=file
        )
        for file, subject in files.items()
    ]
    write_table(SCANS, scans_table(rows))
    fast = {"normalize.align": "none", "compute.workers": 1}
    return load_params(project_root / "params.yaml").with_values(fast)


def test_scan_of_a_scanner_without_resolution_is_set_aside(tmp_path):
    values = {"normalize.target_fwhm_mm": 9.0, "normalize.native_fwhm_mm": {"HRRT": 4.0}}
    params = Params().with_values(values | {"normalize.align": "none"})
    save_person(path := tmp_path / "1.nii", 1)
    row = {"scan": "1", "path": str(path), "frame_seconds": "", "scanner": "new"}
    found = normalize._attempt(row, params=params, volumes=tmp_path)
    assert not found["passed"]
    assert "required one of HRRT; received new" in found["reason"]


class TestQuality:
    """Of the twelve people, who look like tissue maps, some scans are changed before `normalize`."""

    @staticmethod
    def change(number, change):
        image = nib.load(f"{number}.nii")
        nib.save(nib.Nifti1Image(change(image.get_fdata(dtype=np.float32)), image.affine), f"{number}.nii")

    CHANGES = (
        (2, lambda data: (data - data.mean()) / data.std(), "negative share"),
        (5, lambda data: data**0.02, "grey white contrast"),
        (6, lambda data: data + data.mean() + data.max() / 2, "outside share"),
        (8, lambda data: np.where(np.arange(data.shape[0])[:, None, None] < 3, 1e5, data), "outside share"),
        (9, lambda data: np.where(np.arange(data.shape[0])[:, None, None] < 3, -1e4, data), "negative share"),
        (10, lambda data: data.max() - data, "similarity"),
    )

    @pytest.mark.parametrize("wide", [(), ("negative_share", "outside_share", "asymmetry", "roughness")])
    def test_scans_beyond_the_limits_of_people_are_set_aside_with_the_reason(self, cohort, capsys, wide):
        for number, change, _ in self.CHANGES:
            self.change(number, change)
        limits = {f"quality.{name}": [None] * 4 for name in wide}
        normalize.run(cohort.with_values({"cohort.max_rejected_fraction": 0.8} | limits))
        table = read_alignment().set_index("scan")
        for number, _, measure in self.CHANGES:
            row = table.loc[f"sub-{number}"]
            assert row["passed"] == (VOLUMES / f"sub-{number}.nii").exists()
            if measure.replace(" ", "_") not in wide:
                assert not row["passed"]
                assert re.search(rf"{measure} \S+, required \S+ or (more|less)", row["reason"])
                assert "\n" not in row["reason"]
        # Fill values cross one limit alone. Two more AD scans are copies of one another.
        assert table.loc["sub-9", "passed"] == bool(wide)
        aside = 3 if wide else 4
        assert re.search(rf"^AD +7 scans, {aside} set aside", capsys.readouterr().out, re.MULTILINE)

    def test_scan_unlike_its_cohort_is_flagged_and_used(self, cohort):
        self.change(5, lambda data: data * np.where(np.arange(data.shape[0]) < 32, 0.9, 1)[:, None, None])
        normalize.run(cohort.with_values({"cohort.max_rejected_fraction": 0.2}))
        table = read_alignment().set_index("scan")
        assert table.loc["sub-5", "passed"]
        assert re.search(r"asymmetry 0\.\d+, the cohort's 0\.\d+", table.loc["sub-5", "flagged"])
        assert not table.drop("sub-5")["flagged"].str.contains("asymmetry .*cohort").any()

    def test_table_has_every_measure_of_a_single_scan(self):
        assert [name for name in CHECKS if name != "profile_distance"] == MEASURE_COLUMNS


class TestOneImageUnderTwoNames:
    def test_both_scans_are_set_aside_with_the_reason_and_their_volumes_removed(self, cohort, capsys):
        normalize.run(cohort.with_values({"cohort.max_rejected_fraction": 0.2}))
        table = read_alignment().set_index("scan")
        failed = table[~table["passed"]]
        assert list(failed.index) == ["sub-3", "sub-7"]
        assert failed.loc["sub-3", "reason"].startswith("the same image as sub-7 of another subject")
        assert failed.loc["sub-7", "reason"].startswith("the same image as sub-3 of another subject")
        assert "sub-3 and sub-7: one image under two subjects' names" in capsys.readouterr().out
        assert {path.stem for path in VOLUMES.iterdir()} == set(table.index[table["passed"]])
        assert table["passed"].sum() == 11

    def test_they_count_as_unusable(self, cohort):
        with pytest.raises(InputError, match=r"2 of 13 scans .* the same image as"):
            normalize.run(cohort.with_values({"cohort.max_rejected_fraction": 0.1}))
