"""Settings: types, limits and defaults of ``params.yaml``.

A key that the file lacks takes its default; an unknown key is refused. A hyperparameter that may be searched
is a value or the word ``tuned``: ``tuned`` takes the best trial's value, a value takes it out of the search.
"""

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from adpet.errors import ParameterError
from adpet.paths import ATLASES, TEMPLATES, WEIGHTS
from adpet.storage import read_yaml

TUNED = "tuned"

# A setting that nothing follows from any more; it is passed over until the next release.
GONE = ("split", "validation_fold")

# Sections by their names before this release, which are accepted until the next one.
OLD_SECTIONS = {"phantom": "simulation", "standardize": "normalize", "audit": "leakage"}

# The widths for which ImageNet weights of MobileNetV2 are published (Keras' documentation).
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

# Processing levels of ADNI's FDG images, as `adpet.cohort.adni` describes them.
AdniLevel = Literal["uniform-8mm", "uniform-6mm", "standardized", "averaged", "dynamic", "raw"]

# Where features are taken from MobileNetV2, as `adpet.learning.model` describes it.
FeatureLayer = Literal[
    "Conv_1",
    "out_relu",
    "block_16_project_BN",
    "block_13_expand_relu",
    "block_6_expand_relu",
    "block_4_expand_relu",
]

# Scanners of adpet.simulation.scanner, and the tolerance for the sum of their shares: thirds are rounded.
SIMULATED_SCANNERS = ("HRRT", "D690", "TruePoint", "HRplus")
SHARES_TOLERANCE = 0.02

# More folds of small groups of subjects say less about each.
MAX_CROSS_VALIDATION = 5

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _each_once(levels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(levels)) < len(levels):
        raise ValueError(f"required every level once; received {', '.join(levels)}")
    return levels


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"required the first less than the last; received {list(pair)}")
    return pair


def _none_or_3(folds: int) -> int:
    # Of each fold's rest one part chooses epoch and threshold, and one at least is trained on.
    if folds in (1, 2):
        raise ValueError(f"required 0 (none) or 3 to {MAX_CROSS_VALIDATION} folds; received {folds}")
    return folds


def _model_name(name: str) -> str:
    # MLflow's models:/NAME@ALIAS and models:/NAME/VERSION are taken apart at these marks.
    if not name or set(name) & set("/:@"):
        raise ValueError(f"required a name without / : and @; received {name!r}")
    return name


Interval = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_ascending)]


def _word_or_file_in(folder: Path, *words: str) -> AfterValidator:
    """Accept one of `words`, or a file that DVC watches."""

    def check(value: str) -> str:
        if value not in words and folder not in Path(os.path.normpath(value)).parents:
            raise ValueError(
                f"required {', '.join(words)} or a file in {folder}/, so that a change of it is noticed; "
                f"received {value}; move the file there"
            )
        return value

    return AfterValidator(check)


_OR_TUNED = WrapValidator(lambda value, check: value if value == TUNED else check(value))
TunablePositive = Annotated[Positive | Literal["tuned"], _OR_TUNED]
TunableNonNegative = Annotated[NonNegative | Literal["tuned"], _OR_TUNED]
TunableFraction = Annotated[Fraction | Literal["tuned"], _OR_TUNED]
TunableBool = Annotated[bool | Literal["tuned"], _OR_TUNED]


