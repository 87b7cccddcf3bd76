"""What a version must carry so that another can be held against it, without the data of either at hand.

Subjects of a cohort never leave it: a version carries hashes of their ids, with the diagnosis and the
network's probability of those it was tested on. That is the least that a paired comparison needs. A hash
names nobody, but whoever has a list of ids can look for them in it: a registry of real participants is no
public place.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from adpet.errors import InputError
from adpet.evidence.metrics import Interval

COLUMNS = ["subject", "diagnosis", "probability"]
# The baseline that a network must beat: what a reader sees without one.
REGIONS = "regions"


@dataclass(frozen=True, eq=False)
class Evidence:
    """A version's results, for a decision about it.

    Attributes
    ----------
    tested : DataFrame
        `subject` (hashed), `diagnosis`, `probability`: one row a test subject, ordered by hash.
    known : frozenset of str
        Hashed subjects that the network was trained on, or that epochs, thresholds, weights of slices or
        hyperparameters were chosen on.
    leaky : bool
        Whether its split had subjects on two sides.
    audit, audit_reason : str
        Verdict of the leakage audit, and why.
    auc : Interval
        Per test subject.
    region_lead : Interval or None
        Its AUC minus that of the region baseline, paired; None where none was scored.
    """

    tested: pd.DataFrame
    known: frozenset[str]
    leaky: bool
    audit: str
    audit_reason: str
    auc: Interval
    region_lead: Interval | None

    @classmethod
    def of(
        cls,
        subjects: pd.DataFrame,
        *,
        known: Iterable[str],
        leaky: bool,
        audit: Mapping[str, Any],
        metrics: Mapping[str, Any],
    ) -> Self:
        """Take what matters from the results of a run; the ids of `subjects` and `known` are hashed."""
        return cls(
            tested=subjects[COLUMNS].sort_values("subject", ignore_index=True),
            known=frozenset(known),
            leaky=leaky,
            audit=audit["verdict"],
            audit_reason=audit["reason"],
            auc=metrics["subject"]["auc"],
            region_lead=metrics["differences"].get(REGIONS),
        )

    def to_json(self) -> str:
        """Return the same text for the same evidence."""
        document = {
            "tested": self.tested.to_dict(orient="list"),
            "known": sorted(self.known),
            "leaky": self.leaky,
            "audit": self.audit,
            "audit_reason": self.audit_reason,
            "auc": self.auc,
            "region_lead": self.region_lead,
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            Where it is something else.
        """
        try:
            document = json.loads(text)
            tested = pd.DataFrame(document.pop("tested"), columns=COLUMNS)
            return cls(tested=tested, known=frozenset(document.pop("known")), **document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"required a version's evidence as JSON; received: {' '.join(str(error).split())[:200]}; "
                "register it anew with: dvc repro --force register"
            ) from error


def evidence_digest(text: str) -> str:
    """Return the hash by which a version knows its evidence from any other."""
    return hashlib.sha256(text.encode()).hexdigest()
