"""Write answers: four files a scan, all or none, and tables of many."""

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from adpet.answering.answer import Answer
from adpet.answering.model import ExportedModel
from adpet.answering.page import answer_html
from adpet.artifacts import PARTIAL_PREFIX, remove, write_json
from adpet.imaging.volume import write_volume

COLUMNS = (
    "scan",
    "probability_of_ad",
    "threshold",
    "similarity_to_template",
    "flagged",
    "model",
    "lineage",
    "leaky",
    "error",
)


def write_answer(answer: Answer, model: ExportedModel, folder: Path, stem: str) -> None:
    """Write values, maps and page of one scan to a folder, whose other files stay."""
    was_there = folder.exists()
    aside = folder / f"{PARTIAL_PREFIX}{stem}"
    remove(aside)
    try:
        aside.mkdir(parents=True)
        write_volume(aside / f"{stem}_cam.nii.gz", answer.cam, space="mni")
        write_volume(aside / f"{stem}_space-scan_cam.nii.gz", answer.scan_cam)
        (aside / f"{stem}.html").write_text(answer_html(answer, model), encoding="utf-8")
        write_json(aside / f"{stem}.json", answer.document)
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
    finally:
        remove(aside)
        if not was_there and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def answers_as_json(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return answers and failures (`scan`, `error` and, of a refused scan, `checks`) as a JSON list."""
    return json.dumps(list(answers), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def answers_as_csv(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return a row a scan; what was not answered has its reason in `error`."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        flagged = [check["name"] for check in answer.get("checks", []) if check["verdict"] != "ok"]
        writer.writerow({**answer, "flagged": " ".join(flagged)})
    return text.getvalue()
