"""People with other diagnoses are scored by the exported model, and never trained on."""

import pandas as pd
import pytest

from adpet.params import load_params
from adpet.stages.score import run


def test_nobody_asked_for_ends_at_once_with_empty_results(project_root, tmp_path, monkeypatch):
    params = load_params(project_root / "params.yaml")
    monkeypatch.chdir(tmp_path)
    run(params)
    results = tmp_path / "results/score"
    assert (results / "groups.json").read_text() == '{\n  "groups": {}\n}\n'
    assert pd.read_csv(results / "scores.csv").empty
    assert all(
        (results / name).read_bytes().startswith(b"\x89PNG") for name in ("groups.png", "conversion.png")
    )


@pytest.mark.slow
class TestScored:
    def renamed(self, project, part):
        """Give the CN subjects of one part of the split MCI, and one of them AD at a visit without a scan."""
        split = pd.read_csv(project.root / "data/processed/split.csv", dtype=str)
        people = sorted(set(split.loc[(split["part"] == part) & (split["diagnosis"] == "CN"), "subject"]))
        raw = project.root / "data/simulated/raw"
        table = pd.read_csv(raw / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)
        table.loc[table["participant_id"].str.removeprefix("sub-").isin(people), "diagnosis"] = "MCI"
        table.to_csv(raw / "participants.tsv", sep="\t", index=False)
        for person in people:
            sessions = sorted(path.name for path in (raw / f"sub-{person}").glob("ses-*/"))
            rows = [f"{name}\t{2010 + year}-01-01\tMCI" for year, name in enumerate(sessions)]
            rows += ["ses-99\t2012-07-01\tAD"] if person == people[0] else []
            text = "\n".join(["session_id\tacq_time\tdiagnosis", *rows, ""])
            (raw / f"sub-{person}/sub-{person}_sessions.tsv").write_text(text)
        project.set_params({"cohort.score_only": ["MCI"]})
        return people

    def test_test_subjects_are_answered_as_predict_answers(self, copied):
        people = self.renamed(copied, "test")
        assert "Other diagnoses" not in (copied.root / "results/report/report.html").read_text()
        said = copied.adpet("ingest").stdout
        assert f"of {len(people)} subjects with MCI, never trained on" in said
        assert not set(people) & set(
            pd.read_csv(copied.root / "data/interim/scans.csv", dtype=str)["subject"]
        )
        copied.adpet("score")
        scores = pd.read_csv(copied.root / "results/score/scores.csv", dtype={"subject": str})
        assert set(scores["subject"]) == set(people)
        first = scores[scores["subject"] == people[0]].iloc[0]
        assert first["ad_years"] == pytest.approx(2.5, abs=0.01)
        listed = pd.read_csv(copied.root / "data/interim/score_only.csv").set_index("scan")
        path = listed.loc[first["scan"], "path"]
        told = copied.adpet("predict", path, "--model", "results/export", "--csv", "-").stdout
        assert f",{first['probability']:g}," in told
        group = copied.read_json("results/score/groups.json")["groups"]["MCI"]
        assert (group["subjects"], group["conversion"]["converters"]) == (len(people), 1)
        assert (group["scans"], group["refused"]) == (len(scores), 0)
        copied.adpet("report")
        page = (copied.root / "results/report/report.html").read_text()
        assert "Other diagnoses" in page
        assert not [person for person in people if person in page]

    def test_trained_subjects_are_refused(self, copied):
        split = pd.read_csv(copied.root / "data/processed/split.csv", dtype=str)
        self.renamed(copied, next(part for part in sorted(set(split["part"])) if part != "test"))
        copied.adpet("ingest")
        assert "trained on" in copied.adpet("score", status=1).stderr
