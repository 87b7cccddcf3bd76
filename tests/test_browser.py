"""What a person sees of a finished run in MLflow's UI, looked for in a real browser."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from servers import BROWSER_PATIENCE_MS
from workspace import runs_of

pytestmark = [pytest.mark.browser, pytest.mark.server]


@pytest.fixture(scope="module")
def run_list(finished, tmp_path_factory):
    """The address that `adpet ui` names."""
    said = tmp_path_factory.mktemp("ui") / "said"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with said.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "adpet", "ui", "--port", str(port)],
            cwd=finished.root, env=finished.environment(), stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield printed_address(server, said)
    finally:
        server.terminate()
        server.wait(timeout=30)


def printed_address(server, said):
    """Wait until the UI answers, and return the address that was printed."""
    for _ in range(2 * BROWSER_PATIENCE_MS // 200):
        assert server.poll() is None, said.read_text()
        if found := re.search(r"http://127\.0\.0\.1:[0-9]+/#/\S+", said.read_text()):
            with suppress(OSError), urllib.request.urlopen(found[0], timeout=5):
                return found[0]
        time.sleep(0.2)
    raise TimeoutError(said.read_text())


@pytest.fixture(scope="module")
def asked():
    """Addresses that the pages of these tests have asked for something."""
    return set()


@pytest.fixture(scope="module")
def tab(launch_chromium, asked):
    """One tab for all tests, wide enough for the whole list: MLflow draws no column that is out of sight."""
    browser = launch_chromium("--disable-gpu")
    page = browser.new_page(viewport={"width": 2400, "height": 1000})
    page.set_default_timeout(BROWSER_PATIENCE_MS)
    page.on("request", lambda request: asked.add(urlsplit(request.url)))
    yield page
    browser.close()


@pytest.fixture
def open_page(tab, run_list):
    """Open an address within the UI, as its links have it."""

    def open_page(fragment):
        tab.goto("about:blank")  # else the page stays, and its artifact view shows what it showed before
        tab.goto(run_list.partition("#")[0] + fragment, wait_until="commit")
        return tab

    return open_page


@pytest.fixture(scope="module")
def training(finished):
    return runs_of(finished, "train")[1][-1]


@pytest.fixture
def open_run(open_page, training):
    run = f"#/experiments/{training.info.experiment_id}/runs/{training.info.run_id}"
    return lambda place="": open_page(run + place)


def seen(page, text, **options):
    """Wait until a text is to be seen."""
    page.get_by_text(text, **options).filter(visible=True).first.wait_for()


def target(page, name):
    """Return where the link of that name leads, within the UI; it would open another tab."""
    return page.get_by_role("link", name=name, exact=True).last.get_attribute("href")


class TestTheListOfRuns:
    def test_it_shows_the_figures_that_matter_beside_names_and_data(self, open_page, run_list, training):
        page = open_page(run_list[run_list.index("#") :])
        for text in ("At a glance", training.info.run_name, "data/simulated/raw", re.compile(r"^search ")):
            seen(page, text)
        for column in ("test_auc", "test_auc_ci_low", "adpet.leakage", "Dataset"):
            seen(page, column)

    def test_trials_are_folded_under_their_search(self, open_page, run_list, finished):
        page = open_page(run_list[run_list.index("#") :])
        seen(page, re.compile(r"^search "))
        assert not page.get_by_text("trial 0", exact=True).count()
        search = page.get_by_role("gridcell").filter(has_text=re.compile("search "))
        search.get_by_role("button").first.click()
        for number in range(finished.small["tune.trials"]):
            seen(page, f"trial {number}", exact=True)


class TestTheRun:
    def test_its_description_leads_to_version_data_and_back(self, open_page, open_run, training):
        page = open_run()
        seen(page, "Registered as")
        data, version = (target(page, name) for name in ("data/simulated/raw", "adpet version 1"))
        seen(open_page(data), re.compile(r"^search "))
        seen(open_page(version), "Model card")
        seen(open_page(target(page, training.info.run_name)), "Registered as")

    def test_data_and_lineage_are_on_it(self, open_page, open_run, training):
        page = open_run()
        digest = training.inputs.dataset_inputs[0].dataset.digest
        assert digest == training.data.tags["adpet.data"]
        seen(page, digest)
        seen(page, training.data.tags["adpet.lineage"])
        seen(open_page(target(page, "lineage")), "trained_on")

    @pytest.mark.parametrize("picture", ["explain/groups/groups.png", "leakage/leak.png"])
    def test_a_picture_opens_from_the_artifacts(self, open_run, picture):
        page = open_run(f"/artifacts/{picture}")
        page.wait_for_function(
            "[...document.images].some(one => one.src.startsWith('blob:') && one.naturalWidth > 500)"
        )

    def test_the_report_opens_from_the_artifacts_with_its_figures(self, open_run):
        report = open_run("/artifacts/report/report.html").frame_locator("iframe")
        report.get_by_role("heading", level=1).first.wait_for()
        assert report.locator("img, svg").count() > 5


class TestTheVersion:
    def test_the_model_card_is_its_description(self, open_page):
        page = open_page("#/models/adpet/versions/1")
        page.get_by_role("heading", name=re.compile("^Model card: adpet")).wait_for()
        for chapter in ("Summary", "Intended use", "Source of data and eligibility"):
            page.get_by_role("heading", name=chapter, exact=True).wait_for()
        seen(page, "Research use only")
        seen(page, "challenger")

    def test_the_model_says_what_it_is_for(self, open_page):
        page = open_page("#/models/adpet")
        seen(page, "Tells AD from CN in an FDG-PET scan")


def test_no_page_asks_for_anything_elsewhere(open_run, asked, training):
    seen(open_run(), training.info.run_name)
    assert {address.hostname for address in asked if address.scheme not in ("blob", "data")} == {"127.0.0.1"}
