"""Ingest gives every planted defect its verdict, and loses no good scan."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adpet.cohort.scans import REJECTED_COLUMNS, read_scans, read_typed
from adpet.imaging.nifti import Volume, read_header, read_volume
from adpet.params import validate_params
from adpet.simulation import layouts
from adpet.simulation.cohort import SimulatedScan, SimulationRecipe, draw_cohort
from adpet.simulation.defects import CHANGED, OTHER_GROUPS, READABLE, UNUSABLE, plan_defects
from adpet.simulation.layouts import DIAGNOSES, FRAMES, AdniTree, BidsTree, write_cohort
from adpet.simulation.scanner import SITES
from adpet.stages.ingest import run
from adpet.storage import read_yaml, set_by_key

# So many that everything is planted once at least.
MANY = SimulationRecipe(ad_subjects=60, cn_subjects=60)
FEW = replace(MANY, ad_subjects=16, cn_subjects=16)
KINDS = ("bids", "adni", "messy-bids", "messy-adni")


def tiny_scan(row, recipe, anatomy):
    """Stand in for `simulate_scan`: planting does not look at voxels."""
    rng = np.random.default_rng(row["scan_seed"])
    frames = SITES[row["site"]].frames
    shape = (12, 14, 18) if frames == 1 else (12, 14, 18, frames)
    affine = np.diag([-10.0, 10, 8, 1])
    voxels = rng.integers(0, 32767, shape).astype(np.float32)
    deficit = rng.random(shape[:3], dtype=np.float32)
    return SimulatedScan(
        Volume(voxels, affine), Volume(deficit, affine) if row["severity"] else None, 185.0, points=voxels
    )


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """The four kinds of a tree of tiny scans, written when a test asks for one."""
    written = {}

    def tree(kind, recipe=MANY):
        name = f"{kind}-{recipe.ad_subjects}"
        if name not in written:
            folder = tmp_path_factory.mktemp(name)
            layout, messy = kind.removeprefix("messy-"), kind.startswith("messy-")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(layouts, "simulate_scan", tiny_scan)
                patch.setattr(layouts, "load_anatomy", lambda: None)
                write_cohort(folder / "raw", folder / "truth", recipe, layout=layout, messy=messy)
            written[name] = folder
        return written[name]

    return tree


@pytest.fixture(scope="module")
def ingest(trees, project_root):
    """The tables that the ingest stage makes of a kind of tree, with other values of ``cohort`` where given."""
    known = {}

    def tables(kind, **cohort):
        key = (kind, *cohort.items())
        if key not in known:
            document = read_yaml(project_root / "params.yaml")
            for name, value in {"cohort.raw": "raw", "compute.workers": 1}.items():
                set_by_key(document, name, value)
            document["cohort"] |= cohort
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(trees(kind))
                run(validate_params(document, source="params.yaml"))
                interim = Path("data/interim")
                rejected = read_typed(interim / "rejected.csv", REJECTED_COLUMNS)
                known[key] = read_scans(interim / "scans.csv"), rejected
        return known[key]

    return tables


def verdicts(scans, rejected):
    """Return ingest's verdict of everything that it names, by the path in the collection."""
    found = dict.fromkeys(scans["path"], "read")
    found |= dict(zip(rejected["file"], rejected["kind"], strict=True))
    return {path.removeprefix("raw/"): verdict for path, verdict in found.items()}


def planted(tree):
    table = pd.read_csv(tree / "truth" / "planted.csv")
    assert table["file"].is_unique
    return table


def truth(tree):
    return pd.read_csv(tree / "truth" / "severity.tsv", sep="\t", dtype={"session": str}).set_index("scan")


@pytest.mark.parametrize("kind", ["messy-bids", "messy-adni"])
class TestPlanted:
    def test_every_kind_of_pitfall_is_there(self, trees, kind):
        there = set(planted(trees(kind))["pitfall"])
        assert {*READABLE, CHANGED, *(f"diagnosis {group}" for group in OTHER_GROUPS)} <= there
        assert set(UNUSABLE) - there <= {"row without file"}
        assert (FRAMES in there) == ("row without file" in there) == (kind == "messy-adni")

    def test_small_cohort_bears_no_more_faults_than_the_pipeline_allows(self, trees, kind):
        table = planted(trees(kind, FEW))
        assert 1 <= (table["verdict"] == "unusable").sum() <= 0.1 * len(draw_cohort(FEW))
        assert set(READABLE) <= set(table["pitfall"])


