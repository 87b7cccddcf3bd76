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
from workspace import PROJECT

from adpet.cli import _parser
from adpet.params import Params, validate_params

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of Markdown, and of the few pictures in HTML.
LINK = re.compile(r"(?<=\]\()[^)\s]+|(?<=src=\")[^\"]+")
STAGES = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]

dvc_parser = cache(get_main_parser)
of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a forge and MkDocs make of the headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[tuple[str, ...]]:
    """Return the words of each `adpet` and `dvc` command of a page, in blocks and in the text."""
    text = page.read_text()
    lines = chain.from_iterable(block.splitlines() for kind, block in BLOCK.findall(text) if kind == "sh")
    lines = [*lines, *re.findall(r"^\$ (.*)$", text, re.MULTILINE)]
    inline = re.findall(r"`((?:adpet|dvc)\s[^`]*)`", BLOCK.sub("", text))
    found = []
    for line in (*lines, *(code for code in inline if "..." not in code)):
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


@pytest.mark.slow
@pytest.mark.dvc
def test_commands_of_the_tutorial_run_one_after_another(copied_from_dvc):
    """All but `make repro`, whose results are there; so few subjects do not meet the conditions of a promotion."""
    person = {
        f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    copied_from_dvc.variables |= person
    shutil.copytree(copied_from_dvc.root / "data/simulated/raw", copied_from_dvc.root / "data/raw")
    blocks = BLOCK.findall((PROJECT / "docs/tutorial.md").read_text())
    asked = [block if kind == "sh" else "\n".join(re.findall(r"^\$ (.*)$", block, re.MULTILINE))
             for kind, block in blocks if kind in ("sh", "console")]  # fmt: skip
    first, activate, *lines = "\n".join(asked).split("\n")
    assert (first, activate.split("#")[0].strip()) == ("make repro", ". .venv/bin/activate")
    for line in filter(None, lines):
        forced = " --force --reason 'a small cohort'" if line.startswith("adpet promote") else ""
        copied_from_dvc.run("bash", "-c", line + forced)
    assert "train.epochs" in copied_from_dvc.run("dvc", "params", "diff", "HEAD").stdout
