"""The page in Chromium and Firefox: what it answers, shows, saves, refuses, and that it asks nobody else."""

import io
import json
import re
import shutil
import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from dicom_files import NAMES, write_series
from PIL import Image
from servers import BROWSER_PATIENCE_MS, running

from adpet.imaging.nifti import Volume, read_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer

pytestmark = [pytest.mark.node, pytest.mark.browser]

# Debian's Chromium draws WebGL without a graphics card so, or not at all.
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
# WCAG 2.2, contrast of texts, level AA.
LEAST_CONTRAST = 4.5
# How long the page may stand still while its worker computes on a busy machine, in ms.
LONGEST_GAP_MS = 1000
FINISHED = "body:is([data-state=answered], [data-state=refused])"


@pytest.fixture(scope="module")
def address(built_page, serve):
    with serve(built_page) as address:
        yield address


@pytest.fixture(scope="module")
def example(built_page):
    """The file of the AD example."""
    examples = json.loads((built_page / "examples/examples.json").read_text())
    return next(row["file"] for row in examples if row["kind"] == "AD")


@pytest.fixture(scope="module")
def expected(built_page, example):
    """Python's answer for the same scan by the same model."""
    scan = read_volume(built_page / "examples" / example)
    return answer(scan, open_model(built_page / "model"), name=example)


@pytest.fixture(scope="module")
def asked():
    """Pairs of a page's address and an address that it requested."""
    return set()


@pytest.fixture(scope="module")
def complaints():
    """Errors in the browser's console."""
    return []


@pytest.fixture(scope="module")
def open_page(address, asked, complaints):
    """Open the page in a browser, with a storage of its own."""

    def open_page(browser, at=address, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(BROWSER_PATIENCE_MS)
        context.on("request", lambda request: asked.add((at, request.url)))
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(at)
        page.wait_for_selector("body[data-ready]")
        return page

    return open_page


@pytest.fixture(scope="module")
def plain_browser(launch_chromium):
    """Chromium without WebGL, which is quicker without a graphics card."""
    with closing(launch_chromium(*NO_WEBGL)) as browser:
        yield browser


@pytest.fixture
def plain_page(plain_browser, open_page):
    page = open_page(plain_browser)
    with closing(page.context):
        yield page


@pytest.fixture(scope="module")
def answered(launch_chromium, open_page):
    """The page with the answer for the AD example."""
    with closing(launch_chromium(*SOFTWARE_WEBGL)) as browser:
        page = open_page(browser)
        choose(page, "AD")
        page.wait_for_selector("#viewer[data-viewer=niivue]")
        yield page


def choose(page, kind):
    page.click(f"#examples button[data-kind={kind}]")
    page.wait_for_selector(FINISHED)


def sheets(pdf):
    """Return the number of pages of a PDF file that Chromium has printed."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def give(page, name, content):
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    page.wait_for_selector(FINISHED)


def downloaded(page, button, folder):
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(folder / download.value.suggested_filename)
    return folder / download.value.suggested_filename


def viewed(page):
    """Return the viewer's pixels, (h, w, 3)."""
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.locator("#viewer").screenshot()))
    return np.asarray(picture.convert("RGB")).astype(float)


def becomes(page, is_so):
    """Return True once the viewer's pixels are so, within 20 s or more on a busy machine."""
    return any(is_so(viewed(page)) for _ in range(40))


def differ(one, other):
    return np.abs(one - other).max() > 50


def alike(one, other):
    return np.abs(one - other).max() < 10


@pytest.fixture
def firefox(not_installed, tmp_path):
    """Run a script in Firefox, by Marionette: Playwright and selenium need a driver of their own.

    Messages are JSON after their length: [0, id, command, parameters] and [1, id, error, result].
    """
    if FIREFOX is None:
        not_installed("no Firefox is installed; on Debian: apt-get install firefox-esr")
    (tmp_path / "user.js").write_text('user_pref("marionette.port", 0);\n')
    command = [FIREFOX, "--headless", "--marionette", "--profile", tmp_path]
    port = tmp_path / "MarionetteActivePort"
    with running(command, tmp_path / "log", lambda: port.exists() and port.read_text()):
        at = ("127.0.0.1", int(port.read_text()))
        with socket.create_connection(at, BROWSER_PATIENCE_MS / 1000) as connection:
            received = connection.makefile("rb")

            def receive():
                length = b""
                while (digit := received.read(1)) != b":":
                    assert digit, "Firefox has ended"
                    length += digit
                return json.loads(received.read(int(length)))

            def run(script, command="WebDriver:ExecuteScript"):
                message = json.dumps([0, 1, command, {"script": script, "args": []}]).encode()
                connection.sendall(b"%d:%s" % (len(message), message))
                _, _, error, result = receive()
                assert error is None, error
                return result.get("value")

            receive()  # who it is
            run("", "WebDriver:NewSession")
            yield run


