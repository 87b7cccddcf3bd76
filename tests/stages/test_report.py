"""The report comes out of the results' files alone: no network, no scan, and nobody's name."""

import base64
import json
import re

import pandas as pd
import pytest

from adpet.storage import remove
from adpet.tracking.registry import DESCRIPTION_LIMIT

pytestmark = pytest.mark.slow

FILES = ("results/report/report.html", "results/report/MODEL_CARD.md")


def test_without_the_model_and_the_scans_it_is_the_same_again(copied):
    before = copied.content(list(FILES))
    for name in ("results/train/model.keras", "data/simulated/raw", "data/interim/volumes", *FILES):
        remove(copied.root / name)
    copied.adpet("report")
    assert copied.content(list(FILES)) == before


def test_it_tells_the_figures_of_the_evaluation(finished):
    auc = finished.read_json("results/evaluate/evaluation.json")["subject"]["auc"]
    for name in FILES:
        text = (finished.root / name).read_text()
        assert f"{auc['value']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})" in text


def test_a_stage_that_was_not_run_leaves_its_chapter_with_a_sentence(copied):
    for name in ("results/leakage/leakage.json", "results/explain"):
        remove(copied.root / name)
    copied.adpet("report")
    text = (copied.root / FILES[0]).read_text()
    assert "dvc repro leakage" in text
    assert "dvc repro explain" in text


def test_what_it_cannot_do_without_is_named_with_what_to_run(copied):
    remove(copied.root / "results/evaluate/subjects.csv")
    done = copied.adpet("report", status=1)
    assert "results/evaluate/subjects.csv: required, but not there; run: dvc repro" in done.stderr


def decoded(text):
    """Yield a page and the images in it: encoded, one may spell a short name by chance."""
    before, *rest = re.split(r"base64,([A-Za-z0-9+/=]+)", text)
    yield "".join([before, *rest[1::2]])
    for payload in rest[::2]:
        content = base64.b64decode(payload)
        yield from decoded(content.decode() if content.startswith(b"<") else content.decode("latin-1"))


def test_no_subject_is_named(finished):
    names = set(pd.read_csv(finished.root / "data/processed/split.csv", dtype="str")["subject"])
    hashes = set(json.loads((finished.root / "results/train/run.json").read_text())["trained_on"])
    for path in FILES:
        contents = list(decoded((finished.root / path).read_text()))
        assert not [name for name in names | hashes if any(name in one for one in contents)]


def test_it_lies_with_the_training_and_the_card_is_on_the_version(finished):
    client = finished.client()
    version = client.get_model_version("adpet", "1")
    logged = {entry.path for entry in client.list_artifacts(version.run_id, "report")}
    assert logged == {"report/report.html", "report/MODEL_CARD.md"}
    card = (finished.root / FILES[1]).read_text()
    assert len(version.description) <= DESCRIPTION_LIMIT
    assert card[:400] in version.description  # below the lines that link run, data and report


def test_versions_can_be_looked_through_by_whom_they_were_tested_on(finished):
    tags = finished.client().get_model_version("adpet", "1").tags
    metrics = finished.read_json("results/evaluate/evaluation.json")
    beaten = [name for name, lead in metrics["differences"].items() if lead["auc"]["low"] > 0]
    assert tags["adpet.test_subjects"] == str(metrics["counts"]["subjects"])
    assert tags["adpet.beats"] == (", ".join(beaten) or "none")
    assert tags["adpet.use"] == "research only"
