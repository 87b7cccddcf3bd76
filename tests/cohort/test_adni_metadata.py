"""Diagnoses match visits by code and date; XML files are read safely."""

import codecs

import pytest

from adpet.cohort.adni_metadata import MAX_BYTES, MAX_DAYS, read_visit_diagnoses, read_xml_files
from adpet.errors import InputError

TABLE = """PTID,RID,VISCODE,VISCODE2,EXAMDATE,DIAGNOSIS
002_S_0295,295,bl,bl,2006-11-02,1
002_S_0295,295,v05,m12,11/30/2007,2
002_S_0295,295,v11,m24,2008-12-01,3.0
"""


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "DXSUM.csv"
        path.write_text(text)
        return read_visit_diagnoses(path)

    return of


def at(table, visit="", day=""):
    return table.at("002_S_0295", visit=visit, day=day)


class TestMatching:
    @pytest.mark.parametrize("visit", ["m12", "v05", "V05", "M12"])
    def test_either_code_of_a_visit_matches(self, read, visit):
        assert at(read(TABLE), visit) == "MCI"

    def test_code_wins_over_a_nearer_date(self, read):
        assert at(read(TABLE), "m24", "20061102") == "Dementia"

    @pytest.mark.parametrize(
        ("day", "diagnosis"), [("20061201", "CN"), ("20070901", "MCI"), ("20090401", "Dementia")]
    )
    def test_without_a_code_the_nearest_exam_counts(self, read, day, diagnosis):
        assert at(read(TABLE), "7", day) == diagnosis

    @pytest.mark.parametrize(("day", "found"), [("20090530", True), ("20090531", False)])
    def test_exam_half_a_year_away_is_another_visit(self, read, day, found):
        table = read(TABLE)
        assert MAX_DAYS == 180
        if found:
            assert at(table, day=day) == "Dementia"
        else:
            with pytest.raises(
                InputError, match=r"no visit of 002_S_0295 .* within 180 days \(20090531\); add it"
            ):
                at(table, day=day)

    def test_code_of_two_phases_is_resolved_by_the_date(self, read):
        table = read("RID,VISCODE,EXAMDATE,DIAGNOSIS\n295,bl,2006-11-02,1\n295,bl,2018-01-05,3\n")
        assert at(table, "bl", "20180203") == "Dementia"
        with pytest.raises(InputError, match="says CN and Dementia of 002_S_0295"):
            at(table, "bl")


class TestTable:
    @pytest.mark.parametrize(
        "text",
        [
            "RID,VISCODE,DIAGNOSIS\n295,bl,3\n", "RID,VISCODE2,DIAGNOSIS\n0295.0,bl,3\n",
            "PTID,VISCODE,DIAGNOSIS\n002_S_0295,bl,Dementia\n", "ptid,rid,viscode,dx\nn/a,295,bl,Dementia\n",
        ],
    )  # fmt: skip
    def test_subject_and_diagnosis_are_read_in_their_variants(self, read, text):
        assert at(read(text), "bl") == "Dementia"

    @pytest.mark.parametrize(
        ("cells", "diagnosis"),
        [
            ("1,,", "CN"), (",2,", "MCI"), (",,3", "Dementia"), (",5,", "Dementia"), (",7,", "CN"), (",8,-4", "MCI"),
            ("3,6,3.0", "Dementia"), (",Conversion: MCI to Dementia,", "Dementia"), (",Stable: NL to NL,1", "CN"), (",Stable: Dementia,", "Dementia"),
            ("1,3,", "CN and Dementia"),
        ],
    )  # fmt: skip
    def test_diagnosis_of_every_phase_is_read_and_a_contradiction_is_said(self, read, cells, diagnosis):
        table = read(f"RID,VISCODE,DIAGNOSIS,DXCHANGE,DXCURREN\n295,bl,{cells}\n")
        if " and " in diagnosis:
            with pytest.raises(InputError, match=f"says {diagnosis} of 002_S_0295"):
                at(table, "bl")
        else:
            assert at(table, "bl") == diagnosis

    @pytest.mark.parametrize(
        ("dates", "diagnosis"),
        [
            (("5/11/2010", "13/5/2010"), "CN"), (("5.11.2010", "11.5.2010"), "CN"), (("11/5/2010", "5/31/2010"), "CN"),
            (("5/11/2010", "11/5/2010"), None),
        ],
    )  # fmt: skip
    def test_order_of_dates_must_be_proven(self, read, dates, diagnosis):
        first, second = dates
        table = read(
            f"RID,VISCODE,EXAMDATE,DIAGNOSIS\n295,bl,{first},1\n295,,{second},3\n295,,2005-01-01,2\n"
        )
        assert at(table, visit="bl") == "CN"
        if diagnosis:
            assert at(table, day="20101105") == diagnosis
        else:
            with pytest.raises(InputError, match=r"dates of 002_S_0295 cannot be read; .*cohort\.date_order"):
                at(table, day="20101105")

    def test_missing_date_is_no_unread_one(self, read):
        table = read("RID,EXAMDATE,DIAGNOSIS\n295,-4,1\n295,,1\n295,2010-11-05,3\n")
        assert at(table, day="20101105") == "Dementia"

    def test_row_without_a_diagnosis_is_no_visit(self, read):
        table = read(
            "RID,VISCODE,EXAMDATE,DIAGNOSIS\n295,m06,2008-01-01,\n295,m12,2008-03-01,-4\n295,m18,2008-04-01,1\n"
        )
        assert at(table, "m06", "20080101") == "CN"
        assert [visit[::2] for visit in table.known("002_S_0295")] == [("20080401", "CN")]

    def test_number_that_is_no_diagnosis_is_refused(self, read):
        with pytest.raises(
            InputError,
            match=r"required as diagnosis 1 \(CN\), 2 \(MCI\), 3 \(Dementia\) or a word; received 7",
        ):
            read("RID,VISCODE,DIAGNOSIS\n295,bl,7\n")

    def test_row_of_two_people_is_refused(self, read):
        with pytest.raises(InputError, match="PTID 002_S_0295 and RID 296 of one row differ"):
            read("PTID,RID,VISCODE,DIAGNOSIS\n002_S_0295,296,bl,1\n")

    def test_missing_columns_are_named(self, read):
        with pytest.raises(
            InputError,
            match="required the columns PTID or RID, VISCODE or VISCODE2 or EXAMDATE; received DIAGNOSIS",
        ):
            read("DIAGNOSIS\n1\n")


