"""Hold a finished project's model against newly simulated subjects.

    python benchmarks/fresh_subjects.py [PROJECT] [--subjects 1000] [--training-seeds 5] [--output FILE]
                                        [--set simulation.KEY=VALUE ...]

Simulates a cohort with another `simulation.seed` and normalizes it as the project's. The exported model,
networks trained again with other seeds (and the same hyperparameters), and every baseline of images, as
`evaluate` fitted it, answer for the same scans. Prints each metric with its 95 % interval over
subjects, the paired differences, and the AUC of the simulator's true severity, which no image can exceed.

`--set` changes the new subjects alone: the project's model meets people unlike those it was trained on.
Scans of other diagnoses than AD and CN are left out.

Choose settings with one `--simulation-seed`, report another. `--cohort FOLDER` keeps the cohort for the next
call, also with another project; after a change of the simulation's code, give another folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

import adpet
from adpet import paths
from adpet.cohort.scans import read_scans, read_typed
from adpet.errors import ParameterError
from adpet.evaluation.aggregation import Pooling, pooled_probability
from adpet.evaluation.baselines import LinearModel, image_features
from adpet.evaluation.bootstrap import FloatArray, MetricName, subject_resamples
from adpet.evaluation.comparison import paired_differences
from adpet.evaluation.metrics import Interval, level_intervals
from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import to_uint8
from adpet.imaging.slices import network_slices
from adpet.inference.exported_model import open_model
from adpet.params import Params, Simulation, load_params, validate_params
from adpet.stages.common.tables import ALIGNMENT_COLUMNS
from adpet.storage import read_json, read_yaml, set_by_key, write_json

METRICS: tuple[MetricName, ...] = (
    "auc", "brier", "log_loss", "calibration_slope", "calibration_intercept",
    "accuracy", "sensitivity", "specificity",
)  # fmt: skip
Row = Mapping[str, Interval]
# Probabilities, and the threshold of their model.
Asked = tuple[FloatArray, float]


class Fresh:
    """Subjects that no setting has seen, in order, and how answers about them are scored."""

    def __init__(self, cohort: Path, params: Params) -> None:
        alignment = read_typed(cohort / paths.ALIGNMENT, ALIGNMENT_COLUMNS)
        scans = read_scans(cohort / paths.SCANS).sort_values("subject")
        self.scans = scans[scans["scan"].isin(alignment.loc[alignment["passed"], "scan"])]
        self.set_aside = len(scans) - len(self.scans)
        self.volumes = cohort / paths.VOLUMES
        truth = pd.read_csv(cohort / paths.SIMULATED_TRUTH / "severity.tsv", sep="\t", index_col="scan")
        self.severity = truth.loc[self.scans["scan"], "severity"].to_numpy(np.float64)
        self.ill = (self.scans["diagnosis"] == "AD").to_numpy()
        self.options: dict[str, Any] = {"seed": params.seed, "resamples": params.evaluate.resamples}
        self.counts = subject_resamples(self.ill, **self.options)

    def scores(self, asked: Asked) -> Row:
        """Return every metric with its interval."""
        probability, threshold = asked
        codes = np.arange(self.ill.size)
        found = level_intervals(self.ill, codes, probability, threshold=threshold, counts=self.counts)
        return {str(name): found[name] for name in METRICS}

    def differences(self, first: Asked, second: Asked) -> Row:
        """Return the first model's metrics minus the second's, paired."""
        tables = [self.scans.assign(probability=probability) for probability, _ in (first, second)]
        return paired_differences(*tables, **self.options)


def run_stages(folder: Path, code: Path, *names: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
    for name in names:
        command, environment = [sys.executable, "-m", "adpet", name], kept | {"PYTHONPATH": str(code)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)


def fresh_recipe(params: Params, changes: Sequence[str], **values: Any) -> Simulation:
    """Return the settings of the new cohort: the project's, `values`, and each `simulation.KEY=VALUE`."""
    document = params.model_dump(mode="json")
    document["simulation"] |= {"followup_fraction": 0.0, "messy": False, "layout": "bids"} | values
    for change in changes:
        key, is_there, value = change.partition("=")
        if not is_there or not key.startswith("simulation."):
            raise ParameterError(f"--set: required simulation.KEY=VALUE; received {change!r}")
        set_by_key(document, key, YAML(typ="safe").load(value))
    return validate_params(document, source="--set").simulation


def simulate(project: Path, folder: Path, params: Params, recipe: Simulation) -> None:
    """Fill a project folder with the new cohort, normalized as the project's."""
    # No split is made of them: they may be few.
    settings = {"simulation": recipe.model_dump(mode="json"), "split": {"unit": "slice"}}
    settings |= params.model_dump(mode="json", include={"compute", "normalize", "quality"})
    if (folder / paths.ALIGNMENT).exists() and read_yaml(folder / paths.PARAMS) == settings:
        return
    (folder / paths.ALIGNMENT).unlink(missing_ok=True)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    if not (folder / paths.TEMPLATES).exists():
        (folder / paths.TEMPLATES).symlink_to(project / paths.TEMPLATES)
    write_json(folder / paths.PARAMS, settings)
    run_stages(folder, Path(adpet.__file__).parents[1], "simulate", "ingest", "normalize")


