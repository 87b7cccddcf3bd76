"""Settings: types, limits and defaults of ``params.yaml``.

A key that the file lacks takes its default; an unknown key is refused. A hyperparameter that may be searched
is a value or the word ``tuned``: ``tuned`` takes the best trial's value, a value takes it out of the search.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from adpet.errors import ParameterError, validation_messages
from adpet.param_types import (
    TUNED,
    AdniLevel,
    Count,
    Covariates,
    CrossValidation,
    Diagnoses,
    FeatureLayer,
    Fraction,
    Interval,
    NonNegative,
    Positive,
    Quality,
    Section,
    Seed,
    Size,
    TunableBool,
    TunableFraction,
    TunableNonNegative,
    TunablePositive,
    cluster_name,
    database,
    each_once,
    plain_name,
    word_or_file_in,
)
from adpet.paths import ATLASES, TEMPLATES, WEIGHTS
from adpet.storage import flatten, read_yaml, set_by_key

# A setting that nothing follows from any more; it is passed over until the next release.
GONE = ("split", "validation_fold")

# Sections by their names before this release, which are accepted until the next one.
OLD_SECTIONS = {"phantom": "simulation", "standardize": "normalize", "audit": "leakage"}

# The widths for which ImageNet weights of MobileNetV2 are published (Keras' documentation).
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

# Scanners of adpet.simulation.scanner, and the tolerance for the sum of their shares: thirds are rounded.
SIMULATED_SCANNERS = ("HRRT", "D690", "TruePoint", "HRplus")
SHARES_TOLERANCE = 0.02


class Compute(Section):
    """Processes for scans, threads and devices for the network."""

    workers: Count = 2
    cluster: Annotated[str, AfterValidator(cluster_name)] | None = None
    threads: Count = 1
    devices: Count = 1


class Subtypes(Section):
    """Share of each subtype of AD."""

    typical: Fraction = 0.49
    limbic: Fraction = 0.44
    cortical: Fraction = 0.07

    @model_validator(mode="after")
    def _share_the_patients(self) -> Self:
        total = self.typical + self.limbic + self.cortical
        if abs(total - 1) > SHARES_TOLERANCE:
            raise ValueError(f"required shares with the sum 1; received {self.model_dump()}")
        return self


class OtherSubjects(Section):
    """Subjects with neither AD nor MCI nor health, by diagnosis."""

    FTD: Size = 4
    DLB: Size = 4
    stroke: Size = 4


class Confounding(Section):
    """What AD and CN differ in apart from the disease."""

    age_years: Annotated[float, Field(ge=-30, le=30)] = 0.0
    male_fraction: Annotated[float, Field(ge=-1, le=1)] = 0.0
    site: Fraction = 0.0


class Simulation(Section):
    """Simulated cohort: its subjects, scanners and file layout."""

    seed: Seed = 2019
    layout: Literal["bids", "adni"] = "bids"
    messy: bool = False
    ad_subjects: Annotated[int, Field(ge=2, le=5_000)] = 150
    cn_subjects: Annotated[int, Field(ge=2, le=5_000)] = 150
    followup_fraction: Fraction = 0.2
    max_visits: Annotated[int, Field(ge=1, le=5)] = 2
    scanners: dict[str, Fraction] = Field(
        default={"HRRT": 0.12, "D690": 0.3, "TruePoint": 0.33, "HRplus": 0.25}
    )
    ad_severity_mean: NonNegative = 1.0
    ad_severity_sd: NonNegative = 0.55
    preclinical_fraction: Fraction = 0.2
    age_mean: Positive = 75.0
    age_sd: NonNegative = 7.0
    pose: NonNegative = 1.0
    noise: NonNegative = 1.0
    axial_fov: Literal["full", "scanner"] = "scanner"
    subtypes: Subtypes = Subtypes()
    lateralised_fraction: Fraction = 0.28
    mci_subjects: Size = 40
    other_subjects: OtherSubjects = OtherSubjects()
    confounding: Confounding = Confounding()

    @model_validator(mode="after")
    def _scanners_share_the_cohort(self) -> Self:
        total = sum(self.scanners.values())
        if not set(self.scanners) <= set(SIMULATED_SCANNERS) or abs(total - 1) > SHARES_TOLERANCE:
            raise ValueError(
                f"scanners: required shares of {', '.join(SIMULATED_SCANNERS)} with the sum 1; "
                f"received {self.scanners} with the sum {total:g}"
            )
        return self


class Cohort(Section):
    """Folder of scans, its layout and diagnoses."""

    raw: str = "data/simulated/raw"
    layout: Literal["auto", "bids", "adni", "folder"] = "auto"
    table: str | None = None
    diagnosis_column: str = "diagnosis"
    diagnosis_map: dict[str, Literal["AD", "CN"]] = Field(
        default={"AD": "AD", "Dementia": "AD", "CN": "CN", "NC": "CN", "HC": "CN"}
    )
    score_only: Diagnoses = ()
    diagnosis: Literal["visit", "baseline", "stable-only"] = "visit"
    diagnosis_table: str | None = None
    date_order: Literal["auto", "month-first", "day-first"] = "auto"
    link_targets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    adni_level: Annotated[
        tuple[AdniLevel, ...], Field(strict=False, min_length=1), AfterValidator(each_once)
    ] = get_args(AdniLevel)
    reconstruction: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    frames_minutes: Interval = (30.0, 60.0)
    max_rejected_fraction: Fraction = 0.1

    @model_validator(mode="after")
    def _trained_on_or_scored_only(self) -> Self:
        words = {word.casefold() for word in self.diagnosis_map}
        both = [word for word in self.score_only if word.casefold() in words]
        if both:
            raise ValueError(
                f"score_only: required diagnoses that diagnosis_map does not name; received {', '.join(both)}"
            )
        return self


class Normalize(Section):
    """Spatial and intensity normalization: SUVR in template space (MNI)."""

    align: Literal["affine", "none"] = "affine"
    template: Annotated[str, word_or_file_in(TEMPLATES, "built-in")] = "built-in"
    grid_mm: Annotated[float, Field(ge=1, le=6)] = 3.0
    smoothing_mm: Annotated[float, Field(ge=0, le=20)] = 8.0
    target_fwhm_mm: Annotated[float, Field(gt=0, le=20)] | None = None
    native_fwhm_mm: dict[Annotated[str, Field(min_length=1)], Positive] | None = None
    reference: Literal["global", "cerebellum", "pons"] = "cerebellum"
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.55

    @model_validator(mode="after")
    def _resolutions_are_known(self) -> Self:
        if self.target_fwhm_mm is not None and not self.native_fwhm_mm:
            raise ValueError("target_fwhm_mm: required native_fwhm_mm, as {ECAT HRRT: 4.2}; received none")
        return self


class Slice(Section):
    """Coronal planes, and the SUVR window that uint8 spans."""

    range_mm: Interval = (-76.0, 8.0)
    step_mm: Positive = 6.0
    field_mm: Positive = 192.0
    neighbours_mm: Annotated[float, Field(ge=0, le=20)] = 4.0
    window: Interval = (0.0, 2.0)


class Split(Section):
    """Test set and validation folds."""

    seed: Seed = 2019
    unit: Literal["subject", "slice"] = "subject"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.4
    folds: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _folds_suffice(self) -> Self:
        if self.folds == 0 and self.unit == "slice":
            return self
        if self.folds < 2:
            raise ValueError(
                "folds: required 2 or more (0, validation on the test set as in 2019, only with "
                f"split.unit: slice); received {self.folds} with split.unit: {self.unit}"
            )
        return self


class Model(Section):
    """MobileNetV2 up to a feature layer, average pooling, Dropout, Dense."""

    input_size: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    alpha: Positive = 0.5
    feature_layer: FeatureLayer = "block_13_expand_relu"
    weights: Annotated[str, word_or_file_in(WEIGHTS, "none", "imagenet")] = "none"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _imagenet_has_the_width(self) -> Self:
        if self.weights == "imagenet" and self.alpha not in IMAGENET_ALPHAS:
            raise ValueError(
                f"alpha: required one of {', '.join(map(str, IMAGENET_ALPHAS))} with "
                f"model.weights: imagenet; received {self.alpha}"
            )
        return self


class Augment(Section):
    """Augmentation of training slices, in fractions of their width."""

    rotation_degrees: TunableNonNegative = "tuned"
    zoom: TunableFraction = "tuned"
    shift: TunableFraction = "tuned"
    shear: TunableFraction = "tuned"
    flip: TunableBool = "tuned"
    intensity: TunableFraction = "tuned"
    fill: Literal["nearest", "constant"] = "nearest"


class Train(Section):
    """Optimizer, schedule and the choice of the best epoch."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: TunablePositive = "tuned"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: NonNegative = 0.0001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    epochs: Count = 8
    batch_size: Count = 32
    mix: Fraction = 0.0
    balance: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    monitor: Literal["none", "val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc"] = "none"


