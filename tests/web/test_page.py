"""The page in a real browser: what it answers, what it asks the network for, and whom it leaves out."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from adpet.imaging.nifti import read_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer

pytestmark = pytest.mark.slow

# Debian's Chromium draws WebGL without a graphics card so, or not at all.
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
PATIENCE_MS = 180_000
# WCAG 2.2, contrast of texts, level AA.
LEAST_CONTRAST = 4.5
MINUS = "\N{MINUS SIGN}"
# How long the page may stand still while its worker computes on a busy machine, in ms.
LONGEST_GAP_MS = 1000
FINISHED = "body:is([data-state=answered], [data-state=refused])"


@pytest.fixture(scope="module")
def address(built_page, project_root):
    """Where ``make demo`` would show the page."""
    with served(built_page, project_root) as address:
        yield address


@contextmanager
def served(folder, project_root):
    command = [sys.executable, "-u", "scripts/demo.py", "--page", str(folder), "--port", "0"]
    server = subprocess.Popen(command, cwd=project_root, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()


@pytest.fixture(scope="module")
def example(built_page):
    """The AD example: its file, and what else the page tells of it."""
    examples = json.loads((built_page / "examples/examples.json").read_text())
    return next(one for one in examples if one["kind"] == "AD")


@pytest.fixture(scope="module")
def expected(built_page, example):
    """Python's answer for the same scan by the same model."""
    scan = read_volume(built_page / "examples" / example["file"])
    return answer(scan, open_model(built_page / "model"), name=example["file"])


@pytest.fixture(scope="module")
def asked():
    """The address of each page of these tests with each address that it has asked for something."""
    return set()


@pytest.fixture(scope="module")
def complaints():
    """What the browser held against the page."""
    return []


@pytest.fixture(scope="module")
def open_page(address, asked, complaints):
    """Open the page in a tab of a browser, with a storage of its own."""

    def open_page(browser, at=address, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: asked.add((at, request.url)))
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(at)
        page.wait_for_selector("body[data-ready]")
        return page

    return open_page


@pytest.fixture(scope="module")
def browser(launch_chromium):
    chromium = launch_chromium(*SOFTWARE_WEBGL)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def plain_browser(launch_chromium):
    chromium = launch_chromium(*NO_WEBGL)
    yield chromium
    chromium.close()


@pytest.fixture
def plain_page(plain_browser, open_page):
    """The page where there is no WebGL, which is quicker without a graphics card."""
    page = open_page(plain_browser)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def answered(browser, open_page):
    """The page with the answer for the AD example, and what it said on the way."""
    page = open_page(browser)
    page.evaluate(
        """() => {
          window.said = [];
          const text = document.getElementById("progress-text");
          const bar = document.getElementById("progress-bar");
          new MutationObserver(() => window.said.push([text.textContent, bar.value]))
            .observe(document.getElementById("progress"), { childList: true, subtree: true, attributes: true });
        }"""
    )
    choose(page, "AD")
    page.wait_for_selector("#viewer[data-viewer=niivue]")
    yield page
    page.context.close()


def choose(page, kind):
    page.click(f"#examples button[data-kind={kind}]")
    page.wait_for_selector(FINISHED)


def give(page, name, content):
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    page.wait_for_selector(FINISHED)


def downloaded(page, button, path):
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(path / download.value.suggested_filename)
    return path / download.value.suggested_filename


