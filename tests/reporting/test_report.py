"""Report: self-contained, accessible, and with the numbers of the files."""

import itertools
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from adpet.evaluation.prognosis import baseline_subjects, group_summaries
from adpet.reporting.components import MEASURES, Chart, Maps, Search, format_ci, number
from adpet.reporting.explainability import GROUP_MAPS, saliency
from adpet.reporting.model_card import model_card
from adpet.reporting.performance import folds_table, other_diagnoses, result_tables
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


def maps(underlay, sanity):
    rng = np.random.default_rng(0)
    numbers = (
        "ad_referenced_density",
        "cn_referenced_density",
        "ad_referenced_mass",
        "ad_uptake",
        "cn_uptake",
    )
    regions = pd.DataFrame({"region": ["precuneus", "pons"], "ad_pattern": [True, False]})
    regions = regions.assign(**{name: [2.0, 0.5] for name in numbers})
    return Maps(
        volumes={name: rng.normal(size=underlay.data.shape).astype(np.float32) for name in GROUP_MAPS},
        underlay=underlay.data,
        affine=underlay.affine,
        hide_below=0.2,
        regions=regions,
        cascade=sanity[0],
        curves=sanity[1],
    )


def search():
    columns = ["number", "state", "value", "params_train.learning_rate"]
    trials = pd.DataFrame([(0, "COMPLETE", 0.5, 0.001), (1, "PRUNED", 0.7, 0.002)], columns=columns)
    importance = {"train.learning_rate": 1.0}
    return Search(trials, monitor="val_subject_log_loss", rising=False, importance=importance)


@pytest.fixture(scope="module")
def documents(make_documents, sanity_tables):
    from adpet.imaging.template import fdg_template

    ingest = {"sites": {HOSTILE: 20, "S02": 16}}
    return make_documents(ingest=ingest, maps=maps(fdg_template(8.0), sanity_tables), search=search())


@pytest.fixture(scope="module")
def html(documents):
    return report_html(documents)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_tables_for_mlflow_have_the_reports_values_with_their_intervals(documents):
    tables, auc = (
        result_tables(documents.metrics, documents.evaluation.subgroups),
        documents.metrics["subject"]["auc"],
    )
    assert tables["metrics"].iloc[0].tolist()[:2] == ["AUC", f"{number(auc['value'])} ({format_ci(auc)})"]
    assert list(tables["subgroups"]) == ["Subgroup", "AD", "CN", "AUC", "Balanced accuracy"]
    assert tables["baselines"]["AUC (95 % interval)"][0] == tables["metrics"]["Per subject"][0]


class TestSelfContained:
    def test_page_refers_to_nothing_outside_and_has_no_script(self, page, html):
        for _, attributes in page.tags:
            for name in ("src", "href", "srcset", "data", "poster", "action"):
                assert attributes.get(name, "data:").startswith(("data:", "#")), attributes
        assert not page.all("link") + page.all("script")
        assert "url(" not in html
        assert "@import" not in html

    def test_links_lead_to_sections(self, page):
        places = {attributes.get("id") for _, attributes in page.tags}
        assert {link["href"].removeprefix("#") for link in page.all("a")} <= places

    def test_equal_documents_give_equal_bytes(self, documents, html):
        assert report_html(documents) == html

    def test_page_escapes_texts_of_the_collection(self, html):
        assert HOSTILE not in html
        assert "&lt;script&gt;alert" in html


class TestAccessibility:
    def test_page_has_language_and_viewport(self, page):
        assert page.all("html")[0]["lang"] == "en"
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")

    def test_headings_do_not_skip_a_level(self, page):
        levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))

    def test_images_have_alternative_text(self, page):
        assert len(page.all("img")) >= 12
        assert all(len(image["alt"]) > 30 for image in page.all("img"))

    def test_every_table_has_a_caption_and_names_its_columns(self, page):
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))


