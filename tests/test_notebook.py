"""The tour reads a finished project from a scan to an answer, and is committed without outputs."""

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.fixture
def tour(project_root):
    return nbformat.read(project_root / "notebooks/tour.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_tour_is_committed_without_outputs_and_says_in_words_what_each_cell_shows(tour):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(tour))
    assert set(tour.metadata) == {"kernelspec", "language_info"}
    kinds = [cell.cell_type for cell in tour.cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2) + ["markdown"]


@pytest.mark.slow
def test_tour_runs_on_a_finished_project_without_a_warning(tour, copied, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # no settings and no traces of the user
        monkeypatch.setenv(name, str(tmp_path))
    before = {path for path in copied.root.rglob("*") if "__pycache__" not in path.parts}
    client = NotebookClient(tour, timeout=600, resources={"metadata": {"path": str(copied.root)}})
    client.execute(env=copied.environment() | {"IPYTHONDIR": str(tmp_path)})
    outputs = [output for cell in code_cells(tour) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 9
    assert any("probability of AD" in output.get("data", {}).get("text/plain", "") for output in outputs)
    assert {path for path in copied.root.rglob("*") if "__pycache__" not in path.parts} == before