BOMB = """<!DOCTYPE idaxs [<!ENTITY a "JANE DOE "><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><idaxs>&c;</idaxs>"""


@pytest.fixture
def reason(tmp_path):
    """Return why an XML file of some content is set aside."""

    def of(content, name="scan_S1_I7.xml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        listing = read_xml_files(tmp_path)
        assert not listing.images
        (found,) = listing.problems.values()
        return found

    return of


class TestXmlSafety:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    @pytest.mark.parametrize(
        "text", [BOMB, '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hosts">]><a>&x;</a>']
    )
    def test_entities_are_refused_before_they_are_declared(self, reason, text, encoding):
        assert "required XML without a document type" in reason(text.encode(encoding))

    def test_file_too_large_for_metadata_is_refused(self, reason):
        assert f"at most {MAX_BYTES} bytes" in reason(b"<idaxs>" + b" " * MAX_BYTES + b"</idaxs>")

    def test_no_depth_of_nesting_is_too_deep(self, tmp_path):
        depth = MAX_BYTES // 8
        (tmp_path / "a.xml").write_text("<a>" * depth + "</a>" * depth)
        assert not read_xml_files(tmp_path).images

    def test_link_out_of_the_collection_is_not_followed(self, adni_tree):
        outside = adni_tree.xml(["7"], "941_S_6962", folder="..", name="outside.xml")
        (adni_tree.root / "scan_I7.xml").symlink_to(outside)
        listing = read_xml_files(adni_tree.root)
        assert not listing.images
        assert "leads out of" in listing.problems["7"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"DOE^JANE", b"<idaxs>DOE", b"<idaxs>&DOE;</idaxs>", b"<DOE></JANE>", b"\x00DOE\xff",
        b'<?xml version="1.0" encoding="DOE"?><idaxs/>', b'<idaxs DOE="1" DOE="2"/>', codecs.BOM_UTF16 + b"DOE",
    ],
)  # fmt: skip
def test_broken_xml_is_refused_without_quoting_it(reason, content):
    found = reason(content)
    assert found.startswith("scan_S1_I7.xml: ")
    assert "\n" not in found
    assert "DOE" not in found


class TestXmlFacts:
    def test_elements_may_have_a_namespace_or_none(self, adni_tree):
        path = adni_tree.xml(["7"], "941_S_6962")
        expected = read_xml_files(adni_tree.root).images
        for text in (' xmlns=""', ' xmlns="http://ida.loni.usc.edu"'):
            path.write_text(path.read_text().replace(text, ""))
            assert read_xml_files(adni_tree.root).images == expected
        assert [*expected] == ["7"]

    def test_visit_is_unknown_if_there_are_two(self, adni_tree):
        path = adni_tree.xml(["7"], "941_S_6962")
        visit = "<visit><visitIdentifier>ADNI2 Year 2 Visit</visitIdentifier></visit>"
        path.write_text(path.read_text().replace("<study>", visit + "<study>"))
        assert read_xml_files(adni_tree.root).images["7"].visit == ""
