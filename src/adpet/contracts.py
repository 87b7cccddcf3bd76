"""Contracts: the JSON documents that stages hand to each other.

A document is checked when it is written and when it is read. Keys keep the order of the fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def read_contract(path: Path, model: type[Model]) -> Model:
    """Read a JSON document and check its form."""
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(
            f"{path}: not the form that this version of adpet reads: {first_problem(error)}; "
            f"run: dvc repro --force {model.stage}"
        ) from error


def first_problem(error: ValidationError) -> str:
    """Name the first wrong field, and count the others."""
    first, *others = error.errors(include_url=False)
    field = ".".join(map(str, first["loc"])) or "top level"
    more = f" (and {len(others)} more)" if others else ""
    message = " ".join(first["msg"].split())
    return f"{field}: {message[:1].lower()}{message[1:]}{more}"


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
    log_loss: Estimate
    calibration_error: Estimate
    confusion: Confusion


class SubjectScores(Scores):
    """Metrics per subject, with the calibration line."""

    calibration_slope: Estimate
    calibration_intercept: Estimate


class BaselineScores(SubjectScores):
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


class Differences(Contract):
    """Paired differences, network minus baseline."""

    auc: Estimate
    brier: Estimate
    log_loss: Estimate


class Adjusted(Contract):
    """How baselines' regional values were adjusted, and tested scans left."""

    harmonized_by: Literal["scanner", "site"] | None
    residualised: list[str]
    not_harmonized: Annotated[Count, Field(description="Of a scanner with too few training scans.")]
    unknown: Annotated[Count, Field(description="Scans of unknown age or sex.")]


class Oracle(Contract):
    """AUC of the simulated severity: any network's ceiling."""

    auc: Estimate


class EvaluationDocument(Contract):
    """``results/evaluate/evaluation.json``."""

    stage: ClassVar[str] = "evaluate"

    subject: SubjectScores
    slice: Scores
    threshold: float
    counts: Counts
    baselines: dict[str, BaselineScores]
    differences: dict[str, Differences]
    leakage: SplitLeakage
    oracle: Annotated[Oracle | None, Field(description="Of simulated subjects only.")] = None
    adjusted: Adjusted | None = None

    def headline(self) -> dict[str, float]:
        """Return the few figures that DVC shows, ``metrics.json``."""
        auc, names = self.subject.auc, ("accuracy", "sensitivity", "specificity", "brier")
        estimates = {name: getattr(self.subject, name).value for name in names}
        return {
            "auc": auc.value,
            "auc_ci_low": auc.low,
            "auc_ci_high": auc.high,
            **estimates,
            "leaky": self.leakage.leaky,
        }

    def logged(self, prefix: str = "test") -> dict[str, float]:
        """Return the figures that MLflow shows of run and version."""
        found = self.headline()
        found |= {name: getattr(self.subject, name).value for name in ("log_loss", "calibration_slope")}
        for name in ("atlas", "regions"):
            if name in self.differences:
                lead = self.differences[name].auc
                found |= {f"auc_minus_{name}": lead.value, f"auc_minus_{name}_ci_low": lead.low}
        return {f"{prefix}_{name}": value for name, value in found.items()}


class Recalibration(Contract):
    """Shift of the log-odds to a site, and its figures."""

    reference: Literal["all", "cn"]
    shift: float
    threshold: Annotated[float, Field(description="With the shift; that of `all` is the share of AD.")]
    fitted_on: Annotated[list[str], Field(description="Hashed ids.")]
    subject: SubjectScores


class GroupScores(Contract):
    """Probabilities of AD of people with another diagnosis."""

    subjects: Count
    predicted_ad: Annotated[Share, Field(description="Share at or above the threshold.")]
    quartiles: Annotated[list[float], Field(min_length=3, max_length=3, description="Of the probability.")]


