"""A registered version answers for scans over HTTP, by MLflow alone, as `adpet predict` does."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grimp
import pytest
from mlflow.entities import LoggedModelStatus

from adpet.errors import InputError, TrackingError
from adpet.imaging.nifti import read_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer
from adpet.tracking import exported
from adpet.tracking.exported import exported_model
from adpet.tracking.models import DIGEST, SERVED, logged_models, ready_models
from adpet.tracking.registry import load_model, register_version, version_of
from adpet.tracking.served import PARTS, log_served
from adpet.tracking.store import current


@pytest.fixture
def register(log):
    """Register a run's exported model, and return the number of its version."""

    def register(export, lineage="a1", **tags):
        run_id = log(lineage)
        return register_version(run_id=run_id, model_id=log_served(run_id, export), tags=tags)

    return register


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestLogging:
    def test_it_is_a_further_model_of_the_run_logged_once(self, log, small_export):
        run_id = log()
        first = log_served(run_id, small_export)
        assert log_served(run_id, small_export) == first
        assert len(logged_models(run_id)) == 2
        (trained,) = ready_models(run_id)
        assert trained.model_id != first
        outputs = [one.model_id for one in current().client.get_run(run_id).outputs.model_outputs]
        assert sorted(outputs) == sorted([trained.model_id, first])

    def test_what_a_killed_process_left_is_completed(self, log, small_export):
        run_id = log()
        whole = current().client.get_logged_model(log_served(run_id, small_export))
        current().client.delete_logged_model(whole.model_id)
        half = current().client.create_logged_model(
            current().experiment_id, name="served", source_run_id=run_id, tags={SERVED: whole.tags[SERVED]}
        )
        assert half.status == LoggedModelStatus.PENDING
        assert log_served(run_id, small_export) == half.model_id
        assert len(logged_models(run_id)) == 2
        register_version(run_id=run_id, model_id=half.model_id)
        load_model("models:/adpet/1")

    def test_registering_it_again_finds_its_version_and_another_export_is_another_version(
        self, log, small_export, tmp_path
    ):
        run_id = log()

        def register(export):
            return register_version(run_id=run_id, model_id=log_served(run_id, export))

        assert register(small_export) == register(small_export) == 1
        changed = shutil.copytree(small_export, tmp_path / "changed")
        document = json.loads((changed / "model.json").read_text())
        (changed / "model.json").write_text(json.dumps(document | {"threshold": 0.6}))
        assert register(changed) == 2
        assert register(small_export) == 1
        assert version_of("models:/adpet@challenger").number == 1

    def test_one_of_another_training_is_refused_in_one_line(self, log, small_export):
        with pytest.raises(InputError, match="required the exported model of the training b2") as refused:
            log_served(log("b2"), small_export)
        assert "\n" not in str(refused.value)

    def test_a_run_that_is_not_there_is_refused_in_one_line(self, project, small_export):
        with pytest.raises(TrackingError, match="dvc repro --force train"):
            log_served(None, small_export)


class TestVersion:
    def test_it_brings_the_exported_model_for_predict(self, register, project, small_export):
        register(small_export, **{"adpet.leaky": "true"})
        folder, found = exported_model("models:/adpet@challenger", root=project, experiment="adpet")
        assert (found.uri, found.leaky) == ("models:/adpet/1", True)
        assert files(folder) == files(small_export)

    def test_a_copy_that_was_changed_is_fetched_anew_and_no_other(
        self, register, project, small_export, monkeypatch
    ):
        register(small_export)
        fetched = []
        fetch = exported.fetch
        monkeypatch.setattr(exported, "fetch", lambda *given: [fetched.append(given), fetch(*given)])

        def asked():
            folder, _ = exported_model("models:/adpet/1", root=project, experiment="adpet")
            assert files(folder) == files(small_export)
            return folder, len(fetched)

        folder, _ = asked()
        assert asked() == (folder, 1)
        document = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(document | {"threshold": 0.1}))
        assert asked() == (folder, 2)
        (folder / "network.onnx").unlink()
        assert asked() == (folder, 3)
        (folder.parent / f"{folder.name}.digest").unlink()
        assert asked() == (folder, 4)

    def test_it_brings_the_trained_network_with_its_metadata_and_digest(self, register, log, small_export):
        register(small_export)
        _, metadata = load_model("models:/adpet/1")
        assert metadata == {"slice": {"window": [0.0, 2.0]}}
        version = version_of("models:/adpet/1")
        assert version.tags[DIGEST] == ready_models(version.run_id)[0].tags[DIGEST]

    def test_a_changed_network_is_not_fetched(self, register, project, small_export):
        register(small_export)
        (network,) = (project / "mlartifacts").rglob("network.onnx")
        network.write_bytes(network.read_bytes() + b"\0")
        with pytest.raises(TrackingError, match="models:/adpet/1: required its files as they were"):
            exported_model("models:/adpet/1", root=project, experiment="adpet")