def wait(is_so):
    end = time.monotonic() + BROWSER_PATIENCE_MS / 1000
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def aged(built_page, tmp_path):
    """The page with a model that compares by age: a slope like the spread, a hundredth a year in each region."""
    page = shutil.copytree(built_page, tmp_path / "aged")
    folder, path = page / "model", page / "model/model.json"
    document = json.loads(path.read_text())
    shutil.copyfile(folder / "normal_sd.nii.gz", folder / "normal_slope.nii.gz")
    document["files"]["normal_slope.nii.gz"] = document["files"]["normal_sd.nii.gz"]
    document["norms"]["ages"] = [60.0, 75.0, 90.0]
    document["regions"] = [region | {"cn_slope": 0.01} for region in document["regions"]]
    path.write_text(json.dumps(document))
    return page


class TestAnswer:
    def test_probability_and_meaning_match_python(self, answered, expected):
        shown = int(re.search(r"\d+", answered.inner_text("#probability"))[0]) / 100
        assert shown == pytest.approx(expected.document["probability_of_ad"], abs=0.02 + 0.005)
        assert expected.document["meaning"] in answered.inner_text("#answer")
        folds = expected.document["probability_by_fold"]
        low, high = re.findall(r"\d+", answered.inner_text(".spread"))[:2]
        assert int(low) / 100 == pytest.approx(min(folds), abs=0.02 + 0.005)
        assert int(high) / 100 == pytest.approx(max(folds), abs=0.02 + 0.005)
        assert f"coverage: {expected.document['answer']}. " in answered.inner_text(".interpretation")
        answered.fill(".prevalence input", "10")
        odds = expected.document["likelihood_ratio"] / 9
        found = int(re.search(r"\d+", answered.inner_text(".prevalence output"))[0]) / 100
        assert found == pytest.approx(odds / (1 + odds), abs=0.02 + 0.005)
        assert "Not for diagnosis" in answered.inner_text("#answer")
        assert "Research use only" in answered.inner_text("footer")

    def test_slices_match_python(self, answered, expected):
        labels = answered.eval_on_selector_all(".slice", "all => all.map(slice => slice.ariaLabel)")
        for label, row in zip(labels, expected.document["slices"], strict=True):
            y, share = re.findall(r"-?[\d.]+", label.replace("\N{MINUS SIGN}", "-"))
            assert float(y) == row["y_mm"]
            assert abs(float(share) - row["contribution"]) <= 0.03
        chart = answered.get_attribute("svg.chart", "aria-label")
        assert chart.startswith("What each coronal slice adds to the log-odds of AD: ")

    def test_regions_and_checks_match_python(self, answered, expected):
        rows = answered.eval_on_selector_all(
            "#regions tbody tr", "all => all.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        shown = {re.sub(r"\s*AD pattern", "", name): row for name, *row in rows}
        for region in expected.document["regions"]:
            uptake, z, _ = shown[region["name"]]
            assert float(uptake) == pytest.approx(region["uptake"], abs=0.02)
            assert float(z.replace("\N{MINUS SIGN}", "-")) == pytest.approx(region["z"], abs=0.3)
        assert any("AD pattern" in name for name, *_ in rows)
        assert answered.locator("#checks li").count() == len(expected.document["checks"])

    def test_age_moves_the_z_map_and_the_regions_as_in_python(
        self, aged, example, serve, plain_browser, open_page
    ):
        model = open_model(aged / "model")
        said = "() => document.getElementById('unusual').innerText"
        with serve(aged) as address:
            page = open_page(plain_browser, address)
            choose(page, "AD")
            page.check("input[name=map][value=z]")
            assert page.input_value("#threshold") == "40"
            saved = []
            for age, words in ((None, "no age"), (62.0, "at age 62")):
                if age:
                    page.fill("#age", str(age))
                    page.press("#age", "Enter")
                page.wait_for_function(f"words => ({said})().includes(words)", arg=words)
                due = answer(read_volume(aged / "examples" / example), model, name=example, age=age)
                found = nib.load(downloaded(page, "#save-map", aged.parent))
                assert found.get_filename().endswith("_z.nii")
                saved.append(np.array(found.dataobj))
                np.testing.assert_allclose(saved[-1], due.volumes["z"].data, atol=0.05)
                for row in due.document["unusual"][:2]:
                    assert row["name"] in page.evaluate(said)
            assert np.abs(saved[1] - saved[0]).max() > 0.1
            page.context.close()

    def test_leaky_model_is_named_on_screen_and_in_summary(
        self, built_page, serve, plain_browser, open_page, tmp_path
    ):
        folder = shutil.copytree(built_page, tmp_path / "leaky")
        document = json.loads((folder / "model/model.json").read_text())
        (folder / "model/model.json").write_text(json.dumps(document | {"leaky": True}))
        with serve(folder) as address:
            page = open_page(plain_browser, address)
            choose(page, "AD")
            page.evaluate(
                "CanvasRenderingContext2D.prototype.fillText = text => (window.drawn ??= []).push(text)"
            )
            downloaded(page, "#save-page", tmp_path)
            for said in (page.inner_text("#answer"), page.evaluate("drawn")):
                assert "This model was trained and tested on the same subjects." in said
            page.context.close()

    def test_firefox_answers_as_python_does(self, firefox, address, expected):
        firefox(f"location = '{address}'")
        wait(lambda: firefox("return document.body.dataset.ready"))
        firefox("document.querySelector('#examples [data-kind=AD]').click()")
        wait(lambda: firefox("return document.querySelectorAll('#plates canvas').length === 6"))
        shown = re.search(r"\d+", firefox("return document.querySelector('#probability').innerText"))
        due = expected.document["probability_of_ad"]
        assert int(shown[0]) / 100 == pytest.approx(due, abs=0.02 + 0.005)


class TestViewer:
    def test_planes_and_3d_are_drawn(self, answered):
        assert answered.locator("#viewer canvas[tabindex='0']").is_visible()
        assert np.ptp(viewed(answered)) > 50

    @pytest.mark.parametrize("slider", ["opacity", "threshold"])
    def test_slider_changes_the_map(self, answered, slider):
        answered.fill(f"#{slider}", "0")
        before = viewed(answered)
        answered.fill(f"#{slider}", "90")
        assert becomes(answered, lambda now: differ(now, before))
        assert "90%" in answered.inner_text(f"#{slider}-value")

    def test_switching_quickly_shows_one_map(self, answered):
        switch = "direction => document.querySelector(`input[name=direction][value=${direction}]`).click()"
        answered.fill("#threshold", "0")  # all of the map, however weak
        answered.wait_for_timeout(2000)
        ad = viewed(answered)
        answered.evaluate(switch, "CN")
        assert becomes(answered, lambda now: differ(now, ad))
        answered.wait_for_timeout(3000)
        cn = viewed(answered)
        answered.evaluate(f"['AD', 'CN', 'AD', 'CN'].forEach({switch})")
        answered.wait_for_timeout(3000)
        assert becomes(answered, lambda now: alike(now, cn))
        answered.wait_for_timeout(2000)
        assert alike(viewed(answered), cn)
        answered.evaluate(switch, "AD")
        assert becomes(answered, lambda now: alike(now, ad))

    def test_slice_moves_the_crosshair_in_the_scan_s_own_space(self, plain_page, expected):
        matrix = np.array(expected.document["matrix"])
        choose(plain_page, "AD")
        before = viewed(plain_page)
        plain_page.check("input[name=space][value=original]")
        assert becomes(plain_page, lambda now: differ(now, before))
        sliders = "['x', 'y', 'z'].map(axis => Number(document.getElementById(axis).value))"
        x, _, z, _ = np.linalg.inv(matrix) @ [*plain_page.evaluate(sliders), 1]
        y = expected.document["slices"][0]["y_mm"]
        plain_page.click(".slice >> nth=0")
        due = matrix @ [x, y, z, 1]
        np.testing.assert_allclose(plain_page.evaluate(sliders), due[:3], atol=1.2)
        assert abs(due[1] - y) > 2  # or this would be no test
        assert plain_page.get_attribute(".slice >> nth=0", "aria-current") == "true"
        assert plain_page.locator(".slice[aria-current]").count() == 1

    def test_without_webgl_shows_sections_and_a_sentence(self, plain_page):
        choose(plain_page, "AD")
        plain_page.get_by_text("3D needs WebGL2").wait_for()
        assert plain_page.locator(".planes canvas").count() == 3
        assert np.ptp(viewed(plain_page)) > 50


class TestSavedFiles:
    def test_map_opens_in_nibabel_and_matches_python(self, answered, expected, tmp_path):
        path = downloaded(answered, "#save-map", tmp_path)
        image = nib.load(path)
        assert path.name.endswith("_cam.nii")
        np.testing.assert_allclose(image.affine, expected.volumes["cam"].affine, atol=1e-4)
        found = np.asarray(image.dataobj)
        assert found.shape == expected.volumes["cam"].data.shape
        assert np.corrcoef(found.ravel(), expected.volumes["cam"].data.ravel())[0, 1] >= 0.98

    def test_summary_is_a_picture(self, answered, tmp_path):
        picture = Image.open(downloaded(answered, "#save-page", tmp_path))
        assert picture.format == "PNG"
        assert picture.width >= 1000
        assert len(picture.convert("RGB").getcolors(2**24)) > 100

    def test_print_out_is_one_sheet_with_both_maps_and_the_lowest_regions(self, plain_page, expected):
        choose(plain_page, "AD")
        plain_page.wait_for_selector("#plates canvas")
        plain_page.click("#regions th.name button")
        assert sheets(plain_page.pdf(format="A4")) == 1
        plain_page.emulate_media(media="print")
        for place in ("#scan-name", ".lead", "#probability", "#checks", "#unusual", "footer"):
            assert plain_page.locator(place).is_visible(), place
        assert plain_page.locator("#plates .plate:visible").count() == 2
        shown = plain_page.locator("#regions tbody tr:visible th").all_inner_texts()
        lowest = sorted(expected.document["regions"], key=lambda region: region["z"])[:8]
        for text, name in zip(shown, sorted(region["name"] for region in lowest), strict=True):
            assert text.startswith(name)
        assert not plain_page.locator(":is(.save button, #file, #viewer):visible").count()


class TestVisits:
    def test_second_visit_is_compared_with_the_first(self, plain_page, built_page, example, expected):
        scan = read_volume(built_page / "examples" / example)
        fading = np.linspace(0.8, 1, scan.data.shape[1], dtype=np.float32)[:, None]
        image = nib.Nifti1Image(scan.data * fading, scan.affine)
        name = example.replace("ses-01", "ses-02").removesuffix(".gz")
        later = answer(Volume(image.get_fdata(), scan.affine), open_model(built_page / "model"), name=name)
        first, second = expected.document, later.document
        choose(plain_page, "AD")
        plain_page.click("#compare")
        plain_page.evaluate("document.body.dataset.state = 'working'")
        give(plain_page, name, image.to_bytes())
        cells = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.replace('\u2212', '-')))"
        rows = {name: found for name, *found in plain_page.eval_on_selector_all(".visits tbody tr", cells)}
        odds = [np.log(p / (1 - p)) for p in (first["probability_of_ad"], second["probability_of_ad"])]
        found = [float(cell.split()[0]) for cell in rows["Calibrated log-odds of AD"]]
        assert found == pytest.approx([*odds, odds[1] - odds[0]], abs=0.1)
        assert rows["Answer at 90% coverage"][:2] == [first["answer"], second["answer"]]
        changes = {}
        for one, other in zip(first["regions"], second["regions"], strict=True):
            due = [one["uptake"], other["uptake"], other["uptake"] - one["uptake"]]
            assert [float(cell) for cell in rows[one["name"]]] == pytest.approx(due, abs=0.02)
            changes[one["name"]] = abs(due[2])
        assert max(changes.values()) > 0.05  # or this would be no test
        largest = next(name for name in rows if name in changes)
        assert changes[largest] == pytest.approx(max(changes.values()), abs=0.02)
        assert plain_page.locator("#visit-plates .plate").count() == 2
        assert "two people" not in plain_page.inner_text("#visits")
        assert sheets(plain_page.pdf(format="A4")) == 2
        plain_page.click("#compare")
        plain_page.wait_for_selector(".visits", state="hidden")


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("letter.nii", b"Dear doctor, this is no scan at all." * 20),
            ("broken.nii.gz", b"\x1f\x8b\x08\x00 and then nothing"),
            ("empty.nii", b""),
        ],
    )
    def test_broken_file_gets_a_sentence_and_the_next_scan_an_answer(self, plain_page, name, content):
        give(plain_page, name, content)
        sentence = plain_page.inner_text("#problem")
        assert sentence.startswith(f"{name}: ")
        assert "\n" not in sentence
        assert not plain_page.locator("#viewer").is_visible()
        choose(plain_page, "AD")
        assert not plain_page.locator("#problem").is_visible()
        assert plain_page.locator("#probability").is_visible()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"modality": "CT"}, "received CT (12 files)"),
            ({"corrections": ("DECY",)}, "received PT, not attenuation-corrected (12 files)"),
            ({"tracer": ("C-E8A03", "SRT", "Florbetapir")}, "received 3 (PT, Florbetapir, 12 slices)"),
            ({"drug": "FDG", "tracer": ("C-B1043", "SRT", "PiB")}, "but Tracer of its header PiB"),
            ({"tracer": ("C-1", "99X", "Unknown"), "half_life": "1224"}, "RadionuclideHalfLife of its header says 1224 s"),
        ],
        ids=["CT", "uncorrected", "amyloid", "two tracers", "carbon"],
    )  # fmt: skip
    def test_dicom_without_corrected_fdg_is_refused_without_names(
        self, plain_page, tmp_path, options, reason
    ):
        volume = Volume(np.random.default_rng(3).uniform(1, 9, (16, 14, 12)).astype(np.float32), np.eye(4))
        plain_page.set_input_files("#folder", write_series(tmp_path / "DOE^JANE", volume, **options))
        said = "said => document.querySelector('#problem').innerText.includes(said)"
        plain_page.wait_for_function(said, arg=reason)
        assert re.match(
            r"dicom(: required one series of FDG-PET|\.nii: required FDG;)", plain_page.inner_text("#problem")
        )
        assert not any(name in plain_page.inner_text("body") for name in NAMES)

    def test_noise_is_refused_with_the_reason(self, plain_page):
        noise = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32)
        give(plain_page, "noise.nii", nib.Nifti1Image(noise, np.diag([4.0, 4, 4, 1])).to_bytes())
        assert plain_page.get_attribute("body", "data-state") == "refused"
        assert plain_page.inner_text("#problem").startswith("noise.nii: ")
        assert not plain_page.locator("#probability").count()
        assert plain_page.locator("#save-map").is_disabled()

    def test_dropped_file_replaces_the_scan_that_is_computed(self, plain_page, built_page, example):
        plain_page.click("#examples button[data-kind=CN]")
        content = list((built_page / "examples" / example).read_bytes())
        plain_page.evaluate(
            """bytes => {
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([new Uint8Array(bytes)], "dropped.nii.gz"));
              document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
            }""",
            content,
        )
        plain_page.wait_for_selector("body[data-state=answered]")
        plain_page.wait_for_timeout(500)
        assert plain_page.inner_text("#scan-name") == "dropped.nii.gz"
        assert plain_page.locator("#problem").is_hidden()


