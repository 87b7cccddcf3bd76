"""Two runs beside each other by DVC's own commands: figures, metrics and parameters of two revisions."""

import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from ruamel.yaml import YAML

from adpet.params import set_by_key

pytestmark = pytest.mark.dvc

METRICS = "results/evaluate/metrics.json"

# In place of the pipeline: figures in a shade, and metrics, that follow from a parameter.
STAND_IN = f"""
import json, pathlib, sys
from PIL import Image
from ruamel.yaml import YAML
epochs = YAML(typ="safe").load(pathlib.Path("params.yaml"))["train"]["epochs"]
for name in sys.argv[1:]:
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), epochs).save(name)
auc = {{"subject": {{"auc": {{"value": epochs / 100}}}}}}
pathlib.Path("{METRICS}").write_text(json.dumps(auc))
"""


class Images(HTMLParser):
    """The images of a page, as files beside it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.page, self.files = page, []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.files.append(self.page.parent / unquote(dict(attrs)["src"]))


class TwoRuns:
    """A project with this project's plots, in which a run was committed and another one has followed."""

    def __init__(self, root: Path, project_root: Path) -> None:
        self.root = root
        self.plots = YAML(typ="safe").load(project_root / "dvc.yaml")["plots"]
        shutil.copy(project_root / "params.yaml", root)
        (root / "stand_in.py").write_text(STAND_IN)
        self.write_pipeline()
        self.call("git", "init", "--quiet")
        self.call("dvc", "init", "--quiet")
        self.call("dvc", "config", "core.analytics", "false")
        for epochs in (20, 30):
            self.set_epochs(epochs)
            self.call("dvc", "repro")
            if epochs == 20:
                self.call("git", "add", "--all")
                self.call(
                    "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "run"
                )

    def write_pipeline(self):
        stage = {
            "cmd": f"python stand_in.py {' '.join(self.plots)}",
            "params": ["train.epochs"],
            "outs": self.plots,
            "metrics": [{METRICS: {"cache": False}}],
        }
        with (self.root / "dvc.yaml").open("w") as file:
            YAML().dump({"stages": {"all": stage}, "plots": self.plots}, file)

    def set_epochs(self, epochs):
        yaml, path = YAML(), self.root / "params.yaml"
        document = yaml.load(path)
        set_by_key(document, "train.epochs", epochs)
        yaml.dump(document, path)

    def call(self, *command):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
        environment = kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}
        done = subprocess.run(
            command, cwd=self.root, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, project_root):
    return TwoRuns(tmp_path_factory.mktemp("two-runs"), project_root)


def test_plots_diff_shows_every_figure_of_both_runs_from_files_beside_the_page(two_runs):
    two_runs.call("dvc", "plots", "diff", "HEAD", "--out", "compared")
    shades = {plot: set() for plot in two_runs.plots}
    for file in Images(two_runs.root / "compared/index.html").files:
        (plot,) = (plot for plot in two_runs.plots if plot.replace("/", "_") in file.name)
        shades[plot].add(Image.open(file).getpixel((0, 0)))
    assert shades == {plot: {20, 30} for plot in two_runs.plots}


def test_metrics_diff_shows_what_has_changed(two_runs):
    changed = json.loads(two_runs.call("dvc", "metrics", "diff", "HEAD", "--json"))
    auc = changed[METRICS]["subject.auc.value"]
    assert (auc["old"], auc["new"]) == (0.2, 0.3)


def test_params_diff_shows_why(two_runs):
    changed = json.loads(two_runs.call("dvc", "params", "diff", "HEAD", "--json"))
    assert changed["params.yaml"] == {"train.epochs": {"old": 20, "new": 30, "diff": 10}}


def test_every_figure_that_is_compared_is_made_by_a_stage(project_root):
    document = YAML(typ="safe").load(project_root / "dvc.yaml")
    outs = [out for stage in document["stages"].values() for out in stage.get("outs", [])]
    assert set(document["plots"]) <= {out if isinstance(out, str) else next(iter(out)) for out in outs}
