import json
import math

import pytest

from adpet.cohort.folder import find_folder
from adpet.cohort.tables import column_key
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


def test_scanner_is_the_column_or_else_that_of_the_sidecar(tmp_path):
    (tmp_path / "scans.csv").write_text(
        "path,subject,session,diagnosis,scanner\na.nii,1,1,CN,\nb.nii,2,1,CN,Biograph\nc.nii,3,1,CN,n/a\n"
    )
    for name in "abc":
        model = "GE Advance" if name != "c" else "n/a"
        sidecar = {"Manufacturer": "GE", "ManufacturersModelName": model}
        (tmp_path / f"{name}.json").write_text(json.dumps(sidecar))
    assert [scan.scanner for scan in find_folder(tmp_path).candidates] == ["GE Advance", "Biograph", "GE"]


def test_csv_may_lie_elsewhere(tmp_path):
    table = tmp_path / "tables" / "mine.csv"
    table.parent.mkdir()
    table.write_text("path,subject,session,diagnosis\na.nii,1,1,CN\n")
    (scan,) = find_folder(tmp_path / "images", table=table).candidates
    assert scan.file == tmp_path / "images" / "a.nii"


@pytest.mark.parametrize("column", ["tracer", "Tracer Name", "Radiopharmaceutical"])
def test_tracer_is_told_by_a_column_the_name_and_the_sidecar(tmp_path, column):
    files = "a [18F]FDG,b AV45,c_AV45 FDG,d FDG,e ,f no FDG,g FDG,h_nac FDG"
    pairs = (file.split(" ", 1) for file in files.split(","))
    rows = [f"{name}.nii,{name},1,CN,{tracer}" for name, tracer in pairs]
    (tmp_path / "scans.csv").write_text("\n".join([f"path,subject,session,diagnosis,{column}", *rows]))
    (tmp_path / "d.json").write_text('{"TracerName": "PiB"}')
    (tmp_path / "g.json").write_text('{"TracerName": "FDG", "FrameDuration": [5, 6]}')
    found = find_folder(tmp_path)
    assert [(scan.subject, scan.frames.get("FrameDuration")) for scan in found.candidates] == [
        ("a", None),
        ("g", [5, 6]),
    ]
    said = {item.file.stem: (item.kind, item.reason.split(" (")[0]) for item in found.rejected}
    other = "tracer {} is not FDG"
    assert said == {
        "b": ("skipped", other.format("AV45")), "c_AV45": ("skipped", other.format("AV45")),
        "d": ("skipped", other.format("PiB")), "f": ("skipped", other.format("no FDG")),
        "e": ("unusable", f"its tracer is not given; fill in the column {column_key(column)} of scans.csv"),
        "h_nac": ("skipped", "not corrected for attenuation, says its name"),
    }  # fmt: skip
    assert found.tracers == {"FDG": 3, "AV45": 2, "PiB": 1, "no FDG": 1, "unknown": 1}


def test_every_column_that_tells_what_a_scan_is_counts(tmp_path):
    rows = [
        "FDG,F-18,PT,", "FDG,18F,PET/MRI,FDG", "FDG,F18,MR,", "FDG,C-11,PET,", "FDG,,PET,PiB", ",F18,PET,AV45",
    ]  # fmt: skip
    lines = [f"{number}.nii,{number},1,CN,{cells}" for number, cells in enumerate(rows)]
    header = "path,subject,session,diagnosis,tracer,isotope,modality,ligand"
    (tmp_path / "scans.csv").write_text("\n".join([header, *lines]))
    found = find_folder(tmp_path)
    assert [scan.subject for scan in found.candidates] == ["0", "1"]
    assert [item.reason.split(";")[0] for item in found.rejected] == [
        *(
            f"column tracer says FDG, but column {other}"
            for other in ("modality MR", "isotope C-11", "ligand PiB")
        ),
        "tracer AV45 is not FDG",
    ]


def test_paths_may_be_those_of_windows(tmp_path, scan_file):
    (tmp_path / "scans.csv").write_text("path,subject,session,diagnosis\nsub\\a.nii,1,1,CN\n")
    scan_file(tmp_path / "sub/a.nii")
    found = find_folder(tmp_path)
    assert ([scan.file for scan in found.candidates], found.rejected) == ([tmp_path / "sub/a.nii"], [])


def test_name_that_says_fdg_against_the_column_sets_aside(tmp_path):
    (tmp_path / "scans.csv").write_text("path,subject,session,diagnosis,tracer\na_FDG.nii,1,1,CN,AV45\n")
    (rejected,) = find_folder(tmp_path).rejected
    assert rejected.kind == "unusable"
    assert rejected.reason == "its name says FDG, but column tracer AV45; correct what is wrong"


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
        "path,subject,session,diagnosis,age,gender,date\na.nii,1.0,2.0,CN,old,x,5/11/2021\nb.nii,1,10,CN,70,F,n/a\n"
    )
    found = find_folder(tmp_path)
    assert [(scan.subject, scan.session, scan.date) for scan in found.candidates] == [
        ("1", "2", ""),
        ("1", "10", ""),
    ]
    assert found.unread == {"age": 1, "sex": 1, "date": 1}
    assert find_folder(tmp_path, declared="day-first").candidates[0].date == "20211105"


def test_path_that_leads_out_or_cannot_be_listed_is_set_aside(tmp_path):
    long = "a" * 300
    rows = f"../a_AV45.nii,1,1,CN\n{long},2,1,CN\nb.nii,3,1,CN\n"
    (tmp_path / "scans.csv").write_text(f"path,subject,session,diagnosis\n{rows}")
    found = find_folder(tmp_path)
    assert [scan.subject for scan in found.candidates] == ["3"]
    out, unlisted = (rejected.reason for rejected in found.rejected)
    assert "a_AV45.nii leads out of" in out
    assert unlisted == "cannot be listed: File name too long"


def test_images_without_a_row_are_listed(tmp_path, scan_file):
    (tmp_path / "scans.csv").write_text(
        "path,subject,session,diagnosis\na.nii,1,1,CN\npair.img,2,1,AD\nframes,3,1,AD\np.REC,4,1,CN\n"
    )
    listed = ("a.nii", "pair.img", "pair.hdr", "p.PAR", "p.REC", "frames/1.nii", "d.nii.json", "e.nii.gz.dvc")
    stray = ("b.nii.zst", "sub/c.NII", "frames/x.hdr", "f.nii.gz.part", "g.zip", "DOE/IM1", "DOE/IM2")
    for name in (*listed, *stray):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name.startswith("DOE") else b"")
    rejected = find_folder(tmp_path).rejected
    assert sorted(item.file.name for item in rejected) == [
        "DOE", "b.nii.zst", "c.NII", "f.nii.gz.part", "g.zip", "x.hdr"
    ]  # fmt: skip
    assert {(item.kind, item.reason) for item in rejected} == {
        ("skipped", "not in scans.csv; add a row if it is a scan")
    }


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "scans.csv").write_text("path,subject\na.nii,1\n")
    with pytest.raises(InputError, match="required the columns session, diagnosis; received path, subject"):
        find_folder(tmp_path)
