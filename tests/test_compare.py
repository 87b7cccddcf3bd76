"""Two runs are compared by DVC's own commands: figures, metrics and parameters of two revisions."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from ruamel.yaml import YAML

from adpet.params import set_by_key

pytestmark = pytest.mark.dvc

METRICS = "results/evaluate/metrics.json"
# Instead of the pipeline: figures in a shade, and metrics, that follow from a parameter.
STAND_IN = f"""
import json, pathlib, sys
from PIL import Image
from ruamel.yaml import YAML
epochs = YAML(typ="safe").load(pathlib.Path("params.yaml"))["train"]["epochs"]
for name in sys.argv[1:]:
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), epochs).save(name)
pathlib.Path("{METRICS}").write_text(json.dumps({{"auc": epochs / 100}}))
"""


def call(*command):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return subprocess.run(command, env=kept, text=True, stdout=subprocess.PIPE, check=True).stdout


def test_two_runs_are_compared_by_figures_metrics_and_parameters(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yaml = YAML()
    document = yaml.load(project_root / "dvc.yaml")
    plots = list(document["plots"])
    outs = [out for stage in document["stages"].values() for out in stage.get("outs", [])]
    assert set(plots) <= {out if isinstance(out, str) else next(iter(out)) for out in outs}
    stage = {
        "cmd": f"python stand_in.py {' '.join(plots)}",
        "params": ["train.epochs"],
        "outs": plots,
        "metrics": [{METRICS: {"cache": False}}],
    }
    yaml.dump({"stages": {"all": stage}, "plots": plots}, Path("dvc.yaml"))
    Path("stand_in.py").write_text(STAND_IN)
    shutil.copy(project_root / "params.yaml", tmp_path)
    call("git", "init", "--quiet")
    call("dvc", "init", "--quiet")
    for epochs in (20, 30):
        params = yaml.load(Path("params.yaml"))
        set_by_key(params, "train.epochs", epochs)
        yaml.dump(params, Path("params.yaml"))
        call("dvc", "repro")
        if epochs == 20:
            call("git", "add", "--all")
            call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "run")

    call("dvc", "plots", "diff", "HEAD", "--out", "compared")
    shades = {plot: set() for plot in plots}
    for name in re.findall('src="([^"]+)"', Path("compared/index.html").read_text()):
        (plot,) = (plot for plot in plots if plot.replace("/", "_") in unquote(name))
        shades[plot].add(Image.open(Path("compared") / unquote(name)).getpixel((0, 0)))
    assert shades == {plot: {20, 30} for plot in plots}
    metrics = json.loads(call("dvc", "metrics", "diff", "HEAD", "--json"))
    assert metrics[METRICS]["auc"] == {"old": 0.2, "new": 0.3, "diff": pytest.approx(0.1)}
    params = json.loads(call("dvc", "params", "diff", "HEAD", "--json"))
    assert params["params.yaml"] == {"train.epochs": {"old": 20, "new": 30, "diff": 10}}