class TestAccessibility:
    def test_keyboard_reaches_and_moves_every_control(self, answered):
        answered.fill("#threshold", "40")  # other tests leave it at an end, where a key moves nothing
        answered.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        focused = "(a => a.id || a.dataset.kind || a.name || (a.tagName === 'CANVAS' ? 'canvas' : a.className))(document.activeElement)"
        moves = {"threshold": ("ArrowLeft", "threshold"), "canvas": ("ArrowRight", "x")}
        reached = set()
        for _ in range(80):
            answered.keyboard.press("Tab")
            name = answered.evaluate(focused)
            reached.add(name)
            if name in moves:
                key, slider = moves.pop(name)
                before = answered.input_value(f"#{slider}")
                answered.keyboard.press(key)
                changed = "([id, before]) => document.getElementById(id).value !== before"
                answered.wait_for_function(changed, arg=[slider, before])
        assert {
            "skip",
            "file",
            "AD",
            "space",
            "canvas",
            "direction",
            "save-map",
            "map",
            "age",
            "save-page",
        } <= reached
        assert {"opacity", "threshold", "x", "y", "z"} <= reached
        for name in ("Opacity", "Threshold", "Left to right", "Back to front", "Low to high"):
            assert answered.get_by_role("slider", name=re.compile(f"^{name}")).count() == 1

    def test_keyboard_alone_goes_from_a_sample_to_a_comparison(self, plain_page):
        def press(selector, key):
            while not plain_page.evaluate("it => document.activeElement.matches(it)", selector):
                plain_page.keyboard.press("Tab")
                assert plain_page.evaluate(FOCUS_IS_SEEN), selector
            plain_page.keyboard.press(key)

        plain_page.evaluate(NOTE_STATUS)
        press("[data-kind=CN]", "Enter")
        plain_page.wait_for_selector("body[data-state=answered]")
        press("[name=map]", "ArrowRight")
        assert plain_page.is_checked("[name=map][value=z]")
        press("#compare", "Space")
        assert plain_page.evaluate("document.activeElement.id") == "file"
        press("[data-kind=AD]", "Enter")
        plain_page.wait_for_selector(".visits", state="visible")
        said = plain_page.evaluate("said")
        assert said[0] == "Opening the model …"
        assert [text[:8] for text in said if not text.endswith("…")] == ["Answered", "Choose t", "Answered"]
        told = plain_page.locator("main").aria_snapshot()
        pressed = 'button "Compare with another visit" [pressed]'
        for part in ('status: "Answered: ', 'region "Answer"', 'table "Regions"', pressed):
            assert f"- {part}" in told
        assert re.search(r'img "Where this brain is unusual: .* mm\. Unusual regions, with z: ', told)
        assert not re.search(r'- (img|button|slider|radio|spinbutton|table)(?! ")', told)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_phone_width_cuts_nothing_off_and_texts_stand_out(self, plain_browser, open_page, scheme):
        page = open_page(plain_browser, viewport={"width": 360, "height": 740}, color_scheme=scheme)
        for state in ("empty", "answered"):
            if state == "answered":
                choose(page, "AD")
            assert page.get_attribute("body", "data-state") == state
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert [text for text, contrast in page.evaluate(CONTRASTS) if contrast < LEAST_CONTRAST] == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert all(int(part) < 60 for part in re.findall(r"\d+", background)) == (scheme == "dark")
        page.context.close()

    def test_page_stays_responsive_while_its_worker_computes(self, plain_page):
        plain_page.evaluate(
            """() => {
              window.frames_ms = [];
              requestAnimationFrame(function tick(now) {
                if (document.body.dataset.state === "working") window.frames_ms.push(now);
                requestAnimationFrame(tick);
              });
            }"""
        )
        choose(plain_page, "AD")
        gaps = np.diff(plain_page.evaluate("window.frames_ms"))
        assert len(gaps) > 20
        assert gaps.max() < LONGEST_GAP_MS
        assert np.median(gaps) < 50


