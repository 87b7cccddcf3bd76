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


def test_numbers_of_a_spreadsheet_and_dates_without_an_order(tmp_path):
    (tmp_path / "scans.csv").write_text(
        "path,subject,session,diagnosis,age,sex,date\na.nii,1.0,2.0,CN,old,x,5/11/2021\nb.nii,1,10,CN,70,F,n/a\n"
    )
    found = find_folder(tmp_path)
    assert [(scan.subject, scan.session, scan.date) for scan in found.candidates] == [
        ("1", "2", ""),
        ("1", "10", ""),
    ]
    assert found.unread == {"age": 1, "sex": 1, "date": 1}
    assert find_folder(tmp_path, declared="day-first").candidates[0].date == "20211105"


def test_images_without_a_row_are_listed(tmp_path, scan_file):
    (tmp_path / "scans.csv").write_text(
        "path,subject,session,diagnosis\na.nii,1,1,CN\npair.img,2,1,AD\nframes,3,1,AD\n"
    )
    for name in (
        "a.nii",
        "pair.img",
        "pair.hdr",
        "frames/1.nii",
        "b.nii.zst",
        "sub/c.NII",
        "frames/x.hdr",
        "d.nii.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rejected = find_folder(tmp_path).rejected
    assert sorted(item.file.name for item in rejected) == ["b.nii.zst", "c.NII", "x.hdr"]
    assert {(item.kind, item.reason) for item in rejected} == {
        ("skipped", "not in scans.csv; add a row if it is a scan")
    }


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "scans.csv").write_text("path,subject\na.nii,1\n")
    with pytest.raises(InputError, match="required the columns session, diagnosis; received path, subject"):
        find_folder(tmp_path)
