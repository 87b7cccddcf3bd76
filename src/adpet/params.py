"""Every setting of the pipeline: ``params.yaml``, typed, validated and refused in one clear line.

A hyperparameter that may be searched is a value or the word ``tuned``: ``tuned`` takes the best
trial's value, a value fixes it and takes it out of the search.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from adpet.errors import ParameterError
from adpet.paths import ATLASES, TEMPLATES, WEIGHTS

TUNED = "tuned"

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


def _value_or_tuned(value: Any, check: Any) -> Any:
    return value if value == TUNED else check(value)


def _model_name(name: str) -> str:
    # MLflow's models:/NAME@ALIAS and models:/NAME/VERSION are taken apart at these marks.
    if not name or set(name) & set("/:@"):
        raise ValueError(f"required a name without / : and @; received {name!r}")
    return name


def _word_or_file_in(folder: Path, *words: str) -> AfterValidator:
    """Accept one of `words`, or a file in the folder that DVC looks for changes in."""

    def check(value: str) -> str:
        if value not in words and folder not in Path(os.path.normpath(value)).parents:
            raise ValueError(
                f"required {', '.join(words)} or a file in {folder}/, so that a change of it is noticed; "
                f"received {value}; move the file there"
            )
        return value

    return AfterValidator(check)


_OR_TUNED = WrapValidator(_value_or_tuned)
TunablePositive = Annotated[Positive | Literal["tuned"], _OR_TUNED]
TunableNonNegative = Annotated[NonNegative | Literal["tuned"], _OR_TUNED]
TunableFraction = Annotated[Fraction | Literal["tuned"], _OR_TUNED]
TunableBool = Annotated[bool | Literal["tuned"], _OR_TUNED]


class Section(BaseModel):
    """A mapping of ``params.yaml``: no unknown keys, no silent conversions, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Compute(Section):
    """What the machine gives: processes for scans, threads for the network."""

    workers: Count
    threads: Count


class Simulation(Section):
    """The built-in synthetic cohort: who is in it, how they are scanned and their scans delivered."""

    layout: Literal["bids", "adni"]
    messy: bool
    ad_subjects: Annotated[int, Field(ge=2)]
    cn_subjects: Annotated[int, Field(ge=2)]
    followup_fraction: Fraction
    max_visits: Annotated[int, Field(ge=1, le=5)]
    scanners: dict[str, Fraction]
    ad_severity_mean: NonNegative
    ad_severity_sd: NonNegative
    preclinical_fraction: Fraction
    age_mean: Positive
    age_sd: NonNegative
    pose: NonNegative
    noise: NonNegative

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
    """Where the scans are and how their collection is laid out."""

    raw: str
    layout: Literal["auto", "bids", "adni", "folder"]
    table: str | None
    diagnosis_column: str
    diagnosis_map: dict[str, Literal["AD", "CN"]]
    diagnosis: Literal["visit", "baseline", "stable-only"]
    diagnosis_table: str | None
    adni_level: tuple[AdniLevel, ...] = Field(strict=False, min_length=1)
    max_rejected_fraction: Fraction

    @field_validator("adni_level")
    @classmethod
    def _each_level_once(cls, levels: tuple[AdniLevel, ...]) -> tuple[AdniLevel, ...]:
        if len(set(levels)) < len(levels):
            raise ValueError(f"required every level once; received {', '.join(levels)}")
        return levels


class Normalize(Section):
    """From a scan as stored to a ratio image on the MNI grid."""

    align: Literal["affine", "none"]
    template: Annotated[str, _word_or_file_in(TEMPLATES, "built-in")]
    grid_mm: Annotated[float, Field(ge=1, le=6)]
    smoothing_mm: Annotated[float, Field(ge=0, le=20)]
    reference: Literal["global", "cerebellum", "pons"]
    min_similarity: Annotated[float, Field(ge=-1, le=1)]


class Slice(Section):
    """Which coronal planes are cut, and the intensities that uint8 spans."""

    range_mm: tuple[float, float] = Field(strict=False)
    step_mm: Positive
    field_mm: Positive
    window: tuple[float, float] = Field(strict=False)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _require_ascending("range_mm", self.range_mm)
        _require_ascending("window", self.window)
        return self


class Split(Section):
    """Who is tested, who validates, who trains."""

    unit: Literal["subject", "slice"]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    folds: Annotated[int, Field(ge=0)]
    validation_fold: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _folds_suffice(self) -> Self:
        if self.folds == 0 and self.unit == "slice":
            return self
        if self.folds < 2:
            raise ValueError(
                "folds: required 2 or more (0, validation on the test set as in 2019, only with "
                f"split.unit: slice); received {self.folds} with split.unit: {self.unit}"
            )
        if self.validation_fold >= self.folds:
            raise ValueError(
                f"validation_fold: required less than split.folds ({self.folds}); "
                f"received {self.validation_fold}"
            )
        return self


