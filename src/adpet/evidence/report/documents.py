"""What a report is written from: the documents and tables of the stages, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Document = dict[str, Any]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables of an evaluation, as in ``results/evaluate/``; no table names a subject."""

    subjects: pd.DataFrame
    subgroups: pd.DataFrame
    roc: pd.DataFrame
    roc_band: pd.DataFrame
    precision_recall: pd.DataFrame
    calibration: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Search:
    """Trials of the hyperparameters' search, and how much of their variance each parameter explains."""

    trials: pd.DataFrame
    monitor: str
    rising: bool
    importance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Maps:
    """The group maps, (i, j, k) on the standard grid, by the names of their files; tables; the threshold."""

    volumes: Mapping[str, Map]
    underlay: Map
    affine: npt.NDArray[np.float64]
    hide_below: float
    regions: pd.DataFrame
    cascade: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Documents:
    """All that a report tells; what is None has not been made, and the report says so.

    Attributes
    ----------
    metrics, findings : dict
        ``metrics.json`` and ``findings.json`` of the evaluation.
    evaluation : Evaluation
    trained : dict
        ``run.json`` of the training; whom it was trained on is not told.
    history : DataFrame
        Epochs of the training.
    ingest, split : dict
        ``ingest.json`` and ``split.json``.
    aggregation : str
        How slices become a subject.
    is_phantom : bool
        Whether the scans are simulated.
    audit, cam, cross_validation : dict, optional
        The leakage audit, ``cam.json`` and the pooled folds.
    maps : Maps, optional
    search : Search, optional
    """

    metrics: Document
    findings: Document
    evaluation: Evaluation
    trained: Document
    history: pd.DataFrame
    ingest: Document
    split: Document
    aggregation: str
    is_phantom: bool
    audit: Document | None = None
    cam: Document | None = None
    maps: Maps | None = None
    search: Search | None = None
    cross_validation: Document | None = None

    @property
    def leaky(self) -> bool:
        """Whether subjects stand on both sides of the split."""
        return bool(self.metrics["leakage"]["leaky"])

    @property
    def refitted(self) -> bool:
        """Whether the model was trained on all training subjects after another had been validated."""
        return bool(self.trained["before_refit"])

    @property
    def lineage(self) -> Document:
        """What the model was made from."""
        facts: Document = self.trained["lineage"]
        return facts
