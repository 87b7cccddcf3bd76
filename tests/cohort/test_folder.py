import math

import pytest

from adpet.cohort.folder import find_folder
from adpet.errors import InputError


def test_row_is_a_scan(tmp_path):
    (tmp_path / "scans.csv").write_text(
        "path,subject,session,diagnosis,age,sex,site,scanner,date\n"
        '"über all, 1/a  b.nii",P 7,m12,AD,81,M,Turku,GE Advance,2019-05-01\n',
        encoding="utf-8",
    )
    found = find_folder(tmp_path)
    scan = found.candidates[0]
    assert scan.file == tmp_path / "über all, 1/a  b.nii"
    assert (scan.subject, scan.session, scan.diagnosis) == ("P 7", "m12", "AD")
    assert (scan.age, scan.sex, scan.site, scan.scanner) == (81, "M", "Turku", "GE Advance")
    assert scan.date == "20190501"


def test_optional_columns_may_be_left_out(tmp_path):
    (tmp_path / "scans.csv").write_text("path;subject;session;diagnosis\na.nii;1;;CN\n")
    (scan,) = find_folder(tmp_path).candidates
    assert math.isnan(scan.age)
    assert (scan.session, scan.sex, scan.site, scan.scanner) == ("", "", "", "")


def test_csv_may_lie_elsewhere(tmp_path):
    table = tmp_path / "tables" / "mine.csv"
    table.parent.mkdir()
    table.write_text("path,subject,session,diagnosis\na.nii,1,1,CN\n")
    (scan,) = find_folder(tmp_path / "images", table=table).candidates
    assert scan.file == tmp_path / "images" / "a.nii"


def test_rows_without_path_or_subject_are_rejected(tmp_path):
    (tmp_path / "scans.csv").write_text("path,subject,session,diagnosis\n,1,1,CN\na.nii,n/a,1,CN\n")
    found = find_folder(tmp_path)
    assert not found.candidates
    assert [item.reason.split(";")[0] for item in found.rejected] == [
        "a row of subject 1 has no path", "no subject in scans.csv"
    ]  # fmt: skip
    assert {item.kind for item in found.rejected} == {"unusable"}


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "scans.csv").write_text("path,subject\na.nii,1\n")
    with pytest.raises(InputError, match="required the columns session, diagnosis; received path, subject"):
        find_folder(tmp_path)
