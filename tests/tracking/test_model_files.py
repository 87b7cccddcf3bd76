"""No pickle is written, read or served: a file that could run code when it is opened."""

import ast
import base64
import io
import os
import pickle
import pickletools
import py_compile
import subprocess
import sys
import zipfile
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.tracking import model_files
from adpet.tracking.checked_loading import files_digest
from adpet.tracking.model_files import read_model
from adpet.tracking.models import ready_models
from adpet.tracking.registry import register_version, registered_files, version_of
from adpet.tracking.served import log_served

# What writes or reads pickles, or code by another name.
FORBIDDEN = {
    *("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib.load", "joblib.dump", "torch.load"),
    *("pd.read_pickle", "keras.config.enable_unsafe_deserialization", "yaml.unsafe_load"),
    *("allow_pickle=True", "safe_mode=False"),
}
# What writes the members of an archive wherever their names lead.
UNPACKING = {"tarfile", "unpack_archive", "extract", "extractall"}


def pickled(content: bytes, place: str) -> list[str]:
    """Say where there is a pickle in a file: as the whole of it, within an archive, or an array of objects."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [
                found for name in archive.namelist() for found in pickled(archive.read(name), f"{place}: {name}")
            ]  # fmt: skip
    if content.startswith(b"\x93NUMPY"):
        return [place] if b"'descr': '|O'" in content[:200] else []
    try:
        length = sum(1 for _ in pickletools.genops(content))
    except Exception:  # noqa: BLE001 - what pickletools raises on other files is anything at all
        return []
    return [place] if length > 2 else []


def pickles_below(folder: Path) -> list[str]:
    found = [name for path in sorted(folder.rglob("*")) if path.is_file()
             for name in pickled(path.read_bytes(), path.name)]  # fmt: skip
    return found + [path.name for path in folder.rglob("*") if "pickle" in path.name or path.suffix == ".pkl"]


class TestTheSearchItself:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_it_finds_a_pickle_of_every_protocol(self, protocol):
        assert pickled(pickle.dumps({"weights": [1.0]}, protocol), "x") == ["x"]

    def test_it_finds_one_in_an_archive_and_in_an_array(self):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("within", pickle.dumps(print))
        assert pickled(content.getvalue(), "x") == ["x: within"]
        content = io.BytesIO()
        np.save(content, np.array([{}], dtype=object), allow_pickle=True)
        assert pickled(content.getvalue(), "x") == ["x"]

    def test_it_lets_other_files_be(self):
        content = io.BytesIO()
        np.savez(content, a=np.arange(3))
        assert [pickled(one, "x") for one in (b"", b"{}", b"flavors:\n", content.getvalue())] == [[]] * 4


def registered(log, export):
    """Register a run's exported model, as the stage does."""
    run_id = log()
    return register_version(run_id=run_id, model_id=log_served(run_id, export))


def test_what_is_logged_and_registered_holds_no_pickle(log, project, small_export):
    registered(log, small_export)
    names = {path.name for path in project.rglob("*") if path.is_file()}
    assert {"model.keras", "MLmodel", "network.onnx"} <= names
    assert pickles_below(project) == []