class Model(Section):
    """The network: MobileNetV2 up to a feature layer, global average pooling, Dropout, Dense."""

    input_size: Annotated[int, Field(ge=32, multiple_of=32)]
    alpha: Positive
    feature_layer: FeatureLayer
    weights: Annotated[str, _word_or_file_in(WEIGHTS, "none", "imagenet")]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _imagenet_has_the_width(self) -> Self:
        if self.weights == "imagenet" and self.alpha not in IMAGENET_ALPHAS:
            raise ValueError(
                f"alpha: required one of {', '.join(map(str, IMAGENET_ALPHAS))} with "
                f"model.weights: imagenet; received {self.alpha}"
            )
        return self


class Augment(Section):
    """Random changes of the training slices; fractions are of the slice's width."""

    rotation_degrees: TunableNonNegative
    zoom: TunableFraction
    shift: TunableFraction
    shear: TunableFraction
    flip: TunableBool
    intensity: TunableFraction
    fill: Literal["nearest", "constant"]


class Train(Section):
    """How the network is fitted, and by what the best epoch is chosen."""

    optimizer: Literal["adamw", "sgd"]
    learning_rate: TunablePositive
    schedule: Literal["cosine", "linear", "constant"]
    weight_decay: NonNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    epochs: Count
    batch_size: Count
    mix: Fraction
    monitor: Literal["val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc"]


class Range(Section):
    """Where a number is searched, and the value that the first trial tries."""

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
    """Which values are tried, the first one by the first trial."""

    choices: list[bool] = Field(min_length=1)


class Space(Section):
    """The search space of the hyperparameters that are ``tuned``."""

    learning_rate: Range
    rotation_degrees: Range
    zoom: Range
    shift: Range
    shear: Range
    flip: Choice
    intensity: Range

    @model_validator(mode="after")
    def _values_are_allowed(self) -> Self:
        """Refuse before the search what a trial would be refused for in the middle of it."""
        for name, one in self:
            if not isinstance(one, Range):
                continue
            highest = 1.0 if name in ("zoom", "shift", "shear", "intensity") else float("inf")
            if one.low < 0 or one.high > highest or (name == "learning_rate" and one.low == 0):
                lowest = "more than 0" if name == "learning_rate" else "0 or more"
                raise ValueError(
                    f"{name}: required low of {lowest}{' and high of at most 1' if highest == 1 else ''}; "
                    f"received low {one.low}, high {one.high}"
                )
        return self


class Tune(Section):
    """The hyperparameter search."""

    trials: Annotated[int, Field(ge=0)]
    startup_trials: Count
    epochs: Count
    folds: Count
    pruner: Literal["median", "none"]
    space: Space


class Evaluate(Section):
    """How slices become a subject's result, and how its uncertainty is found."""

    aggregation: Literal["mean_probability", "mean_logit", "position_weights"]
    resamples: Annotated[int, Field(ge=100)]
    cross_validation: Annotated[int, Field(ge=0, le=MAX_CROSS_VALIDATION)]

    @field_validator("cross_validation")
    @classmethod
    def _a_fold_validates(cls, folds: int) -> int:
        # Of each fold's rest one part chooses epoch and threshold, and one at least is trained on.
        if folds in (1, 2):
            raise ValueError(f"required 0 (none) or 3 to {MAX_CROSS_VALIDATION} folds; received {folds}")
        return folds


class Explain(Section):
    """How class activation maps are made, scored and drawn."""

    method: Literal["auto", "cam", "grad-cam"]
    path_steps: Annotated[int, Field(ge=1, le=64)]
    smooth_mm: NonNegative
    atlas: Annotated[str, _word_or_file_in(ATLASES, "built-in")]
    sanity_scans: Annotated[int, Field(ge=0)]
    montages: Annotated[int, Field(ge=0)]
    hide_below: Fraction