def test_the_copy_of_the_code_is_all_that_answering_imports():
    graph = grimp.build_graph("adpet", exclude_type_checking_imports=True)
    copied = {f"adpet.{part.removesuffix('.py').replace('/', '.')}" for part in PARTS}
    copied = {name.removesuffix(".__init__") for name in copied}
    for module in copied:
        assert graph.find_modules_directly_imported_by(module) <= copied | {"adpet"}, module


def test_mlflow_answers_without_this_package_and_leaves_it_to_be_imported(
    register, project, small_export, small_scans
):
    register(small_export, **{"adpet.leaky": "true"})
    script = (
        "import base64, sys, mlflow.pyfunc\n"
        "model = mlflow.pyfunc.load_model('models:/adpet/1')\n"
        "text = base64.b64encode(open(sys.argv[1], 'rb').read()).decode()\n"
        "(one,) = model.predict([text])\n"
        "print(one['model'], one['leaky'])\n"
        "print(sorted({'adpet', 'keras', 'tensorflow', 'cloudpickle'} & set(sys.modules)))\n"
        "import adpet.cohort\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(small_scans[0])],
        cwd=project,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named, imported = done.stdout.splitlines()
    assert named == "models:/adpet/1 True"
    assert not {"adpet", "keras", "tensorflow"} & set(json.loads(imported.replace("'", '"')))


class Service:
    """The champion, served on loopback, with its temporary files in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.temporary = root / "temporary"
        self.temporary.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        command = (
            *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/adpet@champion"),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
        )
        own = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
            "TMPDIR": str(self.temporary),
            "ADPET_SERVE_MAX_SCANS": "4",
        }
        self._log = root / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=root, env={**os.environ, **own}, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        for _ in range(1200):
            assert self._process.poll() is None, self.said()
            try:
                with urllib.request.urlopen(f"{self._address}/ping", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(self.said())

    def ask(self, body, content_type="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}/invocations", data=data, headers={"Content-Type": content_type}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def left(self):
        return sorted(str(path) for path in self.temporary.rglob("*") if "__pycache__" not in path.parts)

    def said(self):
        return self._log.read_text()

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=20)


@pytest.fixture(scope="module")
def service(tmp_path_factory, copy_store, tiny_model, small_export):
    import numpy as np

    from adpet.tracking.runs import delivered_run, open_run
    from adpet.tracking.store import connect

    root = tmp_path_factory.mktemp("service")
    copy_store(root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(root)
        with open_run(lineage="a1", kind="train", name="x") as run:
            example = np.zeros((1, 8, 8, 1), dtype=np.uint8)
            run.log_model(tiny_model, signature_example=example, metadata={})
        run_id = delivered_run("a1", "train")
        number = register_version(run_id=run_id, model_id=log_served(run_id, small_export))
        current().client.set_registered_model_alias("adpet", "champion", str(number))
        service = Service(root)
    try:
        service.wait()
        yield service
    finally:
        service.stop()


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.slow
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
            ("no base64 !", "scan 1: required a NIfTI file in base64"),
            ([base64.b64encode(b"hello" * 99).decode()], "scan 1: cannot be read as a NIfTI image"),
            (["a", "a", "a", "a", "a"], "required 4 scans at most; received 5"),
            ([], "received an empty list"),
            ([{"scan": "a"}], "required a NIfTI file in base64, or a list of them"),
        ],
    )
    def test_what_cannot_be_answered_is_a_400_with_one_line(self, service, inputs, reason):
        before = service.left()
        status, text = service.ask({"inputs": inputs})
        document = json.loads(text)
        assert (status, document["error_code"]) == (400, "BAD_REQUEST")
        assert document["message"].startswith(reason) or reason in document["message"]
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
