"""One model, one set of scans, four ways to ask: the trained network, its export, over HTTP, in the browser."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adpet.imaging.nifti import read_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import RefusedError, answer
from adpet.learning.checkpoint import load_model
from adpet.learning.saliency import class_activation_maps

pytestmark = pytest.mark.slow

WEB = Path(__file__).parents[2] / "web"
PATIENCE_MS = 180_000
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
FINISHED = "body:is([data-state=answered], [data-state=refused])"
# What the export is held to, and what the browser is.
SAME, NEARLY, ALIKE = 1e-5, 0.02, 0.98
REFUSED = "refused"


@dataclass(frozen=True)
class Asked:
    """What one way has said: by scan the probability of AD, or that it was refused, and the map in MNI space."""

    probability: dict[str, float | str]
    maps: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def project(request):
    """A project in which ``dvc repro`` has run: that of the tests, or one's own with a network that has learned."""
    own = os.environ.get("ADPET_FOUR_WAYS")
    return Path(own) if own else request.getfixturevalue("finished").root


@pytest.fixture(scope="module")
def scans(golden, project):
    """The golden scans that a network may answer for, and the first scan of the project's AD and CN subjects."""
    found = {name: path for name, path in golden.items() if name not in ("white matter", "NIfTI-2")}
    raw = sorted((project / "data/simulated/raw").rglob("*_pet.nii*"))
    return found | {f"of the project, {number}": raw[number] for number in (0, 1)}


@pytest.fixture(scope="module")
def exported(project):
    return open_model(project / "results/export")


@pytest.fixture(scope="module")
def by_keras(project, scans, exported):
    network = load_model(project / "results/train/model.keras")

    def trained(slices):
        maps, logits = class_activation_maps(network, slices)
        return maps, 1 / (1 + np.exp(-logits))

    return by_python(scans, replace(exported, network=trained))


@pytest.fixture(scope="module")
def by_onnx(scans, exported):
    return by_python(scans, exported)


def by_python(scans, model):
    asked = Asked({}, {})
    for name, path in scans.items():
        try:
            found = answer(read_volume(path), model, name=path.name)
        except RefusedError:
            asked.probability[name] = REFUSED
            continue
        asked.probability[name] = found.document["probability_of_ad"]
        asked.maps[name] = found.cam.data
    return asked


@pytest.fixture(scope="module")
def by_http(project, scans, tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/adpet@challenger"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    )
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    asked = Asked({}, {})
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, log)
        for name, path in scans.items():
            asked.probability[name] = posted(f"http://127.0.0.1:{port}/invocations", path)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=20)
    return asked


def wait_for(address, server, log):
    for _ in range(1200):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(log.read_text())


def posted(address, path):
    body = json.dumps({"inputs": base64.b64encode(path.read_bytes()).decode()}).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)["predictions"][0]["probability_of_ad"]
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        return REFUSED


@pytest.fixture(scope="module")
def folder(project, node, tmp_path_factory):
    """The page with the project's model."""
    dist = tmp_path_factory.mktemp("four") / "dist"
    subprocess.run([node, WEB / "build.mjs", "--project", project, "--out", dist], check=True)
    return dist


@pytest.fixture(scope="module")
def by_browser(folder, scans, launch_chromium):
    command = [sys.executable, "-u", "scripts/demo.py", "--page", str(folder), "--port", "0"]
    server = subprocess.Popen(command, cwd=WEB.parent, stdout=subprocess.PIPE, text=True)
    browser = launch_chromium(*NO_WEBGL)
    asked = Asked({}, {})
    try:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0])
        page.wait_for_selector("body[data-ready]")
        for name, path in scans.items():
            page.set_input_files("#file", path)
            page.wait_for_selector(FINISHED)
            if page.get_attribute("body", "data-state") == REFUSED:
                asked.probability[name] = REFUSED
                continue
            shown = "getComputedStyle(document.querySelector('.scale')).getPropertyValue('--p')"
            asked.probability[name] = float(page.evaluate(shown))
            with page.expect_download() as download:
                page.click("#save-cam")
            download.value.save_as(folder.parent / "map.nii")
            asked.maps[name] = np.array(nib.load(folder.parent / "map.nii").dataobj)
    finally:
        browser.close()
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()
    return asked


def test_one_model_says_the_same_four_ways(by_keras, by_onnx, by_http, by_browser, capsys):
    lines = [f"{'scan':<22}{'Keras':>10}{'ONNX':>10}{'HTTP':>10}{'browser':>10}{'map, r':>10}"]
    for name, due in by_keras.probability.items():
        ways = [one.probability[name] for one in (by_keras, by_onnx, by_http, by_browser)]
        alike = None
        if due != REFUSED:
            alike = np.corrcoef(by_onnx.maps[name].ravel(), by_browser.maps[name].ravel())[0, 1]
        shown = [way if way == REFUSED else f"{way:.6f}" for way in ways]
        lines.append(
            f"{name:<22}{''.join(f'{one:>10}' for one in shown)}{'' if alike is None else f'{alike:10.6f}'}"
        )
        if due == REFUSED:
            assert ways == [REFUSED] * 4, name
            continue
        assert by_onnx.probability[name] == pytest.approx(due, abs=SAME), name
        assert by_http.probability[name] == pytest.approx(due, abs=SAME), name
        assert by_browser.probability[name] == pytest.approx(due, abs=NEARLY), name
        assert alike >= ALIKE, name
        np.testing.assert_allclose(
            by_onnx.maps[name], by_keras.maps[name], atol=SAME * max(1, np.abs(by_keras.maps[name]).max())
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    answered = [value for value in by_keras.probability.values() if value != REFUSED]
    assert len(answered) >= 6
    # Scans that are all given the same would be no test.
    assert np.ptp(answered) > 10 * SAME
