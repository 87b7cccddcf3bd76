"""Paths of inputs and outputs, relative to the project's root."""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINES = (Path("dvc.yaml"), Path("data/simulated/dvc.yaml"))

# Files of one's own that params.yaml may name: a stage that reads them depends on the folder.
WEIGHTS = Path("data/weights")
TEMPLATES = Path("data/templates")
ATLASES = Path("data/atlases")

SIMULATED_RAW = Path("data/simulated/raw")
SIMULATED_TRUTH = Path("data/simulated/truth")

SCANS = Path("data/interim/scans.csv")
REJECTED = Path("data/interim/rejected.csv")
SCORE_ONLY = Path("data/interim/score_only.csv")
INGEST = Path("data/interim/ingest.json")
VOLUMES = Path("data/interim/volumes")
ALIGNMENT = Path("data/interim/alignment.csv")

SLICES = Path("data/processed/slices")
SLICES_TABLE = Path("data/processed/slices.csv")
SPLIT = Path("data/processed/split.csv")
SPLIT_SUMMARY = Path("data/processed/split.json")

TUNE = Path("results/tune")
BEST_TRIAL = TUNE / "best.json"
TRIALS = TUNE / "trials.csv"
SEARCH_FIGURE = TUNE / "search.png"

TRAIN = Path("results/train")
MODEL = TRAIN / "model.keras"
HISTORY = TRAIN / "history.csv"
RUN = TRAIN / "run.json"
CURVES = TRAIN / "curves.png"
VALIDATION = TRAIN / "validation.csv"

METRICS = Path("results/metrics.json")
EVALUATE = Path("results/evaluate")
EVALUATION = EVALUATE / "evaluation.json"
PREDICTIONS = EVALUATE / "predictions.csv"
SUBJECTS = EVALUATE / "subjects.csv"
BASELINE_PREDICTIONS = EVALUATE / "baselines.csv"
BASELINE_MODELS = EVALUATE / "baselines.json"
SUBGROUPS = EVALUATE / "subgroups.csv"
ROC = EVALUATE / "roc.csv"
ROC_BAND = EVALUATE / "roc_band.csv"
PRECISION_RECALL = EVALUATE / "precision_recall.csv"
CALIBRATION = EVALUATE / "calibration.csv"
POOLING = EVALUATE / "pooling.json"
FINDINGS = EVALUATE / "findings.json"

CROSS_VALIDATION = Path("results/cross-validation")
CROSS_VALIDATION_SUMMARY = CROSS_VALIDATION / "summary.json"
CROSS_VALIDATION_FOLDS = CROSS_VALIDATION / "folds.json"
CROSS_VALIDATION_HISTORY = CROSS_VALIDATION / "history.csv"
CROSS_VALIDATION_PREDICTIONS = CROSS_VALIDATION / "predictions.csv"
CROSS_VALIDATION_SUBJECTS = CROSS_VALIDATION / "subjects.csv"

# The model as it is used outside of the pipeline.
EXPORT = Path("results/export")

# Its results on another collection, if there is one.
EXTERNAL = Path("results/external/external.json")

SCORE = Path("results/score")
SCORES = SCORE / "scores.csv"
SCORED_GROUPS = SCORE / "groups.json"
GROUPS_FIGURE = SCORE / "groups.png"
CONVERSION_FIGURE = SCORE / "conversion.png"

EXPLAIN = Path("results/explain")
CAM = EXPLAIN / "cam.json"

LEAKAGE = Path("results/leakage/leakage.json")
LEAKAGE_PREDICTIONS = LEAKAGE.with_name("predictions.csv")
LEAKAGE_FIGURE = LEAKAGE.with_name("leak.png")

REPORT = Path("results/report/report.html")
MODEL_CARD = REPORT.with_name("MODEL_CARD.md")

VERSION = Path("results/register/version.json")

# Unfinished work of each stage, by a hash of what the result follows from: a killed stage goes on from it.
WORK = Path(".adpet")
# Optuna's studies, finished ones too: a larger tune.trials extends them. Their times keep them out of DVC.
STUDIES = WORK / "optuna.db"
# File index of ingest, so that only new and changed files are read; nothing is lost without it.
INGEST_NOTES = WORK / "ingest.tsv"
