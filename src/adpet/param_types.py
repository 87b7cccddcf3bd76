"""Types of settings: numbers, words, files that DVC watches."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WrapValidator

TUNED = "tuned"

# More folds of small groups of subjects say less about each.
MAX_CROSS_VALIDATION = 5

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0, le=9_999)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


# Processing levels of ADNI's FDG images, as `adpet.cohort.adni` describes them.
AdniLevel = Literal["uniform-8mm", "uniform-6mm", "standardized", "averaged", "dynamic", "raw"]

# Where features are taken from MobileNetV2, as `adpet.learning.model` describes it.
FeatureLayer = Literal[
    "Conv_1", "out_relu", "block_16_project_BN", "block_13_expand_relu", "block_6_expand_relu",
    "block_4_expand_relu",
]  # fmt: skip


def each_once(words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a word that is named twice."""
    if len(set(words)) < len(words):
        raise ValueError(f"required each of them once; received {', '.join(words)}")
    return words


Diagnoses = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
Covariates = Annotated[tuple[Literal["age", "sex"], ...], Field(strict=False), AfterValidator(each_once)]


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """Refuse a pair that does not ascend."""
    if pair[0] >= pair[1]:
        raise ValueError(f"required the first less than the last; received {list(pair)}")
    return pair


def none_or_3(folds: int) -> int:
    """Refuse one or two folds of a cross-validation."""
    # Of each fold's rest one part chooses epoch and threshold, and one at least is trained on.
    if folds in (1, 2):
        raise ValueError(f"required 0 (none) or 3 to {MAX_CROSS_VALIDATION} folds; received {folds}")
    return folds


CrossValidation = (
    Annotated[int, Field(ge=0, le=MAX_CROSS_VALIDATION), AfterValidator(none_or_3)]
    | Literal["site", "scanner"]
)


def plain_name(name: str) -> str:
    """Refuse a name that MLflow's addresses take apart."""
    # MLflow's models:/NAME@ALIAS and models:/NAME/VERSION are taken apart at these marks.
    if not name or set(name) & set("/:@"):
        raise ValueError(f"required a name without / : and @; received {name!r}")
    return name


def cluster_name(name: str) -> str:
    """Refuse what names no cluster."""
    if name not in ("local", "slurm") and not re.fullmatch(r"(tcp|tls)://[^/@\s]+:\d+", name):
        raise ValueError(
            "required null, local, slurm, or the address of a Dask scheduler, such as tcp://host:8786; "
            f"received {name!r}"
        )
    return name


def database(address: str) -> str:
    """Refuse what is no database, or holds a password."""
    if not re.match(r"(?!https?:)[\w+]+://(?![^/@]*:[^@]*@)(?!.*[?&]\w*passw(or)?d=)", address):
        raise ValueError(
            "required the address of a database without a password, such as postgresql://user@host/optuna; "
            f"received {re.sub('//.*@', '//...@', re.sub('passw(or)?d=.*', '...', address))!r}"
        )
    return address


Interval = Annotated[tuple[float, float], Field(strict=False), AfterValidator(ascending)]


def word_or_file_in(folder: Path, *words: str) -> AfterValidator:
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


def limits_in_order(limits: "Limits") -> "Limits":
    """Refuse limits that do not ascend."""
    given = [limit for limit in limits if limit is not None]
    if given != sorted(given):
        raise ValueError(f"required ascending limits, null for none; received {list(limits)}")
    return limits


# Refused below, flagged below, flagged above, refused above; None is no limit.
Limits: TypeAlias = tuple[float | None, float | None, float | None, float | None]
LimitsInOrder = Annotated[Limits, Field(strict=False), AfterValidator(limits_in_order)]


class Section(BaseModel):
    """Mapping of ``params.yaml``: no unknown keys, strict types, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Quality(Section):
    """Limits of people's FDG scans; docs/inputs.md has the sources.

    The names are those of `adpet.inference.quality.CHECKS`.
    """

    similarity: LimitsInOrder = (None, 0.65, 0.97, None)
    brain_in_view: LimitsInOrder = (0.85, 0.93, None, None)
    field_of_view_mm: LimitsInOrder = (90.0, 140.0, None, None)
    profile_distance: LimitsInOrder = (None, None, 3.0, 10.0)
    grey_white_contrast: LimitsInOrder = (1.05, 1.12, 1.9, 2.3)
    outside_share: LimitsInOrder = (None, 0.1, 0.4, 0.5)
    asymmetry: LimitsInOrder = (None, 0.03, 0.25, 1.0)
    roughness: LimitsInOrder = (None, 0.0095, 0.03, 0.15)
    stripes: LimitsInOrder = (None, None, 1.35, 4.0)
    negative_share: LimitsInOrder = (None, None, 0.02, 0.1)