class Leakage(Section):
    """The leakage audit: whose planes, and a network of its own that must be able to memorise them."""

    subjects: Annotated[int, Field(ge=4)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    range_mm: tuple[float, float] = Field(strict=False)
    step_mm: Positive
    input_size: Annotated[int, Field(ge=32, multiple_of=32)]
    alpha: Positive
    feature_layer: FeatureLayer
    epochs: Count
    batch_size: Count
    learning_rate: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _require_ascending("range_mm", self.range_mm)
        return self


class Promotion(Section):
    """What `adpet promote` asks of a version before it becomes the champion."""

    min_auc_lower: Fraction
    baseline_margin: Fraction
    champion_margin: Fraction
    min_subjects: Annotated[int, Field(ge=2)]


class Tracking(Section):
    """What goes to MLflow, and when."""

    experiment: str
    model_name: Annotated[str, AfterValidator(_model_name)]
    log_images: bool
    offline: bool
    wait_s: Annotated[float, Field(ge=0)]

    @property
    def connection(self) -> dict[str, Any]:
        """What a stage tells `adpet.tracking.store.connect`."""
        return {"experiment": self.experiment, "offline": self.offline, "wait_s": self.wait_s, "writes": True}


class Params(Section):
    """The whole of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    compute: Compute
    simulation: Simulation
    cohort: Cohort
    normalize: Normalize
    slice: Slice
    split: Split
    model: Model
    augment: Augment
    train: Train
    tune: Tune
    evaluate: Evaluate
    explain: Explain
    leakage: Leakage
    promotion: Promotion
    tracking: Tracking

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.tuned() and self.tune.trials == 0:
            raise ValueError(
                f"tune.trials: required 1 or more while {', '.join(self.tuned())} is 'tuned' "
                "(or give each of them a value); received 0"
            )
        if self.tuned() and self.split.folds == 0:
            raise ValueError(
                f"split.folds: required 2 or more while {', '.join(self.tuned())} is 'tuned', since the "
                "search may not see the test set (or give each of them a value); received 0"
            )
        if self.split.folds and self.tune.folds > self.split.folds:
            raise ValueError(
                f"tune.folds: required at most split.folds ({self.split.folds}); received {self.tune.folds}"
            )
        return self

    def tuned(self) -> tuple[str, ...]:
        """Return the keys, such as ``train.learning_rate``, that the search decides."""
        sections = {"train": self.train, "augment": self.augment}
        return tuple(
            f"{section}.{key}"
            for section, values in sections.items()
            for key, value in values
            if value == TUNED
        )

    def refits(self) -> bool:
        """Say whether the final network is trained on all training subjects, the validation fold with them.

        Without folds, as in 2019, there is no part that was left out of the training for validation.
        """
        return self.evaluate.cross_validation > 0 and self.split.folds > 0

    def with_values(self, values: Mapping[str, Any]) -> "Params":
        """Return these parameters with `values` by dotted key, validated anew."""
        document = self.model_dump()
        for key, value in values.items():
            set_by_key(document, key, value)
        return validate_params(document, source="the best trial")

    def flat(self) -> dict[str, Any]:
        """Return every value by its dotted key."""
        return flatten(self.model_dump())


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate the parameters.

    Raises
    ------
    ParameterError
        Where the file is missing, is not YAML, or holds a key or value that is not allowed.
    """
    return validate_params(read_yaml(path), source=str(path))


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does (so that ``1e-3`` is a number).

    Raises
    ------
    ParameterError
        Where there is no such file or it is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise ParameterError(
            f"{path}: required, but not there; run this in the project's root, where dvc.yaml lies"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        place = " ".join(str(error).split())
        raise ParameterError(f"{path}: required YAML; received: {place}") from error


def validate_params(document: Any, *, source: str) -> Params:
    """Check a parameter document, and name the first key that is not as required.

    Raises
    ------
    ParameterError
        ``source: key: required ...; received ...``, and how many more there are.
    """
    try:
        return Params.model_validate(document)
    except ValidationError as failure:
        messages = _messages(failure.errors(include_url=False), document)
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        raise ParameterError(f"{source}: {messages[0]}{more}") from failure


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
    """Set one leaf of nested mappings by its dotted key."""
    *sections, leaf = key.split(".")
    for section in sections:
        document = document[section]
    document[leaf] = value


def _require_ascending(key: str, pair: tuple[float, float]) -> None:
    if pair[0] >= pair[1]:
        raise ValueError(f"{key}: required the first less than the last; received {list(pair)}")


def _messages(errors: Sequence[ErrorDetails], document: Any) -> list[str]:
    """Return one message a key: a union's alternatives are joined with 'or'."""
    required: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        key = _key_path(error["loc"], document)
        if error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            separator = "." if key and not text.startswith("required") else ": " if key else ""
            required[key + separator + text, ""] = []
        elif error["type"] == "extra_forbidden":
            required[_unknown_key(error["loc"]), ""] = []
        elif error["type"] == "missing":
            required[f"{'.'.join(map(str, error['loc']))}: required, but not there; add it", ""] = []
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
    """Return the dotted key that `location` stands for, without pydantic's names of union branches."""
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