class ValidationDocument(Contract):
    """``validation.json`` of `adpet validate`."""

    model: str
    lineage: str
    cohort: str
    answered: Count
    refused: Annotated[int, Field(ge=0, description="By the quality checks.")]
    flagged: Count
    unusable: Annotated[int, Field(ge=0, description="Files that are unreadable or without a diagnosis.")]
    skipped: Annotated[int, Field(ge=0, description="Scans of other diagnoses, other tracers, and so on.")]
    leaky: bool
    leakage_checks: Annotated[list[str], Field(description="What was looked for, and not found.")]
    own_auc: Annotated[Estimate, Field(description="On the model's own test subjects.")]
    training_prevalence: Annotated[float | None, Field(description="Share of AD among training subjects.")]
    evaluation: EvaluationDocument
    recalibration: Recalibration | None
    score_only: Annotated[dict[str, GroupScores], Field(description="By diagnosis, neither AD nor CN.")]


class ExternalDocument(Contract):
    """``results/external/external.json``."""

    stage: ClassVar[str] = "external"
    validation: Annotated[ValidationDocument | None, Field(description="None without a collection.")]


class Lineage(Contract):
    """Everything that a model follows from."""

    id: str
    data: str
    split: str
    params: dict[str, Any]
    weights_digest: str | None
    template_digest: str | None
    atlas_digest: str | None
    code: str
    seed: int
    backend: str
    versions: dict[str, str]
    commit: str
    code_folders: list[str]


class FoldRun(Contract):
    """Hashed subjects of one fold's network."""

    trained_on: list[str]
    validated_on: list[str]
    best_epoch: int


class TrainingRun(Contract):
    """``results/train/run.json``; subjects are hashed.

    ``folds`` are the networks that the model is the ensemble of, ``final`` their mean metrics. Their
    out-of-fold predictions calibrate it.
    """

    stage: ClassVar[str] = "train"

    lineage: Lineage
    leaky: bool
    trained_on: list[str]
    validated_on: list[str]
    folds: list[FoldRun]
    best_epoch: int
    final: dict[str, float]


class PatternShare(Contract):
    """Map mass in the AD pattern."""

    mass: float
    over_volume: float


class GroupMap(Contract):
    """Facts of the mean map of one group."""

    scans: int
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
    scans: int


class SideAgreement(Contract):
    """Share of subjects whose worse side a map finds."""

    least_asymmetry: float
    subjects: int
    left: int
    agreement: dict[str, Estimate]


class TruthScores(Contract):
    """Scores against the simulated deficit, by map and score."""

    scans: int
    left_out: int  # with a deficit nowhere or everywhere
    least_deficit: float
    area_share: float
    scores: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, dict[str, Estimate]]]  # own minus rival, by map, rival and score
    verdict: dict[str, str]
    side: SideAgreement
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
    # Share of AD minus CN scans' log-odds from outside the brain.
    outside: float
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


class LeakageDocument(Contract):
    """``results/leakage/leakage.json``."""

    stage: ClassVar[str] = "leakage"

    leakage: LeakageTest


class ModelLineage(Contract):
    """Lineage of an exported model; inference needs the id alone."""

    model_config = ConfigDict(extra="allow")

    id: str


class Network(Contract):
    """ONNX file, and pixels of its input and maps."""

    file: str
    input_size: Count
    map_size: tuple[Count, Count]


class StandardSpace(Contract):
    """Template space that scans are normalized to."""

    grid_mm: Positive
    shape: tuple[Count, Count, Count]
    affine: Annotated[
        list[list[float]], Field(min_length=4, max_length=4, description="Voxel indices to MNI mm, (4, 4).")
    ]
    align: Literal["affine", "none"]
    smoothing_mm: Annotated[float, Field(ge=0, description="FWHM of the Gaussian; 0 turns it off.")]
    target_fwhm_mm: Annotated[Positive | None, Field(description="Smooth to this FWHM.")] = None
    native_fwhm_mm: dict[str, Positive] = {}
    reference: Annotated[str, Field(description="Name of the reference region.")]
    min_similarity: Annotated[float, Field(ge=-1, le=1)]
    frames_minutes: Annotated[tuple[float, float], Field(description="Averaged, minutes after injection.")]


class Slices(Contract):
    """Coronal planes that the network is given."""

    y_mm: Annotated[list[float], Field(description="MNI y of each plane, ascending, equally spaced.")]
    size: Annotated[Count, Field(description="Pixels along each side.")]
    field_mm: Annotated[Positive, Field(description="Edge of a plane.")]
    centre_z_mm: float
    neighbours_mm: Annotated[
        float, Field(ge=0, description="Distance of the planes in the other two channels; 0 is one channel.")
    ]
    window: Annotated[tuple[float, float], Field(description="SUVR that become byte 0 and byte 255.")]