def test_diagnosis_that_changed_is_the_visits_own(trees, ingest):
    """In BIDS sessions.tsv has it, in ADNI the table of diagnoses; without that the subject's group stands in."""
    tables = {"bids": ingest("messy-bids"), "adni": ingest("messy-adni", diagnosis_table=DIAGNOSES)}
    for layout, found in tables.items():
        tree = trees(f"messy-{layout}")
        table = planted(tree)
        (changed,) = table.loc[table["pitfall"] == CHANGED, "file"]
        assert verdicts(*found)[changed] == "skipped"
    assert verdicts(*ingest("messy-adni"))[changed] == "read"


@pytest.mark.parametrize(
    ("kind", "cohort"),
    [("messy-bids", {}), ("messy-adni", {"diagnosis_table": DIAGNOSES})],
    ids=["bids", "adni"],
)
class TestIngest:
    def test_every_file_gets_the_planted_verdict_and_nothing_else_is_set_aside(
        self, trees, ingest, kind, cohort
    ):
        table = planted(trees(kind))
        found = verdicts(*ingest(kind, **cohort))
        wanted = dict(zip(table["file"], table["verdict"], strict=True))
        assert {file: found.get(file, "ignored") for file in wanted} == wanted
        assert {file for file, verdict in found.items() if verdict != "read"} <= set(wanted)

    def test_good_scans_of_the_clean_cohort_all_survive(self, trees, ingest, kind, cohort):
        clean, _ = ingest(kind.removeprefix("messy-"))
        messy, _ = ingest(kind, **cohort)
        everybody = draw_cohort(MANY)
        tree = {"messy-bids": BidsTree, "messy-adni": AdniTree}[kind](
            Path(), plan_defects(everybody, MANY.seed)
        )
        table = planted(trees(kind))
        lost = set(table.loc[table["verdict"] != "read", "file"])
        kept = {
            tree.key(row) for row in everybody.to_dict("records") if tree.path(row).as_posix() not in lost
        }
        assert len(clean) == len(everybody)
        assert len(kept) == len(everybody) - 2
        columns = ["scan", "subject", "session", "diagnosis", "age", "sex", "site"]
        pd.testing.assert_frame_equal(
            messy[columns], clean.loc[clean["scan"].isin(kept), columns].reset_index(drop=True)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_scan_that_ingest_reads_finds_its_severity_and_its_deficit_on_its_grid(trees, ingest, kind):
    tree = trees(kind)
    known = truth(tree)
    ill = [row for row in ingest(kind)[0].itertuples() if known.loc[row.scan, "severity"] > 0]
    assert len(ill) > 60
    for row in ill:
        assert known.loc[row.scan, "deficit"] == f"{row.scan}_deficit.nii.gz"
        # A folder of frames has the grid of each of them.
        path = min((tree / row.path).iterdir()) if (tree / row.path).is_dir() else tree / row.path
        scan, deficit = read_header(path), read_header(tree / "truth" / f"{row.scan}_deficit.nii.gz")
        assert scan.shape == deficit.shape
        np.testing.assert_allclose(scan.affine, deficit.affine, atol=1e-4)


@pytest.mark.parametrize("layout", ["bids", "adni"])
def test_unusual_storage_changes_no_voxel_in_the_world(trees, ingest, layout):
    """Compared with the clean tree: where a voxel moves or is averaged, it is because the pitfall says so."""
    clean = {row.scan: trees(layout) / row.path for row in ingest(layout)[0].itertuples()}
    tree = trees(f"messy-{layout}")
    pitfalls = planted(tree).set_index("file")["pitfall"]
    seen = set()
    for row in ingest(f"messy-{layout}")[0].itertuples():
        pitfall = pitfalls.get(row.path.removeprefix("raw/"), "")
        stored, whole = read_volume(tree / row.path), read_volume(clean[row.scan])
        seen.add(pitfall)
        if pitfall == "anisotropic voxels":
            np.testing.assert_allclose(
                stored.data, (whole.data[..., ::2] + whole.data[..., 1::2]) / 2, atol=0.51
            )
            assert stored.affine[2, 2] == 2 * whole.affine[2, 2]
        elif pitfall == "oblique affine":
            np.testing.assert_array_equal(stored.data, whole.data)
            assert np.abs(stored.affine - whole.affine)[:2, :2].max() > 1
        else:
            # The slice outside of the field of view lies at the right, where the first axis begins.
            part = np.s_[:-1] if pitfall == "NaN voxels" else np.s_[:]
            np.testing.assert_allclose(stored.data[part], whole.data[part], atol=0.01)
            np.testing.assert_allclose(stored.affine, whole.affine, atol=1e-4)
    assert {*READABLE, ""} <= seen


def test_smallest_cohort_keeps_all_its_scans():
    cohort = draw_cohort(replace(FEW, ad_subjects=2, cn_subjects=2, followup_fraction=0))
    defects = plan_defects(cohort, 0)
    assert defects.shared is defects.changed is None
    assert {subject.verdict for subject in defects.extra_subjects} == {"skipped"}
