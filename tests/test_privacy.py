"""Names in scans and tables, and secrets in the environment, reach nothing that the pipeline writes or prints."""

import gzip
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from workspace import SECRETS

# Where the names stand by right: the collection, and DVC's copies of it.
SOURCES = ("data/raw", "data/simulated/raw", ".dvc/cache", ".git")


@pytest.fixture(params=["finished", pytest.param("messy", marks=[pytest.mark.dvc, pytest.mark.slow])])
def workspace(request):
    """The simulated cohort, whose images may go to MLflow, and a messy download, whose may not."""
    return request.getfixturevalue(request.param)


def written(workspace) -> dict[str, bytes]:
    """Return everything that was written, unpacked, by its place."""
    contents: dict[str, bytes] = {}
    sources = [workspace.root / source for source in SOURCES]
    for path in sorted(workspace.root.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(source) for source in sources):
            contents |= unpacked(path, path.relative_to(workspace.root).as_posix())
    return contents


def unpacked(path: Path, place: str) -> dict[str, bytes]:
    contents = {place: path.read_bytes()}
    if path.suffix == ".gz":
        contents[f"{place} unpacked"] = gzip.decompress(contents[place])
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            contents |= {f"{place}: {name}": archive.read(name) for name in archive.namelist()}
    return contents


def found(names, contents):
    """Return which name stands where."""
    spellings = {place: (name.encode(), name.encode("utf-16-le")) for place, name in names.items()}
    return [
        (source, place)
        for place, content in contents.items()
        # All names begin alike: one look is enough for most files.
        if b"ROE" in content or "ROE".encode("utf-16-le") in content
        for source, words in spellings.items()
        if any(word in content for word in words)
    ]


def test_the_names_stand_in_the_collection(workspace):
    raw = next(workspace.root / source for source in SOURCES if (workspace.root / source).is_dir())
    there = {source for source, _ in found(workspace.names, collection_contents(raw))}
    assert there == set(workspace.names)
    assert len(there) >= 14


def collection_contents(raw: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for path in sorted(raw.rglob("*")):
        if path.is_file():
            try:
                contents |= unpacked(path, path.as_posix())
            except (OSError, EOFError):
                # One of the planted files is damaged on purpose.
                contents[path.as_posix()] = path.read_bytes()
    return contents


def test_no_stage_writes_a_name(workspace):
    contents = written(workspace)
    for place in (
        "data/interim/scans.csv",
        "results/train/model.keras",
        "mlflow.db",
        "results/explain/cam.json",
    ):
        assert place in contents
    assert any(place.startswith("mlartifacts/") for place in contents)
    assert any(place.endswith("_cam.nii.gz unpacked") for place in contents)
    assert found(workspace.names, contents) == []


def test_no_command_prints_a_name(workspace):
    workspace.adpet("summary")
    assert len("".join(workspace.output)) > 1000
    assert found(workspace.names, {"printed": "".join(workspace.output).encode()}) == []


def test_no_secret_of_the_environment_is_written_or_printed(workspace):
    secrets = SECRETS
    assert secrets.items() <= workspace.environment().items(), "every stage has had them"
    contents = written(workspace) | {"printed": "".join(workspace.output).encode()}
    assert found(secrets, contents) == []
    control = {"a tag": f"password={secrets['AWS_SECRET_ACCESS_KEY']}".encode()}
    assert found(secrets, control) == [("AWS_SECRET_ACCESS_KEY", "a tag")]


def test_a_prediction_writes_and_prints_no_name(workspace, tmp_path):
    scan = pd.read_csv(workspace.root / "data/interim/scans.csv")["path"].iloc[0]
    assert found(workspace.names, unpacked(workspace.root / scan, "scan"))
    done = workspace.adpet("predict", scan, "--model", "models:/adpet@challenger", "--output", str(tmp_path))
    contents = {"printed": (done.stdout + done.stderr).encode()}
    for path in tmp_path.iterdir():
        contents |= unpacked(path, path.name)
    assert len(contents) >= 5
    assert found(workspace.names, contents) == []


def test_what_cannot_be_predicted_is_refused_without_a_name(workspace, tmp_path):
    """Errors like to quote what they found."""
    scan = workspace.root / pd.read_csv(workspace.root / "data/interim/scans.csv")["path"].iloc[0]
    path = tmp_path / "cut.nii"
    # Behind the text of the header, in the middle of the extensions.
    path.write_bytes(list(unpacked(scan, "scan").values())[-1][:420])
    done = workspace.adpet("predict", str(path), status=1)
    assert "cut.nii" in done.stderr
    assert found(workspace.names, {"printed": (done.stdout + done.stderr).encode()}) == []
