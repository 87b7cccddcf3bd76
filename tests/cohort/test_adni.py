import pytest

from adpet.cohort.adni import LEVELS, find_adni
from adpet.errors import InputError

UNIFORM, SIX_MM, STANDARD, AVERAGED, DYNAMIC, RAW = LEVELS.values()


def find(tree, **options):
    found = find_adni(tree.root, **options)
    return found.candidates, {item.file.name: (item.kind, item.reason) for item in found.rejected}


def test_row_and_its_file_are_a_scan(adni_tree):
    file = adni_tree.image("I1480670", "941_S_6962", "AD")
    candidates, rejected = find(adni_tree)
    (scan,) = candidates
    assert not rejected
    assert scan.file == file
    assert (scan.subject, scan.session, scan.site) == ("941_S_6962", "2", "941")
    assert (scan.diagnosis, scan.age, scan.sex) == ("AD", 75, "F")
    assert (scan.level, scan.date) == ("uniform-8mm", "20210810")
    assert scan.key == "sub-941S6962_ses-2"


@pytest.mark.parametrize("image", ["1480670", "I1480670", "i1480670", " I1480670 "])
@pytest.mark.parametrize("place", [{}, {"leaf": "S1072345"}, {"name": "converted scan.nii.gz"}])
def test_image_is_known_by_name_or_folder_and_by_id_without_letter(adni_tree, image, place):
    adni_tree.row(image, "941_S_6962")
    adni_tree.file("I1480670", "941_S_6962", **place)
    assert len(find(adni_tree)[0]) == 1


@pytest.mark.parametrize("date", ["8/10/2021", "08/10/2021", "2021-08-10", ""])
def test_dates_may_be_padded_or_not_and_stand_in_the_folder_as_well(adni_tree, date):
    adni_tree.row("I7", "941_S_6962", date=date)
    adni_tree.file("I7", "941_S_6962", date="2021-08-10")
    assert [scan.date for scan in find(adni_tree)[0]] == ["20210810"]


@pytest.mark.parametrize(
    ("date", "declared", "read"),
    [
        ("05/11/2021", "auto", None), ("05/11/2021", "month-first", None), ("05/11/2021", "day-first", "20211105"),
        ("11/5/2021", "auto", "20211105"),
    ],
)  # fmt: skip
def test_date_of_the_folder_contradicts_the_table_or_agrees(adni_tree, date, declared, read):
    adni_tree.row("I7", "941_S_6962", date=date)
    adni_tree.file("I7", "941_S_6962", date="2021-11-05")
    candidates, rejected = find(adni_tree, declared=declared)
    assert [scan.date for scan in candidates] == [read] * bool(read)
    assert [(kind, reason.split(";")[0]) for kind, reason in rejected.values()] == [
        ("unusable", "FDG_1_02_2024.csv says 20210511, the path 20211105")
    ] * (not read)


def test_day_above_12_anywhere_in_the_column_proves_day_first(adni_tree):
    for number, (subject, date, day) in enumerate(
        [("941_S_6962", "05/11/2021", "2021-11-05"), ("941_S_6963", "13/11/2021", "2021-11-13")], start=7
    ):
        adni_tree.row(f"I{number}.0", subject, date=date)
        adni_tree.file(f"I{number}", subject, date=day)
    assert [scan.date for scan in find(adni_tree)[0]] == ["20211105", "20211113"]


def test_images_that_neither_date_nor_visit_tells_apart_are_said_to_be_so(adni_tree):
    for number in (7, 8):
        adni_tree.row(f"I{number}", "941_S_6962", date="", visit="")
        adni_tree.file(f"I{number}", "941_S_6962", date="unknown")
    candidates, rejected = find(adni_tree)
    assert [scan.file.parent.name for scan in candidates] == ["I8"]
    ((kind, reason),) = rejected.values()
    assert (kind, reason) == (
        "unusable",
        "neither date nor visit tells it from image I8 of 941_S_6962; fill one in",
    )


def test_dates_of_the_table_that_cannot_be_read_are_counted(adni_tree):
    adni_tree.row("I7", "941_S_6962", date="8/10/21")
    adni_tree.file("I7", "941_S_6962")
    found = find_adni(adni_tree.root)
    assert ([scan.date for scan in found.candidates], found.unread) == (["20210810"], {"date": 1})