# Sections with keys that can be searched, in the order of trials.csv; why some of their keys cannot.
SEARCHED: dict[str, type[Section]] = {"train": Train, "augment": Augment, "model": Model}
SECTION_OF = {name: section for section, model in SEARCHED.items() for name in model.model_fields}
NOT_SEARCHED = {
    "epochs": "a trial lasts tune.epochs", "monitor": "trials are compared by it",
    "input_size": "slices are cut at it before the search",
}  # fmt: skip


class Range(Section):
    """Range of a searched number, and the first trial's value."""

    low: int | float
    high: int | float
    log: bool = False
    first: int | float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        first = self.low if self.first is None else self.first
        if not self.low <= first <= self.high or self.low == self.high:
            raise ValueError(
                f"required low < high and low <= first <= high; received low {self.low}, "
                f"high {self.high}, first {self.first}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"low: required more than 0 with log: true; received {self.low}")
        return self


class Choice(Section):
    """Choices of a searched setting."""

    choices: list[bool | int | float | str] = Field(min_length=1)


class SearchSpace(Section):
    """Search space by the last part of the key."""

    model_config = ConfigDict(extra="allow")

    learning_rate: Range | Choice = Range(low=0.0005, high=0.005, log=True, first=0.003)
    rotation_degrees: Range | Choice = Range(low=0.0, high=20.0, log=False, first=5.0)
    zoom: Range | Choice = Range(low=0.0, high=0.15, log=False, first=0.1)
    shift: Range | Choice = Range(low=0.0, high=0.1, log=False, first=0.02)
    shear: Range | Choice = Range(low=0.0, high=0.1, log=False, first=0.0)
    flip: Range | Choice = Choice(choices=[True, False])
    intensity: Range | Choice = Range(low=0.0, high=0.2, log=False, first=0.1)

    @model_validator(mode="before")
    @classmethod
    def _by_last_part(cls, given: Any) -> Any:
        found: dict[str, Range | Choice] = {}
        for key, value in _space_by_key(given).items():
            name = _searched_name(key)
            if name in found:
                raise ValueError(f"{key}: required once; it is there as {name} too")
            field = cls.model_fields.get(name)
            found[name] = _range_or_choice(key, value, field.default.model_dump() if field else {})
        return found


def _examples(space: Range | Choice, *, is_whole: bool) -> Sequence[Any]:
    """Return all choices, or a range's ends and a third."""
    if isinstance(space, Choice):
        return space.choices
    # A third: of ImageNet's widths, the one in the middle of two others is published too.
    between = (2 * space.low + space.high) // 3 if is_whole else (2 * space.low + space.high) / 3
    return space.low, space.high, between


def _space_by_key(space: Any) -> dict[str, Any]:
    """Return a search space by key, also one in sections."""
    if not isinstance(space, Mapping | SearchSpace):
        raise ValueError(f"required a range or choices by key; received {space!r}")  # noqa: TRY004 (pydantic's)
    found: dict[str, Any] = {}
    for key, value in dict(space).items():
        is_section = key in SEARCHED and isinstance(value, Mapping)
        found |= {f"{key}.{name}": v for name, v in value.items()} if is_section else {str(key): value}
    return found


def _searched_name(key: str) -> str:
    """Return a searched key's last part."""
    section, _, name = key.rpartition(".")
    if section not in ("", SECTION_OF.get(name)) or name not in SECTION_OF:
        known = [f"{section}.{name}" for name, section in SECTION_OF.items()] if section else list(SECTION_OF)
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"{key}: unknown key; of train, augment and model, did you mean {nearest}?")
    if name in NOT_SEARCHED:
        raise ValueError(f"{key}: required a key that can be searched; {NOT_SEARCHED[name]}; remove it")
    return name


