"""The stage `explain` on a small finished project."""

import pytest
from workspace import copy_of


@pytest.mark.slow
def test_maps_and_scores_do_not_depend_on_the_number_of_processes(finished, tmp_path):
    project = copy_of(finished, tmp_path / "project")
    paths = ["results/explain/cam.json", "results/explain/truth.csv", "results/explain/volumes"]
    by_two = project.content(paths)
    project.set_params({"compute.workers": 1})
    project.adpet("explain")
    assert project.content(paths) == by_two
