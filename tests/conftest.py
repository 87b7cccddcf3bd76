"""Fixtures that every folder of tests may use, and the workspaces in which the whole pipeline has run."""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
from hypothesis import settings
from ruamel.yaml import YAML

from adpet.memory import keep_freed_memory
from adpet.params import set_by_key

# Two test processes share two cores: a library that starts a thread a core would halve both.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keep_freed_memory()

# How long an example takes says how busy the machine is.
settings.register_profile("adpet", deadline=None)
settings.load_profile("adpet")

ROOT = Path(__file__).parents[1]
REAL_MEAN_IMAGE = ROOT.parent / "shared" / "real" / "TEMPLATE_FDGPET_100.nii"


# They share the workspaces in which whole pipelines have run, `finished` and `messy`.
PIPELINE_FILES = (
    "tests/test_pipeline.py",
    "tests/test_browser.py",
    "tests/test_privacy.py",
    "tests/answering/test_odd_scans.py",
    "tests/commands/test_predict.py",
    "tests/web/test_build.py",
    "tests/web/test_page.py",
    "tests/web/test_four_ways.py",
    "tests/commands/test_reproduce.py",
    "tests/stages/test_evaluate.py",
    "tests/stages/test_export.py",
    "tests/stages/test_fold.py",
    "tests/stages/test_report.py",
)


def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of one workspace in one process, and hand the others out file by file.

    Marks of xdist's groups do not reach its scheduler from pytest 9 on.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByWorkspace(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            if file not in PIPELINE_FILES:
                return file
            return "messy" if "messy" in nodeid else "finished"

    return ByWorkspace(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(PIPELINE_FILES))


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real_mean_image() -> Path:
    """The mean of 100 real FDG-PET scans, which is not part of the project."""
    if not REAL_MEAN_IMAGE.exists():
        pytest.skip("the real FDG-PET mean image is not at ../shared/real/TEMPLATE_FDGPET_100.nii")
    return REAL_MEAN_IMAGE


