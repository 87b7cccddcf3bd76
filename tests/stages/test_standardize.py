"""A scan that an earlier, killed run has finished is not registered again, if its volume is there."""

import pytest

from adpet.stages import standardize


@pytest.fixture
def attempts(tmp_path, monkeypatch):
    """Count the scans that are standardized, without the registration."""
    (tmp_path / "volumes").mkdir()
    made = []

    def attempt(scan, *, settings, volumes):
        made.append(scan["scan"])
        (volumes / f"{scan['scan']}.nii").touch()
        return {"scan": scan["scan"], "passed": scan["scan"] != "sub-bad"}

    monkeypatch.setattr(standardize, "_attempt", attempt)
    return made


def run(scan, work):
    return standardize._standardize_scan({"scan": scan}, settings=None, work=work)


@pytest.mark.parametrize("scan", ["sub-1", "sub-bad"])
def test_a_finished_scan_is_believed(attempts, tmp_path, scan):
    first = run(scan, tmp_path)
    assert run(scan, tmp_path) == first
    assert attempts == [scan]


def test_a_report_whose_volume_was_moved_away_before_the_kill_is_not_believed(attempts, tmp_path):
    run("sub-1", tmp_path)
    (tmp_path / "volumes" / "sub-1.nii").unlink()
    run("sub-1", tmp_path)
    assert attempts == ["sub-1", "sub-1"]
    assert (tmp_path / "volumes" / "sub-1.nii").exists()


def test_a_scan_that_failed_has_no_volume_and_is_not_tried_again(attempts, tmp_path):
    run("sub-bad", tmp_path)
    (tmp_path / "volumes" / "sub-bad.nii").unlink()
    run("sub-bad", tmp_path)
    assert attempts == ["sub-bad"]
