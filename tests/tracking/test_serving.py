"""A registered version answers for scans over HTTP, by MLflow alone, as `adpet predict` does."""

import base64
import io
import json
import os
import pickletools
import shutil
import zipfile
from pathlib import Path

import mlflow.pyfunc
import pytest
import requests
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from programs import run_code
from servers import serving

from adpet.errors import InputError, TrackingError
from adpet.imaging.nifti import read_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer
from adpet.storage import files_digest
from adpet.tracking.models import SERVED, log_served, logged_models, read_model, ready_models
from adpet.tracking.registry import load_model, register_version, registered_files, version_of
from adpet.tracking.store import current


@pytest.fixture
def register(log):
    """Register a run's exported model, as the stage does, and return the number of its version."""

    def register(export, **tags):
        run_id = log()
        return register_version(run_id=run_id, model_id=log_served(run_id, export), tags=tags)

    return register


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


class TestLogging:
    def test_it_is_a_further_model_of_the_run_logged_once_and_completed_after_a_kill(self, log, small_export):
        run_id = log()
        first = log_served(run_id, small_export)
        assert log_served(run_id, small_export) == first
        (trained,) = ready_models(run_id)
        outputs = {each.model_id for each in current().client.get_run(run_id).outputs.model_outputs}
        assert outputs == {trained.model_id, first}
        whole = current().client.get_logged_model(first)
        current().client.delete_logged_model(whole.model_id)
        half = current().client.create_logged_model(
            current().experiment_id, name="served", source_run_id=run_id, tags={SERVED: whole.tags[SERVED]}
        )
        assert half.status == LoggedModelStatus.PENDING
        assert log_served(run_id, small_export) == half.model_id
        assert len(logged_models(run_id)) == 2

    def test_another_export_is_another_version_and_the_same_is_found_again(self, log, small_export, tmp_path):
        run_id = log()
        changed = shutil.copytree(small_export, tmp_path / "changed")
        document = json.loads((changed / "model.json").read_text())
        (changed / "model.json").write_text(json.dumps(document | {"threshold": 0.6}))
        exports = (small_export, changed, small_export)
        numbers = [register_version(run_id=run_id, model_id=log_served(run_id, each)) for each in exports]
        assert numbers == [1, 2, 1]

    def test_one_of_another_training_or_of_none_is_refused_in_one_line(self, log, small_export):
        with pytest.raises(InputError, match="required the exported model of the training b2") as refused:
            log_served(log("b2"), small_export)
        assert "\n" not in str(refused.value)
        with pytest.raises(TrackingError, match="dvc repro --force train"):
            log_served(None, small_export)

    def test_the_version_brings_the_trained_network_and_nothing_is_pickled(
        self, register, project, small_export
    ):
        register(small_export)
        _, metadata = load_model("models:/adpet/1")
        assert metadata == {"slice": {"window": [0.0, 2.0]}}
        files = {path.name: path.read_bytes() for path in project.rglob("*") if path.is_file()}
        assert {"model.keras", "MLmodel", "network.onnx"} <= set(files)
        with zipfile.ZipFile(io.BytesIO(files.pop("model.keras"))) as archive:
            files |= {name: archive.read(name) for name in archive.namelist()}
        assert [name for name, content in files.items() if is_pickle(content)] == []


def is_pickle(content):
    try:
        return sum(1 for _ in pickletools.genops(content)) > 2
    except Exception:  # noqa: BLE001 - what pickletools raises on other files is anything at all
        return False


class TestChangedFiles:
    @pytest.mark.parametrize("name", ["model.keras", "network.onnx", "predictor.py"])
    def test_a_version_with_a_changed_file_is_refused_and_answers_once_it_is_back(
        self, register, project, small_export, small_scans, name
    ):
        register(small_export)
        text, model_id = encoded(small_scans[0]), version_of("models:/adpet/1").model_id
        before = mlflow.pyfunc.load_model("models:/adpet/1").predict([text])
        (file,) = (path for path in project.rglob(name) if model_id in path.parts)
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(MlflowException, match="models:/adpet/1: required its files as they were"):
            mlflow.pyfunc.load_model("models:/adpet/1")
        with (
            pytest.raises(TrackingError, match="models:/adpet/1: required its files as they were"),
            registered_files(version_of("models:/adpet/1")),
        ):
            pass
        file.write_bytes(content)
        assert mlflow.pyfunc.load_model("models:/adpet/1").predict([text]) == before

    @pytest.mark.parametrize("added", ["more", "__pycache__/a.pyc", "data/registered_model_meta"])
    def test_the_digest_changes_with_an_added_a_renamed_and_a_linked_file(self, tmp_path, added):
        (folder := tmp_path / "model" / "data").mkdir(parents=True)
        (folder / "model.keras").write_bytes(b"weights")
        root = folder.parent
        first = files_digest(root)
        (root / "registered_model_meta").write_text("model_name: adpet\n")  # MLflow's, in each copy
        assert files_digest(root) == first
        (root / added).parent.mkdir(exist_ok=True)
        (root / added).touch()
        second = files_digest(root)
        (folder / "model.keras").rename(folder / "model2.keras")
        third = files_digest(root)
        (folder / "linked").symlink_to(tmp_path)
        assert len({first, second, third, files_digest(root)}) == 4

    @pytest.mark.parametrize("place", ["../elsewhere", "{outside}"])
    def test_a_model_that_names_a_file_out_of_its_folder_is_not_read(self, tmp_path, tiny_model, place):
        folder, outside = tmp_path / "model", tmp_path / "elsewhere"
        outside.mkdir()
        tiny_model.save(outside / "model.keras")
        folder.mkdir()
        flavor = f"flavors: {{keras: {{data: '{place.format(outside=outside)}'}}}}"
        (folder / "MLmodel").write_text(f"{flavor}\nmodel_uuid: a\nutc_time_created: '2026-01-01'\n")
        with pytest.raises(TrackingError, match=r"required a Keras model; .*a path out of its folder"):
            read_model(folder, uri="models:/x/1")