class TestNetwork:
    def test_page_answers_offline_after_the_first_load(self, plain_page):
        plain_page.wait_for_selector("#offline[data-offline=ready]", state="attached")
        plain_page.context.set_offline(True)
        plain_page.reload()
        plain_page.wait_for_selector("body[data-ready]")
        choose(plain_page, "AD")
        assert plain_page.locator("#probability").is_visible()

    def test_page_answers_over_plain_http(self, launch_chromium, open_page, address):
        port = urlsplit(address).port
        rules = "MAP lab.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        with closing(launch_chromium(*NO_WEBGL, f"--host-resolver-rules={rules}")) as browser:
            page = open_page(browser, f"http://lab.example:{port}/")
            assert not page.evaluate("isSecureContext")
            choose(page, "AD")
            assert page.locator("#probability").is_visible()

    def test_page_asks_for_its_own_files_only_and_policy_forbids_others(self, answered, asked, complaints):
        answered.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
        assert [url for page, url in asked if not url.startswith((page, "data:", "blob:"))] == []
        policy = answered.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
        assert "connect-src 'self'" in policy
        assert "default-src 'none'" in policy
        due = re.compile(r"127\.0\.0\.1:9/|ERR_INTERNET_DISCONNECTED")
        assert [text for text in complaints if not due.search(text)] == []


# Whether the focus is drawn, on the element or on the label of one that is not seen.
FOCUS_IS_SEEN = """() => {
  const { activeElement: focused } = document;
  const drawn = [focused, focused.nextElementSibling, ...(focused.nextElementSibling?.children ?? [])];
  return focused === document.body || drawn.some((it) => it && getComputedStyle(it).outlineStyle === "solid");
}"""

# What a screen reader is told on the way.
NOTE_STATUS = """() => {
  const [status, said] = [document.getElementById("progress-text"), (window.said = [])];
  new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
}"""

# Contrast of each visible text to its background, by WCAG's formula.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let node = element; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const isShown = (element) => !element.closest("button:disabled, noscript, .veil, [hidden]")
    && element.checkVisibility({ visibilityProperty: true });
  return [...document.body.querySelectorAll("*")].filter(hasText).filter(isShown).map((element) => {
    const style = getComputedStyle(element);
    const front = light(parse(element.closest("svg") ? style.fill : style.color));
    const back = light(behind(element));
    return [element.textContent.trim(), (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05)];
  });
}"""