class Aggregation(Contract):
    """From slices to a scan, calibrated."""

    method: Literal["mean_probability", "mean_logit", "position_weights"]
    weights: Annotated[list[float] | None, Field(description="Of each plane, for position_weights.")]
    slope: float
    intercept: float


class OutOfFold(Contract):
    """Prevalence and conformal quantiles of the training subjects."""

    prevalence: Annotated[float, Field(gt=0, lt=1)]
    coverage: Annotated[float, Field(description="Coverage of an answer unless another is asked for.")]
    coverages: Annotated[list[float], Field(description="Ascending.")]
    quantiles: Annotated[
        dict[Literal["AD", "CN"], list[float]],
        Field(description="Of 1 - the probability of a diagnosis in those who have it, at each coverage."),
    ]


class CalibrationBin(Contract):
    """Test subjects whose probability lies between two edges."""

    low: Share
    high: Share
    subjects: Count
    ad_share: Share
    ad_share_low: Annotated[Share, Field(description="Lower end of the exact 95 % interval.")]
    ad_share_high: Annotated[Share, Field(description="Upper end of the exact 95 % interval.")]


class Calibration(Contract):
    """Share of AD among test subjects, by probability."""

    bins: Annotated[list[CalibrationBin], Field(min_length=1)]
    prevalence: Share


class Performance(Contract):
    """What the model reached on the test subjects."""

    auc: Estimate
    test_subjects: Count


class Region(Contract):
    """Atlas region, and its SUVR in CN training subjects."""

    label: Count
    name: str
    ad_pattern: Annotated[bool, Field(description="True if AD lowers uptake here first.")]
    cn_mean: float
    cn_slope: Annotated[float, Field(description="Change a year; ages as in `norms`.")]
    cn_sd: float


class Norms(Contract):
    """Normative images, SUVR of CN training scans, of ``normal_*.nii.gz``."""

    scans: Count
    ages: Annotated[
        tuple[float, float, float] | None,
        Field(description="Lowest, mean and highest, in years; None if age is left out."),
    ]
    smoothing_mm: Annotated[float, Field(ge=0, description="FWHM of a scan's smoothing in the brain.")]


class MapScale(Contract):
    """Name and colours of a map, for every scan."""

    title: str
    unit: str
    limit: Annotated[Positive, Field(description="Colours run from -limit to limit.")]
    shown_from: Annotated[Positive, Field(description="Smaller values have no colour.")]


class Profile(Contract):
    """Regional SUVR of the training scans, by region."""

    mean: list[float]
    precision: Annotated[list[list[float]], Field(description="Inverse covariance, (regions, regions).")]


class QualityLimit(Contract):
    """Quality measure in training scans, and its limits."""

    name: str
    text: str
    low_means: str
    high_means: str
    flag_below: float | None
    flag_above: float | None
    refuse_below: float | None
    refuse_above: float | None
    median: float
    low: float
    high: float


class ModelDocument(Contract):
    """``results/export/model.json``: all constants that predictions need."""

    format: Literal[3]
    name: str
    lineage: ModelLineage
    adpet_version: str
    intended_use: str
    labels: list[str]
    network: Network
    files: Annotated[dict[str, str], Field(description="SHA-256 of each file of the folder, by name.")]
    standard: StandardSpace
    registration: Annotated[dict[str, Any], Field(description="Constants of the registration, by name.")]
    slices: Slices
    aggregation: Aggregation
    out_of_fold: Annotated[OutOfFold | None, Field(description="None if the test set validates.")]
    threshold: Annotated[float, Field(description="Probability from which a scan is called AD.")]
    calibration: Calibration
    performance: Performance
    leaky: Annotated[bool, Field(description="True if a subject is in training and test.")]
    regions: list[Region]
    norms: Norms
    maps: dict[Literal["cam", "z"], MapScale]
    profile: Profile
    quality: list[QualityLimit]
