"""Fixtures of all tests, and project folders in which the whole pipeline has run."""

import fcntl
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from names import plant_names
from servers import BROWSER_PATIENCE_MS
from small_export import write_exported
from workspace import PROJECT, REAL_MEAN_IMAGE, SIMULATE_STAGE, Workspace, begin_project, copy_of

from adpet.malloc import keep_freed_memory

# Two test processes share two cores: a library that starts a thread a core would halve both.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keep_freed_memory()

# The time of an example depends on what else the machine does.
settings.register_profile("adpet", deadline=None)
settings.load_profile("adpet")


# Fixtures that take the longest to make, and that the test processes share.
FINISHED = {"finished", "run_by_dvc"}

MakePredictions = Callable[..., pd.DataFrame]


def predictions_table(
    *,
    subjects: int = 36,
    slices: int = 16,
    seed: int = 0,
    separation: float = 2.0,
    within: float = 0.5,
    prefix: str = "sub-",
    visits: int = 1,
) -> pd.DataFrame:
    """Every second subject has AD; `separation` is in standard deviations of the subjects' logits."""
    rng = np.random.default_rng(seed)
    has_ad = np.arange(subjects) % 2 == 1
    logit = rng.normal(size=subjects) + separation * (has_ad - 0.5)
    logits = logit[:, None, None] + within * rng.normal(size=(subjects, visits, slices))
    keys = [
        (f"{prefix}{subject:04d}", f"{visit + 1}", index)
        for subject in range(subjects)
        for visit in range(visits)
        for index in range(slices)
    ]
    table = pd.DataFrame(keys, columns=["subject", "session", "index"])
    table.insert(0, "scan", table["subject"] + "_ses-" + table["session"])
    table["diagnosis"] = np.where(np.repeat(has_ad, visits * slices), "AD", "CN")
    table["part"] = "test"
    table["probability"] = 1 / (1 + np.exp(-logits.ravel()))
    return table


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the file that makes `finished` first and its other users last, so that no test process waits for it.

    Of these, files that start DVC most come first, so that none of them is left to one process in the end.
    """
    users = {item.path for item in items if FINISHED & set(getattr(item, "fixturenames", ()))}
    with_dvc = Counter(item.path for item in items if item.get_closest_marker("dvc"))

    def place(item: pytest.Item) -> tuple[int, int]:
        if item.path.name == "test_pipeline.py":
            return 0, 0
        return (2, -with_dvc[item.path]) if item.path in users else (1, 0)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def same_path(monkeypatch) -> None:
    """Restore `sys.path`: MLflow puts a loaded model's own code first there, for all tests and processes after."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session")
def make_predictions() -> MakePredictions:
    return predictions_table


@pytest.fixture(scope="session")
def project_root() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def real_mean_image() -> Path:
    """The mean of 100 real FDG-PET scans, which is not part of the project."""
    if not REAL_MEAN_IMAGE.exists():
        pytest.skip("the real FDG-PET mean image is not at ../shared/real/TEMPLATE_FDGPET_100.nii")
    return REAL_MEAN_IMAGE


@pytest.fixture(scope="session")
def small_export(tmp_path_factory) -> Path:
    """An exported model of the training `a1`."""
    return write_exported(tmp_path_factory.mktemp("small") / "export")


@pytest.fixture(scope="session")
def export_by_scanner(small_export, tmp_path_factory) -> Path:
    """The same model, of scans that were smoothed to 12 mm by their scanner's resolution."""
    folder = shutil.copytree(small_export, tmp_path_factory.mktemp("by-scanner") / "export")
    document = json.loads((folder / "model.json").read_text())
    document["standard"] |= {"target_fwhm_mm": 12.0, "native_fwhm_mm": {"ECAT HRRT": 4.0, "Discovery": 11.0}}
    (folder / "model.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="session")
def small_scans(tmp_path_factory) -> list[Path]:
    """Three scans in MNI space, dimmer and dimmer in front, for `small_export`; the last is not packed."""
    import numpy as np

    from adpet.imaging.nifti import Volume, write_volume
    from adpet.imaging.template import fdg_template

    template, folder = fdg_template(6.0), tmp_path_factory.mktemp("scans")
    paths = [folder / "one.nii.gz", folder / "two.nii.gz", folder / "three.nii"]
    for number, path in enumerate(paths):
        dimmed = template.data.copy()
        dimmed[:, 15:] *= np.float32(1 - 0.15 * number)
        write_volume(path, Volume(dimmed, template.affine))
    return paths


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def not_installed():
    """Skip a test whose tool is not there; with CI set, fail it."""

    def not_installed(what: str) -> None:
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)

    return not_installed


