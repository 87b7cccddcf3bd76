"""One model, one set of scans, four ways to ask: the trained network, its export, over HTTP, in the browser."""

import base64
import json
import shutil
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from dicom_files import write_series
from scipy.special import softmax
from servers import BROWSER_PATIENCE_MS, serving

from adpet.errors import InputError
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import read_header, read_volume
from adpet.imaging.sidecar import stem_of
from adpet.inference.exported_model import Scores, open_model
from adpet.inference.inputs import frame_seconds
from adpet.inference.predictor import answer
from adpet.learning.checkpoint import load_model
from adpet.learning.model import members_of, probability_of_ad
from adpet.learning.saliency import class_activation_maps

pytestmark = [pytest.mark.node, pytest.mark.browser, pytest.mark.server]

# Tolerances of the export, and of the browser; the browser's maps correlate at least so.
SAME, NEARLY, ALIKE = 1e-5, 0.02, 0.98


@pytest.fixture(scope="module")
def scans(golden, project, phantom, tmp_path_factory):
    """Golden scans that a network may answer for, scans with a sidecar, and two of the project's scans."""
    found = {name: path for name, path in golden.items() if name not in ("white matter", "NIfTI-2")}
    raw = sorted((project / "data/simulated/raw").rglob("*_pet.nii*"))
    frames = np.stack([0.05 * phantom.data**1.2, 0.6 * phantom.data, phantom.data], -1)
    times = {"FrameTimesStart": [0, 600, 1800], "FrameDuration": [600, 1200, 1800]}
    for name, data, sidecar in (
        ("from injection on", frames, times),
        ("early, no times", frames, None),
        ("says AV45", phantom.data, {"TracerName": "AV45"}),
    ):
        found[name] = tmp_path_factory.mktemp("told") / "scan.nii"
        nib.save(nib.Nifti1Image(data, phantom.affine), found[name])
        if sidecar:
            found[name].with_suffix(".json").write_text(json.dumps(sidecar))
    found["DICOM"] = write_series(tmp_path_factory.mktemp("patient") / "series", phantom)
    # From injection on: all frames together would be refused as uptake in progress.
    folder = tmp_path_factory.mktemp("dynamic") / "series"
    found["dynamic DICOM"] = write_series(folder, phantom, seconds=[600] * 6, start=60)
    return found | {f"of the project, {number}": raw[number] for number in (0, 1)}


@pytest.fixture(scope="module")
def exported(project):
    return open_model(project / "results/export")


# Each way gives, by scan, the probability of AD, the map in MNI space, the answer and what the folds give; None
# for a refused scan.


def by_python(scans, model):
    asked = {}
    for name, path in scans.items():
        try:
            with as_nifti(path) as image:
                seconds = frame_seconds(image, read_header(image).n_frames)
                volume = read_volume(image, frame_seconds=seconds, steady=True)
            found = answer(volume, model, name=path.name)
        except InputError:
            asked[name] = None
        else:
            document = found.document
            cam, by_fold = found.volumes["cam"].data, document["probability_by_fold"]
            asked[name] = document["probability_of_ad"], cam, document["answer"], by_fold
    return asked


@pytest.fixture(scope="module")
def by_onnx(scans, exported):
    return by_python(scans, exported)


@pytest.fixture(scope="module")
def by_keras(project, scans, exported):
    network = load_model(project / "results/train/model.keras")

    def trained(slices):
        maps, logits = class_activation_maps(network, slices)
        scaled = network.get_layer("scale")(slices)
        by_fold = [probability_of_ad(softmax(member(scaled)[1], axis=-1)) for member in members_of(network)]
        return Scores(maps, 1 / (1 + np.exp(-logits)), np.stack(by_fold, axis=-1))

    return by_python(scans, replace(exported, network=trained))