class TestTheAnswer:
    def test_it_is_the_one_that_python_gives(self, answered, expected):
        shown = answered.inner_text("#probability")
        due = expected.document["probability_of_ad"]
        assert abs(float(re.search(r"\d+", shown)[0]) / 100 - due) <= 0.02 + 0.005  # rounded to 1 %
        assert expected.document["meaning"] in answered.inner_text("#answer")

    def test_it_says_what_it_is_not_for(self, answered):
        assert "Not for diagnosis" in answered.inner_text("#answer")
        assert "Research use only" in answered.inner_text("footer")

    def test_progress_is_told_step_by_step(self, answered):
        said = answered.evaluate("window.said")
        texts = list(dict.fromkeys(text for text, _ in said))
        assert texts[-1].startswith("Answered: ")
        for step in ("Aligning it to MNI space …", "Scoring coronal slices …"):
            assert step in texts
        values = [value for _, value in said]
        assert values == sorted(values)
        assert len(set(values)) > 5

    def test_each_slice_has_its_probability(self, answered, expected):
        labels = answered.eval_on_selector_all(".slice", "all => all.map(one => one.ariaLabel)")
        due = expected.document["slices"]
        assert len(labels) == len(due)
        for label, one in zip(labels, due, strict=True):
            place, share = re.fullmatch(
                r"Slice at y = (\S+) mm: probability of AD (?:[<>] )?(\d+)%", label
            ).groups()
            assert float(place) == one["y_mm"]
            assert abs(int(share) / 100 - one["probability_of_ad"]) <= 0.03
        assert re.match(
            rf"Probability of AD of each coronal slice: \d+ of {len(due)} ",
            answered.get_attribute("svg.chart", "aria-label"),
        )

    def test_the_regions_are_python_s(self, answered, expected):
        rows = answered.eval_on_selector_all(
            "#regions tbody tr", "all => all.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        shown = {re.sub(r"\s*AD pattern", "", name): row for name, *row in rows}
        for region in expected.document["regions"]:
            uptake, z, _ = shown[region["name"]]
            assert float(uptake) == pytest.approx(region["uptake"], abs=0.02)
            assert float(z.replace(MINUS, "-")) == pytest.approx(region["z"], abs=0.3)
        assert any("AD pattern" in name for name, *_ in rows)

    def test_the_regions_can_be_sorted(self, answered):
        answered.get_by_role("button", name="Region", exact=True).click()
        names = answered.locator("#regions tbody th").all_inner_texts()
        assert names == sorted(names)
        assert answered.get_attribute("#regions th.name", "aria-sort") == "ascending"

    def test_the_checks_are_python_s(self, answered, expected):
        assert answered.locator("#checks li").count() == len(expected.document["checks"])


class TestTheViewer:
    def test_planes_and_3d_are_drawn(self, answered):
        assert answered.locator("#viewer canvas[tabindex='0']").is_visible()
        assert looks(answered) > 50

    @pytest.mark.parametrize("slider", ["opacity", "threshold"])
    def test_a_slider_changes_what_is_seen_of_the_map(self, answered, slider):
        answered.fill(f"#{slider}", "0")
        before = viewed(answered)
        answered.fill(f"#{slider}", "90")
        answered.wait_for_timeout(1500)
        assert np.abs(viewed(answered) - before).max() > 50
        assert "90%" in answered.inner_text(f"#{slider}-value")

    def test_the_scan_can_be_seen_as_it_came(self, answered):
        before = viewed(answered)
        answered.check("input[name=space][value=original]")
        answered.wait_for_timeout(3000)
        assert np.abs(viewed(answered) - before).max() > 50
        answered.check("input[name=space][value=standard]")

    def test_what_is_switched_while_it_opens_is_kept(self, browser, open_page):
        page = open_page(browser)
        page.evaluate(
            """() => new MutationObserver(() => {
              if (document.body.dataset.state === "answered" && !window.switched) {
                window.switched = true;
                setTimeout(() => {
                  window.before = document.getElementById("viewer").dataset.viewer;
                  document.querySelector("input[name=direction][value=CN]").click();
                  document.querySelector(".slice").click();
                });
              }
            }).observe(document.body, { attributes: true })"""
        )
        choose(page, "AD")
        page.wait_for_selector("#viewer[data-viewer=niivue]")
        assert page.evaluate("window.before") == "planes"
        page.wait_for_timeout(3000)
        found = viewed(page)
        assert_same_view(found, switched(page, "AD", "CN"))
        page.context.close()

    def test_switching_quickly_shows_one_map(self, answered):
        once = switched(answered, "AD", "CN")
        answered.evaluate(
            """() => ["AD", "CN", "AD", "CN"].forEach((direction) =>
              document.querySelector(`input[name=direction][value=${direction}]`).click())"""
        )
        answered.wait_for_timeout(5000)
        assert_same_view(viewed(answered), once)
        answered.check("input[name=direction][value=AD]")

    def test_a_slice_moves_the_crosshair_to_its_place(self, answered):
        answered.click(".slice >> nth=0")
        place = answered.locator(".slice >> nth=0").get_attribute("aria-label")
        y = re.search(r"y = (\S+) mm", place)[1]
        assert answered.input_value("#y") == f"{float(y):g}"
        assert answered.get_attribute(".slice >> nth=0", "aria-current") == "true"

    def test_without_webgl_there_are_sections_and_a_sentence(self, plain_page):
        choose(plain_page, "AD")
        plain_page.get_by_text("3D needs WebGL2").wait_for()
        assert plain_page.locator(".planes canvas").count() == 3
        assert plain_page.locator("#probability").is_visible()
        assert looks(plain_page) > 50


class TestTheSpaceThatWasScanned:
    def test_a_slice_moves_the_crosshair_to_its_place_there(self, as_scanned, expected):
        matrix = np.array(expected.document["matrix"])
        before = np.linalg.inv(matrix) @ [*place(as_scanned), 1]
        y = expected.document["slices"][0]["y_mm"]
        as_scanned.click(".slice >> nth=0")
        due = matrix @ [before[0], y, before[2], 1]
        np.testing.assert_allclose(place(as_scanned), due[:3], atol=1.2)
        assert abs(due[1] - y) > 2  # or this would be no test
        assert marked(as_scanned) == [0]

    def test_the_slice_at_the_crosshair_is_marked(self, as_scanned, expected):
        matrix = np.array(expected.document["matrix"])
        places = np.array([one["y_mm"] for one in expected.document["slices"]])
        shifts = set()
        for y in range(-60, 40, 5):
            as_scanned.fill("#y", str(y))
            here = np.linalg.inv(matrix) @ [*place(as_scanned), 1]
            nearest = np.abs(places - here[1]).argmin()
            assert marked(as_scanned) == [nearest]
            shifts.add(nearest - np.abs(places - y).argmin())
        assert len(shifts) > 1  # or this would be no test

    def test_the_sliders_span_it_when_the_scan_is_aligned_meanwhile(self, plain_page, expected):
        plain_page.click("#examples button[data-kind=AD]")
        plain_page.wait_for_selector("#work:not(.away)")
        plain_page.check("input[name=space][value=original]")
        assert plain_page.locator("#checks li").count() == 0  # it is not aligned yet
        plain_page.wait_for_selector(FINISHED)
        matrix = np.array(expected.document["matrix"])
        places = np.array([one["y_mm"] for one in expected.document["slices"]])
        here = np.linalg.inv(matrix) @ [*place(plain_page), 1]
        assert marked(plain_page) == [np.abs(places - here[1]).argmin()]
        found = spans(plain_page)
        plain_page.check("input[name=space][value=standard]")
        assert spans(plain_page) != found
        plain_page.check("input[name=space][value=original]")
        assert spans(plain_page) == found


@pytest.fixture(scope="module")
def as_scanned(plain_browser, open_page):
    """The page with the answer for the AD example, seen as it was scanned."""
    page = open_page(plain_browser)
    choose(page, "AD")
    page.check("input[name=space][value=original]")
    yield page
    page.context.close()


def place(page):
    """Return where the sliders stand, in mm."""
    return [float(page.input_value(f"#{axis}")) for axis in "xyz"]


def spans(page):
    return [(page.get_attribute(f"#{axis}", "min"), page.get_attribute(f"#{axis}", "max")) for axis in "xyz"]


def marked(page):
    return page.eval_on_selector_all(
        ".slice", "all => all.flatMap((one, index) => one.ariaCurrent === 'true' ? [index] : [])"
    )


class TestWhatIsSaved:
    def test_the_map_opens_in_nibabel_and_is_python_s(self, answered, expected, tmp_path):
        path = downloaded(answered, "#save-cam", tmp_path)
        image = nib.load(path)
        assert path.name.endswith("_cam.nii")
        assert image.shape == expected.cam.data.shape
        np.testing.assert_allclose(image.affine, expected.cam.affine, atol=1e-4)
        found = np.asarray(image.dataobj).ravel()
        assert np.corrcoef(found, expected.cam.data.ravel())[0, 1] >= 0.98

    def test_the_summary_is_a_picture(self, answered, tmp_path):
        picture = Image.open(downloaded(answered, "#save-page", tmp_path))
        assert picture.format == "PNG"
        assert picture.width >= 1000
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_screen_and_summary_say_that_a_model_is_leaky(
    built_page, project_root, plain_browser, open_page, tmp_path
):
    folder = shutil.copytree(built_page, tmp_path / "leaky")
    document = json.loads((folder / "model/model.json").read_text())
    (folder / "model/model.json").write_text(json.dumps(document | {"leaky": True}))
    with served(folder, project_root) as address:
        page = open_page(plain_browser, address)
        choose(page, "AD")
        page.evaluate(
            """() => {
              window.written = [];
              const fillText = CanvasRenderingContext2D.prototype.fillText;
              CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
                window.written.push(text);
                return fillText.call(this, text, ...rest);
              };
            }"""
        )
        downloaded(page, "#save-page", tmp_path)
        for said in (page.inner_text("#answer"), page.evaluate("window.written")):
            assert "This model was trained and tested on the same subjects." in said
        page.context.close()


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("letter.nii", b"Dear doctor, this is no scan at all." * 20),
            ("broken.nii.gz", b"\x1f\x8b\x08\x00 and then nothing"),
            ("empty.nii", b""),
            ("short.nii", None),
        ],
    )
    def test_one_gets_a_sentence_and_the_next_scan_an_answer(
        self, plain_page, built_page, example, name, content
    ):
        if content is None:
            content = nib.load(built_page / "examples" / example["file"]).to_bytes()[:5000]
        give(plain_page, name, content)
        sentence = plain_page.inner_text("#problem")
        assert sentence.startswith(f"{name}: ")
        assert "\n" not in sentence
        assert not plain_page.locator("#viewer").is_visible()
        choose(plain_page, "AD")
        assert not plain_page.locator("#problem").is_visible()
        assert plain_page.locator("#probability").is_visible()

    def test_a_scan_that_the_model_cannot_judge_is_refused_with_the_reason(self, plain_page):
        noise = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32)
        give(plain_page, "noise.nii", nib.Nifti1Image(noise, np.diag([4.0, 4, 4, 1])).to_bytes())
        assert plain_page.get_attribute("body", "data-state") == "refused"
        assert plain_page.inner_text("#problem").startswith("noise.nii: ")
        assert not plain_page.locator("#probability").count()
        assert plain_page.locator("#save-cam").is_disabled()

    def test_a_later_scan_takes_the_place_of_an_earlier_one(self, plain_page):
        plain_page.click("#examples button[data-kind=AD]")
        choose(plain_page, "CN")
        plain_page.wait_for_timeout(500)
        file = plain_page.inner_text("#scan-name")
        assert plain_page.locator("#problem").is_hidden()
        assert file in plain_page.evaluate(
            "fetch('examples/examples.json').then(a => a.json()).then(all => all.filter(a => a.kind === 'CN').map(a => a.file))"
        )