def write_exported(folder: Path, *, lineage: str = "a1") -> Path:
    """Write an exported model that answers in a moment: the brighter the slices, the more likely AD."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from adpet.answering import model
    from adpet.imaging.template import brain_mask, fdg_template, reference_mask, tissue_labels
    from adpet.imaging.volume import Volume, write_volume

    grid_mm, size = 6.0, 32
    template = fdg_template(grid_mm)
    tissue = tissue_labels(grid_mm)
    folder.mkdir(parents=True)
    for name, data, dtype in (
        (model.TEMPLATE, template.data, np.float32),
        (model.BRAIN, brain_mask(grid_mm), np.uint8),
        (model.REFERENCE, reference_mask("cerebellum", grid_mm), np.uint8),
        (model.REGIONS, tissue, np.int16),
        (model.TISSUE, tissue, np.uint8),
    ):
        volume = Volume(np.asarray(data, dtype=np.float32), template.affine)
        write_volume(folder / name, volume, dtype=dtype, space="mni")
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["slices"], ["real"], to=TensorProto.FLOAT),
            node("Transpose", ["real"], ["turned"], perm=[0, 3, 1, 2]),
            node("AveragePool", ["turned"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            node("Squeeze", ["pooled", "one"], ["cam"]),
            node("ReduceMean", ["cam", "both"], ["mean"], keepdims=0),
            node("Sub", ["mean", "middle"], ["moved"]),
            node("Mul", ["moved", "slope"], ["logit"]),
            node("Sigmoid", ["logit"], ["probability"]),
        ],
        "bright",
        [helper.make_tensor_value_info("slices", TensorProto.UINT8, ["n", size, size, 1])],
        [
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["n", size // 8, size // 8]),
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n"]),
        ],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("both", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("middle", TensorProto.FLOAT, [], [40.0]),
            helper.make_tensor("slope", TensorProto.FLOAT, [], [0.05]),
        ],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(network, folder / model.NETWORK)
    y_mm = [-60.0, -40.0, -20.0, 0.0]
    document = {
        "format": model.FORMAT,
        "name": "adpet",
        "lineage": {"id": lineage},
        "adpet_version": "0.1.0",
        "intended_use": "tests",
        "labels": ["CN", "AD"],
        "network": {"file": model.NETWORK, "input_size": size, "map_size": [size // 8, size // 8]},
        "files": {name: model.sha256(folder / name) for name in model.FILES},
        "standard": {"align": "none", "smoothing_mm": 8.0},
        "registration": model.registration_constants(),
        "slices": {"y_mm": y_mm, "size": size, "field_mm": 192.0, "centre_z_mm": 5.0, "window": [0.0, 2.0]},
        "aggregation": {"method": "mean_logit", "weights": None},
        "threshold": 0.5,
        "calibration": {
            "bins": [{"low": 0.0, "high": 1.0, "subjects": 10, "ad_share": 0.5, "ad_share_low": 0.2, "ad_share_high": 0.8}],
            "prevalence": 0.5,
        },
        "performance": {"auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "test_subjects": 10},
        "leaky": False,
        "regions": [
            {"label": 1, "name": "grey", "ad_pattern": True, "cn_mean": 1.0, "cn_sd": 0.1},
            {"label": 2, "name": "white", "ad_pattern": False, "cn_mean": 0.5, "cn_sd": 0.1},
        ],
        "profile": {"mean": [1.0, 0.5], "precision": [[1.0, 0.0], [0.0, 1.0]]},
        "quality": [
            {
                "name": "similarity", "text": "correlation with the template", "low_means": "not FDG-PET",
                "high_means": "", "flag_below": 0.6, "flag_above": None, "refuse_below": 0.5,
                "refuse_above": None, "median": 0.9, "low": 0.8, "high": 1.0,
            }
        ],
    }  # fmt: skip
    (folder / model.DOCUMENT).write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="session")
def small_export(tmp_path_factory) -> Path:
    """An exported model of the training `a1`."""
    return write_exported(tmp_path_factory.mktemp("small") / "export")


@pytest.fixture(scope="session")
def small_scans(tmp_path_factory) -> list[Path]:
    """Three scans in MNI space, dimmer and dimmer in front, for `small_export`; the last is not packed."""
    import numpy as np

    from adpet.imaging.template import fdg_template
    from adpet.imaging.volume import Volume, write_volume

    template, folder = fdg_template(6.0), tmp_path_factory.mktemp("scans")
    paths = [folder / "one.nii.gz", folder / "two.nii.gz", folder / "three.nii"]
    for number, path in enumerate(paths):
        dimmed = template.data.copy()
        dimmed[:, 15:] *= np.float32(1 - 0.15 * number)
        write_volume(path, Volume(dimmed, template.affine))
    return paths


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A page asks a busy machine for some patience.
BROWSER_PATIENCE_MS = 180_000


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
    """Start a Chromium that reaches nobody but this machine, with further arguments."""
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


PHANTOM_STAGE = "data/phantom/dvc.yaml:phantom"

SMALL = {
    "phantom.ad_subjects": 8,
    "phantom.cn_subjects": 8,
    "compute.workers": 2,
    "compute.threads": 1,
    "split.folds": 3,
    "model.input_size": 32,
    "model.alpha": 0.35,
    "slice.step_mm": 24.0,
    "train.epochs": 3,
    "tune.trials": 2,
    "tune.startup_trials": 1,
    "tune.epochs": 2,
    "evaluate.resamples": 200,
    "explain.montages": 2,
    "audit.subjects": 8,
    "audit.step_mm": 15.0,
    "audit.alpha": 0.35,
    "audit.feature_layer": "block_4_expand_relu",  # a third of the time until it is compiled
    "audit.epochs": 3,
    "audit.batch_size": 8,
}


# As people have them in the environment; whoever looks for names finds these too.
SECRETS = {
    name: f"ROE-{name}"
    for name in (
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "PGPASSWORD",
        "GITHUB_TOKEN",
    )
}


class Workspace:
    """A project folder with a copy of this checkout's code and parameters of its own."""

    small = SMALL
    secrets = SECRETS

    def __init__(self, root: Path, names: dict[str, str] | None = None) -> None:
        self.root = root
        # What its commands have printed, and the names that stand in its scans and tables, by place.
        self.said: list[str] = []
        self.names = names or {}
        # What its user has set in the shell.
        self.variables: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
        binaries = str(Path(sys.executable).parent)
        paths = {"PATH": f"{binaries}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(self.root / "src")}
        return kept | SECRETS | paths | self.variables

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), text=True, capture_output=True, check=False
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def adpet(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "adpet", *arguments, status=status)

    def set_params(self, values: dict) -> None:
        yaml = YAML()
        path = self.root / "params.yaml"
        document = yaml.load(path)
        for key, value in values.items():
            set_by_key(document, key, value)
        yaml.dump(document, path)

    def read_json(self, path: str):
        return json.loads((self.root / path).read_text())

    def content(self, paths: list[str]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for path in paths:
            full = self.root / path
            for file in sorted(full.rglob("*")) if full.is_dir() else [full]:
                files[str(file.relative_to(self.root))] = file.read_bytes()
        return files


class Names:
    """Writes names where real collections have them: in the text of headers, sidecars, tables and XML.

    Each place has a name of its own in `places`, so that whoever finds one knows where it came from.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def at(self, place: str) -> str:
        return self.places.setdefault(place, f"ROE{len(self.places):03d}JANE")

    def in_header(self, path: Path) -> None:
        """Fill the text fields and add extensions; a file whose header cannot be read stays as it is."""
        packed = path.name.endswith(".gz")
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        kind = {348: nib.Nifti1Header, 540: nib.Nifti2Header}.get(
            min(int.from_bytes(content[:4], order) for order in ("little", "big"))
        )
        if kind is None:
            return
        header = kind.from_fileobj(io.BytesIO(content), check=False)
        voxels = content[int(header["vox_offset"]) :]
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            if field in header.keys():  # noqa: SIM118 - a header is not iterable
                header[field] = self.at(f"header: {field}").encode()
        for code in (2, 4, 6, 32):
            name = self.at(f"header: extension {code}").encode()
            header.extensions.append(nib.nifti1.Nifti1Extension(code, b"PatientName " + name))
        header["vox_offset"] = header.sizeof_hdr + 4 + header.extensions.get_sizeondisk()
        with io.BytesIO() as stream:
            header.write_to(stream)
            content = stream.getvalue() + voxels
        path.write_bytes(gzip.compress(content, 1, mtime=0) if packed else content)

    def in_sidecar(self, path: Path) -> None:
        fields = (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "ImageComments",
            "StudyDescription",
            "SeriesDescription",
        )
        document = json.loads(path.read_text(encoding="utf-8"))
        document |= {name: self.at(f"sidecar: {name}") for name in fields}
        path.write_text(json.dumps(document), encoding="utf-8")

    def in_table(self, path: Path) -> None:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter=delimiter)
        columns = ("name", "birth_date", "comments")
        added = [self.at(f"{path.name.rpartition('_')[2]}: {name}") for name in columns]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(
                [[*header, *columns], *([*row, *added] for row in rows)]
            )

    def in_xml(self, image: Path, subject: str) -> None:
        """Write the archive's XML beside an image, with more in it than is asked for."""
        name = (
            self.at("XML: patientName"),
            self.at("XML: comment"),
            self.at("XML: attribute"),
            self.at("XML: text"),
        )
        image.with_suffix(".xml").write_text(
            f"""<?xml version="1.0" encoding="UTF-8"?>
<idaxs xmlns="http://ida.loni.usc.edu"><project xmlns="" operator="{name[2]}"><!-- {name[1]} -->
<subject><subjectIdentifier>{subject}</subjectIdentifier><patientName>{name[0]}</patientName>
<visit><note>{name[3]}</note></visit></subject></project></idaxs>
""",
            encoding="utf-8",
        )


def planted_with_names(raw: Path) -> dict[str, str]:
    """Write names all over a collection, and return them by place."""
    names = Names()
    for path in sorted(raw.rglob("*")):
        if path.name.startswith("._") or path.is_dir():
            continue
        if path.suffix in (".nii", ".gz"):
            names.in_header(path)
            if "ADNI" in path.parts:
                names.in_xml(path, path.relative_to(raw).parts[1])
        elif path.suffix in (".tsv", ".csv"):
            names.in_table(path)
        elif path.name.endswith("_pet.json"):
            names.in_sidecar(path)
    return names.places


def begun(root: Path, project: Path, values: dict, *, phantom: bool = True) -> Workspace:
    """Return a project with a phantom, before any other stage has run; or without one."""
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "data/phantom/dvc.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, root / name)
    # The stages name the modules they depend on.
    shutil.copytree(project / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    workspace = Workspace(root)
    workspace.set_params(SMALL | values)
    person = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (
        ("git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("dvc", "config", "core.analytics", "false"),
        ("git", "add", "--all"),
        ("git", *person, "commit", "--quiet", "-m", "begin"),
    ):
        workspace.run(*command)
    if phantom:
        workspace.run("dvc", "repro", PHANTOM_STAGE)
    return workspace


@pytest.fixture(scope="session")
def begin(project_root):
    """Make a folder a workspace of its own, in which no stage has run yet."""
    return lambda root: begun(root, project_root, {}, phantom=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, project_root) -> Workspace:
    """A workspace in which ``dvc repro`` has run, on a phantom with names in it."""
    workspace = begun(tmp_path_factory.mktemp("project"), project_root, {})
    workspace.names = planted_with_names(workspace.root / "data/phantom/raw")
    workspace.run("dvc", "commit", "--force", PHANTOM_STAGE)
    workspace.run("dvc", "repro")
    return workspace


@pytest.fixture
def copied(finished, tmp_path) -> Workspace:
    """The finished workspace once more, to be disturbed."""
    shutil.copytree(finished.root, tmp_path / "copy", symlinks=True)
    return Workspace(tmp_path / "copy", finished.names)


@pytest.fixture(scope="session")
def asked_for(finished, tmp_path_factory) -> Workspace:
    """The finished workspace, whose network is trained anew since a cross-validation was asked for."""
    root = tmp_path_factory.mktemp("folds") / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    workspace = Workspace(root, finished.names)
    workspace.set_params({"evaluate.cross_validation": 3})
    workspace.run("dvc", "repro", "train")
    return workspace


@pytest.fixture(scope="session")
def messy(tmp_path_factory, project_root) -> Workspace:
    """A workspace in which ``dvc repro`` has run on a folder of one's own: a messy download of ADNI."""
    mess = {
        "phantom.layout": "adni",
        "phantom.messy": True,
        # One of HRRT's sites delivers six frames a scan, which are six files here.
        "phantom.scanners": {"HRRT": 0.4, "D690": 0.2, "TruePoint": 0.2, "HRplus": 0.2},
    }
    workspace = begun(tmp_path_factory.mktemp("messy"), project_root, mess)
    workspace.phantom = tmp_path_factory.mktemp("messy-phantom")
    shutil.move(workspace.root / "data/phantom/truth", workspace.phantom / "truth")
    shutil.move(workspace.root / "data/phantom/raw", workspace.root / "data/raw")
    workspace.names = planted_with_names(workspace.root / "data/raw")
    workspace.run("dvc", "add", "data/raw")
    with (workspace.root / "data/raw.dvc").open("a") as file:
        file.write("  push: false\n")
    workspace.set_params({"cohort.raw": "data/raw", "cohort.diagnosis_table": "DXSUM.csv"})
    workspace.run("dvc", "repro")
    return workspace
