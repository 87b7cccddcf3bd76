"""Descriptions name and link each other, and the list of runs has its columns from the first moment."""

import json

import pytest

from adpet.tracking.registry import describe_run, origin_of, register_version
from adpet.tracking.store import complete_experiment, current
from adpet.tracking.ui_notes import NOTE, VIEW_NAME, Origin, experiment_tags, run_name

FACTS = {"params": {"cohort": {"raw": "data/raw"}}, "data": "d41d8cd98f00b204e9800998ecf8427e.dir"}


@pytest.fixture
def origin():
    return Origin("1", "a" * 32, "training longer", FACTS)


def experiment():
    return current().client.get_experiment(current().experiment_id)


class TestTheExperiment:
    def test_a_new_one_has_a_description_and_a_view_with_the_figures_that_matter(self, project):
        tags = experiment().tags
        assert tags | experiment_tags() == tags
        view = json.loads(tags["mlflow.sharedViewState.adpet"])
        assert view["name"] == VIEW_NAME
        columns = json.loads(view["state"])["selectedColumns"]
        assert columns[0] == "metrics.`test_auc`"
        assert "attributes.`Dataset`" in columns

    def test_an_older_one_gets_what_it_lacks_and_keeps_what_people_wrote(self, project):
        client, number = current().client, current().experiment_id
        client.set_experiment_tag(number, NOTE, "ours")
        client.delete_experiment_tag(number, "mlflow.sharedViewState.adpet")
        complete_experiment()
        assert experiment().tags[NOTE] == "ours"
        assert "mlflow.sharedViewState.adpet" in experiment().tags


@pytest.mark.parametrize(("experiment", "name"), [("longer", "training longer"), ("", "training 9ba9f57b")])
def test_a_run_goes_by_the_name_of_dvcs_experiment_or_else_by_its_lineage(monkeypatch, experiment, name):
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    assert run_name("training", "9ba9f57bdf07dc82") == name


class TestDescriptions:
    def test_that_of_a_version_links_run_data_report_maps_and_lineage(self, origin):
        text = origin.of_version()
        run = f"#/experiments/1/runs/{'a' * 32}"
        assert text.startswith(
            f"From run [training longer]({run}) on [data/raw](#/experiments/1/runs?searchFilter="
        )
        assert "%60adpet.data%60%20%3D%20%27d41d8cd98f00b204e9800998ecf8427e.dir%27) (DVC `d41d" in text
        assert f"[report]({run}/artifacts/report/report.html)" in text
        assert f"[lineage]({run}/artifacts/lineage/run.json)" in text

    def test_that_of_a_run_links_its_versions_above_what_people_wrote(self, origin):
        once = origin.of_run("adpet", [1], before="Looks good.\n\nTry longer.")
        assert once.endswith("\n\nLooks good.\n\nTry longer.")
        twice = origin.of_run("adpet", [1, 3], before=once)
        assert twice.startswith(
            "Registered as [adpet version 1](#/models/adpet/versions/1), "
            "[adpet version 3](#/models/adpet/versions/3); trained on [data/raw]("
        )
        assert twice.count("Registered as") == 1
        assert twice.endswith("\n\nLooks good.\n\nTry longer.")

    def test_they_are_on_run_version_and_model(self, log):
        run_id = log()
        origin = origin_of(run_id, FACTS)
        register_version(run_id=run_id, description=origin.of_version())
        describe_run(run_id, origin, model_name="adpet")
        client = current().client
        assert "[adpet version 1](" in client.get_run(run_id).data.tags[NOTE]
        assert f"/runs/{run_id})" in client.get_model_version("adpet", "1").description
        assert "adpet history" in client.get_registered_model("adpet").description
