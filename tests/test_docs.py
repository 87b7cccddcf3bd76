"""Docs: links lead somewhere, commands and settings exist, the reference is what the code says, the site builds."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import chain, groupby
from pathlib import Path

import pytest
import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from workspace import PROJECT, copy_of

from adpet.cli import _parser
from adpet.params import Params, validate_params

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line, with those that it is continued on, or a document for a command.
STATEMENT = re.compile(r"^[^\n]*<<'(\w+)'\n.*?^\1$|^(?:[^\n]*[|\\]\n)*[^#\n][^\n]*$", BLOCK.flags)
# What commands in the text begin with.
PROGRAMS = "adpet|dvc|git|mlflow|optuna|python"
# Of Markdown, and of the few pictures in HTML.
LINK = re.compile(r"(?<=\]\()[^)\s]+|(?<=src=\")[^\"]+")
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]

dvc_parser = cache(get_main_parser)
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a forge and MkDocs make of the headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def statements(page: Path) -> list[list[str]]:
    """Return what a page says to type: the statements of each block, and each command in the text."""
    found = []
    parts = re.findall(rf"{BLOCK.pattern}|`((?:{PROGRAMS})\s[^`]*)`", page.read_text(), BLOCK.flags)
    for kind, block, inline in parts:
        if kind == "sh":
            found.append([match[0] for match in STATEMENT.finditer(block)])
        elif kind == "console":
            found.append(re.findall(r"^\$ (.*)$", block, re.MULTILINE))
        elif inline and "..." not in inline:
            found.append([" ".join(inline.split())])
    return found


def commands(page: Path) -> list[tuple[str, ...]]:
    """Return the words of each `adpet` and `dvc` command of a page, in blocks and in the text."""
    found = []
    for line in chain.from_iterable(statements(page)):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        simple = groupby(lexer, lambda word: not set(word) <= set("();<>|&"))
        found += [tuple(words) for is_command, words in simple if is_command]
    return [words for words in found if words[0] in ("adpet", "dvc")]


def require_command(program: str, *arguments: str) -> None:
    """Fail if the program does not know the command, or the project what the command names."""
    parser = _parser(arguments[0]) if program == "adpet" else dvc_parser()
    try:
        parsed = parser.parse_args(arguments)
    except (DvcParserError, SystemExit):
        # In the text a command may stand for itself.
        needed = ["--cohort", "DIR"] if arguments == ("validate",) else []
        parsed = parser.parse_args([*arguments, "FILE", *needed])
    if arguments[0] == "preset":
        assert parsed.name in (None, "defaults", *(path.stem for path in PROJECT.glob("presets/*.yaml")))
    if arguments[0] == "repro":
        assert set(parsed.targets) <= STAGES.keys()
    for setting in getattr(parsed, "set_param", ()):
        assert setting.partition("=")[0] in Params().flat()


@of_every_page
def test_relative_links_lead_to_files_and_headings(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@of_every_page
def test_commands_and_what_they_name_exist(page):
    for words in commands(page):
        require_command(*words)


@pytest.mark.parametrize(
    "wrong",
    [
        ("adpet", "predict", "SCAN", "--jsn", "FILE"),
        ("adpet", "preset", "protocol-2018"),
        ("dvc", "repro", "standardize"),
        ("dvc", "exp", "run", "-S", "train.epoch=3"),
        ("dvc", "metrics", "compare"),
    ],
)
def test_wrong_command_is_noticed(wrong):
    with pytest.raises((AssertionError, DvcParserError, SystemExit)):
        require_command(*wrong)


@of_every_page
def test_settings_are_valid(page):
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "yaml" and yaml.safe_load(block).keys() <= Params.model_fields.keys():
            validate_params(yaml.safe_load(block), source=page.name)


def test_reference_is_what_the_script_writes():
    script = runpy.run_path(str(PROJECT / "scripts/reference.py"))
    assert script["TARGET"].read_text() == script["reference"]()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; a warning of MkDocs, as of a missing page or heading, fails."""
    folder = tmp_path_factory.mktemp("site")
    # Not --quiet, which sees no warning.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(build, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_site_has_every_page(site):
    assert {page.stem for page in PAGES[2:]} <= {page.stem for page in site.glob("*.html")}


@pytest.mark.browser
def test_shown_page_fetches_nothing_from_elsewhere(site, launch_chromium):
    fetched = []
    page = launch_chromium().new_page()
    page.on("request", lambda request: fetched.append(request.url))
    for name in ("index", "tutorial", "reference"):
        page.goto((site / f"{name}.html").as_uri())
    assert [url for url in fetched if not url.startswith("file:")] == []
    assert len(fetched) > 3


