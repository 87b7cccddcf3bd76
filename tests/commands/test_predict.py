"""Predict: one scan or many, and a bad one stops no other."""

import contextlib
import csv
import io
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_files import NAMES, write_series
from workspace import SMALL

from adpet.commands.predict import Options, run
from adpet.errors import InputError
from adpet.evaluation.aggregation import INTERPRETATION
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.inference import outputs, predictor
from adpet.inference.exported_model import MAPS, open_model
from adpet.inference.inputs import stem_of
from adpet.inference.predictor import RefusedError, answer

EXPORT = "results/export"


@pytest.fixture(scope="module")
def paths(finished):
    """Two of the test subjects' scans."""
    split = pd.read_csv(finished.root / "data/processed/split.csv")
    names = split.loc[split["part"] == "test", "scan"].drop_duplicates().iloc[:2]
    scans = pd.read_csv(finished.root / "data/interim/scans.csv").set_index("scan")
    return [finished.root / path for path in scans.loc[names, "path"]]


@pytest.fixture(scope="module")
def answered(finished, paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answer")
    done = finished.adpet("predict", str(paths[0]), "--model", EXPORT, "--output", str(folder))
    return done.stdout, folder


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


class TestOneScan:
    def test_answer_has_every_key_and_the_evaluated_probabilities(self, answered, finished, paths):
        said, folder = answered
        found = json.loads(only(folder, "*.json").read_text())
        assert set(found) == {
            "scan", "model", "lineage", "leaky", "probability_of_ad", "probability_by_fold", "threshold",
            "meaning", "slices", "similarity_to_template", "matrix", "regions", "checks", "age",
            "compared_at_age", "unusual", "forced", *INTERPRETATION,
        }  # fmt: skip
        assert found["scan"] == stem_of(paths[0])
        assert found["lineage"] == finished.read_json("results/train/run.json")["lineage"]["id"]
        assert f"{found['probability_of_ad']:.3f}" in said
        folds = found["probability_by_fold"]
        assert len(set(folds)) == SMALL["split.folds"]
        assert f"{min(folds):.3f} to {max(folds):.3f} by {len(folds)} networks" in said
        assert f"answer             {found['answer']} (coverage 90 %)" in said
        assert "not for diagnosis" in said
        predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv")
        scans = pd.read_csv(finished.root / "data/interim/scans.csv").set_index("path")
        name = scans.loc[str(paths[0].relative_to(finished.root)), "scan"]
        rows = predictions[predictions["scan"] == name].sort_values("index")
        per_slice = [row["probability_of_ad"] for row in found["slices"]]
        np.testing.assert_allclose(per_slice, rows["probability"], atol=2e-5)
        log_odds = np.log(found["probability_of_ad"] / (1 - found["probability_of_ad"]))
        assert sum(row["contribution"] for row in found["slices"]) == pytest.approx(log_odds, abs=1e-4)

    def test_map_is_written_in_mni_space_and_on_the_scans_grid(self, answered, finished, paths):
        _, folder = answered
        mni = nib.load(next(path for path in folder.glob("*_cam.nii.gz") if "space-scan" not in path.name))
        assert mni.shape == nib.load(next((finished.root / "data/interim/volumes").iterdir())).shape
        own, scan = nib.load(only(folder, "*_space-scan_cam.nii.gz")), nib.load(paths[0])
        assert own.shape == scan.shape[:3]
        np.testing.assert_allclose(own.affine, scan.affine, atol=1e-4)
        matrix = np.array(json.loads(only(folder, "*.json").read_text())["matrix"])
        strongest = np.unravel_index(np.argmax(np.abs(mni.get_fdata())), mni.shape)
        there = np.linalg.inv(scan.affine) @ matrix @ mni.affine @ [*strongest, 1]
        i, j, k = np.round(there[:3]).astype(int)
        near = np.abs(own.get_fdata()[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2]).max()
        assert near == pytest.approx(np.abs(mni.get_fdata()).max(), rel=0.2)

    def test_page_is_self_contained(self, answered):
        page = only(answered[1], "*.html").read_text()
        assert "not for diagnosis" in page
        assert "test subjects who were given" in page
        assert page.count('src="data:image/png;base64,') == page.count("<img")
        assert "<script" not in page
        assert "http" not in re.sub(r"base64,[\w+/=]+", "", page)
        assert ">L<" in page
        assert ">R<" in page

    def test_storage_order_does_not_matter(self, answered, finished, paths, tmp_path):
        image = nib.load(paths[0])
        turned = image.as_reoriented(nib.orientations.axcodes2ornt(("I", "P", "L")))
        nib.save(turned, tmp_path / "turned.nii")
        finished.adpet(
            "predict", str(tmp_path / "turned.nii"), "--model", EXPORT, "--output", str(tmp_path / "o")
        )
        found = json.loads(only(tmp_path / "o", "*.json").read_text())
        before = json.loads(only(answered[1], "*.json").read_text())
        assert found["probability_of_ad"] == pytest.approx(before["probability_of_ad"], abs=1e-3)
        own = nib.load(only(tmp_path / "o", "*_space-scan_cam.nii.gz"))
        assert own.shape == turned.shape
        np.testing.assert_allclose(own.affine, turned.affine, atol=1e-4)


@pytest.fixture(scope="module")
def folder(paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    for number, path in enumerate(paths):
        (folder / f"scan_{number}.nii.gz").write_bytes(path.read_bytes())
    (folder / "scan_9.nii.gz").write_bytes(b"no scan")
    return folder


class TestMany:
    def test_broken_scan_stops_no_other_and_is_reported_at_the_end(self, finished, folder, tmp_path):
        done = finished.adpet(
            "predict", str(folder), "--model", EXPORT, "--output", str(tmp_path / "o"),
            "--json", str(tmp_path / "all.json"), status=1,
        )  # fmt: skip
        assert "scan_0" in done.stdout
        lines = done.stderr.strip().splitlines()
        assert "scan_9.nii.gz" in lines[0]
        assert "3 scans; received 2" in lines[-1]
        found = json.loads((tmp_path / "all.json").read_text())
        assert [("error" in one) for one in found] == [False, False, True]
        assert len(list((tmp_path / "o").iterdir())) == 12


class TestOfOneName:
    @pytest.fixture
    def alike(self, small_scans, tmp_path):
        """Two scans that differ, each called scan.nii.gz."""
        paths = [tmp_path / name / "pet" / "scan.nii.gz" for name in ("anna", "bert")]
        for path, scan in zip(paths, small_scans, strict=False):
            path.parent.mkdir(parents=True)
            shutil.copy(scan, path)
        return paths

    def test_scans_of_one_name_have_their_own_rows_and_files(self, alike, small_export, tmp_path):
        output = tmp_path / "o"
        table, document = tmp_path / "all.csv", tmp_path / "all.json"
        run(alike, Options(model=str(small_export), output=output, csv=table, json=document))
        names = ["anna_pet_scan", "bert_pet_scan"]
        rows = json.loads(document.read_text())
        assert [row["scan"] for row in rows] == names
        assert [row["scan"] for row in csv.DictReader(io.StringIO(table.read_text()))] == names
        assert [json.loads((output / f"{name}.json").read_text()) for name in names] == rows
        assert len(list(output.iterdir())) == 12


def test_broken_scan_adds_only_its_row_to_csv_on_stdout(small_export, small_scans, tmp_path, capsys):
    (tmp_path / "bad.nii").write_bytes(b"no scan")
    options = Options(model=str(small_export), output=tmp_path / "o", csv=Path("-"))
    with pytest.raises(InputError, match="required an answer for each of 2 scans; received 1"):
        run([small_scans[0], tmp_path / "bad.nii"], options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["scan", "one", "bad"]


class TestMaps:
    def test_both_maps_are_named_on_the_page_with_the_unusual_regions(
        self, small_export, small_scans, tmp_path
    ):
        options = Options(model=str(small_export), output=tmp_path / "o", age=61.0)
        printed = run(small_scans[:1], options)
        found = json.loads(only(tmp_path / "o", "*.json").read_text())
        page = only(tmp_path / "o", "*.html").read_text()
        zs = {row["name"]: row["z"] for row in found["regions"] if abs(row["z"]) >= 2}
        assert {row["name"]: row["z"] for row in found["unusual"]} == zs
        assert all(f">{title}<" in page for title in MAPS.values())
        for row in found["unusual"]:
            assert f"{row['name']} ({row['z']:+.1f})" in printed
        assert "at age 61" in printed
        brain = read_volume(small_export / "brain.nii.gz").data > 0
        z = read_volume(
            next(path for path in (tmp_path / "o").glob("*_z.nii.gz") if "space" not in path.name)
        )
        assert not z.data[~brain].any()
        assert np.ptp(z.data[brain]) > 1

    def test_unknown_age_is_the_healthy_people_s_mean_and_said_so(self, small_export, small_scans, tmp_path):
        printed = run(small_scans[:1], Options(model=str(small_export), output=tmp_path / "o"))
        assert "at age 75, the healthy people's mean, as no age was given" in printed

    @pytest.mark.parametrize(("scans", "age"), [(1, 5.0), (2, 70.0)])
    def test_impossible_age_or_one_for_several_scans_is_refused(self, scans, age, small_export, small_scans):
        with pytest.raises(InputError, match=r"age: required .*; received"):
            run(small_scans[:scans], Options(model=str(small_export), age=age))


class TestSmoothedByScanner:
    def test_sidecar_or_option_tells_the_resolution(
        self, export_by_scanner, small_export, small_scans, tmp_path
    ):
        scan = Path(shutil.copy(small_scans[1], tmp_path / "scan.nii.gz"))
        options = Options(model=str(export_by_scanner), output=tmp_path / "o", json=tmp_path / "all.json")

        def probability(**changed):
            run([scan], replace(options, **changed))
            return json.loads(options.json.read_text())[0]["probability_of_ad"]

        with pytest.raises(
            InputError, match="by scanner: required one of ECAT HRRT, Discovery; received none"
        ):
            run([scan], options)
        given = probability(fwhm=4.0)
        assert given != probability(fwhm=11.0)
        sidecar = {"Manufacturer": "Siemens", "ManufacturersModelName": "ECAT HRRT"}
        (tmp_path / "scan.json").write_text(json.dumps(sidecar))
        assert probability() == given
        with pytest.raises(InputError, match="required a resolution above 0 mm, and a model that smooths by"):
            probability(model=str(small_export), fwhm=5.0)


class TestRefused:
    @pytest.fixture
    def turned(self, small_scans, tmp_path):
        """A scan whose back is in front."""
        scan = read_volume(small_scans[0])
        write_volume(tmp_path / "scan.nii", Volume(np.ascontiguousarray(scan.data[:, ::-1]), scan.affine))
        return tmp_path / "scan.nii"

    def test_refused_scan_gets_one_line_and_a_page_without_an_answer(self, turned, small_export, tmp_path):
        options = Options(model=str(small_export), output=tmp_path / "o", json=tmp_path / "all.json")
        run([turned], replace(options, force=True))
        with pytest.raises(InputError) as refused:
            run([turned], options)
        page = tmp_path / "o" / "scan.html"
        assert re.fullmatch(
            rf"{turned}: refused as unlike FDG-PET of a whole brain; look at {page}, or add --force: "
            r"similarity 0\.3\d+, required 0\.5 or more; it fits when turned by 180 degrees about the z axis "
            r"\(bottom to top\), similarity [01]\.\d\d: the header's orientation seems wrong",
            str(refused.value),
        )
        # Maps of the earlier answer are gone.
        assert sorted(path.name for path in page.parent.iterdir()) == ["scan.html", "scan.json"]
        text = re.sub(r"base64,[\w+/=]+", "", page.read_text())
        assert "<strong>Refused: similarity 0.3" in text
        assert "not FDG-PET" in text
        assert text.count("with the template's outline") == text.count("<img") == 18
        assert not re.search("probability|activation|http", text, re.IGNORECASE)
        found, (row,) = (json.loads(path.read_text()) for path in (page.with_suffix(".json"), options.json))
        assert row == found | {"error": str(refused.value)}
        assert found["error"] in row["error"]
        assert not {"probability_of_ad", "regions", "slices"} & set(found)
        assert str(tmp_path.parent) not in json.dumps(found).replace(str(page), "")

    @pytest.mark.parametrize(
        ("axes", "signs", "said"),
        [
            ((0, 1, 2), (-1, 1, -1), "turned by 180 degrees about the y axis"),
            ((0, 2, 1), (1, 1, -1), "turned by 90 degrees about the x axis"),
            ((0, 2, 1), (1, -1, 1), "turned by -90 degrees about the x axis"),
            ((1, 2, 0), (1, 1, 1), "its right, front and top are taken as front, top and right"),
            ((2, 1, 0), (1, -1, 1), "its right, front and top are taken as top, back and right"),
        ],
    )
    def test_turn_that_fits_a_scan_is_told_in_words(self, small_export, axes, signs, said):
        model = open_model(small_export)
        template = model.standard.template
        flips = tuple(slice(None, None, sign) for sign in signs)
        # Axis n of the image is axes[n] of the head, so that n is to be taken as axes[n].
        data = np.ascontiguousarray(template.data.transpose(axes)[flips])
        with pytest.raises(RefusedError) as refused:
            answer(Volume(data, template.affine), model, name="scan")
        assert refused.value.document["turn"].startswith(f"it fits when {said}")

    @pytest.mark.parametrize("image", ["noise", "half a head", "the template itself"])
    def test_turn_is_named_for_no_other_image(self, small_export, image):
        model = open_model(small_export)
        template = model.standard.template
        data = {
            "noise": np.random.default_rng(0).random(template.data.shape, dtype=np.float32),
            "half a head": template.data * (np.indices(template.data.shape)[1] > 14),
            "the template itself": template.data,
        }[image]
        assert not predictor._turn(
            Volume(data.astype(np.float32), template.affine), model, model.standard, 0.2
        )

    def test_outline_is_drawn_around_the_brain_of_the_template(self, small_export, monkeypatch):
        model, drawn = open_model(small_export), []
        monkeypatch.setattr(
            outputs, "section_pictures", lambda *given: drawn.append(given) or [""] * len(given[0])
        )
        brain, affine = model.standard.brain, model.standard.template.affine
        right = np.indices(brain.shape)[0] > brain.shape[0] // 2
        outputs._views(Volume(np.where(right, 0.5, 1.0).astype(np.float32) * brain, affine), brain)
        for (planes, maps, _), name in zip(drawn, ("coronal", "axial", "sagittal"), strict=True):
            scan, outline = planes > 40, maps < 0
            for axes in ((0, 1), (0, 2)):
                rims = [np.flatnonzero(drawn.any(axis=axes))[[0, -1]] for drawn in (scan, outline)]
                np.testing.assert_allclose(*rims, atol=8)
            assert not outline[:, 96].all()
            assert 0 < outline.mean() < 0.1
            if name != "sagittal":  # the patient's left is on the left
                assert planes[:, :, :90].max() > 1.5 * planes[:, :, 102:].max()

    def test_forced_answer_says_everywhere_by_which_checks_the_scan_was_refused(
        self, turned, small_export, small_scans, tmp_path
    ):
        table, document = tmp_path / "all.csv", tmp_path / "all.json"
        options = Options(
            model=str(small_export), output=tmp_path / "o", csv=table, json=document, force=True
        )
        assert run([turned], options).startswith("REFUSED, ANSWERED BY FORCE  similarity 0.3")
        assert "refused by: similarity" in run([turned, small_scans[1]], options).splitlines()[1]
        forced, usual = json.loads(document.read_text())
        assert [forced["forced"], usual["forced"]] == [True, False]
        assert 0 < forced["probability_of_ad"] < 1
        rows = list(csv.DictReader(io.StringIO(table.read_text())))
        assert [(row["refused"], row["forced"]) for row in rows] == [("similarity", "True"), ("", "False")]
        pages = [(tmp_path / "o" / f"{row['scan']}.html").read_text() for row in (forced, usual)]
        assert ["(forced)" in page and "template's outline" in page for page in pages] == [True, False]
        assert all("Probability of AD" in page for page in pages)
        assert (tmp_path / "o" / "scan_cam.nii.gz").exists()


@pytest.mark.parametrize("value", [0, np.nan, -np.inf, np.finfo(np.float32).max, 1e-44])
@pytest.mark.parametrize("where", ["front", "grey", "reference", "one"])
def test_odd_voxels_of_a_scan_make_no_warning(small_export, small_scans, tmp_path, where, value):
    tissue, reference = (
        read_volume(small_export / f"{name}.nii.gz").data for name in ("tissue", "reference")
    )
    data = read_volume(small_scans[0]).data.copy()
    number = np.arange(data.size).reshape(data.shape)
    places = {"grey": tissue == 1, "reference": reference > 0, "one": number == 9000}
    places["front"] = np.indices(data.shape)[1] > 18
    data[places[where]] = value
    nib.save(nib.Nifti1Image(data, read_volume(small_scans[0]).affine), tmp_path / "scan.nii")
    options = Options(model=str(small_export), output=tmp_path / "o", json=tmp_path / "all.json")
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error", RuntimeWarning)
        for align, force in (("affine", False), ("none", True)):
            with contextlib.suppress(InputError):
                run([tmp_path / "scan.nii"], replace(options, align=align, force=force))
            (row,) = json.loads((tmp_path / "all.json").read_text())
            assert "not foreseen" not in row.get("error", "")


def test_dicom_is_answered_as_its_nifti_and_named_by_its_content(
    small_export, small_scans, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    volume = read_volume(small_scans[1])
    write_series(tmp_path / "DOE^JANE" / "pet", volume)
    write_series(tmp_path / "DOE^JANE" / "ct", volume, modality="CT", series=1)
    slices = sorted((tmp_path / "DOE^JANE" / "pet").iterdir())
    given = [tmp_path / "DOE^JANE", *slices, tmp_path / "DOE^JANE" / "ct", small_scans[1]]
    with pytest.raises(InputError, match="required an answer for each of 3 scans; received 2"):
        run(given, Options(model=str(small_export), json=Path("all.json")))
    dicom, ct, nifti = json.loads(Path("all.json").read_text())
    assert re.fullmatch("dicom-[0-9a-f]{8}", dicom["scan"])
    assert dicom["probability_of_ad"] == pytest.approx(nifti["probability_of_ad"], abs=1e-5)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [f"{dicom['scan']} is {slices[0].parent}", f"{ct['scan']} is {given[-2]}"]
    assert said[2].startswith(f"{ct['scan']}: required one series of FDG-PET")
    written = [path for path in tmp_path.rglob("*_adpet/*") if path.is_file()]
    assert len(written) > 6
    text = b"".join(path.read_bytes() for path in [*written, Path("all.json")])
    assert not any(word.encode() in text for word in NAMES)


@pytest.mark.parametrize("name", ["sub-01_acq-PIB_pet.zip", "sub-01_pet.mgz"])
def test_name_or_inherited_sidecar_of_another_tracer_refuses_a_format_that_is_converted(
    small_export, tmp_path, name
):
    scan = tmp_path / "sub-01" / "pet" / name
    scan.parent.mkdir(parents=True)
    scan.touch()
    if scan.suffix == ".mgz":
        (tmp_path / "pet.json").write_text('{"TracerName": "PIB"}')
    with pytest.raises(InputError, match=r"required FDG; .* says PIB"):
        run([scan], Options(model=str(small_export), output=tmp_path / "o"))


class TestInterpretation:
    def test_prevalence_and_coverage_reach_every_output(self, small_export, small_scans, tmp_path):
        table, asked = tmp_path / "all.csv", {"prevalence": 0.05, "coverage": 0.99}
        options = Options(model=str(small_export), output=tmp_path / "o", csv=table, **asked)
        printed = run(small_scans[:1], options)
        found = json.loads(only(tmp_path / "o", "*.json").read_text())
        assert asked.items() <= found.items()
        assert found["answer"] == "undecided"
        (row,) = csv.DictReader(io.StringIO(table.read_text()))
        assert {key: row[key] for key in INTERPRETATION} == {key: str(found[key]) for key in INTERPRETATION}
        for text in (printed, only(tmp_path / "o", "*.html").read_text()):
            for said in (
                f"{found['probability_at_prevalence']:.3f}",
                f"{found['likelihood_ratio']:.3g}",
                "99 %",
            ):
                assert said in text

    def test_uncalibrated_model_says_so_and_refuses_the_options(self, small_export, small_scans, tmp_path):
        folder = shutil.copytree(small_export, tmp_path / "export")
        document = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(document | {"out_of_fold": None}))
        options = Options(model=str(folder), output=tmp_path / "o")
        assert "Not calibrated: " in run(small_scans[:1], options)
        assert "Not calibrated: " in only(tmp_path / "o", "*.html").read_text()
        assert run(small_scans[:2], options).splitlines()[1].split()[2:] == ["-", "-", "-"]
        with pytest.raises(InputError, match="a model with out-of-fold predictions; this one has none"):
            run(small_scans[:1], replace(options, prevalence=0.1))

    @pytest.mark.parametrize("asked", [{"prevalence": 0.0}, {"prevalence": 1.0}, {"coverage": 0.4}])
    def test_option_out_of_range_is_refused(self, asked):
        with pytest.raises(InputError, match=f"^--{next(iter(asked))}: required a number .*; received"):
            run([Path("scan.nii")], Options(**asked))


@pytest.mark.parametrize("output", ["pet", "pet/../pet", "link"])
def test_output_in_a_folder_of_scans_is_refused(output, small_export, small_scans, tmp_path):
    scan, sidecar = tmp_path / "pet" / "sub-01_pet.nii.gz", tmp_path / "pet" / "sub-01_pet.json"
    scan.parent.mkdir()
    (tmp_path / "link").symlink_to(scan.parent)
    shutil.copy(small_scans[0], scan)
    sidecar.write_text("{}")
    with pytest.raises(
        InputError, match=r"required a folder apart from the scans.*sub-01_pet\.nii\.gz"
    ) as error:
        run([scan], Options(model=str(small_export), output=tmp_path / output))
    assert "\n" not in str(error.value)
    assert sidecar.read_text() == "{}"
    assert sorted(scan.parent.iterdir()) == [sidecar, scan]


def test_output_in_a_folder_of_frames_is_refused(small_export, small_scans, tmp_path):
    shutil.copy(small_scans[0], tmp_path / "frame_1.nii.gz")
    with pytest.raises(InputError, match="required a folder apart from the scans"):
        run([tmp_path], Options(model=str(small_export), output=tmp_path, frames=True))
    assert len(list(tmp_path.iterdir())) == 1


class TestModels:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("results/train", "required an exported model"),
            ("models:/adpet/x/y", "required a folder, models:/NAME@ALIAS or models:/NAME/VERSION"),
        ],
    )
    def test_other_model_is_refused_in_one_line(self, finished, paths, model, message):
        done = finished.adpet("predict", str(paths[0]), "--model", model, status=1)
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
