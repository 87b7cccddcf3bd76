"""Doctor: what a collection holds, allows and costs."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from adpet.cohort.reader import Layout, detect_layout
from adpet.cohort.scans import DIAGNOSES, Collection, subject_table
from adpet.cohort.splits import TEST, split_by_subject
from adpet.cohort.summary import auc_half_width, ingest_report, report_text
from adpet.errors import InputError
from adpet.imaging.slices import channel_offsets
from adpet.imaging.template import template_grid
from adpet.params import Params, load_params
from adpet.stages.ingest import collection_at

# The difference from another model that a test set should show, in four of five studies, for models with
# this AUC whose areas on the same subjects correlate by this much (assumed; Hanley and McNeil 1983).
DIFFERENCE, POWER, AUC, CORRELATION = 0.05, 0.8, 0.9, 0.6
# Seconds of one core, from the stages in docs/performance.md: to normalize a scan; to train MobileNetV2 of
# width 1 on a million pixels, which grows with this power of the width; and of all that is left.
NORMALIZE_S, MEGAPIXEL_S, WIDTH_POWER, REST_S = 0.35, 2.0, 1.6, 200.0
# Share of its epochs that halving leaves a trial, on average.
HALVED = 0.6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a collection: BIDS, ADNI or a flat folder")
    add_collection_arguments(parser)


def add_collection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what tells how a collection is read."""
    layouts = ["auto", "bids", "adni", "folder"]
    parser.add_argument("--layout", choices=layouts, default="auto", help="its layout (default: auto)")
    parser.add_argument("--table", type=Path, help="its metadata table, if it is not found by itself")
    parser.add_argument("--diagnosis-table", type=Path, help="ADNI's diagnoses by visit (DXSUM)")


def main(
    *,
    folder: Path,
    layout: Literal["auto"] | Layout = "auto",
    table: Path | None,
    diagnosis_table: Path | None,
) -> str:
    """Read a collection; return what to expect and set."""
    params = load_params()
    collection = collection_at(folder, params, layout=layout, table=table, diagnosis_table=diagnosis_table)
    layout = detect_layout(folder, table=table) if layout == "auto" else layout
    return "\n".join(
        [
            f"layout     {layout}",
            report_text(ingest_report(collection)),
            "",
            *_resolution(collection, params),
            *_costs(collection, params),
            "",
            "params.yaml, for scans that stay where they are (`dvc add` versions them in the project):",
            *_settings(folder, layout, {"table": table, "diagnosis_table": diagnosis_table}),
        ]
    )


def _resolution(collection: Collection, params: Params) -> Iterator[str]:
    """Say how exactly the test set can judge a model."""
    options = params.split.model_dump(include={"test_fraction", "folds", "seed"})
    subjects = subject_table(collection.scans)
    if set(subjects["diagnosis"]) != set(DIAGNOSES):
        yield "test set   none: usable scans of AD and of CN are needed; see above what was set aside"
        return
    try:
        parts = split_by_subject(subjects, **options)
    except InputError as error:
        yield f"test set   {error}"
        return
    tested = parts.loc[parts["part"] == TEST, "diagnosis"].value_counts()
    ad, cn = int(tested["AD"]), int(tested["CN"])
    # Twice the variance of one area less what both share; its root falls with that of the subjects.
    sure = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(POWER)
    widened = sure / 1.96 * math.sqrt(2 - 2 * CORRELATION)
    seen = {n: widened * auc_half_width(*n, AUC) for n in ((ad, cn), (100, 100))}
    needed = math.ceil(100 * (seen[100, 100] / DIFFERENCE) ** 2)
    yield (
        f"test set   {ad} AD and {cn} CN (split.test_fraction {params.split.test_fraction:g}): "
        f"an AUC of {AUC:g} is known to +-{auc_half_width(ad, cn, AUC):.2f},"
    )
    yield f"           and another model's shows as different from {seen[ad, cn]:.2f} on;"
    yield f"           a difference of {DIFFERENCE:g} needs {needed} of each group"


def _costs(collection: Collection, params: Params) -> Iterator[str]:
    """Estimate the hours and gigabytes of `dvc repro`."""
    scans, slicing, model, tune = len(collection.scans), params.slice, params.model, params.tune
    planes = int((slicing.range_mm[1] - slicing.range_mm[0]) / slicing.step_mm + 1e-6) + 1
    pixels = scans * (1 - params.split.test_fraction) * planes * model.input_size**2
    folds, workers = max(params.split.folds, 1), params.compute.workers
    an_epoch = pixels * (1 - 1 / folds if folds > 1 else 1) / 1e6 * MEGAPIXEL_S * model.alpha**WIDTH_POWER
    # A network is one process.
    epochs = folds * params.train.epochs / min(workers, folds)
    searched = tune.trials * tune.epochs * tune.folds * (HALVED if tune.pruner == "halving" else 1.0)
    epochs += searched / min(workers, tune.workers)
    minutes = (scans * NORMALIZE_S / workers + epochs * an_epoch + REST_S) / 60
    time = f"{minutes / 60:.0f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
    volume = math.prod(template_grid(params.normalize.grid_mm)[0]) * 4
    slices = planes * model.input_size**2 * len(channel_offsets(slicing.neighbours_mm))
    gigabytes = 2 * scans * (volume + slices) / 1e9  # DVC has a copy of each
    yield f"cost       about {time} on {workers} cores without a GPU, and {gigabytes:.1f} GB"


def _settings(folder: Path, layout: Layout, tables: dict[str, Path | None]) -> Iterator[str]:
    yield "cohort:"
    yield f"  raw: {folder}"
    yield f"  layout: {layout}"
    for name, path in tables.items():
        if path and path.resolve().is_relative_to(folder.resolve()):
            yield f"  {name}: {path.resolve().relative_to(folder.resolve())}"
        elif path:
            yield f"  {name}: {path.name}  # copy it into that folder first"
