"""Promotion rule: may a challenger replace the champion, and why.

Pure functions of the evidence that a registered version carries, with hashed subject ids.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import pandas as pd

from adpet.contracts import Contract, Count, Estimate, EvaluationDocument, LeakageTest, TrainingRun
from adpet.errors import InputError
from adpet.evaluation.aggregation import NEGATIVE, POSITIVE
from adpet.evaluation.comparison import BASELINES, paired_differences
from adpet.evaluation.leakage import CLEAN
from adpet.evaluation.metrics import Interval

COLUMNS = ["subject", "diagnosis", "probability"]
# Baselines that a network is held against: the first that was scored.
NEUTRAL = ("atlas", "regions")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Results of a version on which a promotion is decided."""

    # `COLUMNS`, one row a test subject, ordered by hash.
    tested: pd.DataFrame
    # Used to train or to choose epochs, thresholds, slice weights or hyperparameters.
    known: frozenset[str]
    leaky: bool
    # Verdict of the leakage test, and why.
    leakage: str
    leakage_reason: str
    auc: Interval
    slope: Interval
    # AUC difference to a baseline, and which, if it was scored.
    baseline: str | None
    lead: Interval | None

    @classmethod
    def of(
        cls,
        subjects: pd.DataFrame,
        *,
        trained: TrainingRun,
        leakage: LeakageTest,
        metrics: EvaluationDocument,
    ) -> Self:
        """Collect the evidence of a run; subject ids are hashed."""
        baseline = next((name for name in NEUTRAL if name in metrics.differences), None)
        return cls(
            tested=subjects[COLUMNS].sort_values("subject", ignore_index=True),
            known=frozenset([*trained.trained_on, *trained.validated_on]),
            leaky=trained.leaky,
            leakage=leakage.verdict,
            leakage_reason=leakage.reason,
            auc=_interval_of(metrics.subject.auc),
            slope=_interval_of(metrics.subject.calibration_slope),
            baseline=baseline,
            lead=None if baseline is None else _interval_of(metrics.differences[baseline].auc),
        )

    def to_json(self) -> str:
        """Return JSON text, the same for the same evidence."""
        document = vars(self) | {"tested": self.tested.to_dict(orient="list"), "known": sorted(self.known)}
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        try:
            document = json.loads(text)
            tested = pd.DataFrame(document.pop("tested"), columns=COLUMNS)
            return cls(tested=tested, known=frozenset(document.pop("known")), **document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "required the evidence as this version of adpet writes it; received: "
                f"{' '.join(str(error).split())[:200]}; register it again with: dvc repro --force register"
            ) from error


class Validation(Contract):
    """Result on another collection, as a version's tag has it."""

    auc: Estimate
    ad: Count
    cn: Count
    # What of the training was looked for there, and not found.
    leakage_checks: list[str]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the result of ``validation.json``."""
        counts, auc = document["evaluation"]["counts"], document["evaluation"]["subject"]["auc"]
        return cls(
            auc=Estimate(**{end: round(value, 6) for end, value in auc.items()}),
            ad=counts["subjects_ad"],
            cn=counts["subjects_cn"],
            leakage_checks=document["leakage_checks"],
        )


def _interval_of(estimate: Estimate) -> Interval:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def evidence_digest(text: str) -> str:
    """Return the SHA-256 of the evidence's text."""
    return hashlib.sha256(text.encode()).hexdigest()


