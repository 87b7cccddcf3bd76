"""Figures: deterministic, with sides and numbers labelled."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adpet.reporting import performance_figures
from adpet.reporting.brain_figures import cam_montage, group_map_figure, sanity_figure
from adpet.reporting.style import save_figure
from adpet.reporting.training_figures import learning_curves_figure, search_figure

Y_MM = np.arange(-80, 30, 7.0)


def _brain(n=16, size=32):
    """Bright discs, and a signed map that is strongest at the patient's left."""
    place = np.linspace(-1, 1, size)
    disc = (place[:, None] ** 2 + place**2 < 0.7) * np.uint8(150)
    maps = -np.sin(np.pi * place) * np.exp(-(place[:, None] ** 2))
    return np.repeat(disc[None], n, axis=0), np.repeat(maps[None], n, axis=0)


def _trials(n=12, seed=0):
    rng = np.random.default_rng(seed)
    trials = pd.DataFrame({"number": range(n), "value": rng.random(n)})
    trials["state"] = ["COMPLETE", "PRUNED", "COMPLETE", "FAIL"] * (n // 4)
    trials.loc[trials["state"] == "FAIL", "value"] = np.nan
    trials["params_train.learning_rate"] = 10 ** rng.uniform(-4, -2, n)
    trials["params_flip"] = rng.random(n) > 0.5
    trials["params_zoom"] = rng.uniform(0, 0.1, n)
    return trials


def _history():
    epochs = pd.DataFrame({"epoch": range(1, 7), "val_subject_auc": 0.9, "seconds": 3.0})
    return epochs.assign(loss=1 / epochs["epoch"], val_loss=1.2 / epochs["epoch"])


def _volumes():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -40
    where = np.indices((20, 20, 20)) - 9.5
    underlay = (np.sum(where**2, axis=0) < 64) * 100.0
    mean_ad = np.exp(-np.sum((where - [[[[4]]], [[[0]]], [[[0]]]]) ** 2, axis=0) / 9)
    mean_ad[:, :4] = 0
    return mean_ad, -mean_ad / 2, underlay, affine


def _drawings(metrics, tables, folds, sanity, leakage):
    slices, maps = _brain()
    mean_ad, mean_cn, underlay, affine = _volumes()
    return {
        "roc": performance_figures.roc_figure(tables.roc, tables.roc_band, metrics=metrics),
        "precision": performance_figures.precision_recall_figure(tables.precision_recall, metrics=metrics),
        "calibration": performance_figures.calibration_figure(tables.calibration, metrics=metrics),
        "baselines": performance_figures.baselines_figure(metrics),
        "subgroups": performance_figures.subgroups_figure(tables.subgroups),
        "folds": performance_figures.folds_figure(folds),
        "confusion": performance_figures.confusion_figure(metrics),
        "probability": performance_figures.probability_figure(tables.subjects, threshold=0.5),
        "curves": learning_curves_figure(_history(), best_epoch=5),
        "montage": cam_montage(slices, maps, y_mm=Y_MM, title="sub-0001, AD"),
        "group": group_map_figure(mean_ad, mean_cn, mean_ad - mean_cn, underlay, affine, n_ad=9, n_cn=8),
        "search": search_figure(_trials(), direction="minimize"),
        "sanity": sanity_figure(*sanity),
        "leakage": performance_figures.leakage_figure(leakage),
    }


def _texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_figures_are_deterministic(evaluated, cross_validated, sanity_tables, make_documents, tmp_path):
    contents = *evaluated, cross_validated(), sanity_tables, make_documents().leakage
    first, second = (_drawings(*contents) for _ in range(2))
    for name, figure in first.items():
        save_figure(figure, tmp_path / f"{name}.png")
        save_figure(second[name], tmp_path / f"{name}-again.png")
        written = (tmp_path / f"{name}.png").read_bytes()
        assert written == (tmp_path / f"{name}-again.png").read_bytes()
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 300
        assert 0.01 < (pixels < 250).mean() < 0.95
    assert not list(tmp_path.glob(".partial-*"))


class TestMontage:
    def test_montage_marks_sides_and_positions(self):
        slices, maps = _brain(n=4)
        figure = cam_montage(slices, maps, y_mm=Y_MM[:4], title="sub-0001")
        texts = _texts(figure)
        assert texts.count("L") == texts.count("R") == 4
        assert "sub-0001" in texts
        for y in ("\N{MINUS SIGN}80 mm", "\N{MINUS SIGN}59 mm"):
            assert f"y = {y}" in texts
        letters = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
        assert letters["L"] < 0.5 < letters["R"]

    def test_montage_is_warm_for_ad_cold_for_cn_transparent_if_weak(self):
        slices, maps = _brain(n=1)
        figure = cam_montage(slices, maps, y_mm=Y_MM[:1], title="", hide_below=0.5)
        overlay = np.asarray(figure.axes[0].images[1].get_array())
        strongest, weakest = (np.unravel_index(f(maps[0]), maps[0].shape) for f in (np.argmax, np.argmin))
        assert overlay[strongest][0] > 2 * overlay[strongest][2]
        assert overlay[weakest][2] > 2 * overlay[weakest][0]
        hidden = np.abs(maps[0]) < 0.5 * np.abs(maps).max()
        assert (overlay[hidden][:, 3] == 0).all()
        assert (overlay[~hidden][:, 3] > 0.3).all()


class TestGroupMaps:
    def test_group_map_shows_the_patients_right_at_the_right(self):
        mean_ad, mean_cn, underlay, affine = _volumes()  # activation at positive x
        figure = group_map_figure(mean_ad, mean_cn, mean_ad - mean_cn, underlay, affine, n_ad=9, n_cn=8)
        opacity = sum(
            np.asarray(axes.images[1].get_array())[..., 3] for axes in figure.axes if len(axes.images) == 2
        )
        middle = opacity.shape[1] // 2
        assert opacity[:, middle:].sum() > 4 * opacity[:, :middle].sum()

    def test_group_map_refuses_flipped_affine(self):
        mean_ad, mean_cn, underlay, affine = _volumes()
        with pytest.raises(ValueError, match="axis-aligned RAS"):
            group_map_figure(mean_ad, mean_cn, mean_ad, underlay, affine * [-1, 1, 1, 1], n_ad=9, n_cn=8)


class TestPerformance:
    def test_baselines_are_listed_with_auc_differences(self, evaluated):
        metrics, _ = evaluated
        lead = {"value": -0.02, "low": -0.1, "high": 0.05}
        figure = performance_figures.baselines_figure(
            metrics | {"differences": {name: {"auc": lead} for name in metrics["differences"]}}
        )
        texts, names = _texts(figure), [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == ["Network", "Disease-informed region", "Voxel", "Site"]
        assert texts.count("\N{MINUS SIGN}0.02 (\N{MINUS SIGN}0.10 to 0.05)") == 3

    def test_subgroup_of_one_diagnosis_is_named_without_marker(self, evaluated):
        texts = _texts(performance_figures.subgroups_figure(evaluated[1].subgroups))
        assert "S02  (0 AD, 1 CN)" in texts
        assert texts.count("one diagnosis only") == 2

    @pytest.mark.parametrize("verdict", ["clean", "invalid", "inconclusive"])
    def test_leakage_figure_is_titled_unless_clean(self, make_documents, verdict):
        (axes,) = performance_figures.leakage_figure(
            make_documents(leakage={"verdict": verdict}).leakage
        ).axes
        assert (axes.get_title() == "") == (verdict == "clean")


class TestTraining:
    @pytest.mark.parametrize(("direction", "best"), [("minimize", "idxmin"), ("maximize", "idxmax")])
    def test_search_marks_the_best_complete_trial(self, direction, best):
        trials = _trials()
        trials.loc[1, "value"] = -5.0 if direction == "minimize" else 5.0  # pruned: never the best
        complete = trials[trials["state"] == "COMPLETE"]
        expected = trials.loc[getattr(complete["value"], best)()]
        figure = search_figure(trials, direction=direction)
        star = next(c for c in figure.axes[0].collections if c.get_label() == "Best")
        assert star.get_offsets().tolist() == [[expected["number"], expected["value"]]]
