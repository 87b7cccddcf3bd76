"""Names, sidecars and times tell what a scan is, and contradictions are said."""

import json
from pathlib import Path

import pytest

from adpet.errors import InputError
from adpet.imaging.sidecar import facts_of, read_facts, require_fdg, tracer_name, used_seconds, weigh

FIVE = [60, 240, 900, 600, 1800]
STARTS = [0, 60, 300, 1200, 1800]
SIX = [300.0] * 6


@pytest.mark.parametrize(
    "name",
    [
        "FDG", "fdg ", "[18F]FDG", "18FFDG", "18F-FDG", "18FDG", "FDG-F18", "F-18 FDG", "FDG PET", "2-[18F]FDG", "¹⁸F-FDG",
        "fludeoxyglucose", "Fludeoxyglucose F 18", "fluorodeoxyglucose", "Fluorodeoxyglucose F^18^", "FDG (18F)",
        "Fluorine-18 fluorodeoxyglucose", "2-deoxy-2-[18F]fluoro-D-glucose", "[18F]fluoro-2-deoxy-D-glucose",
        "FDG -- fluorodeoxyglucose", "Fluordesoxyglucose", "fludeoxyglucose (FDG)", "C-B1031", "35321007", "SCT:35321007",
        "18F-FDG PET/CT", "FDG PET/MRI", "Fluordesoxyglukose",
    ],
)  # fmt: skip
def test_fdg_is_known_by_each_of_its_names_and_codes(name):
    assert tracer_name(name) == "FDG"


@pytest.mark.parametrize(
    "name",
    ["FDGal", "[18F]FDGal", "no FDG", "not FDG", "FDG/AV45", "FDOPA", "fluoroglucose", "11C-FDG", "AV45", "FDG-6-P", "C-B1032"],
)  # fmt: skip
def test_names_that_contain_fdg_are_not_fdg(name):
    assert tracer_name(name) == name


@pytest.mark.parametrize(
    ("name", "sidecar", "reason"),
    [
        ("sub-01_trc-18FFDG_pet.nii.gz", {"TracerName": "FDG", "Modality": "PT"}, None),
        ("scan.nii", {}, None),
        ("sub-FBB_ses-PIB_pet.nii", {"TracerName": "n/a", "Radiopharmaceutical": None}, None),
        ("nacc_fdg.nii", {"AttenuationCorrection": "CT-based", "SeriesDescription": "PET AC and NAC"}, None),
        *(("a.nii", {"AttenuationCorrection": how}, None) for how in ("Dixon AC", "Transmission AC", "measured,CT")),
        ("sub-NAC_trc-18F_pet.nii", {"TracerName": "FDG", "Radiopharmaceutical": "F18", "Modality": "PET/CT"}, None),
        ("dcm2niix.nii", {"TracerName": "FDG", "TracerRadionuclide": "Fluorodeoxyglucose F18", "RadionuclideHalfLife": 6588}, None),
        ("a.nii", {"RadionuclideHalfLife": 1224}, "RadionuclideHalfLife of s.json says 1224 s"),
        ("a.nii", {"Tracer": "AV45"}, "Tracer of s.json says AV45"),
        ("a.nii", {"SeriesDescription": "ADNI3_AV45 (AC)"}, "SeriesDescription of s.json says AV45"),
        ("a.nii", {"SeriesDescription": "AV-45 DOE JANE"}, "SeriesDescription of s.json says AV-45;"),
        ("a.nii", {"SeriesDescription": "PET Brain NAC"}, "corrected for attenuation; SeriesDescription in its sidecar"),
        *((f"{name}.nii", {}, f"corrected for attenuation; its name ({name})") for name in ("PET-NAC", "Brain(NAC)", "Uncorrected")),
        *(("a.nii", {"AttenuationCorrection": no}, "AttenuationCorrection in") for no in ("NONE, 0.000000 cm-1,", "not applied", "NAC", "non-corrected")),
        ("sub-01_trc-18FAV45_pet.nii", {}, "its name says 18FAV45"),
        ("sub-01_acq-AV45late_pet.nii", {}, "its name says AV45late"),
        *((f"{name}.nii", {}, None) for name in ("Dotan_Dov", "Dopazo_Ana", "Dasbach", "Psmall", "Cholinec")),
        *((f"{name}.nii", {}, f"its name says {name}") for name in ("DOTATATE", "18F-DOPA", "PSMA-1007", "11C-choline")),
        ("sub-01_desc-flortaucipir_pet.nii", {"TracerName": "FDG"}, "its name says flortaucipir, but TracerName of s.json FDG"),
        ("patient_11C-PIB_mean.nii", {}, "its name says 11C-PIB"),
        ("sub-01_trc-18FFDG_acq-AV45_pet.nii", {}, "its name says FDG, but its name AV45"),
        ("mean.nii.gz", {"Modality": "NM", "TracerName": "HMPAO"}, "TracerName of s.json says HMPAO"),
        ("mean.nii.gz", {"Modality": "NM"}, "Modality of s.json says NM"),
        ("a.nii", {"Radiopharmaceutical": "Florbetaben"}, "Radiopharmaceutical of s.json says Florbetaben"),
        ("a.nii", {"TracerName": "FDG", "Radiopharmaceutical": "FDGal"}, "TracerName of s.json says FDG, but Radiopharmaceutical"),
        ("a.nii", {"TracerName": "FDG", "TracerRadionuclide": "C11"}, "TracerName of s.json says FDG, but TracerRadionuclide of"),
        ("sub-01_rec-nacstat_pet.nii", {}, "corrected for attenuation; its name (rec-nacstat)"),
        ("sub-01_acq-statNAC_pet.nii", {}, "corrected for attenuation; its name (acq-statNAC)"),
        ("a.nii", {"AttenuationCorrection": "none"}, "corrected for attenuation; AttenuationCorrection in its sidecar"),
        ("a.nii", {"AttenuationCorrected": False}, "corrected for attenuation; AttenuationCorrected in its sidecar"),
        ("a.nii", {"AttenuationCorrectionMethod": "NONE"}, "corrected for attenuation; AttenuationCorrectionMethod in its"),
    ],
)  # fmt: skip
def test_scan_is_refused_with_what_its_name_and_sidecar_say(name, sidecar, reason):
    facts = facts_of([name], [("s.json", sidecar)])
    if reason is None:
        return require_fdg(facts)
    with pytest.raises(InputError) as refused:
        require_fdg(facts)
    assert reason in str(refused.value)
    return None