# Above this share of common subjects with differing diagnoses, the ids are of different people.
MOST_RELABELLED = 0.1
_OTHER_PEOPLE = (
    "too many: these seem to be other people with the same ids; use distinct ids for the two cohorts, or the "
    "diagnoses that the champion was tested with"
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Requirements of a promotion.

    Margins are AUC that may be lost, at the lower end of the paired difference; 0 asks for a win.
    """

    min_auc_lower: float  # to be exceeded by the lower end of the AUC's interval
    calibration_slope: tuple[float, float]  # to be overlapped by the slope's interval
    baseline_margin: float  # to the neutral baseline
    champion_margin: float
    min_subjects: int  # of each diagnosis
    external: float | None  # to be exceeded like min_auc_lower, on each other collection; None asks for none
    seed: int
    resamples: int


class Condition(NamedTuple):
    """One condition, whether it is met, and its numbers."""

    name: str
    met: bool
    text: str


class Common(NamedTuple):
    """Subjects that two versions are compared on, and exclusions."""

    challenger: pd.DataFrame
    champion: pd.DataFrame
    known: int
    relabelled: int


def conditions(challenger: Evidence, champion: Evidence | None, rule: Rule) -> list[Condition]:
    """Return every condition for `challenger` to replace `champion`, if any."""
    return [
        _new_subjects(challenger, rule),
        Condition(
            "leakage test", challenger.leakage == CLEAN, f"{challenger.leakage}: {challenger.leakage_reason}"
        ),
        _auc(challenger.auc, rule),
        _calibration(challenger.slope, rule),
        _baseline(challenger, rule),
        Condition("champion", met=True, text="there is no champion yet")
        if champion is None
        else _champion(challenger, champion, rule),
    ]


def external_conditions(validations: Mapping[str, Validation], rule: Rule, *, uri: str) -> list[Condition]:
    """Return the condition on other collections, if there is one.

    Validations, by collection, that prove nothing do not count. All others must be good enough, so that none
    is chosen for its result.
    """
    if rule.external is None:
        return []
    counted, texts = [], []
    for cohort, found in validations.items():
        figures = (
            f"{_interval(_interval_of(found.auc))} on {found.ad + found.cn} subjects ({found.ad} AD, "
            f"{found.cn} CN) of {cohort}"
        )
        if not found.leakage_checks:
            texts.append(f"{figures} does not count: nothing of the training was looked for there")
        elif min(found.ad, found.cn) < rule.min_subjects:
            texts.append(f"{figures} does not count; {_required(rule)}")
        else:
            counted.append(found.auc.low)
            texts.append(figures)
    required = f"required: lower end over {rule.external:g} on each that counts"
    if not counted:
        none = texts or ["not validated on another collection"]
        text = f"{'; '.join(none)}; {required}, one at least; run: adpet validate {uri} --cohort DIR"
        return [Condition("external", met=False, text=text)]
    return [Condition("external", min(counted) > rule.external, f"{'; '.join(texts)}; {required}")]


def common_subjects(challenger: Evidence, champion: Evidence) -> Common:
    """Return subjects tested by both versions and known to neither.

    In the same order. Subjects whose diagnosis differs between the two are excluded as well.
    """
    both = challenger.tested.merge(champion.tested, on="subject", suffixes=("", "_champion"))
    known = both["subject"].isin(challenger.known | champion.known)
    relabelled = ~known & (both["diagnosis"] != both["diagnosis_champion"])
    kept = both[~known & ~relabelled].sort_values("subject", ignore_index=True)
    other = kept.assign(probability=kept["probability_champion"])
    return Common(kept[COLUMNS], other[COLUMNS], int(known.sum()), int(relabelled.sum()))


def _new_subjects(challenger: Evidence, rule: Rule) -> Condition:
    tested = challenger.tested
    known = int(tested["subject"].isin(challenger.known).sum())
    text = f"tested on {_counted(tested)}; trained or tuned on {known} of them"
    if challenger.leaky:
        return Condition("new subjects", met=False, text=f"the split leaked subjects; {text}")
    if _is_small(tested, rule):
        return Condition("new subjects", met=False, text=f"{text}; {_required(rule)}")
    return Condition("new subjects", known == 0, text)


def _auc(auc: Interval, rule: Rule) -> Condition:
    text = f"{_interval(auc)}; required: lower end over {rule.min_auc_lower:g}"
    return Condition("AUC", auc["low"] > rule.min_auc_lower, text)


def _calibration(slope: Interval, rule: Rule) -> Condition:
    least, most = rule.calibration_slope
    text = f"slope {_interval(slope)}; required: an interval that overlaps {least:g} to {most:g}"
    return Condition("calibration", slope["low"] <= most and slope["high"] >= least, text)


def _baseline(challenger: Evidence, rule: Rule) -> Condition:
    lead = challenger.lead
    if challenger.baseline is None or lead is None:
        return Condition("baseline", met=False, text=f"none of {', '.join(NEUTRAL)} was scored")
    win = "" if rule.baseline_margin else ", a win"
    name = BASELINES.get(challenger.baseline, challenger.baseline)
    text = f"{name}: AUC difference {_interval(lead, sign='+')}; {_wanted(rule.baseline_margin)}{win}"
    return Condition("baseline", lead["low"] > -rule.baseline_margin, text)


def _champion(challenger: Evidence, champion: Evidence, rule: Rule) -> Condition:
    common = common_subjects(challenger, champion)
    left = "".join(
        f", {count} excluded since {why}"
        for count, why in (
            (common.known, "one of the two was trained or tuned on them"),
            (common.relabelled, "their diagnosis differs"),
        )
        if count
    )
    subjects = f"{_counted(common.challenger)} that both were tested on{left}"
    if common.relabelled > MOST_RELABELLED * (common.relabelled + len(common.challenger)):
        return Condition("champion", met=False, text=f"{subjects}; {_OTHER_PEOPLE}")
    if _is_small(common.challenger, rule):
        return Condition("champion", met=False, text=f"{subjects}; {_required(rule)}")
    if common.challenger["probability"].equals(common.champion["probability"]):
        return Condition("champion", met=True, text=f"the same predictions as the champion's on {subjects}")
    options = {"seed": rule.seed, "resamples": rule.resamples}
    found = paired_differences(common.challenger, common.champion, **options)
    auc, brier = found["auc"], found["brier"]
    text = (
        f"AUC difference {_interval(auc, sign='+')} on {subjects}; {_wanted(rule.champion_margin)}; Brier "
        f"difference {_interval(brier, sign='+')}; required: lower end not over 0 (not clearly worse)"
    )
    return Condition("champion", auc["low"] > -rule.champion_margin and brier["low"] <= 0, text)


def _numbers(subjects: pd.DataFrame) -> Mapping[str, int]:
    return {name: int((subjects["diagnosis"] == name).sum()) for name in (POSITIVE, NEGATIVE)}


def _counted(subjects: pd.DataFrame) -> str:
    numbers = ", ".join(f"{count} {name}" for name, count in _numbers(subjects).items())
    return f"{len(subjects)} subjects ({numbers})"


def _is_small(subjects: pd.DataFrame, rule: Rule) -> bool:
    return min(_numbers(subjects).values()) < rule.min_subjects


def _required(rule: Rule) -> str:
    return f"required: {rule.min_subjects} or more of each diagnosis"


def _wanted(margin: float) -> str:
    return f"required: lower end over {-margin:g}" if margin else "required: lower end over 0"


def _interval(value: Interval, *, sign: str = "") -> str:
    return f"{value['value']:{sign}.3f} (95 % interval {value['low']:{sign}.3f} to {value['high']:{sign}.3f})"