class TestWhoIsLeftOut:
    def test_a_file_can_be_dropped(self, plain_page, built_page, example):
        content = list((built_page / "examples" / example["file"]).read_bytes())
        plain_page.evaluate(
            """([name, bytes]) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], name));
              for (const kind of ["dragenter", "dragover", "drop"]) {
                document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
              }
            }""",
            ["dropped.nii.gz", content],
        )
        plain_page.wait_for_selector("body[data-state=answered]")
        assert plain_page.inner_text("#scan-name") == "dropped.nii.gz"

    def test_the_keyboard_is_enough(self, answered):
        answered.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        reached = []
        for _ in range(80):
            answered.keyboard.press("Tab")
            reached.append(
                answered.evaluate(
                    "(a => a.id || a.dataset.kind || a.name || a.getAttribute('tabindex') && a.tagName || a.className)(document.activeElement)"
                )
            )
            if reached[-1] == "threshold":
                before = int(answered.input_value("#threshold"))
                answered.keyboard.press("ArrowLeft")
                assert int(answered.input_value("#threshold")) < before
            if reached[-1] == "CANVAS":
                before = answered.input_value("#x")
                answered.keyboard.press("ArrowRight")
                answered.wait_for_function(
                    "before => document.getElementById('x').value !== before", arg=before
                )
        due = {
            "skip",
            "file",
            "AD",
            "CN",
            "space",
            "CANVAS",
            "direction",
            "opacity",
            "threshold",
            "x",
            "y",
            "z",
            "save-cam",
            "save-page",
        }
        assert due <= set(reached)

    @pytest.mark.parametrize(
        "name", ["Opacity", "Threshold", "Left to right", "Back to front", "Low to high"]
    )
    def test_a_slider_has_a_name(self, answered, name):
        assert answered.get_by_role("slider", name=re.compile(f"^{name}")).count() == 1

    def test_an_example_is_chosen_by_the_keyboard(self, plain_page):
        plain_page.focus("#examples button[data-kind=AD]")
        plain_page.keyboard.press("Enter")
        plain_page.wait_for_selector("body[data-state=answered]")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_texts_stand_out_at_phone_width_and_nothing_is_cut_off(self, plain_browser, open_page, scheme):
        page = open_page(plain_browser, viewport={"width": 360, "height": 740}, color_scheme=scheme)
        for state in ("empty", "answered"):
            if state == "answered":
                choose(page, "AD")
            assert page.get_attribute("body", "data-state") == state
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            faint = [one for one in page.evaluate(CONTRASTS) if one["contrast"] < LEAST_CONTRAST]
            assert not faint
        dark = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(n => n < 60)"
        )
        assert dark == (scheme == "dark")
        page.context.close()

    def test_who_wants_no_motion_gets_none(self, plain_browser, open_page):
        page = open_page(plain_browser, reduced_motion="reduce")
        durations = "[...document.querySelectorAll('*')].map(one => getComputedStyle(one).transitionDuration)"
        assert set(page.evaluate(durations)) == {"0s"}
        page.context.close()