# How commands begin that are not run, and why.
NOT_RUN = {
    "make ": "installs everything first",
    ". .venv/bin/activate": "another environment",
    "pip install ": "needs a network",
    "optuna-dashboard": "a server",
    "mlflow models serve": "a server; tests/tracking/test_serving.py",
    "mlflow run": "the pipeline; tests/test_mlproject.py",
    "mlflow db upgrade": "the lab's server",
    "python -m mlflow.server": "the lab's server",
    "python benchmarks/": "minutes; that they start is tested below",
    "python scripts/": "minutes, or a checkout of this project",
    "git init": "a project that is none yet; tests/support/workspace.py",
    'echo "{': "asks that server",
    "ADPET_PROJECT=": "a test, which needs Node",
    "adpet predict SCANS/ --output answers --cluster slurm": "a cluster; tests/test_cluster.py",
    "dask ": "a cluster; tests/test_cluster.py",
    "PROJECT/": "what SLURM is given",
    "sudo ": "the lab's server; tests/test_team.py",
    "python3 -m venv /srv": "the lab's server",
    "/srv/": "the lab's server",
    "export MLFLOW_TRACKING_URI=https": "the lab's server",
    "export MLFLOW_TRACKING_USERNAME": "the lab's server",
    "read -rs MLFLOW_TRACKING_PASSWORD": "the lab's server",
    "python - ann": "the lab's server",
    "adpet preset protocol-2019": "minutes; tests/test_dvc_pipeline.py",
    "dvc exp run -S split.unit=subject": "follows that preset",
    "dvc exp run -S simulation.layout=adni": "minutes; tests/test_dvc_pipeline.py",
    "adpet simulate --check": "300 subjects; tests/simulation/test_validation.py",
    "adpet predict SCAN --fwhm": "a model that smooths by scanner; tests/commands/test_predict.py",
    "dvc gc ": "asks first, and empties the cache of all pages",
    "adpet reproduce": "minutes; tests/commands/test_reproduce.py",
    "adpet validate MODEL --cohort DIR --score-only": "such a collection; tests/commands/test_validate.py",
}
# What stands for the reader's own or would take minutes, and what is run.
VALUES = {
    r"SCAN(?=\s|$)": "SCAN.nii.gz",
    r"/data/other-hospital": "DIR",
    r"ADDRESS adpet && cd adpet": "../origin ../clone && cd ../clone",
    r"s3://\S+": "$PWD/../storage",
    r"ssh://\S+": "$PWD/../lab",
    r"data/weights/FILE": "FILE",  # there, stages would depend on it
    r"/a/path/in/ascii": "$(dvc cache dir)",
    r"adpet promote \d": "adpet promote 1 --force --reason 'a small cohort'",
    r"train\.(epochs|learning_rate)=\S+": "train.epochs=4",
    r"tune\.trials=\d+": "tune.trials=3 tune",
}


def run_here(page: Path) -> list[list[str]]:
    """Return the statements that the test runs, by block: not the name of a command alone."""
    found = []
    for block in statements(page):
        lines = [line for line in block if not line.startswith(tuple(NOT_RUN))]
        if lines and (block != lines or len(block) > 1 or len(block[0].split()) > 2):
            found.append(lines)
    return found


def test_what_is_not_run_is_on_a_page_and_its_own_test_exists():
    lines = [line for page in PAGES for block in statements(page) for line in block]
    assert [begins for begins in NOT_RUN if not any(line.startswith(begins) for line in lines)] == []
    named = re.findall(r"tests/\S+", " ".join(NOT_RUN.values()))
    assert [path for path in named if not (PROJECT / path).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    sorted(
        {line for page in PAGES for block in statements(page) for line in block if "python bench" in line}
    ),
)
def test_benchmark_starts_and_knows_the_options_of_the_page(command):
    _, script, *arguments = command.split()
    told = subprocess.run(
        [sys.executable, script, "--help"], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout
    assert [word for word in arguments if word.startswith("-") and word not in told] == []


def test_tutorial_begins_with_the_first_run():
    (first, activate), *_ = statements(PROJECT / "docs/tutorial.md")
    assert (first, activate.split("#")[0].strip()) == ("make repro", ". .venv/bin/activate")


@pytest.fixture(scope="module")
def promoted(run_by_dvc, tmp_path_factory):
    """The finished project with a champion, and a cache that all pages share: an experiment is computed once."""
    folder = tmp_path_factory.mktemp("promoted")
    project = copy_of(run_by_dvc, folder / "project")
    shutil.move(project.root / ".dvc/cache", folder / "cache")
    project.run("dvc", "cache", "dir", "--local", str(folder / "cache"))
    project.run("dvc", "remote", "add", "--default", "storage", "../storage")
    shutil.copytree(PROJECT / "presets", project.root / "presets")
    project.commit_all()
    project.run("adpet", "promote", "1", "--force", "--reason", "a small cohort")
    return project


@pytest.fixture
def readers_project(promoted, tmp_path):
    """A copy that is shared, with files of the names that the pages use for the reader's own."""
    project, root = copy_of(promoted, tmp_path / "copy"), tmp_path / "copy"
    person = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
    project.variables |= {f"GIT_{key}": "t@example.org" for key in person}
    project.run("git", "clone", "--quiet", "--bare", ".", "../origin")
    project.run("git", "remote", "add", "origin", "../origin")
    project.run("git", "push", "--quiet", "--set-upstream", "origin", "HEAD")
    raw = root / "data/simulated/raw"
    shutil.copytree(raw, root / "data/raw")
    for folder in ("DIR", "data/hospital-b"):
        project.copy_test_subjects(root / folder)
    for folder in ("MODEL", "validation_NAME/recalibrated"):
        shutil.copytree(root / "results/export", root / folder)
    (root / "SCANS").mkdir()
    for path in ("SCAN.nii.gz", "SCANS/one.nii.gz"):
        shutil.copy(next(raw.rglob("*.nii.gz")), root / path)
    (root / "FILE").touch()
    return project


@pytest.mark.slow
@pytest.mark.dvc
@pytest.mark.parametrize("page", list(filter(run_here, PAGES)), ids=lambda page: page.name)
def test_commands_of_a_page_run_one_after_another(readers_project, page):
    """Each block in a shell of its own, and in the text each command that has an argument."""
    for lines in run_here(page):
        block = "\n".join(f"{{ {line}\n}} || exit" for line in lines)
        for pattern, value in VALUES.items():
            block = re.sub(pattern, value, block)
        readers_project.run("bash", "-c", block)
    if page.name == "tutorial.md":
        assert "train.epochs" in readers_project.run("dvc", "params", "diff", "HEAD").stdout
