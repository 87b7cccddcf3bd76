"""Contracts: the JSON documents that stages hand to each other.

A document is checked when it is written and when it is read. Keys keep the order of the fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from adpet.errors import InputError
from adpet.storage import read_json, write_json


class Contract(BaseModel):
    """Part of a document: typed, immutable, without unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    # The stage that writes the document.
    stage: ClassVar[str] = ""

    def document(self) -> dict[str, Any]:
        """Return the content as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


Model = TypeVar("Model", bound=Contract)


def read_contract(path: Path, model: type[Model]) -> Model:
    """Read a JSON document and check its form.

    Raises
    ------
    InputError
        If the file is missing, is not JSON, or has another form.
    """
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        place = ".".join(map(str, first["loc"])) or "top level"
        others = f" and {more} more" if more else ""
        raise InputError(
            f"{path}: not the form that this version of adpet reads: {place}: "
            f"{' '.join(first['msg'].split())}{others}; run: dvc repro --force {model.stage}"
        ) from error


def write_contract(path: Path, document: Mapping[str, Any], model: type[Contract]) -> None:
    """Check a document and write it as JSON."""
    write_json(path, model.model_validate(document).document())


class Estimate(Contract):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Confusion(Contract):
    """Counts of the confusion matrix; AD is positive."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


class Scores(Contract):
    """Metrics of one level: per subject or per slice."""

    auc: Estimate
    average_precision: Estimate
    accuracy: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: Estimate
    calibration_error: Estimate
    confusion: Confusion


class BaselineScores(Scores):
    """Metrics of a baseline per subject, at its own threshold."""

    threshold: float


class Counts(Contract):
    """Sizes of the test set, and validation subjects."""

    subjects: int
    subjects_ad: int
    subjects_cn: int
    scans: int
    slices: int
    validation_subjects: int


class SplitLeakage(Contract):
    """Leakage of the split: 1 if subjects are shared."""

    leaky: int


class Metrics(Contract):
    """``results/evaluate/metrics.json``; ``differences`` are paired AUC differences."""

    stage: ClassVar[str] = "evaluate"

    subject: Scores
    slice: Scores
    threshold: float
    counts: Counts
    baselines: dict[str, BaselineScores]
    differences: dict[str, Estimate]
    leakage: SplitLeakage


class Lineage(Contract):
    """Everything that a model follows from."""

    id: str
    data: str
    split: str
    params: dict[str, Any]
    commit: str
    code: str
    seed: int
    backend: str
    versions: dict[str, str]


class BeforeRefit(Contract):
    """Hashed subjects of the validated network, before the refit."""

    trained_on: list[str]


class TrainingRun(Contract):
    """``results/train/run.json``; subjects are hashed."""

    stage: ClassVar[str] = "train"

    lineage: Lineage
    leaky: bool
    trained_on: list[str]
    validated_on: list[str]
    before_refit: BeforeRefit | None
    best_epoch: int
    final: dict[str, float]


class PatternShare(Contract):
    """Map mass in the AD pattern."""

    mass: float
    over_volume: float


class GroupMap(Contract):
    """Facts of the mean map of one group."""

    scans: int
    share_inside_brain: float
    ad_pattern: PatternShare


class Range(Contract):
    """Lowest and highest mean score over untrained networks."""

    lowest: float
    highest: float


class UntrainedRanges(Contract):
    """Score ranges of untrained networks, by map and score."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Range]]

    networks: int


class TruthScores(Contract):
    """Scores against the simulated deficit, by map and score."""

    scans: int
    left_out: int
    least_deficit: float
    area_share: float
    scores: dict[str, dict[str, Estimate]]
    untrained: UntrainedRanges


class NoScans(Contract):
    """Stands for results that need scans that the cohort lacks."""

    scans: Literal[0]


class CascadeLayer(Contract):
    """Similarity of maps with weights randomized to a layer."""

    layer: str
    similarity: float


class CurveGains(Contract):
    """Area between a map's curves and random ones, in logits."""

    deletion: float
    insertion: float


class SanityChecks(Contract):
    """Results of weight randomization, deletion and insertion."""

    scans: int
    cascade: list[CascadeLayer]
    area_over_random: dict[str, CurveGains]


class Saliency(Contract):
    """``results/explain/cam.json``: ``exact`` are CAMs, ``referenced`` z-scored attribution maps."""

    stage: ClassVar[str] = "explain"

    exact: dict[str, GroupMap]
    referenced: dict[str, GroupMap]
    alarms: list[str]
    method: Literal["cam", "grad-cam"]
    planes: int
    reference_scans: int
    truth: TruthScores | NoScans
    sanity: SanityChecks | NoScans


class Chance(Contract):
    """Randomization test of new subjects with shuffled labels."""

    p: float
    smallest_p: float
    level: float


class ArmLevel(Contract):
    """Accuracy and AUC of one arm at one level."""

    accuracy: Estimate
    auc: Estimate


class Arm(Contract):
    """One network of the leakage test."""

    subject: ArmLevel
    slice: ArmLevel
    training_accuracy: float
    training_subjects: int
    training_slices: int
    test_subjects: int
    test_slices: int
    shared_subjects: int


class LeakageCohort(Contract):
    """Subjects and planes of the leakage test."""

    subjects: int
    planes: int
    step_mm: float


class LeakageTest(Contract):
    """Result of the label permutation test for leakage."""

    split: str
    verdict: Literal["clean", "invalid", "inconclusive"]
    valid: int
    conclusive: int
    reason: str
    chance: Chance
    gap: dict[str, Estimate]
    arms: dict[str, Arm]
    cohort: LeakageCohort


class LeakageAudit(Contract):
    """The leakage test under its key."""

    audit: LeakageTest


class LeakageDocument(Contract):
    """``results/leakage/leakage.json``."""

    stage: ClassVar[str] = "leakage"

    leakage: LeakageAudit