@pytest.mark.parametrize("description", [f"FDG {UNIFORM}", UNIFORM.replace(", ", ",")])
def test_description_may_name_fdg_and_lack_blanks(adni_tree, description):
    adni_tree.row("I7", "941_S_6962", description=description, modality="PT")
    adni_tree.file("I7", "941_S_6962", description=description)
    assert [scan.level for scan in find(adni_tree)[0]] == ["uniform-8mm"]


@pytest.mark.parametrize("ending", [".nii.zst", ".nii.bz2", ".mgz"])
def test_image_with_an_ending_that_is_not_read_is_listed(adni_tree, ending):
    file = adni_tree.image("I7", "941_S_6962")
    file.rename(file.with_suffix(ending))
    _, rejected = find(adni_tree)
    assert "decompress it, or convert it" in rejected[file.with_suffix(ending).name][1]
    assert "not there" in rejected["I7"][1]


def test_other_headers_of_the_archive_are_understood(adni_tree):
    adni_tree.table.write_text(
        f'image_id,PTID,Research Group,Description\n7,941_S_6962,CN,"{STANDARD}"\n', encoding="utf-8"
    )
    adni_tree.file("I7", "941_S_6962", date="2011-02-03")
    (scan,) = find(adni_tree)[0]
    assert (scan.diagnosis, scan.session) == ("CN", "20110203")


class TestLevels:
    def test_most_processed_level_of_an_acquisition_is_used(self, adni_tree):
        for number, description in enumerate((AVERAGED, UNIFORM, STANDARD, DYNAMIC)):
            adni_tree.image(f"I{number}", "941_S_6962", description=description)
        candidates, rejected = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I1"]
        assert [kind for kind, _ in rejected.values()] == ["skipped"] * 3
        assert {reason for _, reason in rejected.values()} == {"another processing level or copy of image I1"}

    def test_level_that_was_not_downloaded_gives_way(self, adni_tree):
        adni_tree.row("I1", "941_S_6962", description=UNIFORM)
        adni_tree.image("I2", "941_S_6962", description=AVERAGED)
        candidates, rejected = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I2"]
        assert not rejected

    def test_of_two_images_of_one_level_the_newer_is_used(self, adni_tree):
        adni_tree.image("I99", "941_S_6962")
        adni_tree.image("I100", "941_S_6962")
        candidates, _ = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I100"]

    @pytest.mark.parametrize(
        ("row", "kind", "reason"),
        [
            ({"description": f"AV45 {STANDARD}"}, "skipped", f"description 'AV45 {STANDARD}' is not that of an FDG image"),
            ({"modality": "MRI"}, "skipped", "modality MRI is not PET"),
            ({"description": ""}, "unusable", "FDG_1_02_2024.csv: no description tells its tracer and level; fill it in"),
        ],
    )  # fmt: skip
    def test_other_tracers_and_modalities_are_rejected(self, adni_tree, row, kind, reason):
        adni_tree.row("I1", "941_S_6962", **row)
        adni_tree.file("I1", "941_S_6962")
        candidates, rejected = find(adni_tree)
        assert not candidates
        assert [*rejected.values()] == [(kind, reason)]


