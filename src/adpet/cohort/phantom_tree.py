"""Simulate the phantom and write it as a collection of one layout, with the truth in another folder."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from adpet.artifacts import written_aside
from adpet.cohort.phantom import PhantomRecipe, Row, cohort_rows, draw_cohort, simulate_scan
from adpet.cohort.phantom_adni import AdniTree
from adpet.cohort.phantom_bids import BidsTree
from adpet.cohort.phantom_pitfalls import NO_MESS, Planted, plan_mess
from adpet.cohort.phantom_stored import turned
from adpet.cohort.uptake import load_anatomy
from adpet.imaging.volume import write_volume
from adpet.workers import map_in_processes

Tree = BidsTree | AdniTree


def write_cohort(
    folder_raw: Path,
    folder_truth: Path,
    recipe: PhantomRecipe,
    *,
    layout: Literal["bids", "adni"] = "bids",
    messy: bool = False,
    workers: int = 1,
    progress: Callable[..., Iterable[Any]] = lambda items, **_: items,
) -> None:
    """Simulate a cohort and write it as a collection, its truth into another folder.

    The truth is ``severity.tsv``, one row a scan, and ``<scan>_deficit.nii.gz`` for each scan whose severity
    is not 0, where ``<scan>`` is the key that ingest gives it. A scan that is there already is whole and not
    made again, so that a killed call continues; the folders must have been begun with the same arguments.

    Parameters
    ----------
    layout : "bids" or "adni"
        A BIDS-PET dataset, or a download of ADNI's archive with its CSV.
    messy : bool
        Plant the pitfalls of real collections, and list them in ``planted.csv`` beside the truth: the file or
        folder, relative to `folder_raw`; the pitfall; and the verdict that ingest must come to: ``read``,
        ``skipped``, ``unusable``, or ``ignored`` where no table of ingest names it. In ADNI's layout it must
        know ``cohort.diagnosis_table``.
    workers : int
        Processes; each holds one scan at a time.
    progress : callable
        Wraps the iterable of finished scans; called with it and ``total=``.
    """
    cohort = draw_cohort(recipe)
    mess = plan_mess(cohort, recipe.seed) if messy else NO_MESS
    tree: Tree = BidsTree(folder_raw, mess) if layout == "bids" else AdniTree(folder_raw, mess)
    rows = cohort_rows(cohort)
    one = partial(_write_scan, tree=tree, folder_truth=folder_truth, recipe=recipe)
    for _ in progress(map_in_processes(one, rows, workers=workers), total=len(rows)):
        pass
    planted = tree.finish(cohort)
    _write_truth(folder_truth, tree, cohort)
    if messy:
        _write_table(folder_truth / "planted.csv", _planted_table(planted), separator=",")


def _write_scan(row: Row, *, tree: Tree, folder_truth: Path, recipe: PhantomRecipe) -> None:
    """Write a scan and its truth; the scan comes last and stands for both."""
    if tree.path(row).exists():
        return
    scan = simulate_scan(row, recipe, load_anatomy())
    if scan.deficit is not None:
        deficit = turned(scan.deficit, tree.mess.pitfall(row))
        write_volume(folder_truth / _deficit_name(tree, row), deficit, dtype=np.uint8)
    tree.write(row, scan)


def _deficit_name(tree: Tree, row: Row) -> str:
    return f"{tree.key(row)}_deficit.nii.gz"


def _write_truth(folder: Path, tree: Tree, cohort: pd.DataFrame) -> None:
    truth = cohort[["subject", "session", "diagnosis", "severity"]].copy()
    rows = cohort_rows(cohort)
    truth.insert(0, "scan", [tree.key(row) for row in rows])
    truth["deficit"] = [_deficit_name(tree, row) if row["severity"] > 0 else "n/a" for row in rows]
    _write_table(folder / "severity.tsv", truth, separator="\t")


def _planted_table(planted: Iterable[Planted]) -> pd.DataFrame:
    table = pd.DataFrame(map(asdict, planted), columns=["file", "pitfall", "verdict"])
    return table.sort_values("file", ignore_index=True)


def _write_table(path: Path, table: pd.DataFrame, *, separator: str) -> None:
    with written_aside(path) as aside:
        table.to_csv(aside, sep=separator, index=False, lineterminator="\n")
