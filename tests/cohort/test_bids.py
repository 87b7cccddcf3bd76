"""BIDS-PET scans get their facts from sidecars and tables; only FDG is used."""

import pytest

from adpet.cohort.bids import find_bids
from adpet.errors import InputError


def find(tree, column="diagnosis"):
    found = find_bids(tree.root, diagnosis_column=column)
    return found.candidates, {item.file.name: (item.kind, item.reason) for item in found.rejected}


def only(tree, **options):
    candidates, rejected = find(tree, **options)
    assert not rejected
    (candidate,) = candidates
    return candidate


def test_scan_gets_its_facts_from_tables_and_sidecars(bids_tree):
    bids_tree.person("01", "Dementia", age="75.5", sex="female", site="Kuopio")
    bids_tree.json(
        "sub-01/ses-a/pet/sub-01_ses-a_run-2_pet.json", FrameDuration=[300, 300.5], Manufacturer="Siemens",
        ManufacturersModelName="HR+",
    )  # fmt: skip
    file = bids_tree.scan("sub-01_ses-a_run-2_pet.nii.gz")
    scan = only(bids_tree)
    assert scan.file == file
    assert (scan.subject, scan.session, scan.run) == ("01", "a", "2")
    assert (scan.diagnosis, scan.age, scan.sex, scan.site) == ("Dementia", 75.5, "F", "Kuopio")
    assert (scan.scanner, scan.frames["FrameDuration"]) == ("Siemens HR+", [300, 300.5])