def test_mlflow_answers_without_the_installed_package_and_compiles_nothing_in_place(
    register, project, small_export, small_scans
):
    register(small_export, **{"adpet.leaky": "true"})
    (code,) = {path.parent for path in project.rglob("code/adpet")}
    before = sorted(code.rglob("*"))
    script = (
        "import base64, sys, mlflow.pyfunc\n"
        "model = mlflow.pyfunc.load_model('models:/adpet/1')\n"
        "text = base64.b64encode(open(sys.argv[1], 'rb').read()).decode()\n"
        "(found,) = model.predict([text])\n"
        "import adpet\n"
        "loaded = {'keras', 'tensorflow', 'adpet.params', 'adpet.tracking.store'} & set(sys.modules)\n"
        "print(found['model'], found['leaky'], adpet.__file__, *loaded)\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    uri = f"sqlite:///{project}/mlflow.db"
    done = run_code(script, small_scans[0], cwd=project, env=kept, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"models:/adpet/1 True {code}/adpet/__init__.py"
    assert sorted(code.rglob("*")) == before


class Service:
    """The champion, served on loopback, with its temporary files in a folder of its own."""

    def __init__(self, root: Path, address: str) -> None:
        self.temporary, self.log, self._address = root / "temporary", root / "log", address

    def ask(self, body, content_type="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type}
        reply = requests.post(f"{self._address}/invocations", data=data, headers=headers, timeout=60)
        return reply.status_code, reply.text

    def left(self):
        return sorted(str(path) for path in self.temporary.rglob("*") if "__pycache__" not in path.parts)

    def said(self):
        return self.log.read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory, copy_store, tiny_model, small_export):
    import numpy as np

    from adpet.tracking.runs import find_run, open_run
    from adpet.tracking.store import connect

    root = tmp_path_factory.mktemp("service")
    copy_store(root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(root)
        with open_run(lineage="a1", kind="train", name="x") as run:
            example = np.zeros((1, 8, 8, 1), dtype=np.uint8)
            run.log_model(tiny_model, signature_example=example, metadata={})
        run_id = find_run("a1", "train")
        number = register_version(run_id=run_id, model_id=log_served(run_id, small_export))
        current().client.set_registered_model_alias("adpet", "champion", str(number))
    (root / "temporary").mkdir()
    own = {"TMPDIR": f"{root}/temporary", "ADPET_SERVE_MAX_SCANS": "4"}
    with serving("models:/adpet@champion", root / "mlflow.db", root, **own) as address:
        yield Service(root, address)


@pytest.mark.server
class TestOverHttp:
    def test_scans_are_answered_as_by_predict_alone_and_in_a_list(self, service, small_export, small_scans):
        model = open_model(small_export, name="models:/adpet/1")
        wanted = [
            answer(read_volume(path), model, name=f"scan {number}").document
            for number, path in enumerate(small_scans, 1)
        ]
        before = service.left()
        status, text = service.ask({"inputs": encoded(small_scans[0])})
        assert (status, json.loads(text)["predictions"]) == (200, wanted[:1])
        status, text = service.ask({"inputs": [encoded(path) for path in small_scans]})
        assert (status, json.loads(text)["predictions"]) == (200, wanted)
        assert service.left() == before

    @pytest.mark.parametrize(
        ("inputs", "reason"),
        [
            ("no base64 !", "scan 1: required a NIfTI file or a ZIP of DICOM in base64"),
            ([base64.b64encode(b"hello" * 99).decode()], "scan 1: cannot be read as a NIfTI image"),
            (["a", "a", "a", "a", "a"], "required 4 scans at most; received 5"),
            ([], "received an empty list"),
            ([{"scan": 1}], "required a NIfTI file or a ZIP of DICOM in base64, or a list of them"),
            ([{"scan": "a"}], "scan 1: required a NIfTI file or a ZIP of DICOM in base64"),
        ],
    )
    def test_what_cannot_be_answered_is_a_400_with_one_line(self, service, inputs, reason):
        before = service.left()
        status, text = service.ask({"inputs": inputs})
        document = json.loads(text)
        assert (status, document["error_code"]) == (400, "BAD_REQUEST")
        assert reason in document["message"]
        assert "\n" not in document["message"]
        assert "Traceback" not in text + service.said()
        assert service.left() == before

    def test_one_bad_scan_refuses_the_list_and_nothing_of_it_is_told_back(self, service, small_scans):
        good = encoded(small_scans[0])
        status, text = service.ask({"inputs": [good, good[: len(good) // 8 * 4]]})
        assert status == 400
        assert json.loads(text)["message"].startswith("scan 2: cannot be read as a NIfTI image")
        assert good[:40] not in text

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"{nope", "application/json", 400),
            ({"dataframe_split": {"columns": ["scan"], "data": [["a"]]}}, "application/json", 400),
            (b"scan\nabc\n", "text/csv", 400),
            (b"abc", "text/plain", 415),
        ],
    )
    def test_another_form_of_request_is_a_4xx_too(self, service, body, content_type, status):
        assert service.ask(body, content_type)[0] == status
