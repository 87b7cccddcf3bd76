import pytest

from adpet.imaging.nifti import read_volume
from adpet.inference import outputs
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer


@pytest.mark.parametrize(("hide_below", "full_bar_z"), [(0.2, 4.0), (0.35, 2.5)])
def test_page_names_the_constants_of_its_pictures(
    small_export, small_scans, monkeypatch, hide_below, full_bar_z
):
    monkeypatch.setattr(outputs, "HIDE_BELOW", hide_below)
    monkeypatch.setattr(outputs, "FULL_BAR_Z", full_bar_z)
    model = open_model(small_export)
    html = outputs.answer_html(answer(read_volume(small_scans[0]), model, name="one"), model)
    assert f"What is below {hide_below:.0%} of the largest value is not drawn.".replace("%", " %") in html
    assert f"<span>-{full_bar_z:g}</span><span>0</span><span>+{full_bar_z:g}</span>" in html
