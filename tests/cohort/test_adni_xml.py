import codecs

import pytest

from adpet.cohort.adni_metadata import MAX_BYTES, read_xml_files

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


class TestSafety:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_entities_are_refused_before_they_are_declared(self, reason, encoding):
        assert "required XML without a document type" in reason(BOMB.encode(encoding))

    def test_external_entities_are_not_opened(self, reason, tmp_path):
        (tmp_path / "secret.txt").write_text("JANE DOE")
        url = (tmp_path / "secret.txt").as_uri()
        found = reason(f'<!DOCTYPE idaxs [<!ENTITY x SYSTEM "{url}">]><idaxs>&x;</idaxs>')
        assert "required XML without a document type" in found
        assert "JANE" not in found

    def test_a_document_type_elsewhere_is_not_fetched(self, reason):
        found = reason('<!DOCTYPE idaxs SYSTEM "file:///nowhere/idaxs.dtd"><idaxs/>')
        assert "required XML without a document type" in found

    def test_a_file_too_large_for_metadata_is_refused(self, reason):
        assert f"at most {MAX_BYTES} bytes" in reason(b"<idaxs>" + b" " * MAX_BYTES + b"</idaxs>")

    def test_no_depth_of_nesting_is_too_deep(self, tmp_path):
        depth = MAX_BYTES // 8
        (tmp_path / "a.xml").write_text("<a>" * depth + "</a>" * depth)
        assert not read_xml_files(tmp_path).images

    def test_a_link_out_of_the_collection_is_not_followed(self, adni_tree):
        outside = adni_tree.xml(["7"], "941_S_6962", folder="..", name="outside.xml")
        (adni_tree.root / "scan_I7.xml").symlink_to(outside)
        listing = read_xml_files(adni_tree.root)
        assert not listing.images
        assert "leads out of" in listing.problems["7"]


class TestBroken:
    @pytest.mark.parametrize(
        "content",
        [
            b"", b"DOE^JANE", b"<idaxs>DOE", b"<idaxs>&DOE;</idaxs>", b"<DOE></JANE>", b"\x00DOE\xff",
            b'<?xml version="1.0" encoding="DOE"?><idaxs/>', b'<idaxs DOE="1" DOE="2"/>', codecs.BOM_UTF16 + b"DOE",
        ],
    )  # fmt: skip
    def test_it_is_refused_in_one_line_that_quotes_nothing(self, reason, content):
        found = reason(content)
        assert found.startswith("scan_S1_I7.xml: ")
        assert "\n" not in found
        assert "DOE" not in found

    def test_without_an_image_in_its_name_it_is_reported_itself(self, tmp_path):
        path = tmp_path / "metadata.xml"
        path.write_text("<idaxs>")
        assert [file for file, _ in read_xml_files(tmp_path).strays] == [path]


class TestFacts:
    def test_elements_may_have_a_namespace_or_none(self, adni_tree):
        path = adni_tree.xml(["7"], "941_S_6962")
        expected = read_xml_files(adni_tree.root).images
        for text in (' xmlns=""', ' xmlns="http://ida.loni.usc.edu"'):
            path.write_text(path.read_text().replace(text, ""))
            assert read_xml_files(adni_tree.root).images == expected
        assert [*expected] == ["7"]

    def test_images_that_it_was_made_from_are_not_described(self, adni_tree):
        adni_tree.xml(["7"], "941_S_6962")
        assert "99" not in read_xml_files(adni_tree.root).images

    def test_of_two_visits_none_is_guessed(self, adni_tree):
        path = adni_tree.xml(["7"], "941_S_6962")
        visit = "<visit><visitIdentifier>ADNI2 Year 2 Visit</visitIdentifier></visit>"
        path.write_text(path.read_text().replace("<study>", visit + "<study>"))
        assert read_xml_files(adni_tree.root).images["7"].visit == ""

    def test_two_files_that_disagree_on_an_image_are_a_problem_of_it(self, adni_tree):
        adni_tree.xml(["7"], "941_S_6962", "AD")
        adni_tree.xml(["7"], "941_S_6962", "CN", name="again.xml")
        adni_tree.xml(["8"], "941_S_6962", "CN")
        problems = read_xml_files(adni_tree.root).problems
        assert [*problems] == ["7"]
        assert "described twice, with another group" in problems["7"]
