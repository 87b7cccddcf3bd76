"""What a name stands for is never answered from a stale note, and MLflow is asked only where it must be."""

import http.server
import json
import socket
import threading

import pytest

from adpet.errors import TrackingError
from adpet.tracking import exported
from adpet.tracking.exported import Registered, exported_model
from adpet.tracking.rest import asked_over_rest

DIGEST = "a" * 64
VERSION_1 = {"name": "adpet", "number": 1, "digest": DIGEST, "leaky": False}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A database that is left alone, and a count of how often MLflow is asked about it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"database")
    monkeypatch.setattr(exported, "_is_as_fetched", lambda _: True)
    asked = []

    def answer(uri, root, experiment):
        asked.append(uri)
        return Registered("adpet", len(asked), DIGEST, leaky=False)

    monkeypatch.setattr(exported, "_asked_of_mlflow", answer)
    monkeypatch.setattr(exported, "_SETTLED_S", -1.0)
    return tmp_path, asked


def numbered(root, uri="models:/adpet@champion"):
    return exported_model(uri, root=root, experiment="adpet")[1].number


def test_an_alias_is_asked_for_once_while_the_database_stays_as_it_is(store):
    root, asked = store
    assert [numbered(root), numbered(root)] == [1, 1]
    assert len(asked) == 1


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_it_is_asked_for_again_when_the_database_has_changed(store, suffix):
    root, _ = store
    assert numbered(root) == 1
    (root / f"mlflow.db{suffix}").write_bytes(b"another content")
    assert numbered(root) == 2


def test_what_was_found_just_after_a_change_is_not_noted(store, monkeypatch):
    root, _ = store
    monkeypatch.setattr(exported, "_SETTLED_S", 60.0)
    assert [numbered(root), numbered(root)] == [1, 2]


def test_each_name_has_an_answer_of_its_own(store):
    root, asked = store
    numbered(root)
    numbered(root, "models:/adpet/1")
    assert asked == ["models:/adpet@champion", "models:/adpet/1"]


def with_found(note, found):
    return {key: {**one, "found": found} for key, one in note.items()}


@pytest.mark.parametrize(
    "damaged",
    [
        lambda _: "{",
        lambda _: "[]",
        lambda note: json.dumps(dict.fromkeys(note)),
        lambda note: json.dumps({key: {} for key in note}),
        lambda note: json.dumps(with_found(note, None)),
        lambda note: json.dumps(with_found(note, {"name": "adpet", "version": 1})),
        lambda note: json.dumps(with_found(note, VERSION_1 | {"digest": "../../victim"})),
        lambda note: json.dumps(with_found(note, VERSION_1 | {"digest": 1})),
    ],
)
def test_a_damaged_note_or_one_of_another_form_is_asked_anew(store, damaged):
    root, _ = store
    numbered(root)
    notes = root / exported.MODELS / exported.RESOLVED
    notes.write_text(damaged(json.loads(notes.read_text())))
    assert numbered(root) == 2


def test_a_name_of_another_form_is_refused(tmp_path):
    with pytest.raises(TrackingError, match="required a folder, models:/NAME@ALIAS"):
        exported_model("models:/adpet", root=tmp_path, experiment="adpet")


class TestRest:
    @pytest.fixture
    def server(self):
        """A server that answers as MLflow's REST API does, and notes what it was asked."""
        seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append((self.path, self.headers.get("Authorization")))
                found = {"name": "adpet", "version": "3", "tags": [{"key": "k", "value": "v"}]}
                moved = "alias=moved" in self.path
                self.send_response(302 if moved else 200)
                if moved:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps({"model_version": found}).encode())

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            thread = threading.Thread(target=running.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{running.server_port}", seen
            running.shutdown()
            thread.join()

    def test_an_alias_and_a_version_are_asked_for_by_the_documented_paths(self, server, monkeypatch):
        address, seen = server
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        found = asked_over_rest(address, "models:/adpet@champion")
        assert found == {"name": "adpet", "version": 3, "tags": {"k": "v"}}
        asked_over_rest(address, "models:/adpet/3")
        assert [path for path, _ in seen] == [
            "/api/2.0/mlflow/registered-models/alias?name=adpet&alias=champion",
            "/api/2.0/mlflow/model-versions/get?name=adpet&version=3",
        ]
        assert seen[0][1] == "Basic YW5uOnNlY3JldA=="

    def test_a_password_is_taken_nowhere_else(self, server):
        address, seen = server
        assert asked_over_rest(address, "models:/adpet@moved") is None
        assert len(seen) == 1

    def test_where_nobody_answers_mlflow_is_left_to_say_so(self):
        assert asked_over_rest("http://127.0.0.1:9", "models:/adpet/1") is None

    @pytest.mark.parametrize(
        "reply",
        [
            b"no HTTP\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\nno JSON",
            b"HTTP/1.1 200 OK\r\n\r\n[]",
            b'HTTP/1.1 200 OK\r\n\r\n{"model_version": []}',
        ],
        ids=["no status", "cut off", "no JSON", "a list", "no version"],
    )
    def test_what_is_no_plain_answer_is_left_to_mlflow(self, reply):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def answer():
                with listening.accept()[0] as connection:
                    connection.recv(4096)
                    connection.sendall(reply)

            thread = threading.Thread(target=answer)
            thread.start()
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            assert asked_over_rest(address, "models:/adpet/1") is None
            thread.join()

    def test_an_address_with_a_password_is_refused_without_telling_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@127.0.0.1")
        with pytest.raises(TrackingError, match="required an address without a user or password") as error:
            exported_model("models:/adpet/1", root=tmp_path, experiment="adpet")
        assert "secret" not in str(error.value)

    def test_another_way_to_log_in_is_left_to_mlflow(self, server, monkeypatch):
        address, seen = server
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
        assert asked_over_rest(address, "models:/adpet/1") is None
        assert seen == []
