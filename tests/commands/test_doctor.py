"""What `adpet doctor` says of a collection, before anything is run."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ruamel.yaml import YAML

from adpet.commands import doctor
from adpet.errors import InputError


@pytest.fixture
def bids(tmp_path, monkeypatch):
    """Return a maker of BIDS trees with so many subjects of each group, in a folder apart from the project."""

    def make(**groups: int):
        root, rows = tmp_path / "scans", ["participant_id\tdiagnosis\tage\tsex"]
        for number, diagnosis in enumerate(name for name, count in groups.items() for _ in range(count)):
            pet = root / f"sub-{number:03d}/pet"
            pet.mkdir(parents=True)
            data = np.random.default_rng(number).random((8, 8, 8), dtype=np.float32)
            nib.save(nib.Nifti1Image(data, np.eye(4)), pet / f"sub-{number:03d}_trc-18FFDG_pet.nii.gz")
            rows.append(f"sub-{number:03d}\t{diagnosis}\t{60 + number % 25}\t{'FM'[number % 2]}")
        (root / "participants.tsv").write_text("\n".join(rows) + "\n")
        return root

    project = tmp_path / "project"
    project.mkdir()
    (project / "params.yaml").write_text("{}")
    monkeypatch.chdir(project)
    return make


def say(folder):
    return doctor.main(folder=folder, table=None, diagnosis_table=None)


def test_it_tells_what_is_used_what_is_not_and_what_to_set(bids):
    root = bids(AD=20, CN=20, MCI=3)
    text = say(root)
    assert "layout     bids" in text
    assert "40 used, of 40 subjects (20 AD, 20 CN)" in text
    assert re.search(r"3  skipped   diagnosis 'MCI' is neither AD nor CN", text)
    lines = text[text.index("cohort:\n") :]
    assert YAML(typ="safe").load(lines) == {"cohort": {"raw": str(root), "layout": "bids"}}


def test_the_test_set_is_told_with_what_it_can_show(bids):
    text = say(bids(AD=20, CN=20))
    assert "8 AD and 8 CN (split.test_fraction 0.4)" in text
    seen, needed = (
        float(re.search(r"different from (\d\.\d\d)", text)[1]),
        int(re.search(r"needs (\d+)", text)[1]),
    )
    # By the root of the number of subjects, from what 8 of each group show.
    assert needed == pytest.approx(8 * (seen / doctor.DIFFERENCE) ** 2, rel=0.15)
    assert re.search(r"about \d+ minutes on 2 cores", text)


def test_more_workers_than_networks_do_not_train_faster(bids):
    root, params, costs = bids(AD=20, CN=20), Path("params.yaml"), set()
    for workers in (4, 40):
        params.write_text(f"{{compute: {{workers: {workers}}}, train: {{epochs: 50000}}}}")
        costs.add(re.search(r"about (\d+ hours)", say(root))[1])
    assert len(costs) == 1


def test_table_that_lies_elsewhere_is_to_be_copied(bids, tmp_path):
    root, table = bids(AD=20, CN=20), tmp_path / "people.csv"
    rows = [f"{file.relative_to(root)},{number},1,CN" for number, file in enumerate(root.rglob("*.nii.gz"))]
    table.write_text("\n".join(["path,subject,session,diagnosis", *rows]))
    text = doctor.main(folder=root, table=table, diagnosis_table=None)
    assert "  table: people.csv  # copy it into that folder first" in text


def test_too_few_subjects_are_said_and_the_rest_is_told_all_the_same(bids):
    text = say(bids(AD=2, CN=20))
    assert re.search(r"test set   .*received", text)
    assert "cost       about" in text


def test_a_collection_of_one_group_is_told_and_not_judged(bids):
    text = say(bids(AD=0, CN=12))
    assert "test set   none: usable scans of AD and of CN are needed" in text


def test_nothing_is_written(bids, tmp_path):
    bids(AD=20, CN=20)
    before = sorted(tmp_path.rglob("*"))
    say(tmp_path / "scans")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_not_there_is_named(bids, tmp_path):
    with pytest.raises(InputError, match="nowhere: required a folder of scans"):
        say(tmp_path / "nowhere")