def test_the_page_does_not_stand_still_while_its_worker_computes(plain_page):
    plain_page.evaluate(
        """() => {
          window.gaps = [];
          let last = performance.now();
          const tick = () => {
            const now = performance.now();
            if (document.body.dataset.state === "working") window.gaps.push(now - last);
            last = now;
            requestAnimationFrame(tick);
          };
          requestAnimationFrame(tick);
        }"""
    )
    choose(plain_page, "AD")
    gaps = plain_page.evaluate("window.gaps")
    assert len(gaps) > 20
    assert max(gaps) < LONGEST_GAP_MS
    assert float(np.median(gaps)) < 50


def test_it_works_offline_after_the_first_load(plain_page):
    plain_page.wait_for_selector("#offline[data-offline=ready]", state="attached")
    plain_page.context.set_offline(True)
    plain_page.reload()
    plain_page.wait_for_selector("body[data-ready]")
    choose(plain_page, "AD")
    assert plain_page.locator("#probability").is_visible()


def test_it_answers_over_plain_http_too(launch_chromium, open_page, address):
    port = urlsplit(address).port
    rules = "MAP lab.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    browser = launch_chromium(*NO_WEBGL, f"--host-resolver-rules={rules}")
    page = open_page(browser, f"http://lab.example:{port}/")
    assert not page.evaluate("isSecureContext")
    choose(page, "AD")
    assert page.locator("#problem").is_hidden()
    assert page.locator("#probability").is_visible()
    browser.close()