def _range_or_choice(key: str, value: Any, default: Mapping[str, Any]) -> Range | Choice:
    """Return what a key's values are searched in."""
    if isinstance(value, Range | Choice):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: required {{low: , high: }} or {{choices: []}}; received {value!r}")  # noqa: TRY004
    kind = Choice if "choices" in value else Range
    whole = {**default, **value} if ("choices" in default) == (kind is Choice) else dict(value)
    try:
        return kind.model_validate(whole)
    except ValidationError as error:
        message = validation_messages(error.errors(include_url=False), whole, kind)[0]
        raise ValueError(f"{key}{': ' if message.startswith('required') else '.'}{message}") from error


class Tune(Section):
    """Hyperparameter search."""

    trials: Annotated[int, Field(ge=0)] = 8
    startup_trials: Count = 4
    epochs: Count = 3
    folds: Count = 1
    pruner: Literal["halving", "median", "none"] = "halving"
    workers: Count = 2
    storage: Annotated[str, AfterValidator(database)] | None = None
    space: SearchSpace = SearchSpace()


class Evaluate(Section):
    """Aggregation over slices, bootstrap and cross-validation."""

    aggregation: Literal["mean_probability", "mean_logit", "position_weights"] = "position_weights"
    resamples: Annotated[int, Field(ge=100)] = 2000
    cross_validation: CrossValidation = 0
    harmonize: Literal["none", "combat"] = "none"
    residualise: Covariates = ()
    conversion_years: Positive = 3.0