@pytest.fixture(scope="module")
def by_http(project, scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with serving("models:/adpet@challenger", project / "mlflow.db", folder) as address:
        return {name: posted(f"{address}/invocations", path) for name, path in scans.items()}


def sidecar_of(path):
    return path.with_name(f"{stem_of(path)}.json")


def posted(address, path):
    if path.is_dir():
        path = Path(shutil.make_archive(f"{path.parent}/sent", "zip", path))
    scan = base64.b64encode(path.read_bytes()).decode()
    if (sidecar := sidecar_of(path)).exists():
        scan = [{"scan": scan, "name": path.name, "sidecar": json.loads(sidecar.read_text())}]
    reply = requests.post(address, json={"inputs": scan}, timeout=120)
    if reply.status_code == HTTPStatus.BAD_REQUEST:
        return None
    reply.raise_for_status()
    document = reply.json()["predictions"][0]
    return document["probability_of_ad"], None, document["answer"], document["probability_by_fold"]


@pytest.fixture(scope="module")
def by_browser(built_page, serve, scans, launch_chromium, tmp_path_factory):
    browser = launch_chromium("--disable-gpu", "--disable-3d-apis")
    saved = tmp_path_factory.mktemp("saved") / "map.nii"
    other = saved.with_name("other.json")
    other.write_text('{"TracerName": "PiB"}')
    asked = {}
    with serve(built_page) as address:
        page = browser.new_page()
        page.set_default_timeout(BROWSER_PATIENCE_MS)
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        for name, path in scans.items():
            if path.is_dir():
                page.set_input_files("#folder", path)
            else:
                about = [other, sidecar_of(path)] if sidecar_of(path).exists() else []
                page.set_input_files("#file", [*about, path])
            page.wait_for_selector("body:is([data-state=answered], [data-state=refused])")
            if page.get_attribute("body", "data-state") == "refused":
                asked[name] = None
                continue
            shown = "getComputedStyle(document.querySelector('.scale')).getPropertyValue('--p')"
            with page.expect_download() as download:
                page.click("#save-map")
            download.value.save_as(saved)
            said = page.inner_text(".interpretation")
            answer = next(word for word in ("AD", "CN", "undecided") if f"coverage: {word}." in said)
            asked[name] = float(page.evaluate(shown)), np.array(nib.load(saved).dataobj), answer, None
    browser.close()
    return asked


def test_keras_onnx_http_and_browser_give_the_same_answers(by_keras, by_onnx, by_http, by_browser, capsys):
    lines = [f"{'scan':<22}{'Keras':>10}{'ONNX':>10}{'HTTP':>10}{'browser':>10}{'map, r':>10}"]
    for name in by_keras:
        ways = [way[name] for way in (by_keras, by_onnx, by_http, by_browser)]
        if None in ways:
            assert ways == [None] * 4, name
            lines.append(f"{name:<22}" + f"{'refused':>10}" * 4)
            continue
        (keras, onnx, http, browser), maps, answers, by_fold = zip(*ways, strict=True)
        keras_map, onnx_map, _, browser_map = maps
        assert len(set(answers)) == 1, name
        alike = np.corrcoef(onnx_map.ravel(), browser_map.ravel())[0, 1]
        lines.append(f"{name:<22}{keras:10.6f}{onnx:10.6f}{http:10.6f}{browser:10.6f}{alike:10.6f}")
        assert onnx == pytest.approx(keras, abs=SAME), name
        for folds in by_fold[1:3]:
            assert folds == pytest.approx(by_fold[0], abs=SAME), name
        assert http == pytest.approx(keras, abs=SAME), name
        assert browser == pytest.approx(keras, abs=NEARLY), name
        assert alike >= ALIKE, name
        np.testing.assert_allclose(onnx_map, keras_map, atol=SAME * max(1, np.abs(keras_map).max()))
    # Whole numbers of 32,000 steps, as DICOM stores voxels.
    assert by_onnx["DICOM"][0] == pytest.approx(by_onnx["as scanned"][0], abs=1e-3)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    answered = [row[0] for row in by_keras.values() if row]
    assert len(answered) >= 6
    # Scans that all get the same would be no test.
    assert np.ptp(answered) > 10 * SAME