class TestStatementsBesideTheDescription:
    """The description says FDG, and something nearer or further says another tracer."""

    def rejected(self, tree):
        candidates, rejected = find(tree)
        assert not candidates
        return [*rejected.values()]

    def test_xml_file_of_another_tracer_sets_aside_though_there_is_a_table(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        adni_tree.xml(["1"], "941_S_6962", tracer="18F-AV45")
        assert self.rejected(adni_tree) == [
            (
                "unusable",
                f"{adni_tree.table.name}: tracer 18F-AV45, but description '{UNIFORM}' of FDG; mend it",
            )
        ]

    def test_sidecar_and_name_of_another_tracer_leave_the_file_out(self, adni_tree):
        file = adni_tree.image("I1", "941_S_6962")
        file.with_suffix(".json").write_text('{"Radiopharmaceutical": "Florbetapir"}')
        adni_tree.image("I2", "002_S_0001", name="ADNI_002_S_0001_PT_AV45_Br_2_S3_I2.nii")
        kinds, reasons = zip(*self.rejected(adni_tree), strict=True)
        assert kinds == ("skipped",) * 2
        assert [reason.split(" (")[0] for reason in reasons] == [
            "tracer Florbetapir is not FDG", "tracer AV45 is not FDG"
        ]  # fmt: skip

    def test_the_same_in_other_words_is_no_contradiction(self, adni_tree):
        file = adni_tree.image("I1", "941_S_6962")
        file.with_suffix(".json").write_text('{"Radiopharmaceutical": "Fluorodeoxyglucose F^18^"}')
        adni_tree.xml(["1"], "941_S_6962", tracer="18F-FDG")
        assert len(find(adni_tree)[0]) == 1


class TestWantedLevels:
    def test_order_of_preference_is_the_users(self, adni_tree):
        for number, description in enumerate((UNIFORM, AVERAGED)):
            adni_tree.image(f"I{number}", "941_S_6962", description=description)
        candidates, _ = find(adni_tree, levels=["averaged", "uniform-8mm"])
        assert [scan.level for scan in candidates] == ["averaged"]

    def test_level_that_is_not_listed_is_never_used(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", description=UNIFORM)
        adni_tree.image("I2", "002_S_0001", description=AVERAGED)
        candidates, rejected = find(adni_tree, levels=["averaged"])
        assert [scan.subject for scan in candidates] == ["002_S_0001"]
        assert [*rejected.values()] == [
            ("skipped", "processing level uniform-8mm is not in cohort.adni_level")
        ]


def test_files_are_counted_by_tracer_or_modality_whether_used_or_not(adni_tree):
    others = ["AV45 " + STANDARD, "ADNI Brain PET: Raw AV45", "PIB " + AVERAGED, "Statistics"]
    for number, description in enumerate([UNIFORM, AVERAGED, *others]):
        adni_tree.image(f"I{number}", "941_S_6962", description=description)
    adni_tree.row("I7", "941_S_6962", modality="MRI", description="MPRAGE")
    adni_tree.file("I7", "941_S_6962")
    found = find_adni(adni_tree.root)
    assert found.tracers == {"FDG": 2, "AV45": 2, "PIB": 1, "unknown": 1, "MRI": 1}
    assert found.levels == {"uniform-8mm": 1, "averaged": 1}


class TestFrames:
    def frames(self, tree, number=6, description=RAW, **options):
        tree.row("I1", "941_S_6962", description=description)
        names = [f"ADNI_941_S_6962_PT_Br_2021_{n}_S9_I1.nii" for n in range(1, number + 1)]
        return [
            tree.file("I1", "941_S_6962", name=name, seed=n, description=description, **options)
            for n, name in enumerate(names)
        ]

    @pytest.mark.parametrize("description", [RAW, DYNAMIC])
    def test_six_files_of_one_image_are_one_scan_their_folder(self, adni_tree, description):
        files = self.frames(adni_tree, description=description)
        candidates, rejected = find(adni_tree)
        assert [scan.file for scan in candidates] == [files[0].parent]
        assert not rejected
        found = find_adni(adni_tree.root)
        assert (found.tracers.total(), found.levels.total()) == (6, 1)

    def test_frames_among_other_images_need_a_folder_of_their_own(self, adni_tree):
        self.frames(adni_tree, leaf="S9")
        adni_tree.image("I2", "941_S_6962", leaf="S9", date="2021-08-10", description=RAW, visit="3")
        adni_tree.table.write_text(adni_tree.table.read_text().replace("8/10/2021", "8/1/2021", 1))
        candidates, rejected = find(adni_tree)
        assert [scan.file.name for scan in candidates] == [
            file.name for file in adni_tree.root.rglob("*I2.nii")
        ]
        ((kind, reason),) = rejected.values()
        assert kind == "unusable"
        assert reason == "6 frames lie in one folder with other images; give them a folder of their own"

    def test_averaged_image_has_no_frames_to_join(self, adni_tree):
        self.frames(adni_tree, number=2, description=AVERAGED)
        candidates, rejected = find(adni_tree)
        assert not candidates
        ((kind, reason),) = rejected.values()
        assert kind == "unusable"
        assert reason.startswith("2 files for one image of level averaged, which has no frames")


def test_date_stands_in_for_visits_that_repeat(adni_tree):
    adni_tree.image("I1", "941_S_6962", visit="2", date="2010-01-05")
    adni_tree.image("I2", "941_S_6962", visit="2", date="2011-01-09")
    candidates, _ = find(adni_tree)
    assert [scan.session for scan in candidates] == ["20100105", "20110109"]


class TestContradictions:
    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ([("I2", "941_S_6962")], "image I1 is not described"),
            ([("I1", "002_S_0001")], "subject 002_S_0001, but 941_S_6962 in the path"),
            ([("I1", "Doe, Jane")], "the subject is not of the form 941_S_6962"),
            ([("I1", "941_S_6962"), ("I1", "941_S_6962", "CN")], "described twice, with another group"),
        ],
    )
    def test_file_that_contradicts_the_table_is_unusable(self, adni_tree, rows, reason):
        for row in rows:
            adni_tree.row(*row)
        file = adni_tree.file("I1", "941_S_6962")
        candidates, rejected = find(adni_tree)
        assert not candidates
        kind, found = rejected[file.name]
        assert kind == "unusable"
        assert reason in found
        assert "Jane" not in found

    def test_row_whose_image_is_no_number_is_reported(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        adni_tree.row("see below", "002_S_0001")
        candidates, rejected = find(adni_tree)
        assert len(candidates) == 1
        assert "'see below', which is no number" in rejected[adni_tree.table.name][1]


def test_two_collection_tables_are_a_question_for_the_user(adni_tree):
    adni_tree.image("I1", "941_S_6962")
    twin = adni_tree.root / "other.csv"
    twin.write_bytes(adni_tree.table.read_bytes())
    with pytest.raises(InputError, match=r"received FDG_1_02_2024\.csv, other\.csv; set cohort\.table"):
        find(adni_tree)
    assert len(find(adni_tree, table=twin)[0]) == 1


class TestXml:
    """Where there is no collection CSV."""

    @pytest.fixture
    def tree(self, adni_tree):
        adni_tree.table.unlink()
        return adni_tree

    def test_xml_gives_the_same_facts_as_the_csv(self, tree):
        tree.xml(["1480670"], "941_S_6962", "AD")
        tree.file("I1480670", "941_S_6962")
        candidates, rejected = find(tree)
        (scan,) = candidates
        assert not rejected
        assert (scan.subject, scan.session, scan.date) == ("941_S_6962", "ADNI2 Year 1 Visit", "20210810")
        assert (scan.diagnosis, scan.age, scan.sex, scan.level) == ("AD", 75.38, "F", "uniform-8mm")

    @pytest.mark.parametrize(
        "folder", [".", "ADNI", "metadata/deep", f"ADNI/941_S_6962/{UNIFORM.replace(' ', '_')}"]
    )
    def test_xml_may_lie_anywhere_in_the_collection(self, tree, folder):
        tree.xml(["1"], "941_S_6962", folder=folder, name="any name.XML")
        tree.file("I1", "941_S_6962")
        assert len(find(tree)[0]) == 1

    def test_tracer_that_contradicts_the_description_is_not_trusted(self, tree):
        tree.xml(["1"], "941_S_6962", tracer="18F-AV45")
        file = tree.file("I1", "941_S_6962")
        found = find_adni(tree.root)
        assert not found.candidates
        assert [(item.file, item.kind) for item in found.rejected] == [(file, "unusable")]
        assert found.tracers == {"18F-AV45": 1}

    def test_broken_file_rejects_its_own_image_alone(self, tree):
        tree.xml(["1"], "941_S_6962")
        broken = tree.xml(["2"], "002_S_0001")
        broken.write_text(broken.read_text()[:-5])
        files = [tree.file("I1", "941_S_6962"), tree.file("I2", "002_S_0001")]
        candidates, rejected = find(tree)
        assert [scan.file for scan in candidates] == files[:1]
        assert [*rejected] == [files[1].name]
        assert rejected[files[1].name][0] == "unusable"
        assert rejected[files[1].name][1].startswith(f"{broken.name}: is not XML (")


class TestDiagnosesByVisit:
    @pytest.fixture
    def visits(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", "CN", visit="bl", date="2019-08-10")
        adni_tree.image("I2", "941_S_6962", "CN", visit="m24", date="2021-08-10")

        def find_with(text):
            table = adni_tree.root / "DXSUM.csv"
            table.write_text(text)
            return find(adni_tree, diagnosis_table=table)

        return find_with

    def test_all_diagnoses_of_the_subject_are_kept(self, adni_tree, visits):
        visits("RID,VISCODE,DIAGNOSIS\n6962,bl,1\n6962,m24,1\n6962,m36,2\n")
        found = find_adni(adni_tree.root, diagnosis_table=adni_tree.root / "DXSUM.csv")
        known = {subject: {visit.diagnosis for visit in seen} for subject, seen in found.visits.items()}
        assert known == {"941_S_6962": {"CN", "MCI"}}


def test_folder_of_dicom_is_one_image(adni_tree):
    file = adni_tree.image("I7", "941_S_6962", "AD")
    file.rename(file.with_suffix(".dcm"))
    file.with_name("ADNI_941_S_6962_PT_x_Br_2_2_S9_I7.dcm").touch()
    candidates, rejected = find(adni_tree)
    assert [scan.file for scan in candidates] == [file.parent]
    assert not rejected