def test_nothing_is_asked_of_anyone_else_and_the_policy_forbids_it(answered, asked):
    answered.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    elsewhere = [
        one
        for page, one in asked
        if urlsplit(one).scheme not in ("data", "blob") and not one.startswith(page)
    ]
    assert elsewhere == []
    policy = answered.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert "connect-src 'self'" in policy
    assert "default-src 'none'" in policy


def test_the_browser_has_nothing_against_the_page(answered, complaints):
    expected = re.compile(r"127\.0\.0\.1:9/|ERR_INTERNET_DISCONNECTED")
    assert [one for one in complaints if not expected.search(one)] == []


def viewed(page):
    """Return what the viewer shows, (h, w, 3)."""
    page.wait_for_timeout(500)
    return np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB")).astype(
        float
    )


def switched(page, *directions):
    """Return what the viewer shows after each direction has been seen; the last two must differ."""
    views = []
    for direction in directions:
        page.check(f"input[name=direction][value={direction}]")
        page.wait_for_timeout(3000)
        views.append(viewed(page))
    assert np.abs(views[-1] - views[-2]).max() > 50
    return views[-1]


def assert_same_view(found, due):
    assert np.abs(found - due).max() < 10


def looks(page):
    """Return how much what the viewer shows varies: 0 where it is of one colour."""
    return float(np.ptp(viewed(page)))


# Of each visible text: its contrast to what is behind it, by WCAG's formula.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    const off = element.closest("button:disabled, noscript, .veil, [hidden]") || !element.checkVisibility({ visibilityProperty: true });
    if (!text || off) continue;
    const style = getComputedStyle(element);
    const front = light(parse(element.closest("svg") ? style.fill : style.color));
    const back = light(behind(element));
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    found.push({ text: text.slice(0, 40), contrast: Math.round(100 * contrast) / 100 });
  }
  return found;
}"""