class TestContent:
    @pytest.mark.parametrize("name", MEASURES)
    def test_metrics_are_those_of_the_evaluation(self, documents, page, name):
        subject, single = (documents.metrics[level].get(name) for level in ("subject", "slice"))
        expected = [
            text
            for metric in (subject, single)
            if metric
            for text in (f"{metric['value']:.3f}", f"{metric['low']:.3f} to {metric['high']:.3f}")
        ]
        cells = [cell.replace("\N{MINUS SIGN}", "-") for cell in page.row(MEASURES[name])]
        assert cells[: len(expected) + 1] == [MEASURES[name], *expected]

    def test_models_are_compared_by_auc_and_brier_score_below_the_ceiling(self, page):
        lead = "0.100 (0.020 to 0.200)"
        area = "0.700 (0.500 to 0.850)"
        assert page.row("Disease-informed region")[1:] == [area, lead, area, lead]
        assert page.row("True severity (ceiling)")[1] == "0.990 (0.970 to 1.000)"

    def test_sections_without_files_name_the_command(self, make_documents):
        text = report_html(make_documents(leakage=None, cam=None, leaky=True))
        assert "dvc repro leakage" in text
        assert "dvc repro explain" in text
        assert "There was no search" in text

    def test_map_of_a_single_subject_is_not_shown(self, documents, make_documents):
        counts = documents.metrics["counts"] | {"subjects_ad": 1}
        alone = make_documents(metrics={"counts": counts}, maps=documents.maps)
        # The sanity checks are no image of anybody.
        assert sum(isinstance(block, Chart) for block in saliency(alone)) == 1

    def test_own_maps_are_held_against_their_controls(self, page, html):
        assert "A patient&#39;s own map adds nothing measurable to the group mean." in html
        assert page.row("the group mean")[1] == "0.700 (\N{MINUS SIGN}0.100 to 0.800)"
        assert "9 subjects whose hemispheres differ by at least 5 % of it (4 worse on the left)" in html

    @pytest.mark.parametrize("alarms", [[], ["one"]])
    def test_share_from_outside_the_brain_is_told_and_its_alarm(self, make_documents, alarms):
        text = report_html(make_documents(cam={"outside": 0.37, "alarms": alarms}))
        assert "37 % of the log-odds by which AD scans differ from CN scans" in text
        assert ("Alarm: 37 %" in text) == bool(alarms)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.5, "\N{MINUS SIGN}0.500"), (-0.0001, "0.000"), (None, "-"), (float("nan"), "-")],
)
def test_numbers_have_true_minus_signs(value, text):
    assert number(value) == text


class TestFolds:
    def test_each_fold_has_a_row_with_subjects_and_auc(self, cross_validated):
        summary = cross_validated()
        rows = folds_table(summary).rows
        aucs = [f"{summary['fold'][str(number)]['auc']['value']:.3f}" for number in range(3)]
        assert [row[:4] for row in rows] == [(f"Fold {n}", "4", "4", auc) for n, auc in enumerate(aucs)]
        assert rows[0][3] == "1.000" > rows[2][3]

    @pytest.mark.parametrize(
        ("searched", "sentence"),
        [
            (8, "were chosen on 8 of the 24 subjects. On the others alone"),
            (0, "No hyperparameter was chosen"),
        ],
    )
    def test_report_says_how_many_subjects_chose_hyperparameters(
        self, make_documents, cross_validated, searched, sentence
    ):
        assert sentence in report_html(make_documents(cross_validation=cross_validated(searched)))

    def test_left_out_sites_go_by_their_names(self, make_documents, cross_validated):
        named = {"left_out": "site", "names": {"0": "S04", "1": "S07", "2": "S11"}}
        page = report_html(make_documents(cross_validation=cross_validated() | named))
        assert "Site S07" in page
        assert "Fold 1" not in page
        assert "Each fold is a site whose subjects its network has not seen" in page


@pytest.mark.parametrize("written", [report_html, model_card])
def test_origin_of_weights_calibration_and_threshold_is_explained(make_documents, written):
    text = written(make_documents())
    assert "osition weights, calibration and threshold" in text
    assert "the ensemble of 5 networks" in text
    assert "epoch 1 was kept (the median)" in text
    alone = written(make_documents(trained={"folds": []}))
    assert not [words for words in ("the ensemble of", "median)", "means over networks") if words in alone]
    assert "epoch 1 was kept" in alone


class TestOtherDiagnoses:
    @pytest.fixture
    def scored(self):
        rng = np.random.default_rng(0)
        people = [f"p{number}" for number in range(24)]
        table = pd.DataFrame({"subject": people, "group": ["MCI"] * 20 + [HOSTILE] * 4, "baseline": True})
        table["probability"] = rng.random(24)
        table["ad_years"] = np.where(table["probability"] > 0.5, 1.5, np.nan)
        table[["years", "followed_years"]] = [0.0, 4.0]
        groups = group_summaries(table, threshold=0.5, years=3.0, resamples=100, seed=0)
        document = {"lineage": "a", "threshold": 0.5, "conversion_years": 3.0, "groups": groups}
        return {"scored": document, "scored_subjects": baseline_subjects(table).drop(columns="subject")}

    def test_section_has_the_numbers_of_the_groups(self, make_documents, scored):
        _, table, dots, heading, conversion, curves, *_ = other_diagnoses(make_documents(**scored))
        group = scored["scored"]["groups"]["MCI"]
        assert ("MCI", "20", number(group["predicted_ad"], 2)) in [row[:3] for row in table.rows]
        assert heading.title == "Conversion to AD within 3 years"
        assert "converters against stable 1.000" in conversion.items[-1]
        assert (dots.alt[:9], curves.alt[:12]) == ("Box plots", "Kaplan-Meier")

    def test_without_others_there_is_no_section(self, make_documents):
        assert other_diagnoses(make_documents(scored={"groups": {}}, scored_subjects=pd.DataFrame())) == []