def test_nearer_sidecar_overrides_the_one_it_inherits():
    facts = facts_of(
        [], [("own.json", {"TracerName": "PiB"}), ("pet.json", {"TracerName": "FDG", "Units": "SUV"})]
    )
    assert weigh(facts.statements) == ("PiB", "")
    assert facts.metadata["Units"] == "SUV"


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({"FrameTimesStart": STARTS, "FrameDuration": FIVE}, [0, 0, 0, 0, 1800]),
        ({"FrameTimesStart": STARTS}, [0, 0, 0, 0, 600]),
        ({"FrameReferenceTime": [30, 180, 750, 1500, 2700], "FrameDuration": FIVE}, [0, 0, 0, 0, 1800]),
        ({"FrameTimesStart": [1500, 2100], "FrameDuration": [600, 600]}, [300, 600]),
        ({"FrameTimesStart": [1800, 2700.5], "FrameDuration": [900.5, 899.5]}, [900.5, 899.5]),
        ({"FrameTimesStart": [0, 600], "FrameDuration": [600, 600], "InjectionStart": -2400}, [600, 600]),
        ({"FrameTimesStart": [0, 1200, 2400], "FrameDuration": [1200] * 3, "InjectionStart": 0, "ScanStart": 1800}, [1200, 600, 0]),
        ({"FrameTimesStart": [3600, 4200], "FrameDuration": [600, 500]}, [600, 500]),
        ({"FrameTimesStart": [300 * n for n in range(6)], "FrameDuration": SIX}, SIX),
        ({"FrameTimesStart": [0, 0], "FrameDuration": [600, 500]}, [600, 500]),
        ({"FrameDuration": [600, 500]}, [600, 500]),
        ({}, None),
    ],
)  # fmt: skip
def test_frames_count_by_their_seconds_from_30_to_60_minutes(times, seconds):
    assert used_seconds(times, len(seconds or [0, 0])) == seconds


def test_window_is_a_parameter_and_static_scans_are_left_alone():
    times = {"FrameTimesStart": STARTS, "FrameDuration": FIVE}
    assert used_seconds(times, 5, minutes=(20, 30)) == [0, 0, 0, 600, 0]
    assert used_seconds({"FrameTimesStart": [0], "FrameDuration": [600], "InjectionStart": 0}, 1) is None


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"FrameDuration": [60, "x"]}, r"required FrameDuration in s for 2 frames; received '60 x'"),
        ({"FrameDuration": [60, 0]}, r"received '60 0'"),
        ({"FrameTimesStart": [0, 600], "FrameDuration": [600, 600], "InjectionStart": 0}, "end 20 min after injection, before"),
        ({"FrameTimesStart": [0, 600000], "FrameDuration": [600000] * 2}, "required frame times in s; received 333 h"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_used_are_refused(times, reason):
    with pytest.raises(InputError, match=reason):
        used_seconds(times, 2)


def test_folder_of_frames_has_the_times_of_all_its_sidecars(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / f"frame_{number}.nii").touch()
        sidecar = {"FrameTimesStart": [600 * number], "FrameDuration": [600], "Radiopharmaceutical": "FDG"}
        (tmp_path / f"frame_{number}.json").write_text(json.dumps(sidecar))
    facts = read_facts(tmp_path)
    assert weigh(facts.statements) == ("FDG", "")
    assert used_seconds(facts.metadata, 3, minutes=(10, 30)) == [600, 600, 0]


def test_scan_in_a_bids_tree_inherits_what_the_root_says(tmp_path, monkeypatch):
    folder = tmp_path / "sub-01/pet"
    folder.mkdir(parents=True)
    (tmp_path / "pet.json").write_text('{"TracerName": "PiB"}')
    assert weigh(read_facts(folder / "sub-01_pet.nii").statements)[0] == "PiB"
    own = folder / "sub-01_pet.json"
    for encoding in ("utf-16", "utf-8-sig", "latin-1"):
        own.write_text('{"TracerName": "AV45", "InstitutionName": "Zürich"}', encoding=encoding)
        assert weigh(read_facts(folder / "sub-01_pet.nii").statements)[0] == "AV45"
    own.write_text("{broken")
    with pytest.raises(InputError, match=r"sub-01_pet\.json is not JSON"):
        read_facts(folder / "sub-01_pet.nii")
    own.unlink()
    assert not read_facts(tmp_path / "sub-01_pet.nii").statements
    monkeypatch.chdir(folder)
    assert weigh(read_facts(Path("sub-01_pet.nii")).statements)[0] == "PiB"
