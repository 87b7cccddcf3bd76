"""JSON files that stages hand on, as strict models: whatever reads one validates it here first."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Document(BaseModel):
    """Base of every model here: exact types, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """Name the first wrong field, and how many others there are."""
    first, *others = error.errors(include_url=False)
    field = ".".join(map(str, first["loc"])) or "the file"
    more = f" (and {len(others)} more)" if others else ""
    return f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}{more}"


# results/export/model.json


class Lineage(Document):
    """What the model was trained from; only the identifier is needed here."""

    model_config = ConfigDict(extra="allow")

    id: str


class Network(Document):
    """The ONNX file, and the sizes of its input and of its maps in pixels."""

    file: str
    input_size: Count
    map_size: tuple[Count, Count]


class StandardSpace(Document):
    """Template space that scans are normalized to."""

    grid_mm: Positive
    shape: tuple[Count, Count, Count]
    affine: Annotated[
        list[list[float]], Field(min_length=4, max_length=4, description="Voxel indices to MNI mm, (4, 4).")
    ]
    align: Literal["affine", "none"]
    smoothing_mm: Annotated[float, Field(ge=0, description="FWHM of the Gaussian; 0 is none.")]
    reference: Annotated[str, Field(description="Name of the reference region.")]
    min_similarity: Annotated[float, Field(ge=-1, le=1)]


class Level(Document):
    """Pyramid level: subsampling and blur, in voxels."""

    step: Count
    blur: float
    every: Count


class Registration(Document):
    """Constants of `adpet.imaging`'s registration, which explains each."""

    max_voxels: Count
    blur_fwhm_mm: float
    local_sigma_mm: float
    air: float
    margin_mm: float
    guess_degrees: list[float]
    guess_shifts_mm: list[float]
    guess_spacing_mm: float
    rigid_levels: list[Level]
    affine_levels: list[Level]
    wholly_seen: float
    min_seen: float
    similarity_sigma: float
    convincing: float
    stretch: tuple[float, float]
    shortest_step_mm: float
    most_steps: Count
    damping: float
    eased: float
    tightened: float
    damping_range: tuple[float, float]
    fewest_seen: float


class Slices(Document):
    """Coronal planes that the network is given."""

    y_mm: Annotated[list[float], Field(description="MNI y of each plane, ascending, equally spaced.")]
    size: Annotated[Count, Field(description="Pixels along each side.")]
    field_mm: Annotated[Positive, Field(description="Edge of a plane.")]
    centre_z_mm: float
    window: Annotated[tuple[float, float], Field(description="SUVR that become byte 0 and byte 255.")]


class Aggregation(Document):
    """How the slices' probabilities become that of the scan."""

    method: Literal["mean_probability", "mean_logit", "position_weights"]
    weights: Annotated[list[float] | None, Field(description="Of each plane, for position_weights.")]


class CalibrationBin(Document):
    """Test subjects whose probability lies between two edges."""

    low: Share
    high: Share
    subjects: Count
    ad_share: Share
    ad_share_low: Annotated[Share, Field(description="Lower end of the exact 95 % interval.")]
    ad_share_high: Annotated[Share, Field(description="Upper end of the exact 95 % interval.")]


class Calibration(Document):
    """Share of AD among test subjects, by probability."""

    bins: Annotated[list[CalibrationBin], Field(min_length=1)]
    prevalence: Share


class Estimate(Document):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Performance(Document):
    """What the model reached on the test subjects."""

    auc: Estimate
    test_subjects: Count


class Region(Document):
    """A region of the atlas, and its SUVR in CN training subjects."""

    label: Count
    name: str
    ad_pattern: Annotated[bool, Field(description="True if AD lowers uptake here first.")]
    cn_mean: float
    cn_sd: float


class Profile(Document):
    """Regional SUVR of the training scans, in the order of the regions."""

    mean: list[float]
    precision: Annotated[list[list[float]], Field(description="Inverse covariance, (regions, regions).")]


class QualityLimit(Document):
    """Range of a quality measure in the training scans, and the limits that follow."""

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


class ModelDocument(Document):
    """`model.json` of an exported model: all constants that predictions need."""

    format: Literal[1]
    name: str
    lineage: Lineage
    adpet_version: str
    intended_use: str
    labels: list[str]
    network: Network
    files: Annotated[dict[str, str], Field(description="SHA-256 of each file of the folder, by name.")]
    standard: StandardSpace
    registration: Registration
    slices: Slices
    aggregation: Aggregation
    threshold: Annotated[float, Field(description="Probability from which a scan is called AD.")]
    calibration: Calibration
    performance: Performance
    leaky: Annotated[bool, Field(description="True if a subject is in training and test.")]
    regions: list[Region]
    profile: Profile
    quality: list[QualityLimit]
