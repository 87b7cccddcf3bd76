"""Predict the probability of AD for scans."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from adpet.cluster import clusters
from adpet.errors import AdpetError, InputError
from adpet.imaging.dicom import READ_BY_NIBABEL, as_nifti, needs_conversion
from adpet.imaging.nifti import read_header, read_volume
from adpet.imaging.sidecar import read_facts, require_fdg, scanner_of
from adpet.inference.exported_model import ExportedModel, open_model
from adpet.inference.inputs import ScanPath, frame_seconds, scans_at
from adpet.inference.outputs import answers_as_csv, answers_as_json, unusual_text, write_answer
from adpet.inference.predictor import (
    RESEARCH_ONLY,
    UNCALIBRATED,
    RefusedError,
    answer,
    refusal,
    require_age,
    spread,
)
from adpet.inference.quality import refused_by
from adpet.parallel import map_in_processes, progress
from adpet.param_types import cluster_name
from adpet.storage import atomic_write

Align = Literal["affine", "none"]

STDOUT = Path("-")
# Title and format of a column for several scans.
TABLE = {
    "probability_of_ad": ("probability of AD", ".3f"),
    "probability_at_prevalence": ("at prevalence", ".3f"),
    "likelihood_ratio": ("likelihood ratio", ".3g"),
    "answer": ("answer", ""),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a prediction, as `add_arguments` describes them."""

    model: str | None = None
    output: Path | None = None
    align: Align | None = None
    json: Path | None = None
    csv: Path | None = None
    frames: bool = False
    series: str = ""
    prevalence: float | None = None
    coverage: float | None = None
    age: float | None = None
    fwhm: float | None = None
    force: bool = False
    workers: int = 1
    cluster: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "scans",
        nargs="+",
        type=Path,
        metavar="SCAN",
        help="NIfTI files, DICOM (a folder or ZIP), folders of them, or BIDS-PET trees",
    )
    parser.add_argument(
        "--model",
        help="an exported model's folder, models:/NAME/VERSION or models:/NAME@ALIAS (default: the champion)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder for maps, pages and values, apart from the scans (default: one a scan, in the present "
        "folder, named after it)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all answers; - is stdout")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for a row a scan; - is stdout")
    parser.add_argument(
        "--align",
        choices=["affine", "none"],
        help="`none` for scans that are in MNI space already (default: as in training)",
    )
    parser.add_argument(
        "--frames", action="store_true", help="a folder is one scan, and its files are the scan's frames"
    )
    parser.add_argument(
        "--series",
        default="",
        metavar="NUMBER",
        help="the DICOM series to take (default: the only one of FDG)",
    )
    parser.add_argument(
        "--prevalence", type=float, help="share of AD among those scanned (default: as in training)"
    )
    parser.add_argument(
        "--coverage", type=float, help="share of people whose diagnosis is not ruled out (default: 0.9)"
    )
    parser.add_argument(
        "--age", type=float, help="of the person in years, for the z-map (default: the healthy people's mean)"
    )
    parser.add_argument(
        "--fwhm",
        type=float,
        metavar="MM",
        help="the scanner's resolution, for a model of normalize.target_fwhm_mm (default: by its name)",
    )
    parser.add_argument(
        "--force", action="store_true", help="answer also where the quality checks refuse a scan, and say so"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes for several scans (default: 1)")
    parser.add_argument(
        "--cluster", help="where they run: as compute.cluster in params.yaml (docs/cluster.md)"
    )


def main(*, scans: Sequence[Path], **options: Any) -> str:
    """Predict scans; `options` are those of `Options`."""
    return run(scans, Options(**options))


def run(paths: Sequence[Path], options: Options) -> str:
    """Predict scans, write the files, return the printed text."""
    _require_shares(options)
    require_cluster(options.workers, options.cluster)
    scans = scans_at(paths, frames=options.frames)
    _require_one_age(options.age, scans)
    _require_other_folder(options.output, scans)
    for scan in scans:
        if scan.stem.startswith("dicom-"):
            print(f"{scan.stem} is {scan.path}", file=sys.stderr)
    # Read first: a wrong path should not wait for the model to load.
    if len(scans) == 1 and not needs_conversion(scans[0].path):
        read_header(scans[0].path)
    model = opened(options.model)
    if model.document["out_of_fold"] is None and (options.prevalence or options.coverage):
        raise InputError(
            f"{model.name}: --prevalence and --coverage need a model with out-of-fold predictions; this one "
            "has none; leave them out, or train with split.folds of 2 or more"
        )
    one = partial(_attempt, model=model, options=options)
    done = map_in_processes(one, scans, workers=options.workers, cluster=options.cluster)
    with clusters:
        answers = list(progress(done, label="predict", unit="scan", total=len(scans)))
    for path, render in ((options.json, answers_as_json), (options.csv, answers_as_csv)):
        if path is not None:
            _write(path, render(answers))
    text = "" if STDOUT in (options.json, options.csv) else _summary(answers, scans, options)
    failed = [row["error"] for row in answers if "error" in row]
    if not failed:
        return text
    if len(answers) == 1:
        raise InputError(failed[0])
    if text:
        print(text)
    print(*failed, sep="\n", file=sys.stderr)
    received = len(answers) - len(failed)
    raise InputError(
        f"required an answer for each of {len(answers)} scans; received {received}, and the reasons above"
    )


def _require_shares(options: Options) -> None:
    for name, low, high in (("prevalence", 1e-6, 1 - 1e-6), ("coverage", 0.5, 0.99)):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name}: required a number from {low:g} to {high:g}; received {value:g}")