def retrain(project: Path, folder: Path, *, seed: int) -> Path:
    """Train, evaluate and export with another seed; return the export."""
    (folder / "results").mkdir(parents=True)
    for name in ("src", "data", "dvc.yaml", "dvc.lock", str(paths.TUNE)):
        (folder / name).symlink_to(project / name)
    write_json(folder / paths.PARAMS, read_yaml(project / paths.PARAMS) | {"seed": seed})
    run_stages(folder, project / "src", "train", "evaluate", "export")
    return folder / paths.EXPORT


def ask_network(export: Path, fresh: Fresh) -> Asked:
    """Return what the exported model answers, as users see it."""
    model, probability = open_model(export), []
    pooling = Pooling.of(model.document["aggregation"])
    for scan in fresh.scans["scan"]:
        volume = read_volume(fresh.volumes / f"{scan}.nii")
        planes = network_slices(volume.data, volume.affine, model.grid)
        _, per_slice, *_ = model.network(to_uint8(planes, window=tuple(model.document["slices"]["window"])))
        probability.append(pooled_probability(per_slice.astype(np.float64), pooling))
    return np.array(probability, dtype=np.float64), model.document["threshold"]


def ask_baselines(project: Path, fresh: Fresh, params: Params) -> dict[str, Asked]:
    """Return what every baseline of images answers, fitted on the project's training subjects."""
    volumes = (read_volume(fresh.volumes / f"{scan}.nii").data for scan in fresh.scans["scan"])
    images = [image_features(volume, params.normalize.grid_mm) for volume in volumes]
    models = read_json(project / paths.BASELINE_MODELS)
    return {
        name: (model.probability(np.array([image[name] for image in images])), model.threshold)
        for name, model in ((name, LinearModel.of(document)) for name, document in models.items())
    }


def table(rows: Mapping[str, Row]) -> str:
    def text(one: Any) -> str:
        return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" if isinstance(one, dict) else ""

    return pd.DataFrame.from_dict(dict(rows), orient="index").map(text).to_string()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "project", nargs="?", type=Path, default=Path(), help="finished (default: this folder)"
    )
    parser.add_argument("--subjects", type=int, default=1_000, help="half of them AD")
    parser.add_argument("--simulation-seed", type=int, help="default: the project's plus 1")
    parser.add_argument("--training-seeds", type=int, default=5, help="trainings in all; 1 trains none again")
    parser.add_argument(
        "--set", action="append", default=[], metavar="simulation.KEY=VALUE", help="of the new subjects alone"
    )
    parser.add_argument("--cohort", type=Path, help="folder that keeps the new cohort (default: none)")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    project = options.project.resolve()
    params = load_params(project / paths.PARAMS)
    seed = params.simulation.seed + 1 if options.simulation_seed is None else options.simulation_seed
    if seed == params.simulation.seed:
        sys.exit(f"--simulation-seed: required another seed than the project's cohort has; received {seed}")
    groups = {"ad_subjects": options.subjects // 2, "cn_subjects": (options.subjects + 1) // 2}
    try:
        recipe = fresh_recipe(params, options.set, seed=seed, **groups)
    except ParameterError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as temporary:
        cohort = (options.cohort or Path(temporary, "cohort")).resolve()
        simulate(project, cohort, params, recipe)
        fresh = Fresh(cohort, params)
        baselines = ask_baselines(project, fresh, params)
        networks = {f"seed {params.seed}": ask_network(project / paths.EXPORT, fresh)}
        for other in range(params.seed + 1, params.seed + options.training_seeds):
            export = retrain(project, Path(temporary, str(other)), seed=other)
            networks[f"seed {other}"] = ask_network(export, fresh)
    scores = {name: fresh.scores(asked) for name, asked in (networks | baselines).items()}
    scores["true severity"] = {"auc": fresh.scores((fresh.severity / fresh.severity.max(), 0.5))["auc"]}
    differences = {
        f"{network} - {baseline}": fresh.differences(networks[network], baselines[baseline])
        for network in networks
        for baseline in baselines
    }
    values = pd.DataFrame(
        {name: {key: one["value"] for key, one in scores[name].items()} for name in networks}
    )
    spread = values.T.agg(["mean", "min", "max"])
    print(
        f"{fresh.ill.size} new subjects, {fresh.ill.sum()} of them AD (simulation.seed {seed}; "
        f"{'; '.join([f'{fresh.set_aside} scans set aside', *options.set])})\n{table(scores)}\n\n"
        f"paired differences\n{table(differences)}\n\n"
        f"{len(networks)} training seeds\n{spread.round(3).to_string()}"
    )
    if options.output:
        document = {"subjects": fresh.ill.size, "set_aside": fresh.set_aside}
        document |= {"simulation": recipe.model_dump(mode="json")}
        document |= {"scores": scores, "differences": differences, "spread": spread.to_dict()}
        write_json(options.output, document)


if __name__ == "__main__":
    main()