class TestInheritance:
    def test_sidecar_nearest_to_the_scan_wins(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.json("pet.json", TracerName="FDG", Manufacturer="top", ManufacturersModelName="M")
        bids_tree.json("sub-01/sub-01_pet.json", Manufacturer="subject")
        bids_tree.scan("sub-01_ses-1_pet.nii")
        assert only(bids_tree).scanner == "subject M"
        bids_tree.json("sub-01/ses-1/pet/sub-01_ses-1_pet.json", Manufacturer="scan")
        assert only(bids_tree).scanner == "scan M"

    def test_sidecar_of_another_session_does_not_apply(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.json("sub-01/sub-01_ses-2_pet.json", Manufacturer="other")
        bids_tree.json("trumpet.json", Manufacturer="music")
        bids_tree.scan("sub-01_ses-1_pet.nii")
        assert only(bids_tree).scanner == ""

    @pytest.mark.parametrize("content", ["{broken", "[" * 100_000], ids=["broken", "endless"])
    def test_broken_sidecar_sets_aside_its_own_scans_only(self, bids_tree, content):
        for label in ("01", "02"):
            bids_tree.person(label, "CN")
            bids_tree.scan(f"sub-{label}_pet.nii")
        (bids_tree.root / "sub-01/pet/sub-01_pet.json").write_text(content)
        candidates, rejected = find(bids_tree)
        assert [scan.subject for scan in candidates] == ["02"]
        kind, reason = rejected["sub-01_pet.nii"]
        assert kind == "unusable"
        assert "sub-01_pet.json is not JSON" in reason


class TestTracer:
    def test_name_of_the_file_tells_where_the_sidecar_does_not(self, bids_tree):
        bids_tree.json("pet.json")
        bids_tree.person("01", "CN")
        bids_tree.scan("sub-01_trc-18FFDG_pet.nii")
        bids_tree.scan("sub-01_trc-18FAV45_pet.nii")
        candidates, rejected = find(bids_tree)
        assert [scan.file.name for scan in candidates] == ["sub-01_trc-18FFDG_pet.nii"]
        assert rejected == {"sub-01_trc-18FAV45_pet.nii": ("skipped", "tracer 18FAV45 is not FDG")}

    def test_files_are_counted_by_tracer_whatever_fdg_is_called(self, bids_tree):
        bids_tree.json("pet.json")
        tracers = (
            "FDG", "[18F]FDG", "Fluorodeoxyglucose", "fludeoxyglucose F-18", "2-deoxy-2-[18F]fluoro-D-glucose",
            "PiB", "",
        )  # fmt: skip
        for label, tracer in enumerate(tracers):
            bids_tree.person(label, "CN")
            bids_tree.scan(f"sub-{label}_pet.nii")
            bids_tree.json(f"sub-{label}/pet/sub-{label}_pet.json", TracerName=tracer)
        found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
        assert found.tracers == {"FDG": 5, "PiB": 1, "unknown": 1}
        assert len(found.candidates) == 5
        assert [item.kind for item in found.rejected] == ["skipped", "unusable"]
        assert "TracerName" in found.rejected[1].reason

    @pytest.mark.parametrize(
        ("name", "own", "kind", "reason"),
        [
            ("trc-18FAV45", {}, "skipped", "tracer 18FAV45 is not FDG (its name says 18FAV45, but TracerName of pet.json FDG)"),
            ("acq-AV45", {}, "skipped", "tracer AV45 is not FDG (its name says AV45, but TracerName of pet.json FDG)"),
            ("run-1", {"TracerName": "PiB"}, "skipped", "tracer PiB is not FDG"),
            ("run-1", {"Radiopharmaceutical": "FDGal"}, "skipped", "tracer FDGal is not FDG"),
            (
                "trc-18FFDG", {"TracerName": "AV45"}, "unusable",
                "its name says FDG, but TracerName of sub-02_trc-18FFDG_pet.json AV45; correct what is wrong",
            ),
        ],
    )  # fmt: skip
    def test_general_statement_makes_no_other_tracer_fdg(self, bids_tree, name, own, kind, reason):
        for label in ("01", "02"):
            bids_tree.person(label, "CN")
        bids_tree.scan("sub-01_trc-18FFDG_pet.nii")
        other = f"sub-02_{name}_pet"
        bids_tree.scan(f"{other}.nii")
        bids_tree.json(f"sub-02/pet/{other}.json", **own)
        candidates, rejected = find(bids_tree)
        assert [scan.subject for scan in candidates] == ["01"]
        assert rejected == {f"{other}.nii": (kind, reason)}

    def test_advice_for_a_scan_without_tracer_contradicts_nothing(self, bids_tree):
        bids_tree.json("pet.json")
        bids_tree.person("01", "CN")
        for name in ("sub-01_pet", "sub-01_ses-1_trc-18FAV45_pet"):
            bids_tree.scan(f"{name}.nii")
        _, rejected = find(bids_tree)
        assert "add TracerName to its own .json" in rejected["sub-01_pet.nii"][1]
        bids_tree.json("sub-01/pet/sub-01_pet.json", TracerName="FDG")
        candidates, rejected = find(bids_tree)
        assert [scan.file.name for scan in candidates] == ["sub-01_pet.nii"]
        assert [*rejected.values()] == [("skipped", "tracer 18FAV45 is not FDG")]


class TestVersions:
    def used(self, tree, versions, patterns=()):
        """Return the versions in the order of preference, and the reasons of those left out."""
        tree.person("01", "CN")
        for version, own in versions.items():
            tree.scan(f"sub-01_{version}_pet.nii")
            tree.json(f"sub-01/pet/sub-01_{version}_pet.json", **own)
        found = find_bids(tree.root, diagnosis_column="diagnosis", reconstruction=patterns)
        names = [one.file.name[7:-8] for scan in found.candidates for one in (scan, *scan.others)]
        return names, [item.reason for item in found.rejected if "another version" not in item.reason]

    @pytest.mark.parametrize(
        ("versions", "order"),
        [
            (["rec-nacstat", "rec-statPSF"], ["rec-statPSF"]),
            (["acq-NAC", "desc-noAC", "rec-dynNAC", "rec-acdyn"], ["rec-acdyn"]),
            (["chunk-body", "chunk-brain", "chunk-wholebody"], ["chunk-brain", "chunk-body", "chunk-wholebody"]),
            (["acq-head", "acq-wb", "rec-x"], ["acq-head", "rec-x", "acq-wb"]),
            (["rec-acstat_chunk-body", "rec-plain_chunk-brain"], ["rec-plain_chunk-brain", "rec-acstat_chunk-body"]),
            (["rec-a10", "rec-a2", "rec-acstat"], ["rec-acstat", "rec-a2", "rec-a10"]),
            (["rec-nacstat"], []),
        ],
    )  # fmt: skip
    def test_brain_and_corrected_versions_come_first(self, bids_tree, versions, order):
        assert self.used(bids_tree, {version: {} for version in versions})[0] == order

    @pytest.mark.parametrize("field", ["AttenuationCorrection", "AttenuationCorrectionMethod"])
    def test_sidecar_tells_whether_attenuation_was_corrected(self, bids_tree, field):
        versions = {"rec-a": {field: "none"}, "rec-b": {}, "rec-c": {field: "CT"}}
        names, reasons = self.used(bids_tree, versions)
        assert names == ["rec-c", "rec-b"]
        assert reasons == [f"not corrected for attenuation, says {field} in its sidecar"]

    @pytest.mark.parametrize(
        ("patterns", "names"),
        [
            (["rec-coregiso", "*"], ["rec-coregiso", "rec-coregavg"]), (["COREGISO"], ["rec-coregiso"]),
            (["coreg*"], ["rec-coregavg", "rec-coregiso"]), (["rec-nac*"], ["rec-nacstat"]),
            (["rec-*"], ["rec-coregavg", "rec-coregiso"]), (["acq-*"], []),
        ],
    )  # fmt: skip
    def test_order_is_the_users_and_uncorrected_images_must_be_named(self, bids_tree, patterns, names):
        versions = {"rec-nacstat": {}, "rec-coregavg": {}, "rec-coregiso": {}}
        found, reasons = self.used(bids_tree, versions, patterns)
        assert found == names
        if patterns == ["COREGISO"]:
            assert "version rec-coregavg is not in cohort.reconstruction" in reasons

    def test_level_names_the_version_and_not_the_tracer(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.scan("sub-01_acq-FDG_rec-acstat_chunk-brain_pet.nii")
        assert only(bids_tree).level == "rec-acstat_chunk-brain"
        found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
        assert found.levels == {"rec-acstat_chunk-brain": 1}


class TestTables:
    def test_session_overrides_the_participant(self, bids_tree):
        bids_tree.person("01", "CN", age="70")
        (bids_tree.root / "sub-01").mkdir()
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text(
            "session_id\tage\tdiagnosis\nses-1\tn/a\tn/a\nses-2\t74\tAD\n"
        )
        for session in "12":
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii")
        candidates, _ = find(bids_tree)
        assert [(scan.diagnosis, scan.age) for scan in candidates] == [("CN", 70), ("AD", 74)]

    def test_all_diagnoses_and_dates_of_the_sessions_are_kept(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.scan("sub-01_ses-1_pet.nii")
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text(
            "session_id\tacq_time\tdiagnosis\nses-1\t2009-06-15T13:45:30\tCN\nses-2\tn/a\tMCI\n"
        )
        found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
        assert [scan.date for scan in found.candidates] == ["20090615"]
        known = {
            subject: {(visit.day, visit.diagnosis) for visit in seen}
            for subject, seen in found.visits.items()
        }
        assert known == {"01": {("", "MCI"), ("20090615", "CN")}}

    def test_diagnosis_may_stand_in_the_sessions_alone(self, bids_tree):
        bids_tree.participants("participant_id\n01\n")
        bids_tree.scan("sub-01_ses-1_pet.nii")
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tdx\nses-1\tAD\n")
        assert only(bids_tree, column="dx").diagnosis == "AD"

    def test_sessions_without_their_ids_set_the_scan_aside(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.scan("sub-01_ses-1_pet.nii")
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text("visit\tdiagnosis\nses-1\tAD\n")
        kind, reason = find(bids_tree)[1]["sub-01_ses-1_pet.nii"]
        assert kind == "unusable"
        assert "sub-01_sessions.tsv: required the columns session_id; received visit, diagnosis" in reason

    def test_missing_diagnosis_column_is_named(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.scan("sub-01_pet.nii")
        with pytest.raises(
            InputError, match=r"required the columns dx; received participant_id, age.*column"
        ):
            find(bids_tree, column="dx")

    def test_scan_of_an_unlisted_participant_is_rejected(self, bids_tree):
        bids_tree.scan("sub-99_pet.nii")
        _, rejected = find(bids_tree)
        assert rejected["sub-99_pet.nii"] == (
            "unusable", "sub-99 is not in participants.tsv; add a row for it"
        )  # fmt: skip

    def test_participant_with_two_rows_is_refused(self, bids_tree):
        bids_tree.person("01", "CN")
        bids_tree.person("01", "AD")
        with pytest.raises(InputError, match="sub-01 twice"):
            find(bids_tree)


def test_file_in_the_folder_of_another_subject_is_set_aside(bids_tree, scan_file):
    bids_tree.person("01", "CN")
    bids_tree.person("02", "AD")
    scan_file(bids_tree.root / "sub-01/pet/sub-02_pet.nii")
    candidates, rejected = find(bids_tree)
    assert not candidates
    assert "different subjects" in rejected["sub-02_pet.nii"][1]


def test_other_files_of_the_dataset_are_no_scans(bids_tree, scan_file):
    bids_tree.person("01", "CN")
    bids_tree.scan("sub-01_pet.nii")
    scan_file(bids_tree.root / "sub-01/anat/sub-01_T1w.nii")
    scan_file(bids_tree.root / "derivatives/sub-01/pet/sub-01_pet.nii")
    (bids_tree.root / "sub-01/pet/._sub-01_pet.nii").write_bytes(b"macOS")
    (bids_tree.root / "sub-01/pet/sub-01_blood.tsv").write_text("time\n")
    only(bids_tree)


class TestIdentity:
    @pytest.mark.parametrize("written", ["1", "1.0", "001", "sub-1", " SUB-001"])
    def test_participant_is_found_in_every_spelling_of_the_id(self, bids_tree, written):
        bids_tree.participants(f"participant_id\tdiagnosis\tgender\n{written}\tAD\tfemale\n")
        bids_tree.scan("sub-001_pet.nii.gz")
        scan = only(bids_tree)
        assert (scan.subject, scan.diagnosis, scan.sex) == ("001", "AD", "F")

    def test_two_rows_that_may_be_of_one_person_are_refused_with_both(self, bids_tree):
        bids_tree.person("001", "AD")
        bids_tree.person("1", "CN")
        with pytest.raises(InputError, match="sub-001 and sub-1"):
            find(bids_tree)


class TestVisits:
    """A label is that of the visit, or there is none."""

    @pytest.mark.parametrize(
        ("sessions", "told"),
        [
            ("ses-1\tCN\nses-3\tAD\n", ["CN", None, "AD"]),
            ("ses-01\tn/a\nses-2\tn/a\nses-3.0\tAD\n", ["CN", "", "AD"]),
            ("ses-1\tn/a\nses-2\tn/a\nses-3\tn/a\n", ["CN", "CN", "CN"]),
        ],
    )
    def test_session_without_its_own_diagnosis_does_not_take_the_first_ones(self, bids_tree, sessions, told):
        bids_tree.person("01", "CN")
        for session in "123":
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii")
        path = bids_tree.root / "sub-01/sub-01_sessions.tsv"
        path.write_text("session_id\tdiagnosis\n" + sessions)
        candidates, rejected = find(bids_tree)
        assert [scan.diagnosis for scan in candidates] == [word for word in told if word is not None]
        assert [reason for _, reason in rejected.values()] == [
            "ses-2 is not in sub-01_sessions.tsv, which has the visits' diagnoses; add a row"
        ] * (None in told)

    @pytest.mark.parametrize(
        ("day", "diagnoses"), [("2019-05-01", ["", "CN", "AD"]), ("n/a", ["CN", "", "AD"])]
    )
    def test_first_session_is_the_earliest_where_all_have_dates(self, bids_tree, day, diagnoses):
        bids_tree.person("01", "CN")
        for session in ("post", "pre", "x"):
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii")
        rows = f"post\tn/a\t2020-01-01\npre\tn/a\t{day}\nx\tAD\t2021-01-01\n"
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tdiagnosis\tacq_time\n" + rows)
        assert [scan.diagnosis for scan in find(bids_tree)[0]] == diagnoses

    @pytest.mark.parametrize(("elsewhere", "kept"), [("CN", ["bl"]), ("n/a", ["M6", "M12", "bl"])])
    def test_later_session_without_a_table_that_others_have_takes_no_diagnosis(
        self, bids_tree, elsewhere, kept
    ):
        for subject in ("01", "02"):
            bids_tree.person(subject, "AD")
        for name in ("sub-01_ses-bl", "sub-01_ses-M6", "sub-01_ses-M12", "sub-02_ses-bl"):
            bids_tree.scan(f"{name}_pet.nii")
        path = bids_tree.root / "sub-02/sub-02_sessions.tsv"
        path.write_text(f"session_id\tdiagnosis\nses-bl\t{elsewhere}\n")
        candidates, rejected = find(bids_tree)
        assert {scan.session for scan in candidates if scan.subject == "01"} == set(kept)
        assert len(rejected) == 3 - len(kept)
        assert all("sub-01 has no diagnoses in a sessions.tsv" in reason for _, reason in rejected.values())

    @pytest.mark.parametrize("column", ["session_id", "session", "visit"])
    def test_participants_may_have_a_row_for_each_session(self, bids_tree, column):
        bids_tree.participants(
            f"participant_id\t{column}\tage\tdiagnosis\nsub-01\tses-1\t70\tCN\nsub-01\t2\t72\tAD\n"
            f"sub-02\tses-1\t60\tCN\n"
        )
        for name in ("sub-01_ses-1", "sub-01_ses-02", "sub-01_ses-3", "sub-02_ses-1", "sub-02"):
            bids_tree.scan(f"{name}_pet.nii")
        candidates, rejected = find(bids_tree)
        assert [(scan.key, scan.diagnosis, scan.age) for scan in candidates] == [
            ("sub-01_ses-02", "AD", 72), ("sub-01_ses-1", "CN", 70),
            ("sub-02", "CN", 60), ("sub-02_ses-1", "CN", 60),
        ]  # fmt: skip
        assert [reason for _, reason in rejected.values()] == [
            "participants.tsv has a row for each session, but not for session '3' of sub-01; add it"
        ]

    @pytest.mark.parametrize(("column", "visit"), [("ses", "M06"), ("visit", "M00"), ("visit", "first")])
    def test_participants_row_of_one_visit_is_not_that_of_others(self, bids_tree, column, visit):
        bids_tree.participants(f"participant_id\t{column}\tdiagnosis\n01\t{visit}\tCN\n")
        for session in ("M00", "M12"):
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii")
        found = [scan.session for scan in find(bids_tree)[0]]
        assert found == {"M06": [], "M00": ["M00"], "first": ["M00", "M12"]}[visit]

    def test_dates_of_sessions_are_read_in_the_order_that_one_of_them_proves(self, bids_tree):
        bids_tree.person("01", "CN")
        for session in "123":
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii")
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text(
            "session_id\tacq_time\nses-1\t25/12/2019\nses-2\t05/11/2020\nses-3\tin May\n"
        )
        found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
        assert [scan.date for scan in found.candidates] == ["20191225", "20201105", ""]
        assert found.unread == {"date": 1}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pet/sub-02_trc-18FFDG_pet.nii.zst", "decompress it"), ("pet/sub-02_pet.nii.bz2", "decompress it"),
        ("pet/sub-02_pet.nii.gz.part", "its ending is not read"), ("pet/sub-02_pet.zip", "decompress it"),
        ("pet/sub-02_pet.mnc", "convert it"), ("pet/sub-02_pet.NII.GZ", "in lower case; rename it"),
        ("ses-1/pet/sub-02_ses-1_PET.nii.gz", "in lower case; rename it"),
        ("pet/SUB-02_pet.nii", "in lower case; rename it"), ("pet/scan.nii.gz", "rename it"),
        ("pet/sub-02_peta.nii.gz", "dcm2niix"), ("PET/sub-02_pet.nii.gz", "move its folder"),
        ("sub-02_pet.nii", "move its folder"), ("Sub-02/pet/sub-02_pet.nii", "rename or move its folder"),
    ],
)  # fmt: skip
def test_image_in_another_spelling_is_listed_with_what_to_do(bids_tree, name, advice):
    bids_tree.person("01", "CN")
    bids_tree.person("02", "AD")
    bids_tree.scan("sub-01_pet.nii.gz")
    path = bids_tree.root / (name if name[0] == "S" else f"sub-02/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    candidates, rejected = find(bids_tree)
    assert [scan.subject for scan in candidates] == ["01"]
    ((kind, reason),) = rejected.values()
    assert advice in reason
    assert kind == "unusable"


def test_participant_whose_folder_is_a_link_has_a_scan(bids_tree):
    bids_tree.person("01", "CN")
    folder = bids_tree.scan("sub-01_pet.nii.gz").parent
    folder.rename(bids_tree.root / "store")
    folder.symlink_to(bids_tree.root / "store")
    found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
    assert (len(found.candidates), found.without_scan) == (1, [])


def test_image_in_another_spelling_next_to_the_scan_is_skipped(bids_tree):
    bids_tree.person("01", "CN")
    bids_tree.scan("sub-01_pet.nii.gz").with_name("sub-01_peta.nii.gz").write_bytes(b"x")
    _, rejected = find(bids_tree)
    assert rejected["sub-01_peta.nii.gz"][0] == "skipped"


def test_participant_without_a_scan_is_listed_and_unread_cells_are_counted(bids_tree):
    bids_tree.person("01", "CN", age="seventy", sex="1")
    bids_tree.person("02", "CN", age="n/a", sex="")
    bids_tree.person("03", "AD")
    for label in ("01", "02"):
        bids_tree.scan(f"sub-{label}_pet.nii.gz")
    found = find_bids(bids_tree.root, diagnosis_column="diagnosis")
    assert found.without_scan == ["sub-03"]
    assert not found.rejected
    assert found.unread == {"age": 1, "sex": 1}


class TestLinksOutOfTheDataset:
    """A table or sidecar that DVC would not version with the scans."""

    def moved_out(self, tree, name):
        """Put a file of the dataset beside it, with a link in its place."""
        path, outside = tree.root / name, tree.root.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)

    @pytest.fixture
    def dataset(self, bids_tree):
        bids_tree.person("01", "AD")
        bids_tree.scan("sub-01_ses-a_pet.nii.gz")
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tdiagnosis\nses-a\tAD\n")
        return bids_tree

    def test_table_of_participants_is_refused(self, dataset):
        self.moved_out(dataset, "participants.tsv")
        with pytest.raises(InputError, match=r"participants.tsv leads out of .*put the file itself there"):
            find(dataset)

    @pytest.mark.parametrize("name", ["pet.json", "sub-01/sub-01_sessions.tsv"])
    def test_what_describes_a_scan_sets_that_scan_aside(self, dataset, name):
        self.moved_out(dataset, name)
        candidates, rejected = find(dataset)
        assert not candidates
        assert "leads out of" in rejected["sub-01_ses-a_pet.nii.gz"][1]