def require_cluster(workers: int, cluster: str | None) -> None:
    """Refuse workers or a cluster that cannot be."""
    if workers < 1:
        raise InputError(f"--workers: required 1 or more; received {workers}")
    try:
        cluster_name(cluster or "local")
    except ValueError as error:
        raise InputError(f"--cluster: {error}") from error


def _require_one_age(age: float | None, scans: Sequence[ScanPath]) -> None:
    require_age(age)
    if age is not None and len(scans) > 1:
        raise InputError(
            f"--age: required one scan, whose age it is; received {len(scans)}; predict each alone"
        )


def _require_other_folder(output: Path | None, scans: Sequence[ScanPath]) -> None:
    """Refuse a scan's folder: answers could replace its sidecars."""
    for scan in scans:
        folder = scan.path if scan.path.is_dir() else scan.path.parent
        if output is not None and output.resolve() == folder.resolve():
            raise InputError(
                f"--output {output}: required a folder apart from the scans, whose sidecars answers could "
                f"replace; received that of {scan.path}; name another, or leave --output out"
            )


def opened(named: str | None) -> ExportedModel:
    """Open the model that is named, or the champion."""
    if named is not None and not named.startswith("models:"):
        return open_model(Path(named))
    try:
        from adpet.params import load_params
        from adpet.tracking.registry import exported_model
    except ModuleNotFoundError as error:
        raise InputError(
            f"{named or 'the champion'}: required the model registry; {error.name} is not installed; run: "
            "pip install 'adpet[train]', or name an exported model's folder with --model"
        ) from error

    tracking = load_params().tracking
    uri = named or f"models:/{tracking.model_name}@champion"
    folder, found = exported_model(uri, root=Path.cwd(), experiment=tracking.experiment)
    return open_model(folder, name=found.uri, leaky=found.leaky)


def _attempt(scan: ScanPath, *, model: ExportedModel, options: Options) -> dict[str, Any]:
    """Answer one scan with its files, or document the failure."""
    failed: dict[str, Any] = {"scan": scan.stem, "model": model.name}
    try:
        return _answered(scan, model, options)
    except AdpetError as error:
        about = str(error)
        reason = about if about.startswith(str(scan.path)) else f"{scan.path}: {about}"
    except OSError as error:
        reason = f"{error.filename or scan.path}: {error.strerror or type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - one scan must not stop the others
        # Its text may quote the file, which is of a participant.
        reason = f"{scan.path}: failed for a reason not foreseen: {type(error).__name__}"
    return {**failed, "error": reason.replace(str(scan.path), _named(scan))}


def _named(scan: ScanPath) -> str:
    """Return the path; of DICOM the stem, without names."""
    return scan.stem if scan.stem.startswith("dicom-") else str(scan.path)