class External(Section):
    """Another labelled collection for the exported model."""

    raw: str = "data/external"
    layout: Literal["auto", "bids", "adni", "folder"] = "auto"
    table: str | None = None
    diagnosis_table: str | None = None
    other_people: bool = False
    score_only: Diagnoses = ()


class Explain(Section):
    """Saliency maps: method, scores and figures."""

    method: Literal["auto", "cam", "grad-cam"] = "auto"
    path_steps: Annotated[int, Field(ge=1, le=64)] = 2
    smooth_mm: NonNegative = 16.0
    atlas: Annotated[str, word_or_file_in(ATLASES, "built-in")] = "built-in"
    sanity_scans: Annotated[int, Field(ge=0)] = 4
    montages: Annotated[int, Field(ge=0)] = 8
    hide_below: Fraction = 0.2


class Leakage(Section):
    """Leakage test: its planes and a network to memorize them."""

    subjects: Annotated[int, Field(ge=4)] = 60
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    range_mm: Interval = (-69.0, -24.0)
    step_mm: Positive = 3.0
    input_size: Annotated[int, Field(ge=32, multiple_of=32)] = 32
    alpha: Positive = 0.5
    feature_layer: FeatureLayer = "block_13_expand_relu"
    epochs: Count = 10
    batch_size: Count = 32
    learning_rate: Positive = 0.003


class Promotion(Section):
    """Conditions of `adpet promote`."""

    min_auc_lower: Fraction = 0.8
    calibration_slope: Interval = (0.8, 1.25)
    baseline_margin: Fraction = 0.05
    champion_margin: Fraction = 0.05
    min_subjects: Annotated[int, Field(ge=2)] = 10
    external: Fraction | None = None


class Tracking(Section):
    """MLflow: names, images, and reach of the server."""

    experiment: str = "adpet"
    model_name: Annotated[str, AfterValidator(plain_name)] = "adpet"
    log_images: bool = False


