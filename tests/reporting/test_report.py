"""The report is one page that fetches nothing, reads well without eyes, and says what the files say."""

import base64
import itertools
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from adpet.reporting.components import MEASURES, Maps, Search, number, svg_uri, typeset
from adpet.reporting.explainability import GROUP_MAPS, saliency
from adpet.reporting.report import report_html

HOSTILE = "<script>alert('site')</script>"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.cells = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def row(self, title):
        at = self.cells.index(title)
        return self.cells[at : at + 5]


def maps(underlay):
    rng = np.random.default_rng(0)
    regions = pd.DataFrame(
        {
            "region": ["precuneus", "pons"],
            "ad_pattern": [True, False],
            "ad_referenced_density": [2.0, 0.5],
            "cn_referenced_density": [1.0, 1.0],
            "ad_referenced_mass": [0.4, 0.1],
            "ad_uptake": [1.0, 1.1],
            "cn_uptake": [1.2, 1.1],
        }
    )
    cascade = pd.DataFrame(
        {"layer": ["none", "head"], "similarity": [1, 0], "lowest": [1, 0], "highest": [1, 0]}
    )
    order = ["referenced", "exact", "random"] * 2
    curves = pd.DataFrame(
        {"map": order, "share": [0] * 3 + [1] * 3, "deletion": range(6), "insertion": range(6)}
    )
    return Maps(
        volumes={name: rng.normal(size=underlay.data.shape).astype(np.float32) for name in GROUP_MAPS},
        underlay=underlay.data,
        affine=underlay.affine,
        hide_below=0.2,
        regions=regions,
        cascade=cascade,
        curves=curves,
    )


def search():
    trials = pd.DataFrame(
        {
            "number": [0, 1],
            "state": ["COMPLETE", "PRUNED"],
            "value": [0.5, 0.7],
            "params_train.learning_rate": [0.001, 0.002],
        }
    )
    importance = {"train.learning_rate": 1.0}
    return Search(trials, monitor="val_subject_log_loss", rising=False, importance=importance)


@pytest.fixture(scope="module")
def documents(make_documents, make_ingest):
    from adpet.imaging.template import fdg_template

    ingest = make_ingest(sites={HOSTILE: 20, "S02": 16})
    return make_documents(ingest=ingest, maps=maps(fdg_template(8.0)), search=search())


@pytest.fixture(scope="module")
def html(documents):
    return report_html(documents)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


class TestAlone:
    def test_all_it_needs_is_in_it(self, page):
        for _, attributes in page.tags:
            for name in ("src", "href", "srcset", "data", "poster", "action"):
                assert attributes.get(name, "data:").startswith(("data:", "#")), attributes
        assert not page.all("link")

    def test_no_script_runs_and_no_style_is_fetched(self, page, html):
        assert not page.all("script")
        assert "url(" not in html
        assert "@import" not in html

    def test_chapters_that_are_named_are_there(self, page):
        places = {attributes.get("id") for _, attributes in page.tags}
        assert {link["href"].removeprefix("#") for link in page.all("a")} <= places

    def test_equal_documents_give_equal_bytes(self, documents, html):
        assert report_html(documents) == html

    def test_what_comes_from_the_collection_is_text(self, html):
        assert HOSTILE not in html
        assert "&lt;script&gt;alert" in html


class TestForEverybody:
    def test_it_names_its_language_and_fits_a_phone(self, page):
        assert page.all("html")[0]["lang"] == "en"
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")

    def test_headings_do_not_skip_a_level(self, page):
        levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_every_image_is_told_in_words(self, page):
        assert len(page.all("img")) >= 12
        assert all(len(image["alt"]) > 30 for image in page.all("img"))

    def test_every_table_has_a_caption_and_names_its_columns(self, page):
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))

    def test_wide_tables_scroll_in_a_box_that_the_keyboard_reaches(self, page):
        boxes = [box for box in page.all("div") if box.get("class") == "scroll" and "tabindex" in box]
        assert len(boxes) >= len(page.all("table"))
        assert all(box["aria-label"] for box in boxes)


class TestWhatItSays:
    @pytest.mark.parametrize("name", MEASURES)
    def test_measures_are_those_of_the_evaluation(self, documents, page, name):
        subject, single = (documents.metrics[level][name] for level in ("subject", "slice"))
        expected = [
            text
            for metric in (subject, single)
            for text in (f"{metric['value']:.3f}", f"{metric['low']:.3f} to {metric['high']:.3f}")
        ]
        assert page.row(MEASURES[name]) == [MEASURES[name], *expected]

    def test_so_are_the_calls(self, documents, page):
        calls = documents.metrics["subject"]["confusion"]
        assert page.row("AD, per subject")[1:3] == [str(calls["true_positive"]), str(calls["false_negative"])]

    def test_chapters_without_files_say_how_to_make_them(self, make_documents):
        text = report_html(make_documents(audit=None, cam=None, leaky=True))
        assert "dvc repro leakage" in text
        assert "dvc repro explain" in text
        assert "Nothing was searched" in text

    def test_the_map_of_one_subject_is_not_shown(self, documents, make_documents):
        counts = documents.metrics["counts"] | {"subjects_ad": 1}
        alone = make_documents(metrics=documents.metrics | {"counts": counts}, maps=documents.maps)
        kinds = [block.kind for block in saliency(alone).blocks]
        # The sanity checks are no image of anybody.
        assert kinds.count("chart") == 1

    def test_an_alarm_names_its_maps(self, make_documents, make_cam):
        group = {"scans": 5, "share_inside_brain": 0.6, "ad_pattern": {"mass": 0.1, "over_volume": 1.0}}
        kinds = {"exact": {"ad": group, "cn": group, "cn_wrong": group}}
        text = report_html(make_documents(cam=make_cam(alarms=["one", "two", "three"], **kinds)))
        assert "3 alarms" in text
        assert "exact CN, called wrongly 40 %" in text


class TestFigures:
    def test_a_figure_is_the_same_text_each_time(self, documents):
        from adpet.reporting.performance_figures import confusion_figure

        one, other = (svg_uri(confusion_figure(documents.metrics)) for _ in range(2))
        assert one == other

    def test_it_holds_no_date(self, documents):
        from adpet.reporting.performance_figures import confusion_figure

        uri = svg_uri(confusion_figure(documents.metrics))
        text = base64.b64decode(uri.partition(",")[2]).decode()
        assert text.startswith("<?xml")
        assert "dc:date" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.5, "\N{MINUS SIGN}0.500"), (-0.0001, "0.000"), (None, "-"), (float("nan"), "-")],
)
def test_numbers_are_written_as_printed(value, text):
    assert number(value) == text


def test_only_signs_become_minus_signs():
    assert typeset("from -0.04 to HR-2 in sub-01") == "from \N{MINUS SIGN}0.04 to HR-2 in sub-01."