def _answered(scan: ScanPath, model: ExportedModel, options: Options) -> dict[str, Any]:
    facts = read_facts(scan.path)
    if scan.path.suffix.casefold() in {".zip", *READ_BY_NIBABEL}:
        # The conversion has neither the scan's name nor the sidecars that it inherits.
        require_fdg(facts)
    with as_nifti(scan.path, series=options.series) as image:
        header = read_header(image)
        minutes = model.document["standard"]["frames_minutes"]
        seconds = frame_seconds(image, header.n_frames, minutes=minutes)
        volume = read_volume(image, frame_seconds=seconds, steady=True)
        converted = {} if image == scan.path else read_facts(image).metadata
    folder = _folder(scan, options)
    try:
        found = answer(
            volume,
            model,
            name=scan.stem,
            shape=header.shape,
            affine=header.affine,
            align=options.align,
            prevalence=options.prevalence,
            coverage=options.coverage,
            age=options.age,
            scanner=scanner_of({**facts.metadata, **converted}),
            fwhm_mm=options.fwhm,
            force=options.force,
        )
    except RefusedError as error:
        advice = f"look at {folder / scan.stem}.html, or add --force"
        reason = error.document["error"] = refusal(error.document, advice)
        write_answer(error, model, folder, scan.stem)
        return error.document | {"error": f"{_named(scan)}: {reason}"}
    write_answer(found, model, folder, scan.stem)
    return found.document


def _folder(scan: ScanPath, options: Options) -> Path:
    return options.output or Path(f"{scan.stem}_adpet")


def _write(path: Path, text: str) -> None:
    if path == STDOUT:
        print(text, end="")
        return
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _summary(answers: Sequence[dict[str, Any]], scans: Sequence[ScanPath], options: Options) -> str:
    lines = list(_single(answers[0]) if len(answers) == 1 else _table(answers))
    if any(row.get("leaky") for row in answers):
        lines.append("LEAKY: this model was trained and tested on the same subjects")
    what, more = ("page", "") if options.output or len(scans) == 1 else ("pages", " and so on")
    lines.append(f"maps, {what} and values: {_folder(scans[0], options)}/{more}")
    return "\n".join([*lines, RESEARCH_ONLY])


def _single(document: dict[str, Any]) -> list[str]:
    if "error" in document:
        return []
    flags = [check["finding"] for check in document["checks"] if check["verdict"] == "flagged"]
    return [
        *(f"REFUSED, ANSWERED BY FORCE  {finding}" for finding in refused_by(document["checks"])),
        *([f"THE SCAN SEEMS TURNED  {document['turn']}"] if "turn" in document else []),
        *_interpreted(document),
        f"threshold          {document['threshold']:.3f} ({document['model']})",
        document["meaning"],
        f"similarity after alignment  {document['similarity_to_template']:.2f}",
        *(f"UNLIKE THE TRAINING SCANS  {flag}" for flag in flags),
        f"unusual regions    {unusual_text(document)}",
        "y in mm   contribution of the slice to the log-odds of AD, which is their sum",
        *(f"{row['y_mm']:7.1f}   {row['contribution']:+.3f}" for row in document["slices"]),
    ]


def _interpreted(document: dict[str, Any]) -> list[str]:
    given = f"probability of AD  {document['probability_of_ad']:.3f}"
    folds = [f"                   {spread(document)}"] if document["probability_by_fold"] else []
    if document["answer"] is None:
        return [given, *folds, UNCALIBRATED]
    usual, asked = document["training_prevalence"], document["prevalence"]
    other = f"                   {document['probability_at_prevalence']:.3f} at a prevalence of {asked:.3g}"
    return [
        f"{given} at the prevalence in training, {usual:.3g}",
        *([other] if asked != usual else []),
        *folds,
        f"likelihood ratio   {document['likelihood_ratio']:.3g} (AD to CN)",
        f"answer             {document['answer']} (coverage {100 * document['coverage']:g} %)",
    ]


def _table(answers: Sequence[dict[str, Any]]) -> Iterator[str]:
    width = max(len("scan"), *(len(row["scan"]) for row in answers))
    yield "  ".join(["scan".ljust(width), *(title for title, _ in TABLE.values())])
    for row in answers:
        if "error" in row:
            yield f"{row['scan']:<{width}}  not answered"
            continue
        more = "".join(
            f"  {what}: {', '.join(names)}"
            for verdict, what in (
                ("refused", "answered by force, refused by"),
                ("flagged", "unlike the training scans"),
            )
            if (names := [check["name"] for check in row["checks"] if check["verdict"] == verdict])
        )
        cells = [row["scan"].ljust(width)]
        for key, (title, form) in TABLE.items():
            cells.append(("-" if row[key] is None else format(row[key], form)).ljust(len(title)))
        yield "  ".join(cells).rstrip() + more
    answered = next((row for row in answers if "error" not in row), None)
    if answered is not None:
        yield f"threshold {answered['threshold']:.3f} ({answered['model']})"
        if answered["answer"]:
            at = f"{answered['prevalence']:.3g} ({answered['training_prevalence']:.3g} in training)"
            yield f"prevalence {at}, coverage {100 * answered['coverage']:g} %"