class Section(BaseModel):
    """Mapping of ``params.yaml``: no unknown keys, strict types, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Compute(Section):
    """Processes for scans and threads for the network."""

    workers: Count = 2
    threads: Count = 1


class Simulation(Section):
    """Simulated cohort: its subjects, scanners and file layout."""

    seed: Seed = 2019
    layout: Literal["bids", "adni"] = "bids"
    messy: bool = False
    ad_subjects: Annotated[int, Field(ge=2)] = 120
    cn_subjects: Annotated[int, Field(ge=2)] = 120
    followup_fraction: Fraction = 0.2
    max_visits: Annotated[int, Field(ge=1, le=5)] = 2
    scanners: dict[str, Fraction] = {"HRRT": 0.12, "D690": 0.3, "TruePoint": 0.33, "HRplus": 0.25}
    ad_severity_mean: NonNegative = 1.0
    ad_severity_sd: NonNegative = 0.55
    preclinical_fraction: Fraction = 0.2
    age_mean: Positive = 75.0
    age_sd: NonNegative = 7.0
    pose: NonNegative = 1.0
    noise: NonNegative = 1.0

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
    diagnosis_map: dict[str, Literal["AD", "CN"]] = {
        "AD": "AD",
        "Dementia": "AD",
        "CN": "CN",
        "NC": "CN",
        "HC": "CN",
    }
    diagnosis: Literal["visit", "baseline", "stable-only"] = "visit"
    diagnosis_table: str | None = None
    adni_level: Annotated[
        tuple[AdniLevel, ...], Field(strict=False, min_length=1), AfterValidator(_each_once)
    ] = get_args(AdniLevel)
    reconstruction: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    frames_minutes: Interval = (30.0, 60.0)
    max_rejected_fraction: Fraction = 0.1


class Normalize(Section):
    """Spatial and intensity normalization: SUVR in template space (MNI)."""

    align: Literal["affine", "none"] = "affine"
    template: Annotated[str, _word_or_file_in(TEMPLATES, "built-in")] = "built-in"
    grid_mm: Annotated[float, Field(ge=1, le=6)] = 3.0
    smoothing_mm: Annotated[float, Field(ge=0, le=20)] = 8.0
    reference: Literal["global", "cerebellum", "pons"] = "cerebellum"
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.5


class Slice(Section):
    """Coronal planes, and the SUVR window that uint8 spans."""

    range_mm: Interval = (-76.0, -32.0)
    step_mm: Positive = 4.0
    field_mm: Positive = 192.0
    window: Interval = (0.0, 2.0)


class Split(Section):
    """Test set and validation folds."""

    seed: Seed = 2019
    unit: Literal["subject", "slice"] = "subject"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    folds: Annotated[int, Field(ge=0)] = 5

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
    weights: Annotated[str, _word_or_file_in(WEIGHTS, "none", "imagenet")] = "none"
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
    monitor: Literal["none", "val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc"] = "none"


class Range(Section):
    """Range of a searched number, and the first trial's value."""

    low: float
    high: float
    log: bool
    first: float

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low <= self.first <= self.high or self.low == self.high:
            raise ValueError(
                f"required low < high and low <= first <= high; received low {self.low}, "
                f"high {self.high}, first {self.first}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"low: required more than 0 with log: true; received {self.low}")
        return self


class Choice(Section):
    """Choices of a searched switch, the first trial's first."""

    choices: list[bool] = Field(min_length=1)


class SearchSpace(Section):
    """Search space of the hyperparameters that are ``tuned``."""

    learning_rate: Range = Range(low=0.0005, high=0.005, log=True, first=0.003)
    rotation_degrees: Range = Range(low=0.0, high=20.0, log=False, first=5.0)
    zoom: Range = Range(low=0.0, high=0.15, log=False, first=0.1)
    shift: Range = Range(low=0.0, high=0.1, log=False, first=0.02)
    shear: Range = Range(low=0.0, high=0.1, log=False, first=0.0)
    flip: Choice = Choice(choices=[True, False])
    intensity: Range = Range(low=0.0, high=0.2, log=False, first=0.1)

    @field_validator("*", mode="before")
    @classmethod
    def _defaults_fill_a_range(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _values_are_allowed(self) -> Self:
        """Refuse ranges in which a trial would be refused."""
        for name, searched in self:
            if not isinstance(searched, Range):
                continue
            highest = 1.0 if name in ("zoom", "shift", "shear", "intensity") else float("inf")
            if searched.low < 0 or searched.high > highest or (name == "learning_rate" and searched.low == 0):
                lowest = "more than 0" if name == "learning_rate" else "0 or more"
                raise ValueError(
                    f"{name}: required low of {lowest}{' and high of at most 1' if highest == 1 else ''}; "
                    f"received low {searched.low}, high {searched.high}"
                )
        return self


class Tune(Section):
    """Hyperparameter search."""

    trials: Annotated[int, Field(ge=0)] = 3
    startup_trials: Count = 2
    epochs: Count = 3
    folds: Count = 1
    pruner: Literal["median", "none"] = "median"
    space: SearchSpace = SearchSpace()


class Evaluate(Section):
    """Aggregation over slices, bootstrap and cross-validation."""

    aggregation: Literal["mean_probability", "mean_logit", "position_weights"] = "position_weights"
    resamples: Annotated[int, Field(ge=100)] = 2000
    cross_validation: Annotated[int, Field(ge=0, le=MAX_CROSS_VALIDATION), AfterValidator(_none_or_3)] = 0


class Explain(Section):
    """Saliency maps: method, scores and figures."""

    method: Literal["auto", "cam", "grad-cam"] = "auto"
    path_steps: Annotated[int, Field(ge=1, le=64)] = 4
    smooth_mm: NonNegative = 16.0
    atlas: Annotated[str, _word_or_file_in(ATLASES, "built-in")] = "built-in"
    sanity_scans: Annotated[int, Field(ge=0)] = 6
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


class Tracking(Section):
    """MLflow: names, images, and reach of the server."""

    experiment: str = "adpet"
    model_name: Annotated[str, AfterValidator(_model_name)] = "adpet"
    log_images: bool = False


class Params(Section):
    """All of ``params.yaml``."""

    seed: Seed = 2019
    compute: Compute = Compute()
    simulation: Simulation = Simulation()
    cohort: Cohort = Cohort()
    normalize: Normalize = Normalize()
    slice: Slice = Slice()
    split: Split = Split()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    explain: Explain = Explain()
    leakage: Leakage = Leakage()
    promotion: Promotion = Promotion()
    tracking: Tracking = Tracking()

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
        """Return the keys that are ``tuned``, such as ``train.learning_rate``."""
        return tuple(
            f"{section}.{key}"
            for section in ("train", "augment")
            for key, value in getattr(self, section)
            if value == TUNED
        )

    def objective(self) -> str:
        """Return the validation measure that trials are compared by."""
        return "val_subject_log_loss" if self.train.monitor == "none" else self.train.monitor

    def with_values(self, values: Mapping[str, Any]) -> "Params":
        """Return validated parameters with `values` by dotted key."""
        document = self.model_dump()
        for key, value in values.items():
            set_by_key(document, key, value)
        return validate_params(document, source="the best trial")

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
        messages = _messages(failure.errors(include_url=False), document)
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


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def set_by_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a leaf of nested mappings by its dotted key."""
    *sections, leaf = key.split(".")
    for section in sections:
        document = document.setdefault(section, {})
    document[leaf] = value


def _messages(errors: Sequence[ErrorDetails], document: Any) -> list[str]:
    """Return a message a key; 'or' joins a union's alternatives."""
    required: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        key = _key_path(error["loc"], document)
        if error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            separator = "." if key and not text.startswith("required") else ": " if key else ""
            required[key + separator + text, ""] = []
        elif error["type"] == "extra_forbidden":
            required[_unknown_key(error["loc"]), ""] = []
        else:
            wanted = error["msg"].removeprefix("Input should be ")
            required.setdefault((key, repr(error["input"])), []).append(wanted)
    return [
        f"{key or 'top level'}: required {' or '.join(dict.fromkeys(wanted))}; received {received}"
        if wanted
        else key
        for (key, received), wanted in required.items()
    ]


def _key_path(location: tuple[int | str, ...], document: Any) -> str:
    """Return the dotted key of a location, without union branches."""
    names = []
    for name in location:
        try:
            document = document[name]
        except (KeyError, IndexError, TypeError):
            break
        names.append(str(name))
    return ".".join(names)


def _unknown_key(location: tuple[int | str, ...]) -> str:
    *sections, key = map(str, location)
    model: Any = Params
    for section in sections:
        model = model.model_fields[section].annotation
    allowed = list(model.model_fields)
    close = difflib.get_close_matches(key, allowed, n=1)
    hint = f"; did you mean {'.'.join([*sections, close[0]])}?" if close else ""
    return f"{'.'.join([*sections, key])}: unknown key; allowed here: {', '.join(allowed)}{hint}"