def test_loading_and_serving_open_no_pickle(log, project, small_export, small_scans):
    """Python announces every object that a pickle asks for; nobody may ask."""
    registered(log, small_export)
    script = (
        "import base64, sys; from pathlib import Path\n"
        "import keras, mlflow.pyfunc, numpy, pickle\n"
        "from adpet.tracking.registry import load_model\n"
        "from adpet.tracking.store import connect\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, what: seen.append(what) if event == 'pickle.find_class' else None)\n"
        "pickle.loads(pickle.dumps(print)); assert seen, 'the control'\n"
        "seen.clear()\n"
        "connect(Path(sys.argv[1]))\n"
        "slices = numpy.zeros((1, 8, 8, 1), dtype=numpy.uint8)\n"
        "ours, _ = load_model('models:/adpet/1')\n"
        "ours.predict(slices, verbose=0)\n"
        "served = mlflow.pyfunc.load_model('models:/adpet/1')\n"
        "(one,) = served.predict([base64.b64encode(Path(sys.argv[2]).read_bytes()).decode()])\n"
        "assert 0 < one['probability_of_ad'] < 1\n"
        "print(seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(project), str(small_scans[0])],
        env={**os.environ, "PYTHONPATH": str(Path(model_files.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["[]"]), done.stderr


def test_no_module_reads_pickles_or_lets_others_do_so_or_unpacks_archives(project_root):
    wrong = []
    for path in sorted((project_root / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
            elif isinstance(node, ast.Attribute):
                names = {ast.unparse(node), node.attr}
            elif isinstance(node, ast.keyword):
                names = {ast.unparse(node)}
            wrong += [(path.name, name) for name in names & (FORBIDDEN | UNPACKING)]
    assert wrong == []


@pytest.mark.parametrize("name", ["model.keras", "network.onnx", "answer.py"])
def test_mlflow_itself_refuses_a_version_with_a_changed_file(log, project, small_export, small_scans, name):
    """Damage that MLflow alone would not notice, or say so in Keras' words."""
    number = registered(log, small_export)
    uri, model_id = f"models:/adpet/{number}", version_of(f"models:/adpet/{number}").model_id
    text = base64.b64encode(small_scans[0].read_bytes()).decode()
    answer = mlflow.pyfunc.load_model(uri).predict([text])
    (file,) = (path for path in project.rglob(name) if model_id in path.parts)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(MlflowException, match=r"models:/adpet/1: required its files as they were registered"):
        mlflow.pyfunc.load_model(uri)
    file.write_bytes(content)
    assert mlflow.pyfunc.load_model(uri).predict([text]) == answer


LOADING = (
    "import sys, mlflow.pyfunc\n"
    "from mlflow.exceptions import MlflowException\n"
    "try:\n    mlflow.pyfunc.load_model('models:/adpet/1')\n"
    "except MlflowException as error:\n    print(error)\n"
    "else:\n    print('loaded')\n"
    "print({name.partition('.')[0] for name in sys.modules if name.startswith('adpet')})\n"
)


def loaded_by_mlflow(project):
    """Say how a process of its own fares that loads version 1, and which of our packages it has imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-c", LOADING],
        cwd=project,
        env={**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


class TestCompiledModules:
    """Python runs what it finds compiled, and need not look whether it is of the module beside it."""

    @pytest.fixture
    def code(self, log, project, small_export):
        registered(log, small_export)
        (module,) = project.rglob("scan_model.py")
        return module.parents[2]

    def test_python_leaves_none_where_mlflow_loads_a_model_in_place(self, code, project):
        before = sorted(code.rglob("*"))
        for _ in range(2):
            assert loaded_by_mlflow(project)[0] == "loaded"
        assert sorted(code.rglob("*")) == before
        with registered_files(version_of("models:/adpet/1")) as files:
            assert (files / "MLmodel").is_file()

    def test_one_that_was_planted_is_refused_and_not_run(self, code, project, tmp_path):
        planted = tmp_path / "planted.py"
        planted.write_text("raise SystemExit('planted')")
        place = next(code.rglob("scan_model.py")).with_name("__pycache__")
        place.unlink(missing_ok=True)
        place.mkdir()
        py_compile.compile(
            str(planted),
            str(place / f"scan_model.{sys.implementation.cache_tag}.pyc"),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        said, imported = loaded_by_mlflow(project)
        assert "models:/adpet/1: required its files as they were registered" in said
        assert imported == "set()"
        with (
            pytest.raises(TrackingError, match="required its files as they were registered"),
            registered_files(version_of("models:/adpet/1")),
        ):
            pass

    def test_a_runs_own_network_is_kept_from_them_too(self, log, project):
        log()
        (module,) = project.rglob("checked_loading.py")
        assert module.with_name("__pycache__").is_file()


def test_a_runs_own_network_is_served_by_mlflow_as_it_is(log, project):
    """It is no version, and takes slices."""
    (trained,) = ready_models(log())
    slices = np.zeros((1, 8, 8, 1), dtype=np.uint8)
    assert mlflow.pyfunc.load_model(f"models:/{trained.model_id}").predict(slices).shape == (1, 1)


@pytest.mark.parametrize("place", ["../elsewhere", "{outside}"])
def test_a_model_that_names_a_file_out_of_its_folder_is_not_read(tmp_path, tiny_model, place):
    """As a registry could be told that somebody else filled; its digests are then right."""
    folder, outside = tmp_path / "model", tmp_path / "elsewhere"
    outside.mkdir()
    tiny_model.save(outside / "model.keras")
    folder.mkdir()
    flavor = f"flavors: {{keras: {{data: '{place.format(outside=outside)}'}}}}"
    (folder / "MLmodel").write_text(f"{flavor}\nmodel_uuid: a\nutc_time_created: '2026-01-01'\n")
    with pytest.raises(
        TrackingError, match=r"models:/x/1: required a Keras model; .*a path out of its folder"
    ):
        read_model(folder, uri="models:/x/1")


class TestDigest:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "model.keras").write_bytes(b"weights")
        (tmp_path / "MLmodel").write_bytes(b"flavors")
        return tmp_path

    def test_it_changes_with_a_content_a_name_and_a_further_file(self, folder):
        seen = {files_digest(folder)}
        (folder / "MLmodel").rename(folder / "MLmodel2")
        seen.add(files_digest(folder))
        (folder / "MLmodel2").write_bytes(b"flavours")
        seen.add(files_digest(folder))
        (folder / "data" / "empty").touch()
        seen.add(files_digest(folder))
        assert len(seen) == 4

    def test_it_does_not_change_with_what_mlflow_adds_to_a_copy(self, folder):
        before = files_digest(folder)
        (folder / "registered_model_meta").write_text("model_name: adpet\n")
        assert files_digest(folder) == before

    @pytest.mark.parametrize(
        "name", ["data/registered_model_meta", "__pycache__/a.pyc", "data/__pycache__/model.keras"]
    )
    def test_it_changes_with_a_file_of_any_other_place_or_name(self, folder, name):
        before = files_digest(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        assert files_digest(folder) != before

    def test_it_changes_with_a_link_to_a_folder(self, folder, tmp_path_factory):
        before = files_digest(folder)
        (folder / "data" / "linked").symlink_to(tmp_path_factory.mktemp("elsewhere"))
        assert files_digest(folder) != before


@pytest.mark.slow
def test_a_pipeline_that_has_run_left_no_pickle(finished):
    for place in ("results", "mlartifacts", "data/interim", "data/processed"):
        assert any((finished.root / place).rglob("*"))
        assert pickles_below(finished.root / place) == []