class Params(Section):
    """All of ``params.yaml``."""

    seed: Seed = 2019
    compute: Compute = Compute()
    simulation: Simulation = Simulation()
    cohort: Cohort = Cohort()
    normalize: Normalize = Normalize()
    quality: Quality = Quality()
    slice: Slice = Slice()
    split: Split = Split()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    external: External = External()
    explain: Explain = Explain()
    leakage: Leakage = Leakage()
    promotion: Promotion = Promotion()
    tracking: Tracking = Tracking()

    @model_validator(mode="before")
    @classmethod
    def _named_in_the_space(cls, document: Any) -> Any:
        """Let a key say ``tuned`` that `tune.space` names."""
        try:
            if document["tune"].get("trials") == 0:
                return document
            named = {key.rpartition(".")[2] for key in _space_by_key(document["tune"]["space"])}
            values = {section: dict(document[section]) for section in SEARCHED if section in document}
        except (AttributeError, KeyError, TypeError, ValueError):
            return document
        for name in named & SECTION_OF.keys() - SearchSpace.model_fields.keys():
            if values.get(SECTION_OF[name], {}).get(name) == TUNED:
                del values[SECTION_OF[name]][name]
        return {**document, **values}

    @model_validator(mode="after")
    def _searched_values_are_allowed(self) -> Self:
        for name, space in self.tune.space:
            section = getattr(self, SECTION_OF[name])
            for value in _examples(space, is_whole=type(section).model_fields[name].annotation is int):
                try:
                    type(section).model_validate({**section.model_dump(), name: value})
                except ValidationError as error:
                    found = validation_messages(error.errors(include_url=False), {name: value}, type(section))
                    raise ValueError("tune.space." + found[0].replace(" or 'tuned'", "")) from error
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        tuned = ", ".join(self.tuned())
        if tuned and self.tune.trials == 0:
            raise ValueError(
                f"tune.trials: required 1 or more while {tuned} is 'tuned' (or give each of them a value); "
                "received 0"
            )
        if tuned and self.split.folds == 0:
            raise ValueError(
                f"split.folds: required 2 or more while {tuned} is 'tuned', since the search may not see the "
                "test set (or give each of them a value); received 0"
            )
        if self.split.folds and self.tune.folds > self.split.folds:
            raise ValueError(
                f"tune.folds: required at most split.folds ({self.split.folds}); received {self.tune.folds}"
            )
        return self

    def tuned(self) -> tuple[str, ...]:
        """Return the searched keys, such as ``train.learning_rate``."""
        named = (self.tune.space.model_extra or {}) if self.tune.trials else {}
        return tuple(
            f"{section}.{name}"
            for name, section in SECTION_OF.items()
            if name in named or getattr(getattr(self, section), name) == TUNED
        )

    def searched(self) -> dict[str, tuple[Range | Choice, Any]]:
        """Return each searched key's space and first value."""
        found = {}
        for key in self.tuned():
            section, _, name = key.partition(".")
            space, own = dict(self.tune.space)[name], getattr(getattr(self, section), name)
            if isinstance(space, Choice):
                first = own if own in space.choices else space.choices[0]
            elif space.first is None:
                first = own if own != TUNED and space.low <= own <= space.high else space.low
            else:
                first = space.first
            found[key] = space, first
        return found

    def objective(self) -> str:
        """Return the validation measure that trials are compared by."""
        return "val_subject_log_loss" if self.train.monitor == "none" else self.train.monitor

    def with_values(self, values: Mapping[str, Any], *, source: str = "the best trial") -> "Params":
        """Return validated parameters with `values` by dotted key."""
        document = self.model_dump()
        for key, value in values.items():
            set_by_key(document, key, value)
            if key.rpartition(".")[2] in (self.tune.space.model_extra or {}):
                document["tune"]["space"].pop(key.rpartition(".")[2], None)  # it has its value now
        return validate_params(document, source=source)

    def flat(self) -> dict[str, Any]:
        """Return every value by its dotted key."""
        return flatten(self.model_dump())


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the parameters."""
    document = read_yaml(path)
    for old, new in OLD_SECTIONS.items():
        if old in (document or {}):
            print(f"{path}: {old} is now named {new}; rename it before the next release", file=sys.stderr)
    return validate_params(document, source=str(path))


def validate_params(document: Any, *, source: str) -> Params:
    """Validate a parameter document; name the first wrong key."""
    if isinstance(document, dict):
        document = dict(document)
        rename_sections(document, source=source)
        section, key = GONE
        if isinstance(document.get(section), dict):
            document[section] = {name: value for name, value in document[section].items() if name != key}
    try:
        return Params.model_validate(document)
    except ValidationError as failure:
        messages = validation_messages(failure.errors(include_url=False), document, Params)
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        raise ParameterError(f"{source}: {messages[0]}{more}") from failure


def rename_sections(document: dict[str, Any], *, source: str) -> None:
    """Give old sections their present names."""
    for old, new in OLD_SECTIONS.items():
        if old not in document:
            continue
        if new in document:
            raise ParameterError(f"{source}: {old}: required once; it is the old name of {new}; remove it")
        document[new] = document.pop(old)
