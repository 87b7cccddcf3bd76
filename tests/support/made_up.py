"""Made-up rows of the scans table, and evidence for promotions."""

import hashlib

import numpy as np
import pandas as pd

from adpet.evaluation.promotion import Evidence

AUC = {"value": 0.95, "low": 0.9, "high": 0.98}
LEAD = {"value": 0.0, "low": -0.04, "high": 0.04}
SLOPE = {"value": 1.4, "low": 1.2, "high": 1.7}


def scan_row(subject, session="1", diagnosis="AD", **values):
    """Return a row of the scans table with other values where given."""
    scan = f"sub-{subject}_ses-{session}"
    return {
        "scan": scan, "subject": subject, "session": session, "diagnosis": diagnosis, "age": 70.0, "sex": "F",
        "site": "A", "scanner": "GE Advance", "level": "", "path": f"data/raw/{scan}.nii", "frame_seconds": "",
        "content": hashlib.sha256(scan.encode()).hexdigest(), **values,
    }  # fmt: skip


def answers(separation=2.0, *, noise=0.0, subjects=80, first=0, seed=3):
    """Subjects by turns AD and CN; `separation` tells the groups apart, `noise` is the network's own."""
    rng = np.random.default_rng(seed)
    truth = np.arange(subjects) % 2 == 0
    score = rng.normal(size=subjects) + separation * truth
    score += noise * np.random.default_rng(seed + 1).normal(size=subjects)
    return pd.DataFrame(
        {
            "subject": [f"{first + number:016x}" for number in range(subjects)],
            "diagnosis": np.where(truth, "AD", "CN"),
            "probability": 1 / (1 + np.exp(-score)),
        }
    )


def evidence(table=None, **changes):
    """Return what a good version shows, with other facts where given."""
    facts = {
        "tested": answers() if table is None else table,
        "known": frozenset({"f" * 16}),
        "leaky": False,
        "leakage": "clean",
        "leakage_reason": "with shuffled labels new subjects are at chance (p = 0.4)",
        "auc": AUC,
        "slope": SLOPE,
        "baseline": "regions",
        "lead": LEAD,
    }
    return Evidence(**facts | changes)