@pytest.fixture(scope="session")
def launch_chromium(not_installed):
    """Start a Chromium that reaches this machine alone."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        not_installed("no Chromium is installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:

        def launch(*arguments: str):
            return playwright.chromium.launch(
                executable_path=CHROMIUM,
                chromium_sandbox=os.geteuid() != 0,  # refused to root
                args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", *arguments],
                timeout=BROWSER_PATIENCE_MS,
            )

        yield launch


# Project folders in which the pipeline has run. They are made once, and shared by the test processes: a test that
# changes one takes a copy.


def shared(tmp_path_factory, name: str, make: Callable[[Path], Workspace]) -> Workspace:
    """Return a workspace that the first of all test processes makes, and the others wait for."""
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.with_suffix(".made").exists():
            shutil.rmtree(root, ignore_errors=True)
            make(root).save(root.with_suffix(".made"))
    return Workspace.restore(root, root.with_suffix(".made"))


@pytest.fixture(scope="session")
def begin():
    """Make a folder a project of its own, in which no stage has run yet."""
    return lambda root: begin_project(root, {})


@pytest.fixture(scope="session")
def finished(request, tmp_path_factory) -> Workspace:
    """A project in which every stage has run, on a simulated cohort with names in it.

    Without DVC, unless other tests need the run by DVC anyway.
    """
    by_dvc = any("run_by_dvc" in getattr(item, "fixturenames", ()) for item in request.session.items)

    def make(root: Path) -> Workspace:
        if by_dvc:
            return copy_of(request.getfixturevalue("run_by_dvc"), root)
        workspace = begin_project(root, {"compute.workers": 1}, dvc=False)
        workspace.adpet("simulate")
        workspace.names = plant_names(workspace.root / "data/simulated/raw")
        workspace.run_pipeline()
        return workspace

    return shared(tmp_path_factory, "finished", make)


@pytest.fixture
def copied(finished, tmp_path) -> Workspace:
    """A copy of the finished project, to be changed."""
    return copy_of(finished, tmp_path / "copy")


@pytest.fixture(scope="session")
def run_by_dvc(tmp_path_factory) -> Workspace:
    """A project in which ``dvc repro`` has run, with names in the simulated cohort; every test takes a copy."""

    def make(root: Path) -> Workspace:
        workspace = begin_project(root, {"compute.workers": 1})
        workspace.run("dvc", "repro", SIMULATE_STAGE)
        workspace.names = plant_names(workspace.root / "data/simulated/raw")
        workspace.run("dvc", "commit", "--force", SIMULATE_STAGE)
        workspace.run("dvc", "repro")
        return workspace

    return shared(tmp_path_factory, "run-by-dvc", make)


@pytest.fixture(scope="module")
def finished_by_dvc(run_by_dvc, tmp_path_factory) -> Workspace:
    """The project that DVC has finished, for one file of tests, which leave its results as they are."""
    return copy_of(run_by_dvc, tmp_path_factory.mktemp("by-dvc") / "project")


@pytest.fixture
def copied_from_dvc(run_by_dvc, tmp_path) -> Workspace:
    """A copy of the project that DVC has finished, to be changed."""
    return copy_of(run_by_dvc, tmp_path / "copy")


@pytest.fixture(scope="session")
def messy(tmp_path_factory) -> Workspace:
    """A project in which ``dvc repro`` has run on a messy ADNI download, in a folder of one's own."""
    values = {
        "simulation.layout": "adni",
        "simulation.messy": True,
        # One of HRRT's sites delivers six frames a scan, which are six files here.
        "simulation.scanners": {"HRRT": 0.4, "D690": 0.2, "TruePoint": 0.2, "HRplus": 0.2},
    }

    def make(root: Path) -> Workspace:
        workspace = begin_project(root, values)
        workspace.run("dvc", "repro", SIMULATE_STAGE)
        shutil.move(root / "data/simulated/truth", root.with_name("messy-truth"))
        shutil.move(root / "data/simulated/raw", root / "data/raw")
        workspace.names = plant_names(root / "data/raw")
        workspace.run("dvc", "add", "data/raw")
        with (root / "data/raw.dvc").open("a") as file:
            file.write("  remote: lab\n")
        workspace.set_params({"cohort.raw": "data/raw", "cohort.diagnosis_table": "DXSUM.csv"})
        workspace.run("dvc", "repro")
        return workspace

    return shared(tmp_path_factory, "messy", make)
